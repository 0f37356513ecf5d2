"""The statement an index carries about the recall of its default funnel.

Only data lives here, for every manifest is read with it; how a guarantee is reached is in
`rdsearch.tuning`.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["SAMPLE", "Guarantee"]

#: The source of a guarantee that rows of the index itself were the queries of.
SAMPLE = "sample"


@dataclass(frozen=True, slots=True)
class Guarantee:
    """The default funnel's expected recall@k is at least `recall`, with `confidence`.

    Recall is the share of the k nearest rows, by an exhaustive search at the funnel's last tier,
    that the funnel finds. It is expected over queries drawn as those that were measured: rows of
    the index, or sequences like those of a FASTA file. The confidence is over their draw.

    Attributes
    ----------
    recall : float
        The target, in (0, 1).
    confidence : float
        In (0, 1).
    k : int
        Nearest rows that count.
    queries : int
        Queries that the funnel was measured on.
    measured_recall : float
        Their mean recall@k.
    source : str
        `SAMPLE`, or the name of the FASTA file.
    seed : int
        Of the draw.
    """

    recall: float
    confidence: float
    k: int
    queries: int
    measured_recall: float
    source: str
    seed: int

    def __str__(self) -> str:
        origin = "rows of the index" if self.source == SAMPLE else f"proteins of {self.source}"
        return (
            f"recall@{self.k} at least {self.recall:g} with confidence {self.confidence:g} "
            f"(measured {self.measured_recall:.4f} on {self.queries:,} {origin})"
        )
