"""A pairwise alignment, as a value; `rdsearch.aligner` makes them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

__all__ = ["ALIGNMENT_COLUMNS", "Alignment", "runs"]

_RUN = re.compile(r"(\d+)([MID])")


@dataclass(frozen=True, slots=True)
class Alignment:
    """The best local alignment of a query and a target.

    Positions count residues from 1, and both ends belong to the alignment.

    Attributes
    ----------
    score : int
        Raw score: substitutions less gaps.
    bits : float
        Bit score, ``(lambda * score - ln K) / ln 2``.
    evalue : float
        Alignments of this score or better expected by chance in the index, by Karlin–Altschul
        statistics: nothing to do with the e-value of the embedding score.
    identity, positives : float
        Share of the alignment's columns, gaps included, with equal residues, and with a positive
        substitution score. In 0..1.
    query_coverage, target_coverage : float
        Share of the residues of each that lie between the alignment's ends. In 0..1.
    query_start, query_end, target_start, target_end : int
    length : int
        Columns, gaps included.
    mismatches : int
        Columns with two different residues.
    gap_openings : int
        Runs of gaps.
    cigar : str
        Query to target, from `query_start` and `target_start`: ``M`` a pair of residues, ``I`` a
        residue of the query against a gap, ``D`` a residue of the target against a gap.
    """

    score: int
    bits: float
    evalue: float
    identity: float
    positives: float
    query_coverage: float
    target_coverage: float
    query_start: int
    query_end: int
    target_start: int
    target_end: int
    length: int
    mismatches: int
    gap_openings: int
    cigar: str

    def as_dict(self) -> dict[str, Any]:
        """Under the names of `ALIGNMENT_COLUMNS`."""
        return {name: getattr(self, field) for name, field in ALIGNMENT_COLUMNS.items()}


#: Column of a result to the field of `Alignment`. Names that a hit has too are told apart.
ALIGNMENT_COLUMNS = {
    "identity": "identity",
    "positives": "positives",
    "query_coverage": "query_coverage",
    "target_coverage": "target_coverage",
    "query_start": "query_start",
    "query_end": "query_end",
    "target_start": "target_start",
    "target_end": "target_end",
    "alignment_length": "length",
    "mismatches": "mismatches",
    "gap_openings": "gap_openings",
    "cigar": "cigar",
    "alignment_score": "score",
    "bits": "bits",
    "alignment_evalue": "evalue",
}


def runs(cigar: str) -> Iterator[tuple[int, str]]:
    """The runs of a CIGAR, a length and ``M``, ``I`` or ``D`` each."""
    return ((int(length), kind) for length, kind in _RUN.findall(cigar))
