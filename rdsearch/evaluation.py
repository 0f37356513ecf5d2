"""Recall: how much of the exhaustive search at the last tier a funnel returns, and at what cost.

The truth for a query is the exhaustive search at the index's last tier. A returned row is right
when its score at that tier is at least the k-th true score, so that it does not matter which of
several equally good rows came back. Time is that of the search alone: the vectors are at hand.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rdsearch.errors import InputError
from rdsearch.funnel import Funnel

if TYPE_CHECKING:
    from rdsearch.index import Index
    from rdsearch.progress import Progress

__all__ = ["ROUNDS", "Candidate", "FunnelRecall", "agreement", "candidates", "measure", "recall"]

#: Times that every funnel is timed.
ROUNDS = 3

# Queries that are ranked together.
_BLOCK = 512
# Queries that are timed one by one, so that an exhaustive tier does not take most of the time.
_SINGLE = 100
# A cosine in float32, summed in another order, differs by about this.
_TIE = 1e-6


@dataclass(frozen=True, slots=True)
class Candidate:
    """A funnel to be measured.

    Attributes
    ----------
    kind : str
        ``tier``: that tier alone, exhaustive. ``funnel``: the index's own, up to a tier.
        ``given``: asked for.
    funnel : Funnel
    """

    kind: str
    funnel: Funnel


def candidates(index: Index, given: Iterable[Funnel] = ()) -> list[Candidate]:
    """Every tier alone, the index's own funnel up to each tier, and the funnels given.

    Funnels that are there already are not repeated.
    """
    listed = [
        *(Candidate("tier", index.plan(to_tier=tier, shortlists={})) for tier in index.tiers),
        *(Candidate("funnel", index.plan(to_tier=tier)) for tier in index.tiers),
        *(Candidate("given", funnel) for funnel in given),
    ]
    different: dict[Funnel, Candidate] = {}
    for candidate in listed:
        different.setdefault(candidate.funnel, candidate)
    return list(different.values())


def recall(
    scores: Sequence[NDArray[np.float32]], true_scores: Sequence[NDArray[np.float32]], k: int
) -> float:
    """Mean recall@k that respects ties.

    Parameters
    ----------
    scores : sequence of ndarray
        For each query the true scores of the rows that came back (at most `k`, all different).
    true_scores : sequence of ndarray
        For each query the `k` best scores there are, falling; fewer where there are fewer rows.
    k : int

    Returns
    -------
    float
        In 0..1. Equal to the share of the true rows returned where no scores are equal.
    """
    shares = [
        np.count_nonzero(found[:k] >= true[-1] - _TIE) / len(true)
        for found, true in zip(scores, true_scores, strict=True)
    ]
    return float(np.mean(shares))


def agreement(
    own: Sequence[NDArray[np.float32]], true: Sequence[NDArray[np.float32]]
) -> float | None:
    """Mean rank agreement of the returned hits: Kendall's tau-b of two scores.

    Parameters
    ----------
    own : sequence of ndarray
        For each query the scores that ordered its hits.
    true : sequence of ndarray
        The same hits' scores at the last tier.

    Returns
    -------
    float or None
        In -1..1; 1 is the same order. None where no query has two hits of different scores.
    """
    from scipy.stats import kendalltau

    taus = [
        float(kendalltau(left, right).statistic)
        for left, right in zip(own, true, strict=True)
        if len(np.unique(left)) > 1 and len(np.unique(right)) > 1
    ]
    return float(np.mean(taus)) if taus else None


@dataclass(frozen=True, slots=True)
class FunnelRecall:
    """How one funnel compares with the exhaustive search at the last tier.

    Attributes
    ----------
    kind, name, tier : str
        See `Candidate`; the funnel as text; its last tier.
    recall : float
        Recall@k, ties respected.
    rank_agreement : float or None
        Kendall's tau-b between the order of the hits and their order at the last tier of the
        index, mean over queries. 1 by construction for a funnel that ends there.
    batch_seconds, single_seconds : float
        Seconds a query, median of the rounds: in batches of 512, and (the first 100 queries) one
        after the other.
    bytes_per_query : float
        Expected bytes of codes that a query reads.
    steps : tuple of dict
        The same by tier: ``tier``, ``rows``, ``bytes``.
    """

    kind: str
    name: str
    tier: str
    recall: float
    rank_agreement: float | None
    batch_seconds: float
    single_seconds: float
    bytes_per_query: float
    steps: tuple[dict[str, Any], ...]

    def as_dict(self) -> dict[str, Any]:
        """Nested plain values, for JSON."""
        return asdict(self)


def measure(
    index: Index,
    vectors: NDArray[np.float32],
    candidates: Sequence[Candidate],
    k: int = 10,
    *,
    rounds: int = ROUNDS,
    clock: Callable[[], float] = time.perf_counter,
    progress: Progress | None = None,
) -> list[FunnelRecall]:
    """Measure funnels against the exhaustive search at the index's last tier.

    Rounds are interleaved: every funnel is timed once before any is timed again, so that a busy
    spell of the machine does not fall on one of them.

    Parameters
    ----------
    index : Index
    vectors : ndarray, shape (q, dims of the last tier), float32
        rd embeddings of the queries. Not changed.
    candidates : sequence of Candidate
    k : int
        Hits a query.
    rounds : int
        Times that each funnel is timed.
    clock : callable
        Seconds, for the timing.
    progress : Progress, optional
        Told of every funnel in every round.

    Returns
    -------
    list of FunnelRecall
        In the order of the candidates.

    Raises
    ------
    InputError
        No queries, k below 1 or larger than the index, rounds below 1.
    """
    if not len(vectors):
        raise InputError("recall needs at least one query; found none")
    if not 1 <= k <= index.n_rows:
        raise InputError(f"k must lie in 1..{index.n_rows}, the rows of the index; found {k}", k=k)
    if rounds < 1:
        raise InputError(f"rounds must be at least 1; found {rounds}")
    last = index.tiers[-1]
    truth = _ranked(index, vectors, k, index.plan(to_tier=last, shortlists={}))
    true_scores = [scores for _, scores in truth]
    batch: list[list[float]] = [[] for _ in candidates]
    single: list[list[float]] = [[] for _ in candidates]
    advance = None
    if progress is not None:
        advance = progress.stage("timing", rounds * len(candidates))
    for _ in range(rounds):
        for i, candidate in enumerate(candidates):
            batch[i].append(_timed(index, vectors, k, candidate.funnel, _BLOCK, clock))
            single[i].append(_timed(index, vectors[:_SINGLE], k, candidate.funnel, 1, clock))
            if advance is not None:
                advance(1, 0)

    results = []
    for i, candidate in enumerate(candidates):
        funnel = candidate.funnel
        found = _ranked(index, vectors, k, funnel)
        own = [scores for _, scores in found]
        true = own
        if funnel.tiers[-1] != last:
            true = index.score_rows(vectors, [rows for rows, _ in found], last)
        cost = index.cost(funnel)
        results.append(
            FunnelRecall(
                kind=candidate.kind,
                name=str(funnel),
                tier=funnel.tiers[-1],
                recall=recall(true, true_scores, k),
                rank_agreement=agreement(own, true),
                batch_seconds=statistics.median(batch[i]),
                single_seconds=statistics.median(single[i]),
                bytes_per_query=float(sum(step.bytes for step in cost)),
                steps=tuple(
                    {"tier": step.tier, "rows": step.rows, "bytes": step.bytes} for step in cost
                ),
            )
        )
    return results


def _ranked(
    index: Index, vectors: NDArray[np.float32], k: int, funnel: Funnel
) -> list[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    """Rows and their scores at the funnel's last tier, for each query."""
    return [
        (ranking.rows, ranking.scores[:, -1])
        for start in range(0, len(vectors), _BLOCK)
        for ranking in index.rank(vectors[start : start + _BLOCK], k, funnel)
    ]


def _timed(
    index: Index,
    vectors: NDArray[np.float32],
    k: int,
    funnel: Funnel,
    at_once: int,
    clock: Callable[[], float],
) -> float:
    """Seconds a query."""
    began = clock()
    for start in range(0, len(vectors), at_once):
        index.rank(vectors[start : start + at_once], k, funnel)
    return (clock() - began) / len(vectors)
