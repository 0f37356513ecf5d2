"""Results: typed hits, and the columns they have; `rdsearch.outputs` writes them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from rdsearch.alignment import ALIGNMENT_COLUMNS, Alignment
from rdsearch.fasta import Record

__all__ = [
    "ATTRIBUTES",
    "RESULT_COLUMNS",
    "Hit",
    "QueryHits",
    "TierScore",
    "assemble",
    "columns",
    "is_own",
]

#: Columns of a result that are not the catalog's; those of the tiers begin with score_ and rank_.
RESULT_COLUMNS = ("query", "rank", "score", "evalue", "probability", "tiers", *ALIGNMENT_COLUMNS)

#: Catalog columns that a hit carries as attributes of its own.
ATTRIBUTES = ("accession", "length", "protein_name", "organism", "row")


@dataclass(frozen=True, slots=True)
class TierScore:
    """How a hit stands at one tier.

    Attributes
    ----------
    tier : str
    score : float
        Cosine at this tier.
    rank : int or None
        Its place in an exhaustive search at this tier, 1 the best; None where that was not asked
        for, or where it lies beyond the rows that a trace looks at.
    """

    tier: str
    score: float
    rank: int | None = None


@dataclass(frozen=True, slots=True)
class Hit:
    """One result of one query.

    Attributes
    ----------
    query : str
        The query's id.
    rank : int
        1 is best.
    accession : str
        The protein; the first one when several share the sequence.
    score : float
        Cosine at the funnel's last tier: higher is more alike.
    scores : dict of str to float
        Cosine at each tier of the funnel, coarse to fine.
    row : int
        Row of the sequence inside the index.
    length : int
        Residues.
    protein_name, organism : str or None
        From the header or the user's metadata.
    accessions : tuple of str
        Every accession of this sequence.
    columns : dict
        All other columns of the catalog for `accession`.
    evalue : float or None
        Rows of the index, unrelated to the query, expected by chance with this score or a better
        one. None where it was not asked for, or where the index has too few rows to tell.
    probability : float or None
        Of homology, where the index is calibrated at the funnel's last tier.
    alignment : Alignment or None
        With the query, where it was asked for.
    sequence : str or None
        Of the target, where an alignment or the format needs it.
    tiers : tuple of TierScore
        Coarse to fine: those of the funnel, or every one where the search was traced.
    """

    query: str
    rank: int
    accession: str
    score: float
    scores: dict[str, float]
    row: int
    length: int
    protein_name: str | None
    organism: str | None
    accessions: tuple[str, ...]
    columns: dict[str, Any] = field(default_factory=dict)
    evalue: float | None = None
    probability: float | None = None
    alignment: Alignment | None = None
    sequence: str | None = None
    tiers: tuple[TierScore, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """One flat mapping: what JSON lines and TSV print, in the order of `columns`.

        Columns of the catalog that are called as one of the result's own are here as
        ``metadata_NAME``.
        """
        own: dict[str, Any] = {
            "query": self.query,
            "rank": self.rank,
            "accession": self.accession,
            "score": self.score,
            "evalue": self.evalue,
            "probability": self.probability,
            **{f"score_{one.tier}": one.score for one in self.tiers},
        }
        own |= {f"score_{tier}": score for tier, score in self.scores.items()}
        own |= {f"rank_{one.tier}": one.rank for one in self.tiers if one.rank is not None}
        if self.alignment is not None:
            own |= self.alignment.as_dict()
        own |= {
            "protein_name": self.protein_name,
            "organism": self.organism,
            "length": self.length,
            "accessions": list(self.accessions),
        }
        return own | {_told_apart(name): value for name, value in self.columns.items()}


class QueryHits(NamedTuple):
    """A query and its hits, best first."""

    query: Record
    hits: list[Hit]


def is_own(name: str) -> bool:
    """Whether a column of a result is its own, and not the catalog's."""
    return name in RESULT_COLUMNS or name.startswith(("score_", "rank_"))


def _told_apart(name: str) -> str:
    """A catalog column's name in a result, where one name means one thing."""
    return f"metadata_{name}" if is_own(name) else name


def columns(
    tiers: Iterable[str],
    catalog: Iterable[str],
    *,
    evalue: bool = False,
    probability: bool = False,
    traced: bool = False,
    aligned: bool = False,
) -> list[str]:
    """Column names of a hit, in the order of `Hit.as_dict`.

    Parameters
    ----------
    tiers : iterable of str
        The funnel's tiers, or those of the trace.
    catalog : iterable of str
        Columns of the catalog.
    evalue, probability, traced, aligned : bool, optional
        What the hits carry besides.
    """
    tiers = list(tiers)
    leading = ["query", "rank", "accession", "score"]
    leading += ["evalue"] * evalue + ["probability"] * probability
    leading += [f"score_{tier}" for tier in tiers]
    leading += [f"rank_{tier}" for tier in tiers] * traced
    leading += list(ALIGNMENT_COLUMNS) * aligned
    leading += ["protein_name", "organism", "length", "accessions"]
    return leading + [_told_apart(name) for name in catalog if name not in ATTRIBUTES]


def assemble(
    query: Record,
    rows: Sequence[int],
    scores: Iterable[Mapping[str, float]],
    proteins: Mapping[int, Sequence[Mapping[str, Any]]],
    *,
    evalues: Sequence[float] | None = None,
    probabilities: Sequence[float] | None = None,
    tiers: Sequence[tuple[TierScore, ...]] | None = None,
) -> Iterator[Hit]:
    """Join ranked rows with their catalog entries.

    Parameters
    ----------
    query : Record
    rows : sequence of int
        Best first.
    scores : iterable of mapping
        Tier to cosine for each row; the last tier decides.
    proteins : mapping
        ``catalog.proteins(rows)``.
    evalues, probabilities, tiers : sequence, optional
        One for each row.
    """
    for place, (row, by_tier) in enumerate(zip(rows, scores, strict=True)):
        entries = proteins[row]
        first = entries[0]
        stands = tuple(TierScore(tier, score) for tier, score in by_tier.items())
        yield Hit(
            query=query.id,
            rank=place + 1,
            accession=first["accession"],
            score=list(by_tier.values())[-1],
            scores=dict(by_tier),
            row=row,
            length=first["length"],
            protein_name=first["protein_name"],
            organism=first["organism"],
            accessions=tuple(entry["accession"] for entry in entries),
            columns={name: value for name, value in first.items() if name not in ATTRIBUTES},
            evalue=None if evalues is None else evalues[place],
            probability=None if probabilities is None else probabilities[place],
            tiers=stands if tiers is None else tiers[place],
        )
