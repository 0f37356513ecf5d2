"""Alignments of a query with its hits: SIMD Smith–Waterman by Opal, scored as blastp scores.

Opal finds the best local alignment exactly, where blastp looks for it heuristically: the score
here is at least blastp's. The path of an alignment takes it 12 bytes a pair of residues, so that
pairs of long proteins are aligned by `_long`, in memory that grows with the length.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rdsearch.alignment import Alignment, runs
from rdsearch.errors import InputError
from rdsearch.fasta import ALPHABET
from rdsearch.hits import Hit, QueryHits
from rdsearch.karlin import MATRICES, gumbel, library, recommended, substitution_scores

__all__ = ["GAP_EXTEND", "GAP_OPEN", "MATRIX", "Aligner", "aligned", "by_alignment", "chosen"]

#: blastp's defaults.
MATRIX, GAP_OPEN, GAP_EXTEND = "BLOSUM62", 11, 1

# Pairs of residues up to which Opal finds the path: 200 MB a thread.
_OPAL_CELLS = 1 << 24
# A letter that is not in the alphabet.
_NONE = 255
_CODES = np.full(256, _NONE, dtype=np.uint8)
_CODES[np.frombuffer(ALPHABET.encode(), dtype=np.uint8)] = np.arange(len(ALPHABET))
# Below every score, and far from where int32 ends.
_LEAST = -(1 << 29)


class _Path(NamedTuple):
    """The best local alignment; starts count from 0."""

    score: int
    query_start: int
    target_start: int
    cigar: str


class Aligner:
    """Aligns a query to targets, locally.

    Letters score as in blastp: U (selenocysteine) as C, O (pyrrolysine) as X, and X scores -1
    against every residue.

    Parameters
    ----------
    matrix : str, optional
        One of ``rdsearch.karlin.MATRICES``.
    gap_open, gap_extend : int, optional
        A gap of n residues costs ``gap_open + n * gap_extend``, as in BLAST. Pairs with published
        statistics only: ``rdsearch.karlin.gap_costs(matrix)``.
    threads : int, optional
        Targets that are aligned at a time.

    Attributes
    ----------
    matrix : str
    gap_open, gap_extend, threads : int
    statistics : rdsearch.karlin.Gumbel

    Raises
    ------
    InputError
        No such matrix; gap costs without published statistics; fewer than one thread.
    DependencyError
        pyopal is not installed.
    """

    def __init__(
        self,
        matrix: str = MATRIX,
        gap_open: int = GAP_OPEN,
        gap_extend: int = GAP_EXTEND,
        *,
        threads: int = 1,
    ) -> None:
        if threads < 1:
            raise InputError(f"expected at least 1 thread, not {threads}", threads=threads)
        self.matrix, self.gap_open, self.gap_extend = matrix, gap_open, gap_extend
        self.threads = threads
        self.statistics = gumbel(matrix, gap_open, gap_extend)
        self._scores = substitution_scores(matrix)
        # Opal's opening cost is that of a gap's first residue.
        self._first = gap_open + gap_extend
        self._opal, self._opal_scores = _opal(self._scores)

    def __repr__(self) -> str:
        costs = f"gap_open={self.gap_open}, gap_extend={self.gap_extend}"
        return f"Aligner({self.matrix!r}, {costs}, threads={self.threads})"

    def align(self, query: str, targets: Sequence[str], *, residues: int) -> list[Alignment | None]:
        """Align a query with each of some targets.

        Parameters
        ----------
        query : str
            Letters of ``rdsearch.fasta.ALPHABET``, upper case.
        targets : sequence of str
            Likewise.
        residues : int
            Residues of everything that was searched, usually the whole index: the space in which
            the e-value counts chance alignments.

        Returns
        -------
        list of Alignment or None
            In the order of `targets`. None where no pair of residues has a positive score, so
            that there is nothing to align: sequences of X, or a few residues that do not fit.
            Among alignments of equal score it is one whose end is first in the target, then in
            the query. An e-value under the smallest float is 0. Equal letters count as identical
            and as positive whatever they score (X and X), as in blastp.

        Raises
        ------
        InputError
            A sequence is empty or has other letters; `residues` is less than 1.
        """
        if residues < 1:
            raise InputError(f"expected residues of an index, at least 1, not {residues}")
        encoded = _encoded(query, "the query")
        codes = [_encoded(target, f"target {at}") for at, target in enumerate(targets, start=1)]
        long = [len(query) * len(target) > _OPAL_CELLS for target in targets]
        by_opal = self._by_opal(
            query, [t for t, is_long in zip(targets, long, strict=True) if not is_long]
        )
        found: list[Alignment | None] = []
        for target, is_long in zip(codes, long, strict=True):
            if is_long:
                path = _long(encoded, target, self._scores, self._first, self.gap_extend)
            else:
                path = next(by_opal)
            found.append(path and self._described(path, encoded, target, residues))
        return found

    def _by_opal(self, query: str, targets: list[str]) -> Iterator[_Path | None]:
        """Paths by Opal, in the order of the targets."""
        if not targets:
            return
        results = self._opal.align(
            query,
            self._opal.Database(targets, ALPHABET),
            self._opal_scores,
            gap_open=self._first,
            gap_extend=self.gap_extend,
            mode="full",
            algorithm="sw",
            threads=self.threads,
            ordered=True,
        )
        for result in results:
            if result.score <= 0:
                yield None
            else:
                yield _Path(result.score, result.query_start, result.target_start, result.cigar())

    def _described(
        self, path: _Path, query: NDArray[np.uint8], target: NDArray[np.uint8], residues: int
    ) -> Alignment:
        """An alignment's numbers, by walking its CIGAR."""
        i, j = path.query_start, path.target_start
        columns = pairs = identical = positive = gaps = 0
        for run, operation in runs(path.cigar):
            columns += run
            if operation == "M":
                here, there = query[i : i + run], target[j : j + run]
                equal = here == there
                pairs += run
                identical += np.count_nonzero(equal)
                positive += np.count_nonzero(equal | (self._scores[here, there] > 0))
            else:
                gaps += 1
            i += run * (operation != "D")
            j += run * (operation != "I")
        statistics = self.statistics
        return Alignment(
            score=path.score,
            bits=statistics.bits(path.score),
            evalue=statistics.evalue(path.score, len(query), len(target), residues),
            identity=identical / columns,
            positives=positive / columns,
            query_coverage=(i - path.query_start) / len(query),
            target_coverage=(j - path.target_start) / len(target),
            query_start=path.query_start + 1,
            query_end=i,
            target_start=path.target_start + 1,
            target_end=j,
            length=columns,
            mismatches=int(pairs - identical),
            gap_openings=gaps,
            cigar=path.cigar,
        )


