"""The tail of chance scores: a generalised Pareto distribution, and how sure it is.

For each query the scores of the background are sorted. Those of the ranks 9 to 300 in 10,000 lie
above a threshold as the exceedances of a generalised Pareto distribution (Pickands 1975; Davison
and Smith, "Models for Exceedances over High Thresholds", J. R. Stat. Soc. B 52, 1990)::

    P(S - u >= y | S >= u) = (1 + shape * y / scale) ** (-1 / shape)

The best eight may be homologs or the query itself: they count as censored at the next score, as
being there and no more. A family of more that lies far above everything else is taken out.

Scale and shape are not known exactly, and far beyond the observed scores an error of the shape is
one of orders of magnitude in the tail. So P is the *predictive* one: the mean of the tail over the
posterior of the shape (the scale follows by maximum likelihood), with a normal prior around the
shape that is typical of the index, from rows of it as queries. The fit alone is overconfident far
out.

A weakness that stays: the tail of a normal distribution is not yet a generalised Pareto one there.
Were chance scores normal, an e-value of 0.1 would come two to four times as often as it says; those
of real proteins have heavier tails, and are right or on the safe side (``rdsearch evaluate
calibration``).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["LEAST_ROWS", "Prior", "Tails", "fit", "typical_shape"]

_Array = NDArray[np.float64]

#: Fewest background scores that say something about a tail.
LEAST_ROWS = 200

# Of 1,500 background scores or more the 300 best are the tail, and the 8 best of these are
# censored. A smaller background gives a share of its scores.
_TAIL_ROWS, _TAIL_SHARE, _CENSORED_SHARE = 300, 0.2, 0.025
_LEAST_CENSORED = 2
# See `_without_families`: the share that is censored to look for one, and how rare its scores are.
_BULK_CENSORED, _FAR = 0.6, 0.003
# Spread of the prior: about what the shapes of the queries of one index differ by.
_PRIOR_DEVIATION = 0.04
# The posterior is taken at these values of shape * (largest exceedance) / scale, plus 1: shapes
# from far below -0.5 to above 0.5. None of them is 1, where the shape is 0.
_GRID = np.geomspace(0.02, 5.0, 48)
# A posterior weight below this moves no tail.
_NEGLIGIBLE = 1e-12
# What a tail is at least: a probability of 0 would claim certainty.
_SMALLEST = 1e-290


@dataclass(frozen=True, slots=True)
class Prior:
    """What is known of the shape before a query is seen.

    Attributes
    ----------
    shape, deviation : float
        Mean and standard deviation of a normal distribution.
    """

    shape: float
    deviation: float = _PRIOR_DEVIATION


@dataclass(frozen=True)
class Tails:
    """The distribution of chance scores of each of q queries.

    Attributes
    ----------
    background : ndarray, shape (q, n), float64
        Scores, rising.
    threshold : ndarray, shape (q,), float64
        Above it the fitted tail is used, below it the share of the background.
    share : float
        Of the background above the threshold.
    shapes, scales, weights : ndarray, shape (q, grid), float64
        The posterior; each line of weights sums to 1.
    """

    background: _Array
    threshold: _Array
    share: float
    shapes: _Array
    scales: _Array
    weights: _Array

    def survival(self, query: int, scores: NDArray[np.floating]) -> _Array:
        """Probability that the score of an unrelated row is as high as these, or higher.

        Parameters
        ----------
        query : int
            Which of the queries.
        scores : ndarray, shape (m,)

        Returns
        -------
        ndarray, shape (m,), float64
            In (0, 1]; falls where scores rise.
        """
        values = np.asarray(scores, dtype=np.float64)
        background, threshold = self.background[query], self.threshold[query]
        n = background.shape[0]
        above = n - np.searchsorted(background, values, side="left")
        # A score below all others is as high as every one of them.
        share = np.maximum(above / n, self.share)
        used = self.weights[query] > _NEGLIGIBLE
        shapes, scales = self.shapes[query, used], self.scales[query, used]
        exceedance = np.maximum(values - threshold, 0.0)[:, None]
        inside = 1.0 + shapes * exceedance / scales
        # Beyond the end of a tail with a negative shape there is nothing.
        logs = np.log(np.maximum(inside, np.finfo(float).tiny))
        tails = np.where(inside > 0, np.exp(-logs / shapes), 0.0)
        predicted = self.share * (tails @ self.weights[query, used])
        return np.where(values > threshold, np.maximum(predicted, _SMALLEST), share)


def _ranks(n: int) -> tuple[int, int]:
    """How many of n background scores are censored, and how many are the tail."""
    tail = min(_TAIL_ROWS, int(n * _TAIL_SHARE))
    return max(_LEAST_CENSORED, round(tail * _CENSORED_SHARE)), tail


@dataclass(frozen=True, slots=True)
class _Profile:
    """The likelihood of each query's shape, the scale at its best."""

    threshold: _Array
    likelihood: _Array
    shapes: _Array
    scales: _Array


