"""E-values of an index: against scores by hand, and the same however the index is kept."""

from __future__ import annotations

import hashlib
import shutil

import numpy as np
import pytest

import rdsearch
from rdsearch import tailfit
from rdsearch.background import background_rows
from rdsearch.details import Details
from rdsearch.errors import InputError
from rdsearch.funnel import Funnel
from tests.described import distinct_proteins


@pytest.fixture(scope="module")
def records():
    return distinct_proteins(200, 320)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, mini_chain, records):
    """An index of 320 proteins in one segment, and their store."""
    folder = tmp_path_factory.mktemp("significance")
    file = folder / "proteins.fasta"
    file.write_text("".join(f">{r.id}\n{r.sequence}\n" for r in records))
    store = rdsearch.embed_proteins(file, mini_chain, folder / "vectors", dtype="float32")
    rdsearch.build(store.path, mini_chain, folder / "one", recipe="exact")
    return folder


@pytest.fixture(scope="module")
def index(whole):
    with rdsearch.open(whole / "one", dtype="float32") as opened:
        yield opened


def test_the_background_is_the_lowest_digests(index, records):
    sequences = index.catalog.sequences(range(index.n_rows))
    keys = [
        int.from_bytes(hashlib.sha256(sequence.encode()).digest()[:8], "little")
        for sequence in sequences
    ]
    lowest = np.argsort(keys, kind="stable")
    assert background_rows(index.catalog).tolist() == lowest.tolist()
    assert background_rows(index.catalog, 7).tolist() == lowest[:7].tolist()


def test_evalues_are_those_of_the_scores_with_every_row(index, records):
    """The whole index is the background: products by hand, then the same fit."""
    tier = index.tiers[-1]
    rows = np.arange(index.n_rows)
    vectors = index.tier(tier).vectors(rows).astype(np.float64)
    scores = np.sort(vectors @ vectors.T, axis=1)
    # The best score of a row is its own: 1.
    prior = tailfit.typical_shape([scores[:, :-1]])
    results = index.search(records[:20], k=15)
    for query, hits in results:
        row = index.catalog.rows_of([query.accession])[query.accession]
        tails = tailfit.fit(scores[[row]], prior)
        expected = index.n_rows * tails.survival(0, np.array([hit.score for hit in hits]))
        np.testing.assert_allclose([hit.evalue for hit in hits], expected, rtol=2e-3)


def test_dbsize_is_a_factor(index, records):
    plain = [h.evalue for _, hits in index.search(records[:4]) for h in hits]
    twice = [
        h.evalue for _, hits in index.search(records[:4], dbsize=2 * index.n_rows) for h in hits
    ]
    np.testing.assert_allclose(twice, 2 * np.array(plain), rtol=1e-5)


def test_a_filter_counts_the_rows_that_were_searched(index, records):
    everything = {h.row: h.evalue for _, hits in index.search(records[0], k=320) for h in hits}
    names = [record.accession for record in records[:50]]
    for _, hits in index.search(records[0], k=50, ids=names):
        assert len(hits) == 50
        for hit in hits:
            assert hit.evalue == pytest.approx(everything[hit.row] * 50 / 320, rel=1e-4)