def chosen(
    matrix: str | None, gap_open: int | None, gap_extend: int | None, threads: int = 1
) -> Aligner:
    """The aligner that was asked for; gap costs that were not are usual for the matrix."""
    name = (matrix or MATRIX).upper()
    if name not in MATRICES:
        raise InputError(f"there is no matrix {name}; choose from {', '.join(MATRICES)}")
    usual = recommended(name)
    costs = (
        usual[0] if gap_open is None else gap_open,
        usual[1] if gap_extend is None else gap_extend,
    )
    return Aligner(name, *costs, threads=threads)


def aligned(
    results: Iterable[QueryHits],
    sequences: Callable[[Sequence[int]], list[str]],
    aligner: Aligner,
    residues: int,
) -> Iterator[QueryHits]:
    """Hits with their alignments and sequences.

    Parameters
    ----------
    results : iterable of QueryHits
    sequences : callable
        From rows to sequences, for example ``index.catalog.sequences``. Called at most once a
        query, with the rows of the hits that carry no sequence.
    aligner : Aligner
    residues : int
        Of the whole index.

    Yields
    ------
    QueryHits
        Same hits, same order, `Hit.alignment` and `Hit.sequence` filled in. A hit without a
        sequence and without a row (-1) stays as it was, and a hit that cannot be aligned (see
        `Aligner.align`) gets its sequence only.
    """
    for query, hits in results:
        rows = [hit.row for hit in hits if hit.sequence is None and hit.row >= 0]
        read = dict(zip(rows, sequences(rows), strict=True)) if rows else {}
        filled = [
            hit if hit.sequence is not None else replace(hit, sequence=read.get(hit.row))
            for hit in hits
        ]
        targets = [hit.sequence for hit in filled if hit.sequence is not None]
        found = iter(aligner.align(query.sequence, targets, residues=residues))
        yield QueryHits(
            query,
            [
                hit if hit.sequence is None else replace(hit, alignment=next(found))
                for hit in filled
            ],
        )


def by_alignment(hits: Sequence[Hit]) -> list[Hit]:
    """Hits by falling bit score of their alignments, with new ranks.

    Hits of equal bit score stay in their order; those without an alignment come last, in theirs.
    """

    def bits(hit: Hit) -> float:
        return -math.inf if hit.alignment is None else hit.alignment.bits

    ordered = sorted(hits, key=bits, reverse=True)
    return [replace(hit, rank=rank) for rank, hit in enumerate(ordered, start=1)]