def _profile(background: _Array, censored: int) -> _Profile:
    """Profile likelihood at every point of the grid.

    With c censored exceedances, m observed ones y and t = shape / scale, the likelihood is
    largest at shape = (sum over all of log(1 + t y)) / m.

    Parameters
    ----------
    background : ndarray, shape (q, n), float64
        Rising.
    censored : int
        How many of each query's best scores are.
    """
    tail = _ranks(background.shape[1])[1]
    best = background[:, ::-1][:, : tail + 1]
    threshold = best[:, tail]
    exceedances = best[:, :tail] - threshold[:, None]
    # Scores that are all equal have no tail; any scale far below their spacing says so.
    largest = np.maximum(exceedances[:, censored], 1e-12)
    # Those that are censored stand at the largest that is not.
    relative = np.minimum(exceedances / largest[:, None], 1.0)
    observed = tail - censored
    likelihood, shapes, scales = (np.empty((len(best), len(_GRID))) for _ in range(3))
    for i, point in enumerate(_GRID):
        total = np.log1p((point - 1.0) * relative).sum(axis=1)
        own = total - censored * np.log(point)
        shapes[:, i] = np.where(total == 0.0, 1e-9 * np.sign(point - 1.0), total / observed)
        scales[:, i] = shapes[:, i] * largest / (point - 1.0)
        likelihood[:, i] = -observed * np.log(scales[:, i]) - total / shapes[:, i] - own
    return _Profile(threshold, likelihood, shapes, scales)


def typical_shape(backgrounds: Iterable[_Array]) -> Prior:
    """What to expect of the shape, from queries that stand for all.

    Parameters
    ----------
    backgrounds : iterable of ndarray, shape (q, n), float64
        Blocks of queries: the scores of each, rising, without its own.

    Returns
    -------
    Prior
        Around the median of the likeliest shapes.
    """
    found = []
    for background in backgrounds:
        profile = _profile(background, _ranks(background.shape[1])[0])
        likeliest = profile.likelihood.argmax(axis=1)
        found.append(np.take_along_axis(profile.shapes, likeliest[:, None], axis=1))
    return Prior(float(np.median(np.concatenate(found))))


def fit(background: _Array, prior: Prior) -> Tails:
    """Fit the tail of each query's background scores.

    Parameters
    ----------
    background : ndarray, shape (q, n), float64
        Rising; n at least `LEAST_ROWS`.
    prior : Prior

    Returns
    -------
    Tails
    """
    usual = _ranks(background.shape[1])[0]
    return _posterior(_without_families(background, prior), prior, usual)


def _posterior(background: _Array, prior: Prior, censored: int) -> Tails:
    """Fit the tails, so many of each query's best scores censored."""
    profile = _profile(background, censored)
    distance = (profile.shapes - prior.shape) / prior.deviation
    logs = profile.likelihood - 0.5 * distance**2
    weights = np.exp(logs - logs.max(axis=1, keepdims=True))
    # The grid is not even in the shape, which the prior is about.
    weights *= np.gradient(profile.shapes, axis=1)
    weights /= weights.sum(axis=1, keepdims=True)
    share = _ranks(background.shape[1])[1] / background.shape[1]
    return Tails(background, profile.threshold, share, profile.shapes, profile.scales, weights)


def _without_families(background: _Array, prior: Prior) -> _Array:
    """The scores without those that are far beyond what chance gives.

    A large family can fill a tail. The r-th best of n scores of chance has a probability of about
    r / n. Where the tail of the bulk, taken to be as heavy as an exponential one, says a 300th of
    that, the r best hold homologs: they go, and so do others that are as rare.

    Parameters
    ----------
    background : ndarray, shape (q, n), float64
        Rising.
    prior : Prior

    Returns
    -------
    ndarray, shape (q, n), float64
        Rising; the lowest score stands in the places that became free.
    """
    n = background.shape[1]
    usual, tail = _ranks(n)
    most = int(tail * _BULK_CENSORED)
    heavy = Prior(max(prior.shape, 0.0), prior.deviation)
    bulk = _posterior(background, heavy, most)
    ladder = np.unique(np.geomspace(usual, most, 12).astype(np.int64))
    kept = background
    for query, row in enumerate(background):
        expected = n * bulk.survival(query, row[n - ladder])
        if (expected < _FAR * ladder).any():
            rarest = _FAR * ladder[expected < _FAR * ladder][-1]
            gone = int((n * bulk.survival(query, row[n - most :]) < rarest).sum())
            kept = background.copy() if kept is background else kept
            kept[query, :gone], kept[query, gone:] = row[0], row[: n - gone]
    return kept
