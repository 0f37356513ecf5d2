"""Fit the steps of a chain from the moments of its members (arXiv 2603.07710, Algorithm 3).

With S the covariance of the base A, X its covariance with the member H, and C that of the member,

    residual R = H - A W      covariance  C - W'X - X'W + W'SW
    new part N = R V          covariance  V'(cov R)V,  with the base  (X - SW)V,
                              with a later member H_j  V'(C_ij - W'X_j)

so that each step starts from the statistics of exactly the base that it is applied to. The new
part is centred by construction. The residual's covariance is a difference: where a step explains
all but a share e of a member's variance, the directions lose about 1/e of float64's precision.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rdsearch.family import Member
from rdsearch.moments import Moments
from rdsearch.pcr import leading_directions, regress
from rdsearch.steps import Projection, Step

__all__ = ["distil"]

_Floats = NDArray[np.float64]


def distil(
    moments: Moments, members: Sequence[Member]
) -> tuple[_Floats, list[Step], Projection | None]:
    """Fit the steps one after another.

    Parameters
    ----------
    moments : Moments
        Of exactly these members side by side.
    members : sequence of Member
        At least one; boundaries increase.

    Returns
    -------
    mean : ndarray, shape (k_last,), float64
        Mean of the rd embeddings: the first member's, then zeros.
    steps : list of Step
        One per member after the first.
    projection : Projection or None
        Of the first member, where its target is below its width.
    """
    projections = [_project(moments, i, member) for i, member in enumerate(members)]
    start = moments.mean_of(0) if projections[0] is None else np.zeros(members[0].boundary)
    mean = np.concatenate([start, np.zeros(members[-1].boundary - len(start))])

    def cross(i: int, j: int) -> _Floats:
        block = moments.cross_covariance(i, j)
        left, right = projections[i], projections[j]
        block = block if left is None else left.axes_.T @ block
        return block if right is None else block @ right.axes_

    # Covariances of the base with itself and with each later member. The members stay apart:
    # no product of a step depends on which members come after it.
    own = cross(0, 0)
    later = {j: cross(0, j) for j in range(1, len(members))}
    steps: list[Step] = []
    for i, member in enumerate(members[1:], start=1):
        ahead, projection = later.pop(i), projections[i]
        regression = regress(own, ahead, moments.n_, mean[: len(own)])
        W = regression.weights_
        total = cross(i, i)
        predicted = W.T @ ahead
        residual = _symmetric(total - predicted - predicted.T + W.T @ (own @ W))
        V = leading_directions(residual, member.boundary - len(own))
        new = _symmetric(V.T @ (residual @ V))
        steps.append(
            Step(
                input_mean_=mean[: len(own)],
                output_mean_=moments.mean_of(i) if projection is None else np.zeros(len(total)),
                weights_=W,
                directions_=V,
                n_components_=regression.n_components_,
                threshold_=regression.threshold_,
                sigma2_=regression.sigma2_,
                r2_=1.0 - _share(residual, total, nothing=0.0),
                captured_=_share(new, residual, nothing=1.0),
                projection_=projection,
            )
        )
        between = (ahead - own @ W) @ V
        own = np.block([[own, between], [between.T, new]])
        for j, below in later.items():
            later[j] = np.concatenate([below, V.T @ (cross(i, j) - W.T @ below)])
    return mean, steps, projections[0]


def _project(moments: Moments, i: int, member: Member) -> Projection | None:
    """A member's projection on its own leading principal components, where it has a target."""
    if member.boundary == member.width:
        return None
    axes = leading_directions(moments.cross_covariance(i, i), member.boundary)
    return Projection(moments.mean_of(i), axes)


def _symmetric(matrix: _Floats) -> _Floats:
    """Remove the asymmetry that rounding left."""
    return (matrix + matrix.T) / 2


def _share(part: _Floats, whole: _Floats, *, nothing: float) -> float:
    """Share of the variance, in 0..1; `nothing` where there is none to share."""
    total = float(np.trace(whole))
    return min(max(float(np.trace(part)) / total, 0.0), 1.0) if total > 0 else nothing
