"""Tiers and funnel against an exhaustive search in NumPy: one protocol over every codec."""

from __future__ import annotations

import gc

import faiss
import numpy as np
import pytest

from rdsearch import recipe as recipes
from rdsearch import tiers
from rdsearch.errors import IndexDamagedError, InputError
from rdsearch.funnel import Funnel, FunnelIndex, _factor
from rdsearch.space import Space
from tests import oracle

DIMS = (32, 48, 96)
NAMES = ("small", "medium", "large")
N = 1500

# Per tier: how far a codec's score may lie from the exact cosine on these unit vectors.
TOLERANCE = {"flat": 1e-6, "sqfp16": 2e-3, "sq8": 1e-2, "rabitq": 0.45}


def make_vectors(seed: int = 0, n: int = N) -> np.ndarray:
    """Clustered vectors far from the origin, as real embeddings are."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((40, DIMS[-1]))
    noise = rng.standard_normal((n, DIMS[-1]))
    return (centres[rng.integers(40, size=n)] + 0.5 * noise + 3).astype(np.float32)


def write_tiers(folder, vectors, codecs):
    mean = vectors.mean(axis=0, dtype=np.float64)
    for name, dims, codec in zip(NAMES, DIMS, codecs, strict=True):
        blocks = (vectors[i : i + 400, :dims] for i in range(0, len(vectors), 400))
        space = Space("centred", mean[:dims])
        tiers.write(folder / f"{name}.faiss", space, codec, vectors[:, :dims], blocks)
    opened = [
        tiers.read(folder / f"{name}.faiss", name, dims, len(vectors))
        for name, dims in zip(NAMES, DIMS, strict=True)
    ]
    return FunnelIndex(opened), mean


@pytest.fixture(scope="module")
def vectors():
    made = make_vectors()
    made[700] = made[7]  # ties, far apart and in a run longer than k
    made[900:930] = made[11]
    return made


@pytest.fixture(scope="module", params=["exact", "balanced"])
def built(request, tmp_path_factory, vectors):
    codecs = recipes.load(request.param).codecs(len(DIMS))
    folder = tmp_path_factory.mktemp(request.param)
    index, mean = write_tiers(folder, vectors, codecs)
    return index, mean, codecs, folder


def test_full_shortlists_equal_exhaustive_search(tmp_path, vectors):
    index, mean = write_tiers(tmp_path, vectors, ["flat"] * 3)
    queries = np.concatenate([vectors[:60], make_vectors(seed=1, n=40)])
    for k in (1, 10, 25):
        rankings = index.search(queries, k, (N, N))
        rows, scores = oracle.exhaustive_search(vectors, mean, queries, k)
        for ranking, expected, cosines in zip(rankings, rows, scores, strict=True):
            np.testing.assert_array_equal(ranking.rows, expected)
            np.testing.assert_allclose(ranking.scores[:, -1], cosines, atol=2e-6)


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
    assert pair.scores[0, -1] == pair.scores[1, -1]


def test_a_row_finds_itself_first_with_score_one(built, vectors):
    index, _, codecs, _ = built
    probes = np.arange(20, 60)
    for row, ranking in zip(probes, index.search(vectors[probes], 3, (N, N)), strict=True):
        assert ranking.rows[0] == row
        assert ranking.scores[0, -1] == pytest.approx(1, abs=TOLERANCE[codecs[-1]])


def test_scores_of_every_tier_are_cosines_of_its_centred_prefix(built, vectors):
    index, mean, codecs, _ = built
    queries = make_vectors(seed=2, n=15)
    for query, ranking in zip(queries, index.search(queries, 10, (400, 100)), strict=True):
        for column, (dims, codec) in enumerate(zip(DIMS, codecs, strict=True)):
            exact = oracle.centred_cosine(query[:dims], vectors[ranking.rows, :dims], mean[:dims])
            np.testing.assert_allclose(ranking.scores[:, column], exact, atol=TOLERANCE[codec])


def test_plain_faiss_gives_the_tiers_scores(built, vectors):
    index, _, _, folder = built
    queries = make_vectors(seed=3, n=5)
    for tier in index.tiers:
        plain = faiss.read_index(str(folder / f"{tier.name}.faiss"))
        found, rows = plain.search(np.ascontiguousarray(queries[:, : tier.dims]), 20)
        scores = tier.scores(queries, list(rows))
        np.testing.assert_allclose(np.stack(scores), found, atol=1e-6)


def test_moving_a_query_along_its_ray_from_the_mean_changes_nothing(built, vectors):
    index, mean, _, _ = built
    queries = make_vectors(seed=4, n=10)
    far = (mean + 7.5 * (queries - mean)).astype(np.float32)
    for near_hit, far_hit in zip(
        index.search(queries, 5, (N, N)), index.search(far, 5, (N, N)), strict=True
    ):
        np.testing.assert_array_equal(near_hit.rows, far_hit.rows)
        np.testing.assert_allclose(near_hit.scores[:, -1], far_hit.scores[:, -1], atol=1e-5)


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
    index = FunnelIndex(built[0].tiers)
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
        built[0].search(**arguments)


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
    with pytest.raises(IndexDamagedError, match="expected 3 rows of 32 dimensions, found 1500 of"):
        tiers.read(file, "small", 32, 3)
    broken = folder / "broken.faiss"
    broken.write_bytes(b"not faiss" * 10)
    with pytest.raises(IndexDamagedError, match=r"broken\.faiss: FAISS cannot read it"):
        tiers.read(broken, "small", 32, 3)
    assert index.n_rows == N


def test_funnel_plans():
    funnel = Funnel(("a", "b", "c"), (100, 10))
    assert str(funnel) == "a:100 > b:10 > c"
    assert funnel.upto("b") == Funnel(("a", "b"), (100,))
    assert funnel.upto("a") == Funnel(("a",), ())
    with pytest.raises(InputError, match="no tier 'd'; it has a, b, c"):
        funnel.upto("d")


def test_recipes(tmp_path):
    assert recipes.names() == ["balanced", "exact"]
    balanced = recipes.load("balanced")
    assert balanced.codecs(1) == ["sqfp16"]
    assert balanced.codecs(4) == ["rabitq", "sq8", "sq8", "sqfp16"]
    assert balanced.funnel(("a", "b", "c", "d")) == Funnel(("a", "b", "c", "d"), (2000, 632, 200))
    assert balanced.funnel(("a",)) == Funnel(("a",), ())
    with pytest.raises(InputError, match="no recipe 'nope'; choose from balanced, exact"):
        recipes.load("nope")
    own = tmp_path / "own.toml"
    text = '[codecs]\nfirst="sq8"\nmiddle="sq8"\nlast="{}"\n[shortlists]\nfirst=20\nlast={}\n'
    own.write_text(text.format("flat", 10))
    assert recipes.load(own).name == "own"
    for codec, last, words in [
        ("zip", 10, "no codec 'zip'"),
        ("flat", 30, "must be positive and not grow"),
        ("flat", '"x"', "whole numbers"),
    ]:
        own.write_text(text.format(codec, last))
        with pytest.raises(InputError, match=words):
            recipes.load(own)
    own.write_text("[codecs")
    with pytest.raises(InputError, match="cannot be read"):
        recipes.load(own)
