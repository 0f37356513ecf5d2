"""The proteins that come with the package are what their README says."""

from __future__ import annotations

import csv
import gzip
import subprocess
import sys
from pathlib import Path

import pytest

from rdsearch import samples

FOLDER = samples.PROTEINS.parent
SCRIPT = Path(__file__).parents[1] / "examples" / "make_sample.py"


def entries(path: Path) -> dict[str, tuple[str, str]]:
    """Accession to header and sequence, without the package's reader."""
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt") as file:
        blocks = f"\n{file.read()}".split("\n>")[1:]  # a protein is named "C->U-editing …"
    found = {}
    for block in blocks:
        header, _, lines = block.partition("\n")
        accession = header.split("|")[1] if "|" in header else header.split()[0]
        assert accession not in found
        found[accession] = (header, lines.replace("\n", ""))
    return found


@pytest.fixture(scope="module")
def proteins() -> dict[str, tuple[str, str]]:
    return entries(samples.PROTEINS)


@pytest.fixture(scope="module")
def queries() -> dict[str, tuple[str, str]]:
    return entries(samples.QUERIES)


def test_counts(proteins, queries):
    lengths = sorted(len(sequence) for _, sequence in proteins.values())
    assert (len(proteins), len(queries), sum(lengths)) == (2000, 8, 493_073)
    assert 200 <= lengths[1000] <= 300
    assert sum(length > 1022 for length in lengths) == 3
    assert len({sequence for _, sequence in proteins.values()}) == 1965
    chain = [sequence for _, sequence in entries(samples.CHAIN_SAMPLE).values()]
    assert (len(chain), sum(map(len, chain))) == (1000, 357_994)


def test_headers_are_full_and_mostly_reviewed(proteins):
    headers = [header for header, _ in proteins.values()]
    assert all(" OS=" in header and " PE=" in header for header in headers)
    assert sum(header.startswith("sp|") for header in headers) > 1500


def test_queries_are_kept_out(proteins, queries):
    sequences = {sequence for _, sequence in proteins.values()}
    assert not proteins.keys() & queries.keys()
    assert not sequences & {sequence for _, sequence in queries.values()}


def test_queries_have_homologs(proteins, queries):
    # Eight residues in a row are shared by chance by one pair in 10^5 of this size.
    def words(sequence: str) -> set[str]:
        return {sequence[i : i + 8] for i in range(len(sequence) - 7)}

    def organism(header: str) -> str:
        return header.partition(" OS=")[2].split()[0]

    for header, sequence in queries.values():
        mine = words(sequence)
        relatives = [h for h, other in proteins.values() if mine & words(other)]
        assert len(relatives) >= 4, header
        assert len({organism(h) for h in relatives}) >= 3, header


def test_metadata(proteins):
    with samples.METADATA.open() as file:
        rows = {row["accession"]: row for row in csv.DictReader(file, delimiter="\t")}
    assert rows.keys() < proteins.keys()
    assert len(rows) == 1980
    for accession, row in rows.items():
        header, sequence = proteins[accession]
        assert row["reviewed"] == ("true" if header.startswith("sp|") else "false")
        assert row["fragment"] == ("true" if "(Fragment" in header else "false")
        assert row["genus"] in header.partition(" OS=")[2]
        if row["mass"]:
            # A residue of a protein weighs 110 Da on average, tryptophan 186 and glycine 57.
            assert 57 <= (float(row["mass"]) - 18) / len(sequence) <= 186
        else:
            assert set(sequence) & set("XBZUO")


def test_mass_of_a_known_protein():
    # Human insulin B chain: 3429.9 Da with free thiols (average masses).
    sys.path.insert(0, str(SCRIPT.parent))
    try:
        import make_sample
    finally:
        sys.path.remove(str(SCRIPT.parent))
    assert make_sample.mass("FVNQHLCGSHLVEALYLVCGERGFFYTPKT") == pytest.approx(3429.9, abs=0.1)
    assert make_sample.mass("AXA") is None
    assert make_sample.genus("Naja naja") == "Naja"
    for unnamed in ("Dengue virus 3", "Gamma proteobacterium X", "Lachnospiraceae bacterium 5"):
        assert make_sample.genus(unnamed) is None


@pytest.mark.parametrize("folder", [FOLDER, FOLDER.parent / "mini"], ids=["sample", "mini"])
def test_attribution(folder):
    readme = (folder / "README.md").read_text()
    assert "UniProt" in readme
    assert "CC BY 4.0" in readme


def test_mini_readme_says_weak():
    assert "As homology models they are weak" in (FOLDER.parent / "mini/README.md").read_text()


def test_small():
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 1_500_000


@pytest.mark.slow
def test_the_script_made_it(data_dir, tmp_path):
    command = [sys.executable, SCRIPT, data_dir / "uniprot-20k.fasta.gz"]
    command += [data_dir / "swissprot50-1000.fasta.gz", "-o", tmp_path]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    assert entries(tmp_path / "proteins.fasta.gz") == entries(samples.PROTEINS)
    for name in ("queries.fasta", "metadata.tsv", "chain-sample.fasta.gz"):
        assert (tmp_path / name).read_bytes() == (FOLDER / name).read_bytes()