def _opal(scores: NDArray[np.int32]) -> tuple[Any, Any]:
    """The library, and a matrix as it takes it."""
    matrix = library("scoring_matrices").ScoringMatrix
    return library("pyopal"), matrix(scores.astype(float).tolist(), alphabet=ALPHABET)


def _encoded(sequence: str, name: str) -> NDArray[np.uint8]:
    """Places of letters in the alphabet."""
    if not sequence:
        raise InputError(f"{name} has no residues: there is nothing to align")
    codes = _CODES[np.frombuffer(sequence.encode("latin-1", "replace"), dtype=np.uint8)]
    wrong = np.flatnonzero(codes == _NONE)
    if len(wrong):
        at = int(wrong[0])
        raise InputError(
            f"{name} has {sequence[at]!r} at residue {at + 1}; expected upper-case letters of "
            f"{ALPHABET}",
            letter=sequence[at],
            position=at + 1,
        )
    return codes


class _Row(NamedTuple):
    """Scores of alignments that end at one residue of the query; shape (target + 1,), int32.

    ``best`` in any way, at least 0; ``down`` with this residue in a gap; ``across`` with the
    target's residue in a gap.
    """

    best: NDArray[np.int32]
    down: NDArray[np.int32]
    across: NDArray[np.int32]


def _long(
    query: NDArray[np.uint8],
    target: NDArray[np.uint8],
    scores: NDArray[np.int32],
    first: int,
    more: int,
) -> _Path | None:
    """Smith–Waterman with affine gaps (Gotoh 1982) row by row, in memory of sqrt(rows) rows.

    The forward pass keeps every sqrt(rows)-th row; the way back computes the rows between two of
    those again. A gap's first residue costs `first`, each other `more`.
    """
    profile = scores[:, target]
    ramp = more * np.arange(len(target) + 1, dtype=np.int32)

    def after(row: _Row, code: int) -> _Row:
        down = np.maximum(row.down - more, row.best - first)
        best = np.maximum(down, 0)
        best[0] = 0
        np.maximum(best[1:], row.best[:-1] + profile[code], out=best[1:])
        # A gap along the row opens at the place that maximises score + ramp so far: one that
        # opens where another gap along the row ends is never better than the longer gap.
        across = np.full_like(best, _LEAST)
        across[1:] = np.maximum.accumulate(best + ramp)[:-1] - ramp[:-1] - first
        return _Row(np.maximum(best, across), down, across)

    nothing = np.full(len(target) + 1, _LEAST, dtype=np.int32)
    row = _Row(np.zeros_like(nothing), nothing, nothing)
    step = math.isqrt(len(query)) + 1
    kept: list[_Row] = []
    score = end_query = end_target = 0
    for i, code in enumerate(query.tolist()):
        if i % step == 0:
            kept.append(row)
        row = after(row, code)
        j = int(row.best.argmax())
        here = int(row.best[j])
        if here > score or (here == score > 0 and j < end_target):
            score, end_query, end_target = here, i + 1, j
    if score == 0:
        return None

    i, j = end_query, end_target
    operations: list[str] = []
    state = "M"
    block = (i - 1) // step
    while True:
        # rows[k] is the row after block * step + k residues of the query.
        rows = [kept[block]]
        for code in query[block * step : i].tolist():
            rows.append(after(rows[-1], code))
        while i > block * step:
            above, here_row = rows[i - block * step - 1], rows[i - block * step]
            if state == "M":
                best = here_row.best[j]
                if best == 0:
                    break
                if best == above.best[j - 1] + profile[query[i - 1], j - 1]:
                    operations.append("M")
                    i, j = i - 1, j - 1
                else:
                    state = "I" if best == here_row.down[j] else "D"
            elif state == "I":
                operations.append("I")
                state = "M" if here_row.down[j] == above.best[j] - first else "I"
                i -= 1
            else:
                operations.append("D")
                state = "M" if here_row.across[j] == here_row.best[j - 1] - first else "D"
                j -= 1
        if i > block * step or i == 0:
            return _Path(score, i, j, _cigar(operations[::-1]))
        block -= 1


def _cigar(operations: Sequence[str]) -> str:
    """``["M", "M", "I"]`` as ``2M1I``."""
    return "".join(f"{len(list(run))}{letter}" for letter, run in groupby(operations))
