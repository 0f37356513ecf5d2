"""Principal component regression and residual directions, from covariances alone.

The mathematics of one step of a chain (arXiv 2603.07710, Algorithm 3). Nothing here sees a
residue. Working on covariances squares the condition number: a component whose variance is below
about 1e-13 of the largest cannot be told from rounding and is dropped. So is one below the
float32 rounding of the base itself, because its large weights would turn that rounding into
output. On real embeddings no component that passes the Johnstone threshold comes near either.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Regression", "leading_directions", "regress", "significant"]

_LOGGER = logging.getLogger(__name__)
_FALLBACK_VARIANCE = 0.95

_Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Regression:
    """Principal component regression of one member on the base.

    Attributes
    ----------
    weights_ : ndarray, shape (k, d), float64
        The centred member is predicted by ``(base - mean) @ weights_``.
    n_components_ : int
        Principal components of the base that were kept.
    threshold_, sigma2_ : float
        Johnstone threshold and the noise variance in it.
    """

    weights_: _Floats
    n_components_: int
    threshold_: float
    sigma2_: float


def significant(eigenvalues: _Floats, n: int) -> tuple[int, float, float]:
    """Count the principal components above the Johnstone threshold.

    The threshold is ``sigma2 * (1 + sqrt(p / n))**2``. The noise variance `sigma2` is the median
    of the eigenvalues which, divided by the mean eigenvalue, lie below ``(1 + sqrt(p / n))**2``
    (there always is one: the smallest is at most the mean). If no component passes, those that
    explain 95 % of the variance are kept and a warning is logged.

    Parameters
    ----------
    eigenvalues : ndarray, shape (p,)
        Of a sample covariance (divided by n - 1), largest first, not negative.
    n : int
        Rows behind the covariance.

    Returns
    -------
    n_components : int
        0 only where all eigenvalues are 0.
    threshold, sigma2 : float
    """
    p = eigenvalues.shape[0]
    total = float(eigenvalues.sum())
    if total <= 0:
        return 0, 0.0, 0.0
    edge = (1.0 + np.sqrt(p / n)) ** 2
    sigma2 = float(np.median(eigenvalues[eigenvalues / (total / p) < edge]))
    threshold = float(sigma2 * edge)
    kept = int(np.count_nonzero(eigenvalues > threshold))
    if kept == 0:
        explained = np.cumsum(eigenvalues) / total
        kept = min(int(np.searchsorted(explained, _FALLBACK_VARIANCE)) + 1, p)
        _LOGGER.warning(
            "no principal component of the smaller members passes the Johnstone threshold "
            "%.4g; kept the %d of %d that explain 95 %% of the variance",
            threshold,
            kept,
            p,
        )
    return kept, threshold, sigma2


def regress(base: _Floats, cross: _Floats, n: int, mean: _Floats) -> Regression:
    """Regress a member on the significant principal components of the base.

    Parameters
    ----------
    base : ndarray, shape (k, k)
        Covariance of the base.
    cross : ndarray, shape (k, d)
        Covariance of the base with the member.
    n : int
        Rows behind both.
    mean : ndarray, shape (k,)
        Mean of the base; with the variance, it says how coarse float32 is there.

    Returns
    -------
    Regression
        `n_components_` counts the components that the regression uses: significant, and above
        rounding.
    """
    values, vectors = _eigh(base)
    values = np.maximum(values, 0.0)
    kept, threshold, sigma2 = significant(values, n)
    rounding = float((np.diag(base) + mean**2).max()) * float(np.finfo(np.float32).eps) ** 2
    floor = max(values[0] * len(values) * np.finfo(np.float64).eps, rounding)
    kept = min(kept, int(np.count_nonzero(values > floor)))
    axes = np.ascontiguousarray(vectors[:, :kept])
    weights = (axes / values[:kept]) @ (axes.T @ cross)
    return Regression(weights, kept, threshold, sigma2)


def leading_directions(covariance: _Floats, count: int) -> _Floats:
    """Leading eigenvectors, each with its largest entry positive.

    Parameters
    ----------
    covariance : ndarray, shape (d, d)
        Symmetric. May be of any rank, also 0: the directions are orthonormal all the same.
    count : int
        At most d.

    Returns
    -------
    ndarray, shape (d, count), float64
        Orthonormal columns, largest variance first.
    """
    _, vectors = _eigh(covariance)
    leading = vectors[:, :count]
    peaks = np.take_along_axis(leading, np.abs(leading).argmax(axis=0)[None], axis=0)
    return np.ascontiguousarray(leading * np.where(peaks < 0, -1.0, 1.0))


def _eigh(matrix: _Floats) -> tuple[_Floats, _Floats]:
    """Eigenvalues and eigenvectors, largest first."""
    # Imported here: applying a chain needs no SciPy.
    from scipy import linalg

    # Divide and conquer for all pairs. Only the leading ones (driver "evr") would take as long
    # at the members' widths, because reducing to tridiagonal form dominates.
    values, vectors = linalg.eigh(matrix, driver="evd")
    return values[::-1], vectors[:, ::-1]
