"""Tiers and funnel against an exhaustive search in NumPy: one protocol over every codec."""

from __future__ import annotations

import gc
from dataclasses import replace

import faiss
import numpy as np
import pytest

from rdsearch import recipe as recipes
from rdsearch import tiers
from rdsearch.codecs import Codec, learn
from rdsearch.errors import IndexDamagedError, InputError
from rdsearch.funnel import Funnel, plan
from rdsearch.funnelindex import FunnelIndex, _factor
from rdsearch.space import Space, unit
from tests import oracle

DIMS = (32, 48, 96)
NAMES = ("small", "medium", "large")
N = 1500

# Per tier: how far a codec's score may lie from the exact cosine on these unit vectors.
TOLERANCE = {
    "flat": 1e-6,
    "sqfp16": 2e-3,
    "sq8": 1e-2,
    "rabitq4": 0.08,
    "pq4": 0.35,
    "rabitq": 0.45,
}


def make_vectors(seed: int = 0, n: int = N) -> np.ndarray:
    """Clustered vectors far from the origin, as real embeddings are."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((40, DIMS[-1]))
    noise = rng.standard_normal((n, DIMS[-1]))
    return (centres[rng.integers(40, size=n)] + 0.5 * noise + 3).astype(np.float32)


class InSpace:
    """A funnel that takes rd vectors, as `rdsearch.searcher.Searcher` does."""

    def __init__(self, funnel: FunnelIndex, space: Space) -> None:
        self.funnel, self.space, self.tiers = funnel, space, funnel.tiers

    def search(self, queries, *arguments, **options):
        return self.funnel.search(self.space.transform(queries), *arguments, **options)


def write_tiers(folder, vectors, codecs, kind="centred"):
    mean = vectors.mean(axis=0, dtype=np.float64)
    whole = Space.fit(kind, mean, np.cov(vectors.T.astype(np.float64)))
    for name, dims, codec in zip(NAMES, DIMS, codecs, strict=True):
        codec = Codec(codec) if isinstance(codec, str) else codec
        blocks = (vectors[i : i + 400, :dims] for i in range(0, len(vectors), 400))
        path = folder / f"{name}.faiss"
        part = whole.prefix(dims)
        tiers.write(path, part, learn(codec, part, vectors[:, :dims]), blocks)
    opened = [
        tiers.read(folder / f"{name}.faiss", name, dims, len(vectors), mapped=name != NAMES[0])
        for name, dims in zip(NAMES, DIMS, strict=True)
    ]
    return InSpace(FunnelIndex(opened), whole), mean


@pytest.fixture(scope="module")
def vectors():
    made = make_vectors()
    made[700] = made[7]  # ties, far apart and in a run longer than k
    made[900:930] = made[11]
    return made


@pytest.fixture(
    scope="module", params=["exact", "balanced", "compact", "balanced in cells", "compact in cells"]
)
def built(request, tmp_path_factory, vectors):
    recipe = recipes.load(request.param.split()[0])
    if request.param.endswith("cells"):
        recipe = replace(recipe, cells=replace(recipe.cells, above_rows=10, per_sqrt_row=0.5))
    codecs = recipe.codecs(len(DIMS), N)
    folder = tmp_path_factory.mktemp(request.param)
    index, mean = write_tiers(folder, vectors, codecs)
    return index, mean, [codec.name for codec in codecs], folder


def test_full_shortlists_equal_exhaustive_search(tmp_path, vectors):
    index, mean = write_tiers(tmp_path, vectors, ["flat"] * 3)
    queries = np.concatenate([vectors[:60], make_vectors(seed=1, n=40)])
    for k in (1, 10, 25):
        rankings = index.search(queries, k, (N, N))
        rows, scores = oracle.exhaustive_search(vectors, mean, queries, k)
        for ranking, expected, cosines in zip(rankings, rows, scores, strict=True):
            np.testing.assert_array_equal(ranking.rows, expected)
            np.testing.assert_allclose(ranking.scores, cosines, atol=2e-6)


def test_ties_are_ordered_by_row_even_across_rank_k(built, vectors):
    index = built[0]
    tied = [11, *range(900, 930)]
    for k in (1, 2, 10, 30):
        (alone,) = index.search(vectors[11:12], k, (N, N))
        assert alone.rows.tolist() == tied[:k]
        batch = index.search(np.repeat(vectors[11:12], 40, axis=0), k, (N, N))
        assert all(ranking.rows.tolist() == tied[:k] for ranking in batch)
    (pair,) = index.search(vectors[700:701], 2, (N, N))
    assert pair.rows.tolist() == [7, 700]
    assert pair.scores[0] == pair.scores[1]


def test_a_row_finds_itself_first_with_score_one(built, vectors):
    index, _, codecs, _ = built
    probes = np.arange(20, 60)
    for row, ranking in zip(probes, index.search(vectors[probes], 3, (N, N)), strict=True):
        assert ranking.rows[0] == row
        assert ranking.scores[0] == pytest.approx(1, abs=TOLERANCE[codecs[-1]])


def test_scores_of_every_tier_are_cosines_of_its_centred_prefix(built, vectors):
    index, mean, codecs, _ = built
    queries = make_vectors(seed=2, n=15)
    rows = [ranking.rows for ranking in index.search(queries, 10, (400, 100))]
    mapped = index.space.transform(queries)
    for tier, codec in zip(index.tiers, codecs, strict=True):
        scored = tier.scores(unit(mapped[:, : tier.dims]), rows)
        for query, chosen, scores in zip(queries, rows, scored, strict=True):
            dims = tier.dims
            exact = oracle.centred_cosine(query[:dims], vectors[chosen, :dims], mean[:dims])
            np.testing.assert_allclose(scores, exact, atol=TOLERANCE[codec])


def test_plain_faiss_gives_the_tiers_scores(built, vectors):
    index, _, _, folder = built
    queries = make_vectors(seed=3, n=5)
    mapped = index.space.transform(queries)
    for tier in index.tiers:
        plain = faiss.read_index(str(folder / f"{tier.name}.faiss"))
        found, rows = plain.search(np.ascontiguousarray(queries[:, : tier.dims]), 5)
        scores = tier.scores(unit(mapped[:, : tier.dims]), list(rows))
        # The fast scan rounds its table of products to 8 bits; chosen rows are decoded.
        np.testing.assert_allclose(np.stack(scores), found, atol=6e-3 if tier.decoded else 1e-6)


def test_moving_a_query_along_its_ray_from_the_mean_changes_nothing(built, vectors):
    index, mean, _, _ = built
    queries = make_vectors(seed=4, n=10)
    far = (mean + 7.5 * (queries - mean)).astype(np.float32)
    for near_hit, far_hit in zip(
        index.search(queries, 5, (N, N)), index.search(far, 5, (N, N)), strict=True
    ):
        np.testing.assert_array_equal(near_hit.rows, far_hit.rows)
        np.testing.assert_allclose(near_hit.scores, far_hit.scores, atol=1e-5)


def test_shortlists_bound_what_the_next_tier_sees(tmp_path, vectors):
    index, mean = write_tiers(tmp_path, vectors, ["flat"] * 3)
    queries = make_vectors(seed=5, n=30)
    rankings = index.search(queries, 5, (100, 50))
    first, _ = oracle.exhaustive_search(vectors[:, :32], mean[:32], queries[:, :32], 100)
    for ranking, shortlist in zip(rankings, first, strict=True):
        assert set(ranking.rows) <= set(shortlist)


def test_small_index_large_k(tmp_path, vectors):
    index, _ = write_tiers(tmp_path, vectors[:5], ["flat"] * 3)
    (ranking,) = index.search(vectors[:1], 10, (2000, 200))
    assert sorted(ranking.rows) == [0, 1, 2, 3, 4]


def test_composed_index_survives_garbage_collection(built, vectors):
    index = InSpace(FunnelIndex(built[0].tiers), built[0].space)
    before = index.search(vectors[:5], 5, (100, 50))
    gc.collect()
    after = index.search(vectors[:5], 5, (100, 50))
    for one, other in zip(before, after, strict=True):
        np.testing.assert_array_equal(one.rows, other.rows)


def test_queries_are_not_changed(built, vectors):
    queries = vectors[:3].copy()
    built[0].search(queries, 2, (50, 20))
    np.testing.assert_array_equal(queries, vectors[:3])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"queries": np.zeros((2, 95), np.float32)}, r"shape \(n, 96\).*\(2, 95\)"),
        ({"queries": np.full((1, 96), np.nan, np.float32)}, "not finite"),
        ({"k": 0}, "at least 1; found 0"),
        ({"shortlists": (10,)}, "one shortlist for each tier but the last"),
        ({"shortlists": (10, 20)}, "must not grow"),
        ({"shortlists": (10, 0)}, "must be positive"),
    ],
)
def test_bad_searches_are_named(built, vectors, change, words):
    arguments = {"queries": vectors[:1], "k": 1, "shortlists": (20, 10), **change}
    with pytest.raises(InputError, match=words):
        built[0].funnel.search(**arguments)


def test_factor_gives_back_the_shortlist():
    for narrow in (1, 3, 7, 10, 18, 333):
        for wide in (narrow, narrow + 1, 50 * narrow + 1, 65_537):
            if wide >= narrow:
                assert int(np.float32(narrow) * np.float32(_factor(wide, narrow))) in (
                    wide,
                    wide + 1,
                )


def test_wrong_rows_or_dimensions_are_damage(built):
    index, *_, folder = built
    file = folder / "small.faiss"
    with pytest.raises(IndexDamagedError, match=r"expected 3 rows of 32 dimensions .*found 1500"):
        tiers.read(file, "small", 32, 3)
    broken = folder / "broken.faiss"
    broken.write_bytes(b"not faiss" * 10)
    with pytest.raises(IndexDamagedError, match=r"broken\.faiss: FAISS cannot read it"):
        tiers.read(broken, "small", 32, 3)
    assert index.funnel.n_rows == N


def allowed_rows(fraction: float) -> np.ndarray:
    count = round(fraction * N) if fraction < 1 else N
    return np.sort(np.random.default_rng(6).choice(N, count, replace=False)).astype(np.int64)


@pytest.mark.parametrize("fraction", [1, 0.1, 0.01, 0.001, 1 / N, 0])
def test_filtered_full_shortlists_equal_filtered_exhaustive_search(tmp_path, vectors, fraction):
    index, mean = write_tiers(tmp_path, vectors, [Codec("rabitq", 20), "flat", "flat"])
    rows = allowed_rows(fraction)
    queries = np.concatenate([vectors[:20], make_vectors(seed=7, n=20)])
    expected, scores = oracle.exhaustive_search(vectors[rows], mean, queries, min(10, len(rows)))
    found = index.search(queries, 10, (N, N), 2, rows=rows)
    for ranking, chosen, cosines in zip(found, expected, scores, strict=True):
        np.testing.assert_array_equal(ranking.rows, rows[chosen])
        np.testing.assert_allclose(ranking.scores, cosines, atol=2e-6)


@pytest.mark.parametrize("fraction", [0.5, 0.1, 0.01, 0])
def test_filters_hold_at_every_shortlist(built, fraction):
    rows = allowed_rows(fraction)
    found = built[0].search(make_vectors(seed=8, n=30), 10, (100, 30), 3, rows=rows)
    for ranking in found:
        assert set(ranking.rows) <= set(rows)
        assert len(ranking.rows) == min(10, len(rows))


def test_k_hits_are_found_though_the_first_cells_hold_fewer(tmp_path, vectors):
    index, _ = write_tiers(tmp_path, vectors, [Codec("rabitq", 200), "flat", "flat"])
    for ranking in index.search(make_vectors(seed=9, n=20), 60, (100, 80), 1):
        assert len(ranking.rows) == 60


def test_more_probes_scan_more_cells(tmp_path, vectors):
    index, mean = write_tiers(tmp_path, vectors, [Codec("rabitq", 60), "flat", "flat"])
    queries = make_vectors(seed=10, n=50)
    right, _ = oracle.exhaustive_search(vectors, mean, queries, 10)

    def recall(probes):
        found = index.search(queries, 10, (N - 1, N - 1), probes)
        return np.mean([np.isin(a.rows, b).mean() for a, b in zip(found, right, strict=True)])

    few, many, every = recall(1), recall(20), recall(None)
    assert few < many <= every
    assert every == pytest.approx(1, abs=1e-6)


def test_excluded_rows_are_left_out_and_replaced(built, vectors):
    index = built[0]
    whole = index.search(vectors[:30], 11, (N, N))
    exclude = [int(ranking.rows[4]) for ranking in whole[:29]] + [-1]
    for one, other, row in zip(
        whole, index.search(vectors[:30], 10, (N, N), exclude=exclude), exclude, strict=True
    ):
        expected = [int(r) for r in one.rows if r != row][:10]
        assert other.rows.tolist() == expected


@pytest.mark.parametrize("kind", ["standardised", "whitened"])
def test_scaled_spaces_score_mahalanobis_cosines(tmp_path, vectors, kind):
    index, _ = write_tiers(tmp_path, vectors, ["flat"] * 3, kind)
    queries = make_vectors(seed=11, n=10)
    for dims, tier in zip(DIMS, index.tiers, strict=True):
        expected = oracle.space_cosines(vectors, queries, dims, kind, whole=DIMS[-1])
        mapped = unit(index.space.transform(queries)[:, :dims])
        scored = tier.scores(mapped, [np.arange(N)] * len(queries))
        np.testing.assert_allclose(np.stack(scored), expected, atol=1e-5)


def test_funnel_plans():
    tiers_ = ("a", "b", "c", "d")
    funnel = Funnel(("a", "b", "d"), (100, 10), 8)
    assert str(funnel) == "a:100 > b:10 > d (probes 8)"
    for arguments, expected in [
        ({}, funnel),
        ({"to_tier": "b"}, Funnel(("a", "b"), (100,), 8)),
        ({"to_tier": "a"}, Funnel(("a",), (), 8)),
        ({"to_tier": "c"}, Funnel(("a", "b", "c"), (100, 10), 8)),
        ({"from_tier": "b"}, Funnel(("b", "d"), (10,), 8)),
        ({"from_tier": "c", "probes": 3}, Funnel(("c", "d"), (100,), 3)),
        ({"shortlists": 50}, Funnel(("a", "b", "d"), (50, 50), 8)),
        ({"shortlists": {}}, Funnel(("d",), ())),
        ({"shortlists": {"c": 9, "b": 20}}, Funnel(("b", "c", "d"), (20, 9), 8)),
        ({"shortlists": {"b": 20}, "to_tier": "c"}, Funnel(("b", "c"), (20,), 8)),
    ]:
        assert plan(funnel, tiers_, **arguments) == expected, arguments
    assert plan(Funnel(("d",), ()), tiers_, to_tier="b") == Funnel(("b",), ())
    for arguments, words in [
        ({"to_tier": "e"}, "no tier 'e'; it has a, b, c, d"),
        ({"shortlists": {"e": 3}}, "no tier 'e'"),
        ({"from_tier": "c", "to_tier": "b"}, r"narrow to wide.*found c before b"),
        ({"shortlists": {"d": 3}}, "before the last one, d; found d"),
        ({"shortlists": {"a": 3, "b": 30}}, "must not grow"),
        ({"shortlists": {"b": 30}, "from_tier": "a"}, "begin at a: give its shortlist"),
        ({"probes": 0}, "at least 1 cell; found 0"),
    ]:
        with pytest.raises(InputError, match=words):
            plan(funnel, tiers_, **arguments)


def test_recipes(tmp_path):
    assert recipes.names() == ["balanced", "compact", "exact"]
    balanced = recipes.load("balanced")
    assert balanced.codecs(1, 50) == [Codec("sqfp16")]
    named = [str(codec) for codec in balanced.codecs(4, 5000)]
    assert named == ["pq4", "sq8", "sq8", "sqfp16"]
    assert str(balanced.codecs(4, 999)[0]) == "flat"
    assert balanced.codecs(2, 4_000_000) == [Codec("pq4", 8000), Codec("sqfp16")]
    first, last = balanced.first_shortlist, balanced.last_shortlist
    esm2, widths = ("8M", "35M", "150M", "650M", "3B", "15B"), (320, 480, 640, 1280, 2560, 5120)
    for n, names, sizes in [
        (6, ("8M", "650M", "15B"), (first, last)),
        (5, ("8M", "3B"), (first,)),
        (4, ("8M", "650M"), (first,)),
        (2, ("8M", "35M"), (first,)),
        (1, ("8M",), ()),
    ]:
        assert balanced.funnel(esm2[:n], widths[:n], 50) == Funnel(names, sizes)
    wide = balanced.funnel(("a", "b", "c", "d"), (1, 4, 16, 64), 50)
    assert wide.shortlists == (first, round((first * last) ** 0.5), last)
    assert balanced.funnel(esm2, widths, 4_000_000).probes == balanced.cells.probes
    assert balanced.funnel(("a",), (8,), 4_000_000) == Funnel(("a",), ())
    assert recipes.load("exact").codecs(3, 10**9) == [Codec("flat")] * 3
    with pytest.raises(InputError, match="no recipe 'nope'; choose from balanced, compact, exact"):
        recipes.load("nope")
    own = tmp_path / "own.toml"
    text = '[codecs]\nfirst="{}"\nmiddle="sq8"\nlast="flat"\n[shortlists]\nfirst=20\nlast={}\n{}'
    own.write_text(text.format("sq8", 10, ""))
    assert recipes.load(own).name == "own"
    cells = "[cells]\nabove_rows = 10\nper_sqrt_row = {}\nprobes = 3\n"
    own.write_text(text.format("rabitq", 10, cells.format(2)))
    assert recipes.load(own).codecs(2, 100)[0] == Codec("rabitq", 20)
    assert recipes.load(own).codecs(2, 10)[0] == Codec("rabitq")
    for first, last, rest, words in [
        ("zip", 10, "", "no codec 'zip'"),
        ("flat", 30, "", "must be positive and not grow"),
        ("flat", '"x"', "", "whole numbers"),
        ("flat", 10, cells.format(2), "cells belong to the codecs pq4 and rabitq; found flat"),
        ("rabitq", 10, cells.format(0), "per_sqrt_row above 0"),
        ("rabitq", 10, "[cells]\nprobes = 3\n", "above_rows, per_sqrt_row, probes"),
        ("rabitq", 10, "[more]\nprobes = 3\n", "found .*more"),
    ]:
        own.write_text(text.format(first, last, rest))
        with pytest.raises(InputError, match=words):
            recipes.load(own)
    own.write_text("[codecs")
    with pytest.raises(InputError, match="cannot be read"):
        recipes.load(own)
