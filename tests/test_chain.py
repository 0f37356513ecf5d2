"""The mathematics of a chain: against the oracle, against theorems, and on real embeddings."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from scipy.optimize import minimize

from rdsearch.chain import Chain
from rdsearch.errors import ChainError, InputError
from rdsearch.moments import Moments

from . import oracle
from .synthetic import members, residues

WIDTHS = (12, 20, 28, 40)
VECTORS = residues(0, 3000, WIDTHS)


def moments_of(vectors: list[np.ndarray]) -> Moments:
    moments = Moments([array.shape[1] for array in vectors])
    for rows in np.array_split(np.concatenate(vectors, axis=1), 3):
        moments.update(rows)
    return moments


def fit(vectors: list[np.ndarray], targets: list[int | None] | None = None) -> Chain:
    named = members([array.shape[1] for array in vectors], targets)
    return Chain.fit(moments_of(vectors), "made-up", named)


def exact(chain: Chain, vectors: list[np.ndarray]) -> np.ndarray:
    """The rd embedding without rounding between the steps."""
    first = chain.projection_
    base = vectors[0].astype(float) if first is None else first.apply(vectors[0])
    for step, rows in zip(chain.steps, vectors[1:], strict=True):
        base = np.concatenate([base, step.exact(base, rows)], axis=1)
    return base


def assert_relative(found: np.ndarray, expected: np.ndarray, tolerance: float) -> None:
    assert np.abs(found - expected).max() <= tolerance * np.abs(expected).max()


CHAIN = fit(VECTORS)


# --- prefixes ------------------------------------------------------------------------------


@pytest.mark.parametrize("targets", [None, [8, 16, 24, 32]])
def test_a_prefix_is_bit_for_bit_the_shorter_chain(targets):
    chain = fit(VECTORS, targets)
    whole = chain.transform(VECTORS)
    for count, tier in enumerate(chain.tiers, start=1):
        alone = fit(VECTORS[:count], targets and targets[:count])
        chosen = Chain.fit(
            moments_of(VECTORS).select(range(count)), chain.family, chain.members[:count]
        )
        k = chain.dim(tier)
        assert alone.hash == chosen.hash == chain.upto(tier).hash
        assert alone.boundaries == chain.boundaries[:count]
        for shorter in (alone, chain.upto(tier)):
            assert np.array_equal(shorter.transform(VECTORS[:count]), whole[:, :k])
        assert np.array_equal(alone.mean(tier), chain.mean(tier))


def test_every_tier_has_its_own_hash():
    hashes = {CHAIN.upto(tier).hash for tier in CHAIN.tiers}
    assert len(hashes) == 4
    assert CHAIN.upto("m3").hash == CHAIN.hash == fit(VECTORS).hash


def test_the_first_tier_is_the_members_own_embedding():
    out = CHAIN.transform(VECTORS)
    assert out.dtype == np.float32
    assert out[:, :12].tobytes() == VECTORS[0].tobytes()
    alone = fit(VECTORS[:1])
    assert (alone.tiers, alone.steps) == (("m0",), ())
    assert np.array_equal(alone.transform(VECTORS[:1]), VECTORS[0])


def test_parts_are_the_columns_of_transform_and_run_members_one_after_another():
    asked = []

    def one_by_one():
        for i, rows in enumerate(VECTORS):
            asked.append(i)
            yield rows

    parts = CHAIN.parts(one_by_one())
    stored = []
    for i in range(4):
        stored.append(next(parts))
        assert asked == list(range(i + 1))
    assert list(parts) == []
    assert np.array_equal(np.concatenate(stored, axis=1), CHAIN.transform(VECTORS))
    base = np.concatenate(stored[:2], axis=1)
    assert np.array_equal(CHAIN.part(2, base, VECTORS[2]), stored[2])


def test_splitting_the_rows_does_not_show():
    vectors = residues(5, 5000, WIDTHS)
    whole = CHAIN.transform(vectors)
    for rows in (slice(0, 1), slice(2040, 2060), slice(4999, None)):
        part = CHAIN.transform([array[rows] for array in vectors])
        np.testing.assert_allclose(part, whole[rows], rtol=2e-6, atol=1e-6)
    assert CHAIN.transform([array[:0] for array in vectors]).shape == (0, 40)


# --- fitting -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "targets", [None, [8, 16, 24, 32], [None, 18, None, 33]], ids=["widths", "targets", "mixed"]
)
def test_fitted_on_moments_is_fitted_on_stored_residues(targets):
    chain = fit(VECTORS, targets)
    expected = oracle.distil(VECTORS, list(chain.boundaries))
    for step, wanted in zip(chain.steps, expected[1:], strict=True):
        assert step.n_components_ == wanted["kept"]
        assert step.threshold_ == pytest.approx(wanted["threshold"], rel=1e-9)
        assert step.r2_ == pytest.approx(wanted["r2"], rel=1e-9)
        assert step.captured_ == pytest.approx(wanted["captured"], rel=1e-9)
        assert_relative(step.weights_, wanted["W"], 1e-9)
        V, theirs = step.directions_, wanted["V"]
        assert_relative(V @ V.T, theirs @ theirs.T, 1e-9)
    assert_relative(exact(chain, VECTORS), expected[-1]["A"], 1e-9)
    assert_relative(chain.transform(VECTORS), expected[-1]["A"], 1e-6)
    np.testing.assert_allclose(chain.mean_, expected[-1]["A"].mean(axis=0), atol=1e-12)
    assert not chain.mean_[chain.boundaries[0] :].any()


def test_the_base_seen_while_fitting_is_the_base_seen_when_applied():
    # A chain of two, fitted on the applied base itself, must find the same step again.
    for i, step in enumerate(CHAIN.steps, start=1):
        base = CHAIN.upto(CHAIN.tiers[i - 1]).transform(VECTORS[:i])
        again = fit([base, VECTORS[i]]).steps[0]
        assert again.n_components_ == step.n_components_
        assert again.r2_ == pytest.approx(step.r2_, rel=1e-6)
        # Rounding the base to float32 is all that may differ.
        assert_relative(again.weights_, step.weights_, 1e-6)
        V, refound = step.directions_, again.directions_
        assert_relative(refound @ refound.T, V @ V.T, 1e-6)


def test_statistics_of_the_applied_chain():
    out = CHAIN.transform(VECTORS).astype(float)
    np.testing.assert_allclose(out.mean(axis=0), CHAIN.mean("m3"), atol=1e-6)
    for step, (start, end), rows in zip(
        CHAIN.steps, pairwise(CHAIN.boundaries), VECTORS[1:], strict=True
    ):
        part = out[:, start:end]
        member = rows - rows.mean(axis=0, dtype=float)
        residual = (1 - step.r2_) * (member**2).sum()
        assert (part**2).sum() == pytest.approx(step.captured_ * residual, rel=1e-5)
        covariance = part.T @ part
        off_diagonal = covariance - np.diag(np.diag(covariance))
        assert np.abs(off_diagonal).max() < 1e-5 * covariance.max()
        assert (np.diff(np.diag(covariance)) <= 0).all()


def test_a_mean_offset_does_not_spoil_the_fit():
    # Multiples of 1/64 below 2^4, so that the offset is exact in float32.
    plain = [np.round(rows * 64).astype(np.float32) / 64 for rows in VECTORS]
    far = [rows + np.float32(1e4) for rows in plain]
    ours, theirs = fit(plain), fit(far)
    for step, other in zip(ours.steps, theirs.steps, strict=True):
        assert step.n_components_ == other.n_components_
        assert_relative(other.weights_, step.weights_, 1e-8)
        assert_relative(other.directions_, step.directions_, 1e-8)
    assert_relative(theirs.transform(far)[:, 12:], ours.transform(plain)[:, 12:], 1e-6)


def test_planted_singular_values():
    rng = np.random.default_rng(3)
    n = 400
    centred = np.linalg.qr(np.column_stack([np.ones(n), rng.standard_normal((n, 14))]))[0][:, 1:]
    base, left = centred[:, :6] * 100.0, centred[:, 6:]
    singular = np.array([9.0, 7, 5, 4, 3, 2, 1, 0.5])
    right = np.linalg.qr(rng.standard_normal((14, 8)))[0]
    member = base @ rng.standard_normal((6, 14)) + left * singular @ right.T + 3.0
    # All six directions of the base are equal: no component passes, all are kept.
    moments = Moments([6, 14])
    moments.update(np.concatenate([base, member], axis=1))
    (step,) = Chain.fit(moments, "made-up", members([6, 14])).steps
    assert step.n_components_ == 6
    assert step.captured_ == pytest.approx(1.0, rel=1e-9)
    part = step.exact(base, member)
    assert part.shape == (n, 8)
    np.testing.assert_allclose(np.linalg.norm(part, axis=0), singular, rtol=1e-8)
    alignment = np.abs(right.T @ step.directions_)
    np.testing.assert_allclose(alignment, np.eye(8), atol=1e-8)


def test_theorem_1_no_other_block_reconstructs_the_residual_better():
    vectors = residues(7, 500, (6, 14), noise=0.5)
    (step,) = fit(vectors).steps
    R = oracle.distil(vectors, [6, 14])[1]["R"]
    total = (R**2).sum()

    def error(X: np.ndarray) -> float:
        """Of the best linear reconstruction of the residual from the block X."""
        basis = np.linalg.qr(X)[0]
        return float(((R - basis @ (basis.T @ R)) ** 2).sum() / total)

    ours = error(step.exact(vectors[0], vectors[1]))
    assert ours == pytest.approx(1 - step.captured_, rel=1e-9)
    rng = np.random.default_rng(8)
    for _ in range(20):
        assert error(rng.standard_normal((500, 8))) > ours
        assert error(R @ rng.standard_normal((14, 8))) > ours
        assert (
            error(step.exact(vectors[0], vectors[1]) + 0.01 * rng.standard_normal((500, 8))) > ours
        )
    for seed in range(3):
        start = np.random.default_rng(seed).standard_normal(14 * 8)
        best = minimize(lambda Q: error(R @ Q.reshape(14, 8)), start, options={"maxiter": 60})
        assert error(R @ start.reshape(14, 8)) > best.fun >= ours * (1 - 1e-9)
        # The rival came close, so that the bound means something.
        assert best.fun == pytest.approx(ours, rel=0.05)


def test_pooling_and_the_chain_commute():
    lengths = np.random.default_rng(4).integers(1, 200, size=30)
    ends = np.cumsum(lengths)
    residue_vectors = residues(9, int(ends[-1]), WIDTHS)

    def pool(rows: np.ndarray) -> np.ndarray:
        return np.stack([part.mean(axis=0, dtype=float) for part in np.split(rows, ends[:-1])])

    pooled_last = pool(CHAIN.transform(residue_vectors))
    pooled_first = CHAIN.transform([pool(rows) for rows in residue_vectors])
    np.testing.assert_allclose(pooled_first, pooled_last, atol=2e-6)


# --- degenerate input ----------------------------------------------------------------------


def test_rank_deficient_members():
    rng = np.random.default_rng(6)
    first = rng.standard_normal((200, 4)) @ rng.standard_normal((4, 10))
    second = np.concatenate([first @ rng.standard_normal((10, 15)), np.ones((200, 5))], axis=1)
    third = np.concatenate([rng.standard_normal((200, 9))] * 3, axis=1)
    vectors = [array.astype(np.float32) for array in (first, second, third)]
    chain = fit(vectors)
    # The six other components of the first member are its rounding to float32.
    assert [step.n_components_ for step in chain.steps] == [4, 4]
    assert chain.steps[0].r2_ == pytest.approx(1.0, abs=1e-9)
    for step in chain.steps:
        V = step.directions_
        np.testing.assert_allclose(V.T @ V, np.eye(V.shape[1]), atol=1e-12)
        assert np.abs(step.weights_).max() < 1e3
    out = chain.transform(vectors)
    assert np.abs(out[:, 10:20]).max() < 1e-5
    # The third member has nine different dimensions, of which the part has room for seven.
    values = np.sort(np.linalg.eigvalsh(np.cov(out[:, 20:], rowvar=False)))
    assert values[0] > 1
    assert 0.7 < chain.steps[1].captured_ < 1
    # Weights stay small: pooling before or after the chain makes no difference here either.
    pooled = chain.transform([rows.mean(axis=0, dtype=float)[None] for rows in vectors])[0]
    np.testing.assert_allclose(pooled, out.mean(axis=0, dtype=float), atol=1e-5)


def test_members_without_any_variance():
    vectors = [np.full((50, width), 3.0, dtype=np.float32) for width in (4, 7, 9)]
    chain = fit(vectors)
    assert [step.n_components_ for step in chain.steps] == [0, 0]
    assert [step.r2_ for step in chain.steps] == [1.0, 1.0]
    assert [step.sigma2_ for step in chain.steps] == [0.0, 0.0]
    out = chain.transform(vectors)
    assert np.array_equal(out, np.concatenate([vectors[0], np.zeros((50, 5))], axis=1))
    V = chain.steps[0].directions_
    np.testing.assert_allclose(V.T @ V, np.eye(3), atol=1e-12)


def test_a_member_that_the_smaller_one_explains_wholly():
    rng = np.random.default_rng(2)
    # Ten directions of equal variance: none passes the threshold, all ten are kept.
    base = np.linalg.qr(np.column_stack([np.ones(400), rng.standard_normal((400, 10))]))[0][:, 1:]
    first = (100 * base).astype(np.float32)
    vectors = [first, np.concatenate([first, first[:, :5]], axis=1)]
    (step,) = fit(vectors).steps
    assert step.n_components_ == 10
    assert step.r2_ == pytest.approx(1.0, abs=1e-12)
    V = step.directions_
    np.testing.assert_allclose(V.T @ V, np.eye(5), atol=1e-12)
    assert np.abs(fit(vectors).transform(vectors)[:, 10:]).max() < 1e-5


def test_as_many_residues_as_dimensions_are_enough():
    vectors = residues(1, 28, WIDTHS[:3])
    assert np.isfinite(fit(vectors).transform(vectors)).all()


# --- what is refused -----------------------------------------------------------------------


def test_fewer_residues_than_dimensions():
    with pytest.raises(ChainError, match=r"up to m2 has 28 dimensions .* found 27") as caught:
        fit([rows[:27] for rows in VECTORS[:3]])
    assert (caught.value.expected, caught.value.found) == (28, 27)
    fit([rows[:27] for rows in VECTORS[:3]], [None, None, 25])


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ([], "at least one member; found none"),
        (members([20, 12]), "increasing boundaries; found m0 20, m1 12"),
        (members([12, 20, 20]), "give a target"),
        ([*members([12]), *members([20])], "different names"),
        (members([12, 21]), r"widths \[12, 20, 28, 40\], the members m0, m1 have \[12, 21\]"),
    ],
)
def test_members_that_make_no_chain(chosen, message):
    with pytest.raises(ChainError, match=message):
        Chain.fit(moments_of(VECTORS), "made-up", chosen)


def bad_value(value: float) -> list[np.ndarray]:
    vectors = [rows.copy() for rows in VECTORS]
    vectors[2][2500, 3] = value
    return vectors


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        (VECTORS[:3], "4 members .* found 3"),
        ([*VECTORS, VECTORS[0]], "found more than 4"),
        ([], "found 0"),
        (
            [VECTORS[0], VECTORS[2]],
            r"member m1 .* \(rows, 20\); found float32 of shape \(3000, 28\)",
        ),
        ([VECTORS[0], VECTORS[1][:9], *VECTORS[2:]], "m1 has 9 vectors, .* before it 3000"),
        ([VECTORS[0][0], *VECTORS[1:]], r"member m0 .* shape \(12,\)"),
        ([VECTORS[0].astype(int), *VECTORS[1:]], "member m0 .* found int64"),
        (bad_value(np.nan), "row 2500 of the vectors of member m2 holds NaN"),
        (bad_value(-np.inf), "row 2500 of the vectors of member m2"),
        ([VECTORS[0].astype(float) * 1e39, *VECTORS[1:]], "row 0 of the vectors of member m0"),
    ],
)
def test_vectors_that_do_not_fit(vectors, message):
    with pytest.raises(InputError, match=message):
        CHAIN.transform(vectors)


def test_bases_that_do_not_fit():
    with pytest.raises(InputError, match=r"base of member m1 .* \(rows, 12\)"):
        CHAIN.part(1, None, VECTORS[1])
    with pytest.raises(InputError, match="m1 has 3000 vectors, the members before it 2"):
        CHAIN.part(1, VECTORS[0][:2], VECTORS[1])
    with pytest.raises(InputError, match=r"members 0..3; found 4"):
        CHAIN.part(4, VECTORS[0], VECTORS[1])
    for ask in (CHAIN.upto, CHAIN.dim, CHAIN.mean):
        with pytest.raises(InputError, match="no tier '650M'; choose from m0, m1, m2, m3"):
            ask("650M")


def test_a_chain_does_not_change():
    mean = CHAIN.mean("m1")
    mean += 1
    assert CHAIN.mean("m1")[0] != mean[0]
    with pytest.raises(ValueError, match="read-only"):
        CHAIN.steps[0].weights_[0] = 0
    vectors = [rows.copy() for rows in VECTORS]
    CHAIN.transform(vectors)[:] = 0
    CHAIN.part(0, None, vectors[0])[:] = 0
    assert all(np.array_equal(a, b) for a, b in zip(vectors, VECTORS, strict=True))
