"""Fixtures shared by the tests."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import pytest

from tests.serving import served  # noqa: F401 - a fixture

# What the tests compute is small: threads that wait for each other cost more than they bring, and
# on busy cores many times more. Processes that tests start inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")

_SHARED = Path(__file__).parents[2] / "shared"


def _shared_folder(name: str) -> Path:
    folder = _SHARED / name
    if not folder.is_dir():
        pytest.skip(f"needs the data folder shared/{name} beside the checkout")
    return folder


@pytest.fixture(scope="session")
def eval_dir() -> Path:
    """Evaluation data that is not part of the repository."""
    return _shared_folder("eval")


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Real proteins that are not part of the repository."""
    return _shared_folder("data")


@pytest.fixture(scope="session")
def mini_chain():
    """A chain of the whole mini family, fitted on 40 proteins."""
    from rdsearch import family, fasta, samples
    from rdsearch.embed import Embedder
    from rdsearch.fitting import fit_chain

    proteins = itertools.islice(fasta.read(samples.CHAIN_SAMPLE), 40)
    return fit_chain(proteins, Embedder(family.get("mini"), dtype="float32"))


@pytest.fixture(scope="session")
def proteins_file(tmp_path_factory) -> Path:
    """A FASTA file of 120 packaged proteins of at most 400 residues, two with one sequence."""
    from rdsearch import fasta, samples

    short = (r for r in fasta.read(samples.PROTEINS) if len(r.sequence) <= 400)
    records = list(itertools.islice(short, 120))
    path = tmp_path_factory.mktemp("proteins") / "proteins.fasta"
    lines = [f">{r.id} {r.description}\n{r.sequence}\n" for r in records]
    path.write_text("".join([*lines, f">twin the first sequence again\n{records[0].sequence}\n"]))
    return path


@pytest.fixture(scope="session")
def mini_store(tmp_path_factory, mini_chain, proteins_file):
    """`proteins_file` embedded."""
    import rdsearch

    folder = tmp_path_factory.mktemp("store") / "vectors"
    # The same numbers on every processor: where it has bfloat16, that would be the default.
    return rdsearch.embed_proteins(proteins_file, mini_chain, folder, dtype="float32")


@pytest.fixture(scope="session")
def mini_index(tmp_path_factory, mini_chain, mini_store) -> Path:
    """An exact index of `proteins_file`. Read only: tests that change it copy it."""
    import rdsearch
    from rdsearch import samples

    path = tmp_path_factory.mktemp("index") / "mini"
    rdsearch.build(mini_store.path, mini_chain, path, metadata=[samples.METADATA], recipe="exact")
    return path


@pytest.fixture(scope="session")
def living(tmp_path_factory):
    """Living indexes with tombstones by recipe, made once."""
    from tests import damaging

    made: dict[str, Path] = {}

    def make(recipe: str) -> Path:
        if recipe not in made:
            folder = tmp_path_factory.mktemp("living")
            made[recipe] = damaging.living_index(folder, recipe, 1560, 0)
        return made[recipe]

    return make
