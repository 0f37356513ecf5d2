"""One step of the chain against the authors' ``rdScaler`` (reverse-distillation 0.1.0).

Their principal components are randomised ("fbpca") or incremental, so that trailing ones differ
from the residual's true ones; leading ones must not. Run
with --log-cli-level=INFO to see the figures.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.linalg import subspace_angles

from rdsearch.chain import Chain
from rdsearch.family import ESM2
from rdsearch.moments import Moments

from . import authors
from .synthetic import residues

pytestmark = pytest.mark.parity

STEPS = {"8M-35M": ("8M", "35M"), "35M-150M": ("35M", "150M")}
LEADING = 20
_LOGGER = logging.getLogger(__name__)


def made_up(widths: list[int]) -> list[np.ndarray]:
    """Related members, the wider with factors of its own: a residual that is not only noise."""
    small, wide = residues(11, 2500, widths)
    rng = np.random.default_rng(12)
    own = rng.standard_normal((2500, 60)) * 0.9 ** np.arange(60)
    return [small, wide + (own @ rng.standard_normal((60, widths[1])) / 4).astype(np.float32)]


def real(eval_dir: Path, member: Any) -> np.ndarray:
    """ESM-2's own numbers, each row three times so that rows outnumber dimensions."""
    file = eval_dir / "esm2-three-sizes" / f"{member.checkpoint}_embeddings.npy"
    return np.tile(np.load(file), (3, 1))


@pytest.fixture(
    scope="module", params=[f"{kind} {step}" for kind in ("made-up", "ESM-2") for step in STEPS]
)
def step(request) -> tuple[str, Chain, list[np.ndarray]]:
    """A chain of two members, fitted, with its data."""
    kind, name = request.param.split()
    members = ESM2.select(STEPS[name])
    if kind == "made-up":
        vectors = made_up([member.width for member in members])
    else:
        eval_dir = request.getfixturevalue("eval_dir")
        vectors = [real(eval_dir, member) for member in members]
    moments = Moments([member.width for member in members])
    moments.update(np.concatenate(vectors, axis=1))
    return request.param, Chain.fit(moments, "esm2", members), vectors


@pytest.fixture(scope="module", params=["fbpca", "incremental"])
def theirs(request, step) -> Any:
    """The authors' scaler, fitted on the same data."""
    np.random.seed(0)  # fbpca draws from the global generator.
    _, chain, (xin, xout) = step
    scaler = authors.scalers().rdScaler(*chain.tiers, regressor_type="pcr", pca_type=request.param)
    scaler.fit(xin.astype(np.float64), xout.astype(np.float64), show_r2=False)
    return scaler


def test_one_step_agrees(step, theirs):
    name, chain, (xin, xout) = step
    (ours,) = chain.steps
    kept = int(theirs.regressor.n_significant_pcs_)
    assert ours.n_components_ == kept
    assert ours.threshold_ == pytest.approx(theirs.regressor.johnstone_threshold_, rel=1e-9)
    assert ours.sigma2_ == pytest.approx(theirs.regressor.sigma_sq_, rel=1e-9)

    residual = xout - theirs.predict_regressor(xin.astype(np.float64))
    predicted = xout - ours.output_mean_ - (xin - ours.input_mean_) @ ours.weights_
    assert np.abs(predicted - residual).max() < 1e-8 * np.abs(residual).max()

    total = (residual**2).sum()
    captured = ((residual @ ours.directions_) ** 2).sum() / total
    by_them = (theirs.transform_pca(residual) ** 2).sum() / total
    assert ours.captured_ == pytest.approx(captured, rel=1e-9)
    assert captured >= by_them - 1e-9

    angles = subspace_angles(ours.directions_[:, :LEADING], theirs.pca.components_[:LEADING].T)
    _LOGGER.info(
        "%s %s, ours/theirs: components kept %d/%d, variance captured %.6f/%.6f, largest angle "
        "between the leading %d %.1e degrees",
        *(name, theirs.pca_type, ours.n_components_, kept, captured, by_them, LEADING),
        np.rad2deg(angles.max()),
    )
    assert np.rad2deg(angles.max()) < 0.01
