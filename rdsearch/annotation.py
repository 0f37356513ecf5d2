"""Annotation transfer: the labels of a query's hits, with a confidence that is learnt.

    for query, n_hits, labels in annotate(index, "query.fasta", ["go", "ec"], evalue=1e-3):
        ...

`rdsearch.evidence` says how hits speak for labels, and how a value of a column is taken apart.
What their evidence is worth is learnt from the index itself: proteins with labels are searched for
under the same settings, each left out of its own hits, and the share of right labels is fitted to
the evidence (`rdsearch.annotation_quality`). So a confidence holds for queries that are to the
index as its own annotated proteins are to each other; and it is a lower bound, for labels that
nobody wrote down count as wrong.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from rdsearch.annotation_quality import LEAST_TRIALS, LabelCalibration, Trials, fit
from rdsearch.details import cut, wanted
from rdsearch.errors import InputError
from rdsearch.evidence import RowLabels, check_column, evidence, weighed
from rdsearch.fasta import Record
from rdsearch.filters import allowed_rows
from rdsearch.metadata import quoted
from rdsearch.queries import Queries

if TYPE_CHECKING:
    from rdsearch.hits import Hit
    from rdsearch.index import Index
    from rdsearch.progress import Progress

__all__ = ["SAMPLE", "Annotator", "Label", "QueryLabels", "Support", "annotate"]

#: Proteins that confidences are learnt from at most.
SAMPLE = 1000

# Trials that are searched for together.
_BLOCK = 64


class Support(NamedTuple):
    """A hit that carries a label.

    Attributes
    ----------
    accession : str
        The first protein of its sequence with the label.
    row : int
    score : float
    evalue : float or None
    """

    accession: str
    row: int
    score: float
    evalue: float | None


@dataclass(frozen=True, slots=True)
class Label:
    """A label that hits of a query carry.

    Attributes
    ----------
    column, label : str
    confidence : float or None
        Probability that the query has it, in (0, 1); None where the index has too few proteins
        with a label in this column to learn from.
    evidence : float
        What the confidence is learnt from; see `rdsearch.evidence`.
    annotated : int
        Hits of the query that have any label in the column.
    hits : tuple of Support
        Those with this label, best first.
    """

    column: str
    label: str
    confidence: float | None
    evidence: float
    annotated: int
    hits: tuple[Support, ...]

    @property
    def share(self) -> float:
        """Share of the annotated hits that carry it."""
        return len(self.hits) / self.annotated


class QueryLabels(NamedTuple):
    """A query, the number of its hits, and their labels: by column, then the surest first."""

    query: Record
    n_hits: int
    labels: tuple[Label, ...]


class Annotator:
    """Transfers labels in some columns of an index, from hits under one setting.

    Parameters
    ----------
    index : Index
        As it is now; what `refresh` brings later does not count.
    columns : sequence of str
    k, evalue, fdr, where, to_tier : optional
        Which hits count, as `rdsearch.index.Index.search` takes them.

    Attributes
    ----------
    calibrations : dict of str to LabelCalibration
        Of the columns that have enough labels, once `calibrate` was called.
    notes : list of str
        What a reader of the labels has to know.

    Raises
    ------
    InputError
        There is no such column, or it holds no labels but measured values; options that a search
        refuses.
    CalibrationError
        The index is not calibrated to the `fdr`.
    """

    def __init__(
        self,
        index: Index,
        columns: Sequence[str],
        *,
        k: int | None = None,
        evalue: float | None = None,
        fdr: float | None = None,
        where: str | None = None,
        to_tier: str | None = None,
    ) -> None:
        self._index = index.snapshot()
        self.columns = tuple(dict.fromkeys(columns))
        for column in self.columns:
            check_column(column, self._index.columns)
        if not self.columns:
            raise InputError(f"name a column to annotate; there are {', '.join(index.columns)}")
        self._details = wanted(evalue=evalue, fdr=fdr)
        self._funnel = self._index.plan(to_tier=to_tier)
        self._details.check(self._index, self._funnel.tiers[-1])
        self._k = self._details.hits(k, index.n_rows, None)
        self._search: dict[str, Any] = {"where": where, "to_tier": to_tier}
        self._rows = allowed_rows(self._index.catalog, where=where)
        self._labels = RowLabels(self._index, self.columns)
        self.calibrations: dict[str, LabelCalibration] = {}
        reason = self._index.significance.reason
        self.notes = [] if reason is None else [f"scores weigh in place of e-values: {reason}"]
        self.notes += self._details.doubts(self._index)

    def calibrate(
        self, sample: int = SAMPLE, seed: int = 0, progress: Progress | None = None
    ) -> None:
        """Learn what evidence is worth in each column; see `trials`."""
        for column in self.columns:
            trials = self.trials(column, sample, seed, progress)
            if len(trials) < LEAST_TRIALS:
                self.notes.append(
                    f"no confidence in column {column}: {len(trials)} proteins with a label are "
                    f"too few to learn it from ({LEAST_TRIALS} are needed)"
                )
            elif not any(trials.evidence):
                self.notes.append(
                    f"no confidence in column {column}: none of {len(trials)} proteins with a "
                    "label has an annotated hit to learn it from"
                )
            else:
                self.calibrations[column] = fit(trials)

    def trials(
        self, column: str, sample: int = SAMPLE, seed: int = 0, progress: Progress | None = None
    ) -> Trials:
        """Annotate proteins of the index, each left out of its own hits.

        Parameters
        ----------
        column : str
            One of `columns`.
        sample : int, optional
            Draw at most so many of the sequences with a label that may be found.
        seed : int, optional
            Of the draw.
        progress : Progress, optional

        Returns
        -------
        Trials

        Raises
        ------
        InputError
            No protein that may be found has a label.
        """
        queries = self._drawn(column, sample, seed)
        told = None
        if progress is not None:
            told = progress.stage(f"{column}, left out in turn", len(queries))
        truths: list[frozenset[str]] = []
        found: list[dict[str, float]] = []
        for start in range(0, len(queries), _BLOCK):
            block = queries[start : start + _BLOCK]
            own = self._labels.of(block)
            truths += [frozenset(own[row][column]) for row in block]
            hits = list(self._left_out(block))
            behind = self._labels.of([row for rows, _, _ in hits for row in rows])
            for rows, weights, doubt in hits:
                found.append(evidence(weights, [behind[row][column] for row in rows], doubt))
            if told is not None:
                told(len(block), 0)
        return Trials(tuple(truths), tuple(found))

    def _drawn(self, column: str, sample: int, seed: int) -> list[int]:
        """Rows with a label, in random order."""
        if sample < 1 or seed < 0:
            raise InputError(
                f"a sample has 1 protein or more and a seed is 0 or more; found {sample} and {seed}"
            )
        rows = self._index.catalog.rows_where(f"{quoted(column)} IS NOT NULL")
        if self._rows is not None:
            rows = np.intersect1d(rows, self._rows)
        order = np.random.default_rng(seed).permutation(rows).tolist()
        drawn: list[int] = []
        at_once = max(sample, _BLOCK)
        for start in range(0, len(order), at_once):
            block = order[start : start + at_once]
            labels = self._labels.of(block)
            drawn += [row for row in block if labels[row][column]]
            if len(drawn) >= sample:
                break
        if not drawn:
            raise InputError(
                f"column {column} has no value to transfer in index {self._index.path}"
                + ("" if self._rows is None else " among the proteins that may be found"),
                column=column,
            )
        return drawn[:sample]

    def _left_out(self, block: list[int]) -> Iterator[tuple[list[int], list[float], float]]:
        """Rows that each row finds without itself, their weights, and the doubt."""
        index, tier = self._index, self._funnel.tiers[-1]
        rankings = index.rank_rows(block, self._k, self._funnel, rows=self._rows, exclude_self=True)
        queries = index.tier(tier).vectors(np.array(block, dtype=np.int64))
        searched = index.n_rows if self._rows is None else max(1, len(self._rows))
        for one in cut(index, queries, rankings, tier, self._details, searched):
            scores = one.ranking.scores[:, -1].astype(np.float64)
            weights, doubt = weighed(scores, one.evalues)
            yield one.ranking.rows.tolist(), weights, doubt

    def annotate(
        self,
        queries: Queries,
        *,
        exclude_self: bool = False,
        minimum_confidence: float = 0.0,
        progress: Progress | None = None,
    ) -> Iterator[QueryLabels]:
        """Annotate proteins; the arguments are those of the function `annotate`."""
        if not 0 <= minimum_confidence < 1:
            raise InputError(
                f"a minimum confidence is 0 or more and below 1; found {minimum_confidence:g}"
            )
        lacking = [column for column in self.columns if column not in self.calibrations]
        if minimum_confidence > 0 and lacking:
            raise InputError(
                f"column {lacking[0]} has no confidence that could be {minimum_confidence:g} at "
                "least; leave the minimum out",
                column=lacking[0],
            )
        found = self._index.search(
            queries,
            self._k,
            exclude_self=exclude_self,
            details=self._details,
            progress=progress,
            **self._search,
        )
        return (
            QueryLabels(
                query,
                len(hits),
                tuple(
                    label
                    for column in self.columns
                    for label in self._transferred(hits, column)
                    if label.confidence is None or label.confidence >= minimum_confidence
                ),
            )
            for query, hits in found
        )

    def _transferred(self, hits: Sequence[Hit], column: str) -> list[Label]:
        """Labels of hits in a column, the surest first."""
        behind = self._labels.of_hits(hits)
        labels = [behind[hit.row][column] for hit in hits]
        evalues = [hit.evalue for hit in hits if hit.evalue is not None]
        weights, doubt = weighed(
            np.array([hit.score for hit in hits], dtype=np.float64),
            np.array(evalues) if len(evalues) == len(hits) else None,
        )
        support: dict[str, list[Support]] = {}
        for hit, own in zip(hits, labels, strict=True):
            for label, accession in own.items():
                one = Support(accession, hit.row, hit.score, hit.evalue)
                support.setdefault(label, []).append(one)
        learnt = self.calibrations.get(column)
        annotated = sum(map(bool, labels))
        found = [
            Label(
                column,
                label,
                None if learnt is None else learnt(value),
                value,
                annotated,
                tuple(support[label]),
            )
            for label, value in evidence(weights, labels, doubt).items()
        ]
        return sorted(found, key=lambda one: (-one.evidence, -len(one.hits), one.label))


def annotate(
    index: Index,
    queries: Queries,
    columns: Sequence[str],
    *,
    k: int | None = None,
    evalue: float | None = None,
    fdr: float | None = None,
    where: str | None = None,
    to_tier: str | None = None,
    exclude_self: bool = False,
    sample: int = SAMPLE,
    seed: int = 0,
    minimum_confidence: float = 0.0,
    progress: Progress | None = None,
) -> Iterator[QueryLabels]:
    """Give proteins the labels of their hits.

    Parameters
    ----------
    index : Index
    queries : str, Path, Store, Record or iterable of Record
    columns : sequence of str
        Columns of the index that hold labels; see `rdsearch.evidence.split`.
    k, evalue, fdr, where, to_tier, exclude_self : optional
        Which hits count, as `rdsearch.index.Index.search` takes them.
    sample, seed : int, optional
        Confidences are learnt from at most so many proteins of the index, drawn with the seed.
    minimum_confidence : float, optional
        Leave out what is less sure.
    progress : Progress, optional

    Returns
    -------
    iterator of QueryLabels
        In the order of the queries, as they are searched.

    Raises
    ------
    InputError, CalibrationError
        See `Annotator`; a column holds no value; a minimum without confidences. All is checked
        and learnt before the first query is read.
    """
    annotator = Annotator(index, columns, k=k, evalue=evalue, fdr=fdr, where=where, to_tier=to_tier)
    annotator.calibrate(sample, seed, progress)
    return annotator.annotate(
        queries,
        exclude_self=exclude_self,
        minimum_confidence=minimum_confidence,
        progress=progress,
    )
