"""Scan files: which tier has one, and that a search scans it and scores by the tier itself."""

from __future__ import annotations

import itertools

import faiss
import numpy as np
import pytest

import rdsearch
from rdsearch import fasta, recipe, samples, tiers
from rdsearch.codecs import Codec, learn
from rdsearch.errors import IndexDamagedError, InputError
from rdsearch.funnel import Funnel
from rdsearch.manifest import Manifest, TierEntry

ESM2 = {"8M": 320, "35M": 480, "150M": 640, "650M": 1280, "3B": 2560, "15B": 5120}
FILE = "segments/000001/1.2M.scan.faiss"
N = 120
OWN = """
[codecs]
first = "flat"
middle = "flat"
last = "flat"
[shortlists]
first = 50
last = 20
[scan]
codec = {codec}
least_dims = {least_dims}
shortlist = {shortlist}
"""


def write_recipe(folder, codec='"rabitq"', least_dims=100, shortlist=60, more=""):
    path = folder / "own.toml"
    text = OWN.format(codec=codec, least_dims=least_dims, shortlist=shortlist)
    path.write_text(text + more)
    return path


@pytest.fixture(scope="module")
def queries():
    return list(itertools.islice(fasta.read(samples.CHAIN_SAMPLE), 300, 308))


@pytest.fixture(scope="module")
def vectors(mini_index, queries):
    with rdsearch.open(mini_index) as index:
        return index.embed([query.sequence for query in queries], "4.8M")


@pytest.fixture
def built(tmp_path, mini_store, mini_chain):
    """An index of flat tiers, the third of them with a scan file."""
    path = tmp_path / "index"
    rdsearch.build(mini_store.path, mini_chain, path, recipe=write_recipe(tmp_path))
    return path


@pytest.mark.parametrize(
    ("members", "n_rows", "scanned", "through"),
    [
        (6, 1000, "150M", ("150M", "15B")),
        (5, 5000, "150M", ("150M", "3B")),
        (4, 5000, "150M", ("150M", "650M")),
        (3, 5000, None, ("8M", "150M")),  # the last tier has none
        (1, 5000, None, ("8M",)),
        (6, 999, None, ("8M", "650M", "15B")),  # too few rows to learn its codec from
    ],
)
def test_balanced_scans_one_tier(members, n_rows, scanned, through):
    balanced = recipe.load("balanced")
    names, dims = list(ESM2)[:members], list(ESM2.values())[:members]
    scans = dict(zip(names, balanced.scans(dims, n_rows), strict=True))
    expected = {} if scanned is None else {scanned: Codec("pq4")}
    assert {name: codec for name, codec in scans.items() if codec is not None} == expected
    funnel = balanced.funnel(names, dims, n_rows)
    assert funnel.tiers == through
    assert (funnel.shortlists == (balanced.scan.shortlist,)) == (scanned is not None)


def test_large_scan_files_are_in_cells():
    balanced = recipe.load("balanced")
    dims = list(ESM2.values())
    assert balanced.scans(dims, 4_000_000)[2] == Codec("pq4", 8000)
    assert balanced.funnel(list(ESM2), dims, 4_000_000).probes == balanced.cells.probes


def test_own_scans(tmp_path):
    own = recipe.load(write_recipe(tmp_path, least_dims=8))
    assert own.scan == recipe.Scan("rabitq", 8, 60)
    assert own.scans((4, 8, 16, 32), 2) == [None, Codec("rabitq"), None, None]
    assert own.scans((8, 9, 10), 2) == [Codec("rabitq"), None, None]
    assert own.funnel(("a", "b", "c"), (8, 9, 10), 2) == Funnel(("a", "c"), (60,))
    assert own.funnel(tuple("abcd"), (4, 8, 32, 128), 2) == Funnel(("b", "c", "d"), (60, 20))
    short = recipe.load(write_recipe(tmp_path, least_dims=8, shortlist=5))
    assert short.funnel(tuple("abcd"), (4, 8, 32, 128), 2).shortlists == (5, 5)
    for given, words in [
        ({"codec": '"zip"'}, "scan: there is no codec 'zip'"),
        ({"least_dims": 0}, "least_dims and a shortlist of at least 1; found 0 and 60"),
        ({"shortlist": 0}, "least_dims and a shortlist of at least 1; found 100 and 0"),
        ({"shortlist": 8.5}, "least_dims, above_rows and probes must be whole"),
        ({"more": "depth = 3"}, r"if wanted, \[scan\] codec, least_dims, shortlist and \[cells\]"),
    ]:
        with pytest.raises(InputError, match=words):
            recipe.load(write_recipe(tmp_path, **given))


