# make demo    from nothing to ranked homologs, offline after the install
# make test    install what is missing, run every test
# make check   ruff and mypy
# make fuzz    a few seconds of new random input for every reader
# make clean   remove what the others made

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/pip --disable-pip-version-check --quiet
DATA   := rdsearch/data/sample
DEMO   := build/demo

.PHONY: demo test test-fast fuzz check clean

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --constraint constraints.txt -e '.[cpu,server]'
	touch $@

$(VENV)/installed-dev: $(VENV)/installed tests/parity-requirements.txt
	$(PIP) install --constraint constraints.txt -e '.[cpu,server,plots,dev,parity]'
	$(PIP) install --no-deps -r tests/parity-requirements.txt
	touch $@

demo: $(VENV)/installed
	mkdir -p $(DEMO)
	$(BIN)/rdsearch fit $(DATA)/chain-sample.fasta.gz --family mini --proteins 300 \
	    -o $(DEMO)/chain.safetensors
	$(BIN)/rdsearch build $(DATA)/proteins.fasta.gz --chain $(DEMO)/chain.safetensors \
	    --metadata $(DATA)/metadata.tsv --overwrite -o indexes/demo
	$(BIN)/rdsearch info indexes/demo
	$(BIN)/rdsearch search indexes/demo $(DATA)/queries.fasta -k 5

test: $(VENV)/installed-dev
	$(BIN)/python -m pytest -n 2 --dist loadfile

test-fast: $(VENV)/installed-dev
	$(BIN)/python -m pytest -n 2 --dist loadfile -m 'not slow and not parity'

# New random input each time; the ordinary tests take the same every time.
fuzz: $(VENV)/installed-dev
	RDSEARCH_FUZZ_SECONDS=4 $(BIN)/python -m pytest tests/test_fuzz*.py

check: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy rdsearch

clean:
	rm -rf $(VENV) build indexes/demo .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
