"""Results: typed hits, and the formats they are printed in."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TextIO

from tabulate import tabulate

from rdsearch.fasta import Record

__all__ = ["FORMATS", "Hit", "QueryHits", "assemble", "columns", "write"]

# A protein name longer than this is shortened in the table, and only there.
_TABLE_TEXT = 40

# Catalog columns that a hit carries as attributes of its own.
_OWN = ("accession", "length", "protein_name", "organism", "row")


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

    def as_dict(self) -> dict[str, Any]:
        """One flat mapping: what JSON lines and TSV print."""
        return {
            "query": self.query,
            "rank": self.rank,
            "accession": self.accession,
            "score": self.score,
            **{f"score_{tier}": score for tier, score in self.scores.items()},
            "protein_name": self.protein_name,
            "organism": self.organism,
            "length": self.length,
            "accessions": list(self.accessions),
            **self.columns,
        }


class QueryHits(NamedTuple):
    """A query and its hits, best first."""

    query: Record
    hits: list[Hit]


def _rounded(value: Any) -> Any:
    """Scores carry float32 precision; more digits are noise."""
    return round(value, 6) if isinstance(value, float) else value


def _json(results: Iterable[QueryHits], out: TextIO, _: Sequence[str]) -> None:
    for _query, hits in results:
        for hit in hits:
            line = {name: _rounded(value) for name, value in hit.as_dict().items()}
            out.write(json.dumps(line, ensure_ascii=False, default=str) + "\n")


def _cell(value: Any) -> Any:
    if isinstance(value, list):
        return ";".join(value)
    return "" if value is None else _rounded(value)


def _tsv(results: Iterable[QueryHits], out: TextIO, columns: Sequence[str]) -> None:
    writer = csv.writer(out, delimiter="\t", lineterminator="\n")
    writer.writerow(columns)
    for _, hits in results:
        for hit in hits:
            line = hit.as_dict()
            writer.writerow([_cell(line[name]) for name in columns])


def _short(text: str | None) -> str:
    text = text or ""
    return text if len(text) <= _TABLE_TEXT else text[: _TABLE_TEXT - 1] + "…"


def _table(results: Iterable[QueryHits], out: TextIO, columns: Sequence[str]) -> None:
    for query, hits in results:
        lines: list[Mapping[str, Any]] = [
            {
                "query": hit.query,
                "rank": hit.rank,
                "accession": hit.accession,
                "protein name": _short(hit.protein_name),
                "organism": _short(hit.organism),
                **hit.scores,
            }
            for hit in hits
        ]
        out.write(f"{query.id}: {query.protein_name or query.description}\n")
        out.write(tabulate(lines, headers="keys", floatfmt=".3f", tablefmt="simple"))
        out.write("\n\n")


#: Format name to writer.
FORMATS: dict[str, Callable[[Iterable[QueryHits], TextIO, Sequence[str]], None]] = {
    "table": _table,
    "tsv": _tsv,
    "jsonl": _json,
}


def columns(tiers: Iterable[str], catalog: Iterable[str]) -> list[str]:
    """Column names of a hit, in the order of `Hit.as_dict`.

    Parameters
    ----------
    tiers : iterable of str
        The funnel's tiers.
    catalog : iterable of str
        Columns of the catalog.
    """
    leading = ["query", "rank", "accession", "score", *(f"score_{tier}" for tier in tiers)]
    leading += ["protein_name", "organism", "length", "accessions"]
    return leading + [name for name in catalog if name not in _OWN]


def write(results: Iterable[QueryHits], out: TextIO, format: str, columns: Sequence[str]) -> None:
    """Print results as they come.

    Parameters
    ----------
    results : iterable of QueryHits
        From ``index.search``.
    out : text file
        Usually standard output.
    format : str
        ``table`` for reading, ``tsv`` (header line, then a line a hit), or ``jsonl`` (an object a
        hit).
    columns : sequence of str
        Columns of the TSV, from ``index.hit_columns``.
    """
    FORMATS[format](results, out, columns)


def assemble(
    query: Record,
    rows: Sequence[int],
    scores: Iterable[Mapping[str, float]],
    proteins: Mapping[int, Sequence[Mapping[str, Any]]],
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
    """
    for rank, (row, by_tier) in enumerate(zip(rows, scores, strict=True), start=1):
        entries = proteins[row]
        first = entries[0]
        yield Hit(
            query=query.id,
            rank=rank,
            accession=first["accession"],
            score=list(by_tier.values())[-1],
            scores=dict(by_tier),
            row=row,
            length=first["length"],
            protein_name=first["protein_name"],
            organism=first["organism"],
            accessions=tuple(entry["accession"] for entry in entries),
            columns={name: value for name, value in first.items() if name not in _OWN},
        )