def test_manifest_costs_and_info(built, mini_index, vectors):
    assert Manifest.read(built).scan == TierEntry("1.2M.scan", 128, "rabitq")
    plain = faiss.read_index(str(built / FILE))
    assert (plain.ntotal, plain.d) == (N, 128)
    with rdsearch.open(built) as index, rdsearch.open(mini_index) as without:
        sizes = [tier["bytes"] for tier in without.info()["tiers"]]
        listed = index.info()["tiers"]
        assert [tier["bytes"] for tier in listed] == [*sizes, (built / FILE).stat().st_size]
        assert (listed[-1]["name"], listed[-1]["codec"]) == ("1.2M.scan", "rabitq")
        assert index.default_funnel == Funnel(("1.2M", "4.8M"), (60,))
        code = faiss.downcast_index(plain.index).code_size
        expected = [N * code, 60 * 4 * 256]
        assert [step.bytes for step in index.cost(index.default_funnel)] == expected
        assert [step.bytes for step in index.cost(Funnel(("1.2M",), ()))] == [N * 4 * 128]
        (steps,) = index.explain(vectors[:1], 4, index.default_funnel)
        assert [step.bytes for step in steps] == expected


def test_scores_are_those_of_the_tier_itself(built, mini_index, queries, vectors):
    with rdsearch.open(built) as index, rdsearch.open(mini_index) as without:
        for funnel in (
            Funnel(("1.2M", "4.8M"), (N,)),
            Funnel(("1.2M",), ()),
            Funnel(("0.1M", "1.2M", "4.8M"), (N, N)),
        ):
            found = index.search_vectors(queries, vectors, 10, funnel)
            expected = without.search_vectors(queries, vectors, 10, funnel)
            for (_, hits), (_, others) in zip(found, expected, strict=True):
                assert [hit.scores for hit in hits] == [hit.scores for hit in others]
                assert [hit.row for hit in hits] == [hit.row for hit in others]


def test_a_funnel_passes_on_what_its_scan_finds(built, mini_store, vectors):
    few = Funnel(("1.2M", "4.8M"), (12,))
    with rdsearch.open(built) as index:
        alone = Funnel(("1.2M",), ())
        nearest = [ranking.rows for ranking in index.rank(vectors, 12, alone)]
        # The same rows from the last to the first: a search that scans this file finds others.
        reverse = np.ascontiguousarray(mini_store.rd(slice(None), "1.2M")[::-1])
        space = index.space.prefix(128)
        tiers.write(built / FILE, space, learn(Codec("flat"), space, reverse), [reverse])
        ranked = [ranking.rows for ranking in index.rank(vectors, 4, few)]
        for rows, near in zip(ranked, nearest, strict=True):
            assert set(rows.tolist()) <= set((N - 1 - near).tolist())
        again = [ranking.rows for ranking in index.rank(vectors, 12, alone)]
        np.testing.assert_array_equal(again, nearest)
        through = index.rank(vectors, 4, Funnel(("0.1M", "1.2M", "4.8M"), (N, 12)))
        for ranking, near in zip(through, nearest, strict=True):
            assert set(ranking.rows.tolist()) <= set(near.tolist())


def test_a_damaged_scan_file_is_named(built):
    rdsearch.verify(built)
    whole = (built / FILE).read_bytes()
    changed = bytearray(whole)
    changed[len(whole) // 2] ^= 1
    (built / FILE).write_bytes(changed)
    with pytest.raises(IndexDamagedError, match=r"1\.2M\.scan\.faiss"):
        rdsearch.verify(built)
    (built / FILE).unlink()
    with pytest.raises(IndexDamagedError, match=r"1\.2M\.scan\.faiss"):
        rdsearch.open(built)