def test_neither_funnel_nor_batch_changes_them(index, records):
    tier = index.tiers[-1]
    queries = records[:6]
    exhaustive = list(index.search(queries, k=10, funnel=Funnel((tier,), ())))
    narrow = Funnel((index.tiers[0], tier), (40,))
    by_row = [{h.row: h.evalue for h in hits} for _, hits in exhaustive]
    together = list(index.search(queries, k=10, funnel=narrow))
    alone = [next(iter(index.search(query, k=10, funnel=narrow))) for query in queries]
    shared = 0
    for known, (_, hits), (_, lone) in zip(by_row, together, alone, strict=True):
        for hit, other in zip(hits, lone, strict=True):
            assert hit.evalue == pytest.approx(other.evalue, rel=1e-4)
            if hit.row in known:
                shared += 1
                assert hit.evalue == pytest.approx(known[hit.row], rel=1e-4)
    assert shared > 20


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["exact", "compact"])
def test_segments_and_merging_do_not_change_them(tmp_path, whole, mini_chain, records, recipe):
    """The same rows in one segment, in three, and merged again."""
    one, parts = tmp_path / "one", tmp_path / "parts"
    store = whole / "vectors"
    rdsearch.build(store, mini_chain, one, recipe=recipe)
    file = tmp_path / "some.fasta"
    rdsearch.build(store, mini_chain, parts, recipe=recipe)
    for start in (100, 200):
        moved = records[start : start + 100]
        file.write_text("".join(f">{r.id}\n{r.sequence}\n" for r in moved))
        rdsearch.remove(parts, [r.accession for r in moved])
        rdsearch.add(parts, file, dtype="float32")

    drawn = []

    def evalues(path):
        with rdsearch.open(path, dtype="float32") as opened:
            results = list(opened.search(records[90:110], k=8))
            segments = len(opened.manifest.segments)
            some = background_rows(opened.catalog, 50)
            drawn.append([opened.catalog.sequences([row])[0] for row in some.tolist()])
        return segments, [{h.accession: h.evalue for h in hits} for _, hits in results]

    (_, expected), (segments, found) = evalues(one), evalues(parts)
    assert segments == 3
    rdsearch.compact(parts)
    merged_segments, merged = evalues(parts)
    assert merged_segments == 1
    assert drawn[0] == drawn[1] == drawn[2]
    # Embedded again in other batches, a value can be rounded to the next code.
    near = {"exact": 1e-4, "compact": 0.05}[recipe]
    for before, split, after in zip(expected, found, merged, strict=True):
        for name in before.keys() & split.keys() & after.keys():
            assert split[name] == pytest.approx(before[name], rel=near)
            assert after[name] == pytest.approx(before[name], rel=near)
        assert len(before.keys() & split.keys() & after.keys()) >= 6


def test_a_removed_row_is_no_background(tmp_path, whole, records):
    path = shutil.copytree(whole / "one", tmp_path / "one")
    with rdsearch.open(path) as opened:
        first = int(background_rows(opened.catalog)[0])
        gone = opened.catalog.proteins([first])[first][0]["accession"]
        keep = background_rows(opened.catalog)[1:]
        names = [opened.catalog.proteins([int(r)])[int(r)][0]["accession"] for r in keep[:5]]
    rdsearch.remove(path, [gone])
    with rdsearch.open(path) as opened:
        now = background_rows(opened.catalog)
        assert len(now) == len(keep)
        assert [opened.catalog.proteins([int(r)])[int(r)][0]["accession"] for r in now[:5]] == names


def test_a_cut_keeps_what_is_below(index, records):
    everything = list(index.search(records[:5], k=320))
    cut = list(index.search(records[:5], evalue=0.5))
    for (_, hits), (_, kept) in zip(everything, cut, strict=True):
        expected = [h.accession for h in hits if h.evalue <= 0.5]
        assert [h.accession for h in kept] == expected
    nothing = list(index.search(records[:2], evalue=1e-200, exclude_self=True))
    assert [hits for _, hits in nothing] == [[], []]


def test_a_refreshed_reader_has_the_new_background(tmp_path, whole, records):
    path = shutil.copytree(whole / "one", tmp_path / "one")
    with rdsearch.open(path) as opened:
        before = background_rows(opened.catalog)
        next(iter(opened.search(records[0])))
        rdsearch.remove(path, [record.accession for record in records[:30]])
        opened.refresh()
        assert len(opened.significance.background.rows) == len(before) - 30
        rdsearch.remove(path, [record.accession for record in records[30:150]])
        opened.refresh()
        assert "170 rows" in opened.significance.reason
        _, hits = next(iter(opened.search(records[200])))
        assert {hit.evalue for hit in hits} == {None}
        with pytest.raises(InputError, match=r"cannot be cut at an e-value.*170 rows.*200"):
            opened.search(records[200], evalue=1.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"evalue": 0.0}, "above 0"),
        ({"evalue": float("nan")}, "above 0"),
        ({"evalue": 1.0, "evalues": False}, "needs e-values"),
        ({"dbsize": 0}, "1 or more"),
        ({"fdr": 0.1, "fnr": 0.1}, "not both"),
        ({"nonsense": 1}, "nonsense"),
    ],
)
def test_bad_options(index, records, options, message):
    kind = TypeError if "nonsense" in options else InputError
    with pytest.raises(kind, match=message):
        index.search(records[0], **options)
    with pytest.raises(InputError, match="not both"):
        index.search(records[0], details=Details(), evalue=1.0)
