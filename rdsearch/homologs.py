"""Sensitivity to homologs: the SCOPe protocol of Foldseek, Hit@k and mean average precision.

All labelled proteins against all, each left out of its own ranking (van Kempen et al., Nature
Biotechnology 2024, "SCOPe benchmark"). A target is a true positive at

* family level where it is of the query's family,
* superfamily level where it is of the query's superfamily and of another family,
* fold level where it is of the query's fold and of another superfamily,

and a false positive where it is of another fold. **Sensitivity** of a query at a level: the share
of its true positives ranked before the first false positive. True positives of other levels in
between change nothing. What a funnel did not return is not found.

**Hit@k** and **average precision** follow Moldwin et al. (Bioinformatics Advances 2024, vbae119):
at each level the positives are those above, nearer relatives are taken out of the ranking, and
everything farther is negative (at superfamily level targets of the same fold too).

Equal scores stand in the order of the rows, as in a search. The order of rows says nothing about
labels unless the proteins were sorted by label when the index was built.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rdsearch import composition
from rdsearch.evaluation import Candidate
from rdsearch.labels import FALSE, LEVELS, LabelledRows
from rdsearch.searcher import NARROW

if TYPE_CHECKING:
    from rdsearch.funnel import Funnel
    from rdsearch.index import Index
    from rdsearch.progress import Progress

__all__ = ["HomologScores", "LevelScores", "Measured", "evaluate", "floor", "score", "sequences_of"]

_LOGGER = logging.getLogger(__name__)
# Queries that are ranked together.
_BLOCK = 512
# Sequences that are read from the catalog together.
_SEQUENCES = 20_000
# The relation that is a true positive at each of LEVELS.
_RELATION = (3, 2, 1)


@dataclass(frozen=True, slots=True)
class LevelScores:
    """Results at one level; None where no query has what is averaged over.

    Attributes
    ----------
    sensitivity : float or None
        Share of true positives before the first false positive, mean over the queries that have
        true positives at all three levels: Foldseek's figure.
    sensitivity_script : float or None
        The same with the denominators of Foldseek's ``bench.noselfhit.awk``, which at superfamily
        and fold level are larger than the number of true positives by 1: for comparison with
        figures made with that script.
    sensitivity_any : float or None
        The share, mean over the queries that have true positives at this level.
    hit1, hit10 : float or None
        Share of the queries with a positive, at this level, whose 1 or 10 best hold one.
    map : float or None
        Mean average precision over the same queries; positives not returned add nothing.
    queries : int
        Queries with a true positive at this level.
    """

    sensitivity: float | None
    sensitivity_script: float | None
    sensitivity_any: float | None
    hit1: float | None
    hit10: float | None
    map: float | None
    queries: int


@dataclass(frozen=True, slots=True)
class HomologScores:
    """Results of one ranking method.

    Attributes
    ----------
    family, superfamily, fold : LevelScores
    queries : int
        Labelled rows, each a query.
    queries_all : int
        Of these, queries that have true positives at all three levels.
    queries_without_false_positive : int
        Queries whose ranking ended before a false positive: there sensitivity counts all that was
        returned.
    """

    family: LevelScores
    superfamily: LevelScores
    fold: LevelScores
    queries: int
    queries_all: int
    queries_without_false_positive: int


def score(labelled: LabelledRows, rankings: Iterable[NDArray[np.int64]]) -> HomologScores:
    """Score rankings by labels.

    Parameters
    ----------
    labelled : LabelledRows
    rankings : iterable of ndarray of int64
        For each of ``labelled.rows``, in that order, the rows found, best first. The query
        itself and rows without a label are passed over.

    Returns
    -------
    HomologScores
    """
    n = len(labelled)
    found, hit1, hit10 = (np.zeros((n, len(LEVELS))) for _ in range(3))
    precision = np.zeros((n, len(LEVELS)))
    endless = 0
    for position, ranked in zip(range(n), rankings, strict=True):
        relations = labelled.relations(position, ranked)
        false = np.flatnonzero(relations == FALSE)
        endless += not len(false)
        counts = np.bincount(relations[: false[0]] if len(false) else relations, minlength=4)
        for level, positive in enumerate(_RELATION):
            found[position, level] = counts[positive]
            if not labelled.totals[position, level]:
                continue
            considered = relations[relations <= positive]
            places = np.flatnonzero(considered == positive) + 1
            hit1[position, level] = len(places) and places[0] <= 1
            hit10[position, level] = len(places) and places[0] <= 10
            total = labelled.totals[position, level]
            precision[position, level] = (np.arange(1, len(places) + 1) / places).sum() / total

    totals = labelled.totals
    complete = (totals > 0).all(axis=1)
    levels = []
    for level, name in enumerate(LEVELS):
        some = totals[:, level] > 0
        share = found[:, level] / np.maximum(totals[:, level], 1)
        script = found[:, level] / np.maximum(totals[:, level] + (name != "family"), 1)
        levels.append(
            LevelScores(
                sensitivity=_mean(share[complete]),
                sensitivity_script=_mean(script[complete]),
                sensitivity_any=_mean(share[some]),
                hit1=_mean(hit1[some, level]),
                hit10=_mean(hit10[some, level]),
                map=_mean(precision[some, level]),
                queries=int(some.sum()),
            )
        )
    family, superfamily, fold = levels
    return HomologScores(family, superfamily, fold, n, int(complete.sum()), endless)


def _mean(values: NDArray[np.float64]) -> float | None:
    return float(values.mean()) if len(values) else None


@dataclass(frozen=True, slots=True)
class Measured:
    """One way to rank, and how well it finds homologs.

    Attributes
    ----------
    kind : str
        ``tier`` (that tier alone, exhaustive), ``funnel`` (the index's own, up to a tier),
        ``given``, or ``composition``.
    name : str
        The funnel as text, or ``composition``.
    tier : str or None
        The last tier.
    bytes_per_query : float or None
        Expected bytes of codes that a query reads; None for the composition.
    seconds : float
        Wall time of all queries, ranking and scoring.
    scores : HomologScores
    """

    kind: str
    name: str
    tier: str | None
    bytes_per_query: float | None
    seconds: float
    scores: HomologScores

    def as_dict(self) -> dict[str, Any]:
        """Nested plain values, for JSON."""
        return asdict(self)


def evaluate(
    index: Index,
    labelled: LabelledRows,
    candidates: Iterable[Candidate],
    *,
    progress: Progress | None = None,
) -> Iterator[Measured]:
    """Rank all labelled rows against all, with each funnel.

    Queries are streamed in blocks: the whole matrix of scores is never held.

    Parameters
    ----------
    index : Index
    labelled : LabelledRows
        From `rdsearch.labels.join` with the index's catalog.
    candidates : iterable of Candidate
        From `rdsearch.evaluation.candidates`.
    progress : Progress, optional
        Told of every block of queries.

    Yields
    ------
    Measured
        In the order of the candidates.
    """
    allowed = None if len(labelled) == index.n_rows else len(labelled)
    if len(labelled) < NARROW * index.n_rows:
        _LOGGER.warning(
            "%s of %s rows have a label: a search among so few takes the last tier alone, and "
            "funnels that end at one tier give the same",
            f"{len(labelled):,}",
            f"{index.n_rows:,}",
        )
    for candidate in candidates:
        began = time.perf_counter()
        funnel = candidate.funnel
        scores = score(labelled, _ranked(index, labelled, funnel, progress))
        yield Measured(
            candidate.kind,
            str(funnel),
            funnel.tiers[-1],
            float(sum(step.bytes for step in index.cost(funnel, allowed))),
            time.perf_counter() - began,
            scores,
        )


def _ranked(
    index: Index, labelled: LabelledRows, funnel: Funnel, progress: Progress | None
) -> Iterator[NDArray[np.int64]]:
    n = len(labelled)
    # A funnel returns what its last shortlist holds, here with the query: asking for more would
    # widen it.
    k = max(1, min([n, *funnel.shortlists[-1:]]) - 1)
    rows = None if n == index.n_rows else labelled.rows
    advance = None if progress is None else progress.stage(str(funnel), n)
    for start in range(0, n, _BLOCK):
        block = labelled.rows[start : start + _BLOCK].tolist()
        yield from (ranking.rows for ranking in index.rank_rows(block, k, funnel, rows=rows))
        if advance is not None:
            advance(len(block), 0)


def floor(sequences: Sequence[str], labelled: LabelledRows) -> Measured:
    """What amino-acid composition alone finds.

    Parameters
    ----------
    sequences : sequence of str
        Of ``labelled.rows``, in that order.
    labelled : LabelledRows
    """
    began = time.perf_counter()
    ranked = (labelled.rows[places] for places in composition.rankings(sequences))
    scores = score(labelled, ranked)
    return Measured("composition", "composition", None, None, time.perf_counter() - began, scores)


def sequences_of(index: Index, labelled: LabelledRows) -> list[str]:
    """Sequences of the labelled rows."""
    blocks = (
        index.catalog.sequences(labelled.rows[start : start + _SEQUENCES].tolist())
        for start in range(0, len(labelled), _SEQUENCES)
    )
    return list(chain.from_iterable(blocks))
