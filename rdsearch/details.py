"""What hits carry besides a score, e-values, probabilities, ranks, alignments, and which pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rdsearch.errors import CalibrationError, InputError
from rdsearch.funnel import Funnel
from rdsearch.hits import Hit, QueryHits, TierScore, columns
from rdsearch.queries import hits_wanted
from rdsearch.rankings import Ranking

if TYPE_CHECKING:
    from rdsearch.aligner import Aligner
    from rdsearch.index import Index

__all__ = [
    "ALIGNED_HITS",
    "CUT_HITS",
    "TRACE_ROWS",
    "Details",
    "Judged",
    "completed",
    "cut",
    "traced",
    "wanted",
]

#: Hits a query at most where a cut decides and no number was asked for.
CUT_HITS = 500

#: Hits a query at least that are aligned where the alignments decide on their order.
ALIGNED_HITS = 100

#: How far down a trace looks for a hit at each tier.
TRACE_ROWS = 1000


@dataclass(frozen=True, slots=True)
class Details:
    """What is wanted of the hits of a search.

    Attributes
    ----------
    evalues : bool
        Give e-values where the index has enough rows.
    evalue : float or None
        Only hits with an e-value of at most this.
    dbsize : int or None
        Rows that e-values count with; those that were searched where it is None.
    fdr, fnr : float or None
        Only hits above the score that the index is calibrated to for this rate.
    trace : bool
        Give score and rank at every tier up to the funnel's last.
    aligner : Aligner or None
        Align each hit with its query.
    realign : bool
        Order the hits by their alignments.
    sequences : bool
        Give the sequences of the hits; with an aligner they come anyway.
    """

    evalues: bool = True
    evalue: float | None = None
    dbsize: int | None = None
    fdr: float | None = None
    fnr: float | None = None
    trace: bool = False
    aligner: Aligner | None = None
    realign: bool = False
    sequences: bool = False

    def __post_init__(self) -> None:
        if self.evalue is not None and not self.evalue > 0:
            raise InputError(f"an e-value to cut at is above 0; found {self.evalue}")
        if self.evalue is not None and not self.evalues:
            raise InputError("a cut at an e-value needs e-values")
        if self.dbsize is not None and self.dbsize < 1:
            raise InputError(f"dbsize is a number of rows, 1 or more; found {self.dbsize}")
        if self.fdr is not None and self.fnr is not None:
            raise InputError("give a false discovery rate or a false negative rate, not both")
        if self.realign and self.aligner is None:
            raise InputError("hits can be ordered by their alignments only when they are aligned")

    @property
    def cuts(self) -> bool:
        """Whether a hit needs more than a place among the first k."""
        return self.evalue is not None or self.fdr is not None or self.fnr is not None

    def check(self, index: Index, tier: str) -> None:
        """Refuse what the index cannot give at a tier.

        Raises
        ------
        InputError
            An e-value is to cut, and the index has too few rows for one.
        CalibrationError
            A rate is asked for that the index is not calibrated to.
        """
        reason = index.significance.reason
        if self.evalue is not None and reason is not None:
            raise InputError(f"hits cannot be cut at an e-value: {reason}. Leave it out")
        self.threshold(index, tier)

    def hits(self, k: int | None, n_rows: int, funnel: Funnel | None) -> int:
        """How many hits a query is to get; see `rdsearch.queries.hits_wanted`.

        Where a cut decides, and `k` is not given, it is `CUT_HITS`, or what the index and the
        shortlists that were asked for can give.
        """
        if k is None and self.cuts:
            k = min(CUT_HITS, n_rows, *(() if funnel is None else funnel.shortlists))
        return hits_wanted(k, n_rows, funnel)

    def notes(self, index: Index, funnel: Funnel) -> list[str]:
        """What a reader of the results has to know."""
        notes = []
        if self.evalues and index.significance.reason is not None:
            notes.append(f"no e-values: {index.significance.reason}")
        notes += self.doubts(index)
        guarantee = index.manifest.guarantee
        if guarantee is not None and funnel == index.default_funnel:
            notes.append(f"funnel {funnel}: {guarantee}")
        return notes

    def doubts(self, index: Index) -> list[str]:
        """What is doubtful about a rate that was asked for."""
        calibration = index.manifest.calibration
        if calibration is None or (self.fdr is None and self.fnr is None):
            return []
        doubt = calibration.notes(index.manifest)
        return [] if doubt is None else [doubt]

    def columns(self, index: Index, funnel: Funnel) -> list[str]:
        """Names of the columns that hits of a search with these details have."""
        last = funnel.tiers[-1]
        calibration = index.manifest.calibration
        return columns(
            index.tiers[: index.tiers.index(last) + 1] if self.trace else funnel.tiers,
            index.catalog.columns,
            evalue=self.evalues and index.significance.reason is None,
            probability=calibration is not None and calibration.covers(last),
            traced=self.trace,
            aligned=self.aligner is not None,
        )

    @property
    def settings(self) -> dict[str, str]:
        """How hits are aligned, for a report."""
        one = self.aligner
        if one is None:
            return {}
        return {"alignment": f"{one.matrix}, gaps {one.gap_open} and {one.gap_extend}"}

    def threshold(self, index: Index, tier: str) -> float | None:
        """Score that a hit must have for the rate that was asked for."""
        if self.fdr is None and self.fnr is None:
            return None
        calibration = index.manifest.calibration
        kind, rate = ("fdr", self.fdr) if self.fdr is not None else ("fnr", self.fnr)
        if calibration is None:
            raise CalibrationError(
                f"index {index.path} is not calibrated, so that no score stands for a {kind} of "
                f"{rate:g}. Calibrate it with labels of its proteins: rdsearch calibrate "
                f"{index.path} LABELS.tsv --{kind} {rate:g}"
            )
        return calibration.threshold(tier, **{kind: rate})


@dataclass(frozen=True, slots=True)
class Judged:
    """A ranking, cut, with what its scores mean.

    Attributes
    ----------
    ranking : Ranking
    evalues, probabilities : ndarray or None
        One for each row of the ranking.
    """

    ranking: Ranking
    evalues: NDArray[np.float64] | None
    probabilities: NDArray[np.float64] | None


def cut(
    index: Index,
    queries: NDArray[np.float32],
    rankings: Sequence[Ranking],
    tier: str,
    details: Details,
    n_searched: int,
) -> list[Judged]:
    """What the scores of rankings mean, without the hits that do not pass.

    Parameters
    ----------
    index : Index
    queries : ndarray, shape (q, at least dims of the tier), float32
        In the index's space.
    rankings : sequence of Ranking
    tier : str
        Where the last scores of the rankings come from.
    details : Details
    n_searched : int
        Rows that could have been found.

    Returns
    -------
    list of Judged
    """
    threshold = details.threshold(index, tier)
    scores = [ranking.scores[:, -1] for ranking in rankings]
    given: Sequence[NDArray[np.float64] | None] = [None] * len(rankings)
    if details.evalues and index.significance.reason is None:
        size = details.dbsize or n_searched
        given = index.significance.evalues(queries, scores, tier, size)
    calibration = index.manifest.calibration
    judged = []
    for ranking, own, evalues in zip(rankings, scores, given, strict=True):
        keep = np.ones(len(own), dtype=bool)
        if threshold is not None:
            keep &= own >= np.float32(threshold)
        if details.evalue is not None and evalues is not None:
            keep &= evalues <= details.evalue
        likely = None
        if calibration is not None and calibration.covers(tier):
            likely = calibration.probability(tier, own)[keep]
        judged.append(
            Judged(
                Ranking(ranking.rows[keep], ranking.scores[keep]),
                None if evalues is None else evalues[keep],
                likely,
            )
        )
    return judged


def traced(
    index: Index,
    queries: NDArray[np.float32],
    rankings: Sequence[Ranking],
    last: str,
    **searched: Any,
) -> list[list[tuple[TierScore, ...]]]:
    """Score and rank of every hit at every tier up to the last.

    Parameters
    ----------
    index : Index
    queries : ndarray, shape (q, at least dims of the last tier), float32
        In the index's space.
    rankings : sequence of Ranking
        What was found.
    last : str
        Wider tiers would need vectors that the query has not.
    **searched
        `rows` and `exclude` of the search, as `Searcher.rank_in_space` takes them.

    Returns
    -------
    list of list of tuple of TierScore
        For each ranking and row; a rank beyond `TRACE_ROWS` is None.
    """
    tiers = index.tiers[: index.tiers.index(last) + 1]
    rows = [ranking.rows for ranking in rankings]
    found: list[list[list[TierScore]]] = [[[] for _ in own] for own in rows]
    depth = min(TRACE_ROWS, index.n_rows)
    for tier, scores in zip(tiers, index.trace(queries, rows, tiers), strict=True):
        whole = index.rank_in_space(queries, depth, Funnel((tier,), ()), **searched)
        for places, own, values, exhaustive in zip(found, rows, scores, whole, strict=True):
            ranks = {row: rank for rank, row in enumerate(exhaustive.rows.tolist(), start=1)}
            for place, row, score in zip(places, own.tolist(), values.tolist(), strict=True):
                place.append(TierScore(tier, score, ranks.get(row)))
    return [[tuple(place) for place in places] for places in found]


def wanted(
    *,
    evalues: bool = True,
    evalue: float | None = None,
    dbsize: int | None = None,
    fdr: float | None = None,
    fnr: float | None = None,
    trace: bool = False,
    align: bool | Aligner = False,
    realign: bool = False,
    sequences: bool = False,
) -> Details:
    """Details from the arguments of a search.

    Parameters
    ----------
    align : bool or Aligner, optional
        Align each hit with its query; ``True`` for BLOSUM62 with gap costs 11 and 1.
    evalues, evalue, dbsize, fdr, fnr, trace, realign, sequences : optional
        See `Details`.
    """
    if align is True or (realign and align is False):
        from rdsearch.aligner import Aligner

        align = Aligner()
    return Details(evalues, evalue, dbsize, fdr, fnr, trace, align or None, realign, sequences)


def completed(index: Index, results: Sequence[QueryHits], details: Details) -> list[QueryHits]:
    """Results with sequences and alignments, as far as those are wanted.

    Parameters
    ----------
    index : Index
    results : sequence of QueryHits
        Not changed.
    details : Details

    Returns
    -------
    list of QueryHits
    """
    sequences = index.catalog.sequences
    if details.aligner is not None:
        from rdsearch.aligner import aligned, by_alignment

        done = aligned(results, sequences, details.aligner, index.catalog.n_residues)
        return [QueryHits(q, by_alignment(hits) if details.realign else hits) for q, hits in done]
    if details.sequences:
        return [QueryHits(query, _with_sequences(hits, sequences)) for query, hits in results]
    return list(results)


def _with_sequences(
    hits: Sequence[Hit], sequences: Callable[[Sequence[int]], list[str]]
) -> list[Hit]:
    found = sequences([hit.row for hit in hits])
    return [replace(hit, sequence=one) for hit, one in zip(hits, found, strict=True)]
