"""Which scores keep a false discovery rate, or a false negative rate, surely.

Learn then test (`rdsearch.certification`; Angelopoulos et al., arXiv 2110.01052): the
scores of a grid are tested one after the other, from the strictest to the laxest for the false
discovery rate, from the laxest to the strictest for the false negative rate, up to the first that
fails. The risk of a group, in [0, 1], is the mean over its queries, and groups count alike: the
relatives of one query are queries too and find the same, so that queries are no independent
witnesses and groups are.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rdsearch.certification import Target, Trial, certify
from rdsearch.labels import FALSE, LEVELS, LabelledRows

__all__ = [
    "STEPS",
    "Counts",
    "certified",
    "count",
    "false_negatives",
    "false_positives",
    "grid",
    "group_means",
    "starts",
]

#: Scores that are tested at most.
STEPS = 200

# Times the fewest groups, to begin at.
_STARTS = (1.5, 3, 6, 12)


@dataclass(frozen=True, slots=True)
class Counts:
    """How many hits each query has from each score of a grid on.

    Attributes
    ----------
    scores : ndarray, shape (m,), float32
        Falling.
    related, unrelated, all_ : ndarray, shape (q, m), int32
        Related and unrelated hits with at least that score; and all labelled ones, with those
        that are neither.
    relatives, strangers : ndarray, shape (q,), int64
        Related and unrelated rows that there are.
    """

    scores: NDArray[np.float32]
    related: NDArray[np.int32]
    unrelated: NDArray[np.int32]
    all_: NDArray[np.int32]
    relatives: NDArray[np.int64]
    strangers: NDArray[np.int64]

    def only(self, queries: NDArray[np.bool_]) -> Counts:
        """Those of some of the queries."""
        return Counts(
            self.scores,
            self.related[queries],
            self.unrelated[queries],
            self.all_[queries],
            self.relatives[queries],
            self.strangers[queries],
        )

    def binned(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Related and unrelated pairs of all queries by score.

        Returns
        -------
        related, unrelated : ndarray, shape (m + 1,), float64
            By rising score: below the last of the grid, between two of it, and from the first on.
        """

        def bins(passed: NDArray[np.int32], there: NDArray[np.int64]) -> NDArray[np.float64]:
            sums = np.append(passed.sum(axis=0, dtype=np.int64), there.sum())
            return np.diff(sums, prepend=0)[::-1].astype(np.float64)

        return bins(self.related, self.relatives), bins(self.unrelated, self.strangers)


def grid(scores: NDArray[np.float32], steps: int = STEPS) -> NDArray[np.float32]:
    """Scores to test: those that let one hit pass, …, all hits, in equal ratios.

    They must come from queries that do not calibrate: then the grid is fixed with respect to
    those that do. It needs no labels.

    Parameters
    ----------
    scores : ndarray of float32
        All hits of some queries.
    steps : int, optional

    Returns
    -------
    ndarray, shape (at most steps,), float32
        Falling, distinct.
    """
    ordered = np.sort(np.ravel(scores))[::-1]
    places = np.geomspace(1, len(ordered), steps).round().astype(np.int64) - 1
    chosen: NDArray[np.float32] = np.unique(ordered[places])[::-1]
    return chosen


def count(
    labelled: LabelledRows,
    rankings: Iterable[tuple[NDArray[np.int64], NDArray[np.float32]]],
    level: str,
    scores: NDArray[np.float32],
) -> Counts:
    """Count the hits of all labelled rows.

    Parameters
    ----------
    labelled : LabelledRows
    rankings : iterable of (rows, scores)
        For each of ``labelled.rows``, in that order, the other labelled rows by falling score.
    level : str
        One of `rdsearch.labels.LEVELS`: nearer relatives are related too, and those that are
        farther but of the query's fold count neither way.
    scores : ndarray of float32
        See `grid`.

    Returns
    -------
    Counts
    """
    n, m = len(labelled), len(scores)
    near = len(LEVELS) - LEVELS.index(level)
    related, unrelated, all_ = (np.empty((n, m), dtype=np.int32) for _ in range(3))
    for position, (rows, own) in zip(range(n), rankings, strict=True):
        relations = labelled.relations(position, rows)
        passed = np.searchsorted(-own, -scores, side="right")
        for counts, which in ((related, relations >= near), (unrelated, relations == FALSE)):
            counts[position] = np.concatenate([[0], np.cumsum(which)])[passed]
        all_[position] = passed
    strangers = n - 1 - labelled.totals.sum(axis=1)
    return Counts(scores, related, unrelated, all_, labelled.relatives(level), strangers)


