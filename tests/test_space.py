"""Scoring spaces: nested maps, their files, and what an index chooses."""

from __future__ import annotations

import numpy as np
import pytest

import rdsearch
from rdsearch.errors import ChainMismatchError, IndexDamagedError, InputError
from rdsearch.layout import SPACE
from rdsearch.space import KINDS, Space, unit
from rdsearch.spacefit import choose_space
from tests import oracle

DIMS = 24


@pytest.fixture(scope="module")
def vectors():
    rng = np.random.default_rng(0)
    mixing = rng.standard_normal((DIMS, DIMS)) * np.geomspace(4, 0.2, DIMS)
    return (rng.standard_normal((400, DIMS)) @ mixing + 5).astype(np.float32)


@pytest.fixture(scope="module", params=KINDS)
def space(request, vectors):
    wide = vectors.astype(np.float64)
    return Space.fit(request.param, wide.mean(axis=0), np.cov(wide.T))


def test_a_mapped_prefix_is_the_prefix_of_what_is_mapped(space, vectors):
    whole = space.transform(vectors)
    for dims in (1, 7, 16, DIMS):
        part = space.prefix(dims).transform(vectors[:, :dims])
        np.testing.assert_allclose(part, whole[:, :dims], rtol=2e-5, atol=2e-5)


def test_mapped_vectors_have_the_moments_of_the_space(space, vectors):
    mapped = space.transform(vectors).astype(np.float64)
    np.testing.assert_allclose(mapped.mean(axis=0), 0, atol=1e-4)
    covariance = np.cov(mapped.T)
    if space.kind == "standardised":
        variances = vectors.astype(np.float64).var(axis=0, ddof=1)
        expected = variances / (variances + 3e-3 * variances.max())
        np.testing.assert_allclose(np.diag(covariance), expected, rtol=1e-4)
    if space.kind == "whitened":
        exact = Space.fit(
            "whitened", space.mean, np.cov(vectors.T.astype(np.float64)), shrinkage=1e-12
        )
        mapped = exact.transform(vectors).astype(np.float64)
        np.testing.assert_allclose(np.cov(mapped.T), np.eye(DIMS), atol=2e-3)


def test_cosines_are_those_under_the_inverse_covariance(space, vectors):
    if space.kind == "centred":
        expected = [oracle.centred_cosine(q, vectors, space.mean) for q in vectors[:5]]
    else:
        expected = oracle.space_cosines(vectors, vectors[:5], DIMS, space.kind, DIMS)
    mapped = unit(space.transform(vectors))
    np.testing.assert_allclose(mapped[:5] @ mapped.T, expected, atol=2e-5)


def test_vectors_are_not_changed(space, vectors):
    before = vectors.copy()
    space.transform(vectors)
    unit(vectors)
    np.testing.assert_array_equal(vectors, before)


def test_unit_length_even_of_nothing():
    rows = np.array([[3, 4], [0, 0], [1e-15, 0]], dtype=np.float32)
    np.testing.assert_allclose(unit(rows), [[0.6, 0.8], [0, 0], [1, 0]], rtol=1e-6)


def test_round_trip(space, tmp_path, vectors):
    space.save(tmp_path / "space")
    again = Space.load(tmp_path / "space")
    assert (again.kind, again.source) == (space.kind, space.source)
    np.testing.assert_array_equal(again.transform(vectors), space.transform(vectors))
    (tmp_path / "space").write_bytes(b"no space" * 9)
    with pytest.raises(IndexDamagedError, match="space: it cannot be read as a scoring space"):
        Space.load(tmp_path / "space")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("round", np.zeros(3)), "no space 'round'; choose from centred"),
        (("centred", np.array([0, np.nan])), "finite vector"),
        (("centred", np.zeros(2), np.eye(2)), "unless it is centred"),
        (("whitened", np.zeros(2)), "unless it is centred"),
        (("whitened", np.zeros(2), np.eye(3)), r"found shape \(3, 3\)"),
        (("whitened", np.zeros(2), np.ones((2, 2))), "lower triangular"),
    ],
)
def test_impossible_spaces(arguments, words):
    with pytest.raises(InputError, match=words):
        Space(*arguments)


def test_vectors_that_do_not_vary():
    for kind in KINDS:
        with pytest.raises(InputError, match=r"do not vary.*--space-from chain"):
            Space.fit(kind, np.ones(3), np.zeros((3, 3)))


def test_choices(mini_store, mini_chain, mini_index, tmp_path):
    few = choose_space(mini_store, mini_chain)  # 120 rows, 256 dimensions
    assert (few.kind, few.source) == ("centred", "chain")
    np.testing.assert_array_equal(few.mean, mini_chain.mean("4.8M"))
    short = rdsearch.embed_proteins(
        mini_store_fasta(mini_store, tmp_path), mini_chain.upto("0.5M"), tmp_path / "short"
    )
    enough = choose_space(short, mini_chain.upto("0.5M"))  # 120 rows, 96 dimensions
    assert (enough.kind, enough.source) == ("whitened", "indexed")
    data = mini_store.rd(slice(None)).astype(np.float64)
    own = choose_space(mini_store, mini_chain, "centred")
    np.testing.assert_allclose(own.mean, data.mean(axis=0), rtol=1e-9)
    assert choose_space(mini_store, mini_chain, "whitened").kind == "whitened"
    taken = choose_space(mini_store, mini_chain, "auto", mini_index)
    np.testing.assert_array_equal(taken.mean, Space.load(mini_index / SPACE).mean)
    for arguments, error, words in [
        (("whitened", "chain"), InputError, "no covariance"),
        (("oblique",), InputError, "no space 'oblique'"),
        (("whitened", mini_index), InputError, "has a centred space; asked for was a whitened"),
    ]:
        with pytest.raises(error, match=words):
            choose_space(mini_store, mini_chain, *arguments)
    with pytest.raises(ChainMismatchError, match="indexes of one chain only"):
        choose_space(short, mini_chain.upto("0.5M"), "auto", mini_index)


def mini_store_fasta(store, folder):
    path = folder / "again.fasta"
    path.write_text("".join(f">{r.id}\n{r.sequence}\n" for r in store.records()))
    return path


@pytest.mark.parametrize("kind", ["standardised", "whitened"])
def test_an_index_scores_in_its_space(mini_store, mini_chain, tmp_path, kind):
    rdsearch.build(mini_store.path, mini_chain, tmp_path / "x", recipe="exact", space=kind)
    rdsearch.verify(tmp_path / "x")
    data = mini_store.rd(slice(None))
    with rdsearch.open(tmp_path / "x") as index:
        for tier in index.tiers:
            expected = oracle.space_cosines(data, data[:9], mini_chain.dim(tier), kind, 256)
            funnel = index.plan(to_tier=tier, shortlists={})
            for ranking, cosines in zip(index.rank(data[:9], 120, funnel), expected, strict=True):
                np.testing.assert_allclose(ranking.scores[:, -1], cosines[ranking.rows], atol=2e-4)
                assert (np.diff(ranking.scores[:, -1]) <= 0).all()
