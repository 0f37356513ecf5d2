"""Answers in every format; the JSON of a hit is that of ``rdsearch search --format jsonl``."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import IO, TYPE_CHECKING

from rdsearch import outputs, tables
from rdsearch.errors import InputError
from rdsearch.finding import full_note, is_full
from rdsearch.formats import FORMATS
from rdsearch.hits import QueryHits
from rdsearch.server.problems import Problem

if TYPE_CHECKING:
    from rdsearch.server.planning import Planned

__all__ = ["MEDIA_TYPES", "chosen", "filename", "full", "headers", "media_type", "notes", "write"]

#: Media type by format; m8 and a3m have none of their own and are asked for by name.
MEDIA_TYPES = {
    "json": "application/json",
    "jsonl": "application/x-ndjson",
    "tsv": "text/tab-separated-values",
    "csv": "text/csv",
    "parquet": "application/vnd.apache.parquet",
    "fasta": "text/x-fasta",
    "html": "text/html",
    "table": "text/plain",
    "m8": "text/plain",
    "a3m": "text/plain",
}
_BY_NAME_ONLY = frozenset({"m8", "a3m"})


def media_type(format: str) -> str:
    """``Content-Type`` of a format."""
    kind = MEDIA_TYPES[format]
    return f"{kind}; charset=utf-8" if kind.startswith("text/") else kind


def filename(format: str) -> str:
    """What a browser calls the file."""
    return f"rdsearch-hits.{'txt' if format == 'table' else format}"


def chosen(
    format: str | None,
    accept: str | None,
    otherwise: str,
    kinds: Mapping[str, str] = MappingProxyType(MEDIA_TYPES),
) -> str:
    """The format of an answer.

    Parameters
    ----------
    format : str or None
        By name, which goes before the header.
    accept : str or None
        The header ``Accept`` (RFC 9110, section 12.5.1).
    otherwise : str
        Where any will do.
    kinds : mapping of str to str, optional
        Media types of the formats that there are.

    Raises
    ------
    InputError
        There is no such format.
    Problem
        406: none of those that the header names is there.
    """
    if format is not None:
        if format not in kinds:
            raise InputError(f"there is no format {format[:100]!r}; there are {', '.join(kinds)}")
        return format
    ranges = _ranges(accept or "*/*")
    offered = {otherwise: kinds[otherwise], **kinds}
    best, quality = None, 0.0
    for name, kind in offered.items():
        if name in _BY_NAME_ONLY:
            continue
        # The most specific range that matches decides on a type; of equal types the first offered.
        weights = {one: ranges[one] for one in (kind, kind.split("/")[0] + "/*", "*/*")
                   if one in ranges}  # fmt: skip
        weight = next(iter(weights.values()), 0.0)
        if weight > quality:
            best, quality = name, weight
    if best is None:
        raise Problem(
            406,
            "not-acceptable",
            "the answer cannot be given in a type that the header Accept names; there are "
            + ", ".join(dict.fromkeys(kinds.values())),
        )
    return best


def _ranges(accept: str) -> dict[str, float]:
    """Quality by media range; what cannot be read is passed over, as the RFC wants it."""
    found: dict[str, float] = {}
    for part in accept[:2000].split(","):
        name, *parameters = (one.strip().lower() for one in part.split(";"))
        quality = 1.0
        for parameter in parameters:
            if parameter.startswith("q="):
                try:
                    quality = min(max(float(parameter[2:]), 0.0), 1.0)
                except ValueError:
                    quality = 0.0
        if name:
            found[name] = quality
    return found or {"*/*": 1.0}


def write(planned: Planned, results: Iterable[QueryHits], file: IO[bytes]) -> int:
    """Write results in the format of their plan, as they come.

    Parameters
    ----------
    planned : Planned
    results : iterable of QueryHits
    file : binary file
        Stays open.

    Returns
    -------
    int
        Hits; for FASTA sequences.
    """
    if planned.format == "json":
        count = 0
        for piece, hits in _json(planned, results):
            file.write(piece.encode("utf-8", "replace"))
            count += hits
        return count
    index, run = planned.index, None
    if planned.format == "html":
        run = outputs.run_of(
            index, planned.funnel, planned.details, planned.settings, planned.notes, planned.name
        )
    return outputs.write(
        results, file, planned.format, planned.columns, types=index.columns, run=run
    )


def full(planned: Planned, result: QueryHits) -> bool:
    """Whether others than the hits of a query may pass a cut too."""
    return is_full(planned.details, planned.k, planned.index.n_rows, result.hits)


def notes(planned: Planned, full: Sequence[str]) -> list[str]:
    """What a reader of the results has to know, as ``rdsearch search`` says it.

    Parameters
    ----------
    planned : Planned
    full : sequence of str
        Ids of the queries for which `full` is true.
    """
    return planned.notes + ([full_note(full, planned.k)] if full else [])


def headers(format: str) -> dict[str, str]:
    """What an answer in a format needs besides its type and its name."""
    if format != "html":
        return {}
    # Should it be shown all the same: the report runs its own script and loads nothing.
    return {"Content-Security-Policy": "sandbox allow-scripts; frame-ancestors 'none'"}


def _json(planned: Planned, results: Iterable[QueryHits]) -> Iterator[tuple[str, int]]:
    """Pieces of the JSON answer, with the hits in each."""
    head = {
        "index": planned.name,
        "generation": planned.index.generation,
        "funnel": str(planned.funnel),
        "tiers": list(planned.funnel.tiers),
        "columns": planned.columns,
        "notes": planned.notes,
    }
    yield json.dumps(head, ensure_ascii=False)[:-1] + ', "results": [', 0
    between = ""
    for result in results:
        query = result.query
        text = io.StringIO()
        count = tables.jsonl([result], text, planned.columns)
        lines = text.getvalue().rstrip("\n").replace("\n", ",")
        about = {
            "id": query.id,
            "description": query.description,
            "length": len(query.sequence),
        }
        tail = {"full": full(planned, result), "map": getattr(result, "map", None)}
        said = json.dumps({"query": about}, ensure_ascii=False)[:-1]
        yield f'{between}{said}, "hits": [{lines}], {json.dumps(tail)[1:]}', count
        between = ","
    yield "]}", 0


if MEDIA_TYPES.keys() != {"json", *FORMATS}:
    raise TypeError("the API's formats are not those of rdsearch.formats")
