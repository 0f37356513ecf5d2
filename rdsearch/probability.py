"""What a score is worth: the probability that a hit with it is related to its query.

Inductive Venn–Abers prediction (Vovk, Petej and Fedorova, arXiv 1511.00213): the isotonic
regression of "related" on the score is made twice, with the new hit as a related and as an
unrelated one, which gives p1 and p0; the answer is p1 / (1 - p0 + p1), their combination of least
regret under log loss. It is never 0 or 1, and farther from both the fewer pairs there are.

It depends on how many pairs there are of either kind, and says what holds for a labelled protein
drawn from the index among the labelled proteins of the index.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rdsearch.fdr import Counts

__all__ = ["Reliability", "knots", "probabilities", "reliability", "weight"]

# A probability is written with so many digits, never as 0 or 1.
_DIGITS = 9
_LEAST = 1e-9
# Probabilities that a reliability diagram tells apart.
_EDGES = (0.0, 0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99, 1.0)


@dataclass(frozen=True, slots=True)
class Reliability:
    """Held-out pairs whose probability lies between two values.

    Attributes
    ----------
    low, high : float
        ``low <= p < high``.
    pairs : int
    expected : float
        Their mean probability.
    observed : float
        The share of related ones; 0 where there are no pairs.
    """

    low: float
    high: float
    pairs: int
    expected: float
    observed: float


def probabilities(
    related: NDArray[np.float64], unrelated: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Venn–Abers probabilities of hits by score.

    Isotonic regression by its max–min formula (Robertson, Wright and Dykstra 1988, section 1.4)::

        g(i) = max over a <= i of (min over b >= i of the mean of bins a to b)

    Parameters
    ----------
    related, unrelated : ndarray, shape (m,), float64
        Pairs in bins of rising score; weights, which need not be whole.

    Returns
    -------
    ndarray, shape (m,), float64
        Never falling, in (0, 1).
    """
    up_to = np.concatenate([[0], np.cumsum(related)])
    all_up_to = up_to + np.concatenate([[0], np.cumsum(unrelated)])
    # Line a, column b: what bins a to b hold together.
    inside = up_to[None, 1:] - up_to[:-1, None]
    sizes = all_up_to[None, 1:] - all_up_to[:-1, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        p0, p1 = (_max_min((inside + new) / (sizes + 1)) for new in (0, 1))
    merged: NDArray[np.float64] = p1 / (1 - p0 + p1)
    # Rounding of the sums may turn a step of nothing around.
    return np.maximum.accumulate(merged)


def _max_min(means: NDArray[np.float64]) -> NDArray[np.float64]:
    """The formula above, where the new hit is in bin i, which all of a <= i <= b hold."""
    least = np.minimum.accumulate(means[:, ::-1], axis=1)[:, ::-1]
    above = np.triu(np.ones(means.shape, dtype=bool))
    found: NDArray[np.float64] = np.where(above, least, -np.inf).max(axis=0)
    return found


def weight(part: Counts, whole: Counts) -> float:
    """What a related pair of some queries counts, so that there are as many as among all.

    The share of related pairs differs between halves of the labels by chance, mostly by which
    has the largest groups. It is known without any score.
    """
    own = int(part.relatives.sum()) / max(1, int(part.strangers.sum()))
    return int(whole.relatives.sum()) / max(1, int(whole.strangers.sum())) / own


def knots(first: Counts, whole: Counts) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Scores, and the probability that a hit with such a score is related.

    Parameters
    ----------
    first : Counts
        Of the queries that calibrate; they have relatives.
    whole : Counts
        Of all; only how many pairs there are is used.

    Returns
    -------
    scores, probabilities : tuple of float
        One for each score of the grid, rising: the middle of each bin, and the highest score.
    """
    likely = _by_bin(first, whole)
    edges = first.scores[::-1].astype(np.float64)
    middles = np.append((edges[1:] + edges[:-1]) / 2, edges[-1])
    return tuple(middles.tolist()), tuple(float(f"{p:.{_DIGITS}g}") for p in likely[1:])


def _by_bin(first: Counts, whole: Counts) -> NDArray[np.float64]:
    """The probability of each bin of `Counts.binned`."""
    related, unrelated = first.binned()
    related *= weight(first, whole)
    # Below the whole grid there is a handful of pairs, if any.
    for part in (related, unrelated):
        part[1] += part[0]
    likely = probabilities(related[1:], unrelated[1:]).clip(_LEAST, 1 - _LEAST)
    return np.append(likely[:1], likely)


def reliability(
    first: Counts, second: Counts, whole: Counts
) -> tuple[tuple[Reliability, ...], float, float]:
    """How the probabilities that some queries give hold for others.

    Pairs weigh as they do in `knots`.

    Parameters
    ----------
    first, second, whole : Counts
        Of the queries that calibrate, of those held out, and of all.

    Returns
    -------
    reliability : tuple of Reliability
        By rising probability.
    brier, constant : float
        Mean squared error of the probabilities, and that of one probability for all pairs.
    """
    likely = _by_bin(first, whole)
    related, unrelated = second.binned()
    pairs = related + unrelated
    related *= weight(second, whole)
    both = related + unrelated
    rows = []
    for low, high in itertools.pairwise(_EDGES):
        inside = (likely >= low) & (likely < high)
        there = float(both[inside].sum())
        expected, observed = (
            float(part[inside].sum()) / there if there else 0.0 for part in (both * likely, related)
        )
        rows.append(Reliability(low, high, int(pairs[inside].sum()), expected, observed))
    brier = float((related * (1 - likely) ** 2 + unrelated * likely**2).sum() / both.sum())
    share = float(related.sum() / both.sum())
    return tuple(rows), brier, share * (1 - share)
