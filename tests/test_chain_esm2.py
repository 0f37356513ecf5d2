"""A chain on real ESM-2 embeddings: 8M, 35M and 150M of the same 304 proteins."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rdsearch.chain import Chain
from rdsearch.family import ESM2, Member
from rdsearch.moments import Moments

from . import oracle

MEMBERS = ESM2.select(["8M", "35M", "150M"])


@pytest.fixture(scope="module")
def vectors(eval_dir: Path) -> list[np.ndarray]:
    folder = eval_dir / "esm2-three-sizes"
    arrays = [np.load(folder / f"{member.checkpoint}_embeddings.npy") for member in MEMBERS]
    assert [array.shape for array in arrays] == [(304, member.width) for member in MEMBERS]
    return arrays


def fit(vectors: list[np.ndarray], members: list[Member] | tuple[Member, ...]) -> Chain:
    moments = Moments([member.width for member in members])
    moments.update(np.concatenate(vectors, axis=1))
    return Chain.fit(moments, "esm2", members)


def share_of_the_mean(rows: np.ndarray) -> float:
    """Share of the squared length that the common mean holds."""
    rows = rows.astype(float)
    return float(len(rows) * (rows.mean(axis=0) ** 2).sum() / (rows**2).sum())


@pytest.fixture(scope="module")
def reduced(vectors):
    """Fewer proteins than dimensions: members on their leading components."""
    members = [replace(m, target=k) for m, k in zip(MEMBERS, (80, 120, 160), strict=True)]
    return fit(vectors, members)


@pytest.fixture(scope="module")
def tripled(vectors):
    """Full width: every protein three times, so that all covariances have rank 303 at most."""
    return fit([np.tile(rows, (3, 1)) for rows in vectors], MEMBERS)


def test_the_reduced_chain_is_that_of_the_oracle(reduced, vectors):
    expected = oracle.distil(vectors, [80, 120, 160])
    for step, wanted in zip(reduced.steps, expected[1:], strict=True):
        assert step.n_components_ == wanted["kept"]
        assert step.r2_ == pytest.approx(wanted["r2"], rel=1e-9)
        assert step.captured_ == pytest.approx(wanted["captured"], rel=1e-9)
    ours, theirs = reduced.transform(vectors), expected[-1]["A"]
    np.testing.assert_allclose(ours, theirs, atol=1e-6 * np.abs(theirs).max())
    assert all(0.5 < step.r2_ < 1 and 0.5 < step.captured_ < 1 for step in reduced.steps)


@pytest.mark.parametrize("name", ["reduced", "tripled"])
def test_prefixes_hold(name, vectors, request):
    chain = request.getfixturevalue(name)
    whole = chain.transform(vectors)
    for count in (1, 2, 3):
        tier = chain.tiers[count - 1]
        shorter = chain.upto(tier).transform(vectors[:count])
        assert np.array_equal(shorter, whole[:, : chain.dim(tier)])
    refit = fit(
        [np.tile(v, (3 if name == "tripled" else 1, 1)) for v in vectors[:2]], chain.members[:2]
    )
    assert refit.hash == chain.upto("35M").hash


def shares(parts: list[np.ndarray]) -> np.ndarray:
    """Share of the squared length in each block."""
    energy = np.array([(part.astype(float) ** 2).sum() for part in parts])
    return energy / energy.sum()


def test_centring_matters(reduced, tripled, vectors):
    assert all(0.92 <= share_of_the_mean(rows) <= 0.97 for rows in vectors)
    # With the first block left as it is, the finer blocks hardly count.
    rd = tripled.transform(vectors)
    assert np.array_equal(rd[:, :320], vectors[0])
    assert share_of_the_mean(rd) > 0.9
    blocks = np.split(rd, [320, 480], axis=1)
    assert 0.97 <= shares(blocks)[0] <= 0.99
    assert share_of_the_mean(rd - tripled.mean("150M")) < 1e-9
    parts = list(reduced.parts(vectors))
    assert 0.96 <= shares([vectors[0], *parts[1:]])[0] <= 0.98
    # After centring they do. (The reduced chain's first block is centred.)
    np.testing.assert_allclose(shares(parts), [0.68, 0.16, 0.16], atol=0.03)