def false_positives(counts: Counts, *, answered: bool = False) -> NDArray[np.float64]:
    """False discovery proportion of each query at each score, shape (q, m).

    Unrelated hits by related and unrelated ones. Where there are none it is 0, as Benjamini and
    Hochberg (1995) define it, or NaN with `answered`: such a query tells nothing then.
    """
    both = counts.related + counts.unrelated
    share = np.full(both.shape, np.nan if answered else 0.0)
    np.divide(counts.unrelated, both, out=share, where=both > 0)
    return share


def false_negatives(counts: Counts) -> NDArray[np.float64]:
    """Share of each query's relatives that are below each score, shape (q, m).

    NaN where a query has no relatives.
    """
    there = counts.relatives[:, None].astype(np.float64)
    missed = np.full(counts.related.shape, np.nan)
    np.divide(there - counts.related, there, out=missed, where=there > 0)
    return missed


def group_means(values: NDArray[np.float64], groups: NDArray[np.int64]) -> NDArray[np.float64]:
    """Means over the queries of each group.

    Parameters
    ----------
    values : ndarray, shape (q, m), float64
        What is NaN is passed over.
    groups : ndarray, shape (q,), int64

    Returns
    -------
    ndarray, shape (g, m), float64
        By rising group; NaN where no query of it has a value.
    """
    place = np.unique(groups, return_inverse=True)[1]
    sums = np.zeros((place.max(initial=-1) + 1, values.shape[1]))
    sizes = np.zeros_like(sums)
    np.add.at(sums, place, np.nan_to_num(values))
    np.add.at(sizes, place, ~np.isnan(values))
    means = np.full(sums.shape, np.nan)
    np.divide(sums, sizes, out=means, where=sizes > 0)
    return means


def certified(
    risks: NDArray[np.float64],
    rate: float,
    confidence: float,
    *,
    laxest_first: bool = False,
    starts: Sequence[int] = (0,),
) -> tuple[int | None, list[Trial[int]]]:
    """The laxest score that keeps a rate, or with `laxest_first` the strictest.

    Parameters
    ----------
    risks : ndarray, shape (g, m), float64
        Of independent groups at each score of a grid, strictest first; in [0, 1]. A group with NaN
        has no part in the test of that score: the risk is that of a group that has one.
    rate : float
        Largest expected risk that is tolerated, in (0, 1).
    confidence : float
        In (0, 1).
    laxest_first : bool, optional
        Test from the end of the grid, for a risk that grows with stricter scores.
    starts : sequence of int, optional
        Steps of the sequence to begin at, fixed as the sequence is. Each has its share of the
        chance of error, and the best result counts (the paper's multi-start version).

    Returns
    -------
    place : int or None
        In the grid; None where all first ones fail.
    trials : list of Trial
        Those of the best start, by place.
    """
    target = Target(1 - rate, 1 - (1 - confidence) / len(starts))
    places = list(range(risks.shape[1]))
    if laxest_first:
        places.reverse()

    def kept(place: int) -> NDArray[np.float64]:
        known = risks[~np.isnan(risks[:, place]), place]
        # Where there is no group nothing speaks for the score.
        return 1 - known if len(known) else np.zeros(1)

    best: list[Trial[int]] = []
    reached = -1
    for start in starts:
        trials = certify(places[start:], kept, target)
        passed = sum(trial.certified for trial in trials)
        if not best or (passed and start + passed > reached):
            best, reached = trials, start + passed if passed else -1
    found = [trial.candidate for trial in best if trial.certified]
    return (found[-1] if found else None), best


def starts(hits: NDArray[np.int32], groups: NDArray[np.int64], needed: int) -> list[int]:
    """Steps to begin at where only groups with hits have a part in the test.

    Parameters
    ----------
    hits : ndarray, shape (q, m), int32
        Of queries that do not calibrate, at each score of a grid, strictest first.
    groups : ndarray, shape (q,), int64
    needed : int
        Fewest groups that can pass.

    Returns
    -------
    list of int
        Where 1.5, 3, 6 and 12 times as many groups have hits, as far as so many have.
    """
    having = (np.nan_to_num(group_means(hits.astype(np.float64), groups)) > 0).sum(axis=0)
    found = [int(np.searchsorted(having, times * needed)) for times in _STARTS]
    return sorted({place for place in found if place < len(having)}) or [len(having) - 1]
