"""Hits as tables of text: for reading, TSV, CSV, JSON lines and BLAST tabular.

Text rounds what would be noise: scores to 6 digits, for they carry float32 precision, bit scores
to 2, e-values to 3 significant digits. Columns of the catalog are printed as they are.
"""

from __future__ import annotations

import csv
import json
import logging
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from typing import IO, Any

import numpy as np
from tabulate import tabulate

from rdsearch.alignment import ALIGNMENT_COLUMNS
from rdsearch.hits import Hit, QueryHits

__all__ = [
    "M8_COLUMNS",
    "csv_",
    "evalue_text",
    "flat",
    "jsonl",
    "m8",
    "note_unaligned",
    "plain",
    "readable",
    "short",
    "table",
    "tsv",
]

_LOGGER = logging.getLogger(__name__)

#: Columns of ``blastp -outfmt 6``.
M8_COLUMNS = (
    "qseqid",
    "sseqid",
    "pident",
    "length",
    "mismatch",
    "gapopen",
    "qstart",
    "qend",
    "sstart",
    "send",
    "evalue",
    "bitscore",
)

# A text longer than this is shortened in the table, and only there.
_TABLE_TEXT = 40
# What ends a line for one reader or another, tabs, and what controls a terminal.
_BREAKS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")

_EVALUES = frozenset({"evalue", "alignment_evalue"})
_SCORES = frozenset({"score", "probability", "identity", "positives"}) | {
    name for name in ALIGNMENT_COLUMNS if name.endswith("_coverage")
}


def table(results: Iterable[QueryHits], out: IO[str], _: Sequence[str]) -> int:
    """A table for each query, for reading.

    E-value, probability, alignment and ranks have columns where a hit of the query has them.

    Parameters
    ----------
    results : iterable of QueryHits
    out : text file

    Returns
    -------
    int
        Hits.
    """
    written = 0
    for query, hits in results:
        out.write(flat(f"{query.id}: {query.protein_name or query.description}") + "\n")
        if hits:
            columns = _table_columns(hits)
            lines = [[cell(hit) for cell in columns.values()] for hit in hits]
            texts = ("query", "accession", "protein name", "organism")
            aligned = ["left" if name in texts else "right" for name in columns]
            out.write(
                tabulate(lines, list(columns), "simple", colalign=aligned, disable_numparse=True)
            )
        else:
            out.write("no hits")
        out.write("\n\n")
        written += len(hits)
    return written


def tsv(results: Iterable[QueryHits], out: IO[str], columns: Sequence[str]) -> int:
    """A header line, then a line a hit, cells separated by tabs.

    Tabs and line ends inside a value become blanks, so that a line stays a line. A value with a
    double quote is quoted, as readers of tables expect it. Several accessions are separated by
    semicolons.

    Parameters
    ----------
    results : iterable of QueryHits
    out : text file
    columns : sequence of str
        Keys of `Hit.as_dict`.

    Returns
    -------
    int
        Hits.
    """
    writer = csv.writer(out, delimiter="\t", lineterminator="\n")
    return _lines(results, writer.writerow, columns, flat)


def csv_(results: Iterable[QueryHits], out: IO[str], columns: Sequence[str]) -> int:
    """The lines of `tsv` by RFC 4180: commas, quotes where needed, lines that end in CR LF.

    Values keep the line ends that they have.
    """
    return _lines(results, csv.writer(out, lineterminator="\r\n").writerow, columns, str)


def jsonl(results: Iterable[QueryHits], out: IO[str], columns: Sequence[str]) -> int:
    """A JSON object a hit, a line each; what a hit does not have is null.

    Where the columns hold ranks of a trace, ``tiers`` lists them coarse to fine. Numbers that JSON
    cannot hold (NaN, infinity) are null.
    """
    traced = any(name.startswith("rank_") for name in columns)
    written = 0
    for _, hits in results:
        for hit in hits:
            values = hit.as_dict()
            line = {name: plain(_rounded(name, values.get(name))) for name in columns}
            if traced:
                line["tiers"] = [
                    {"tier": at.tier, "score": _rounded("score", at.score), "rank": at.rank}
                    for at in hit.tiers
                ]
            out.write(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n")
            written += 1
    return written


def m8(results: Iterable[QueryHits], out: IO[str], _: Sequence[str]) -> int:
    """The 12 columns of ``blastp -outfmt 6``, `M8_COLUMNS`, in blastp's digits, without header.

    All numbers are the alignment's, its e-value too. Hits without an alignment are left out, and
    counted in a warning.
    """
    written = left_out = 0
    for query, hits in results:
        for hit in hits:
            found = hit.alignment
            if found is None:
                left_out += 1
                continue
            line = (
                flat(query.id),
                flat(hit.accession),
                f"{100 * found.identity:.3f}",
                found.length,
                found.mismatches,
                found.gap_openings,
                found.query_start,
                found.query_end,
                found.target_start,
                found.target_end,
                _blast_evalue(found.evalue),
                _blast_bits(found.bits),
            )
            out.write("\t".join(map(str, line)) + "\n")
            written += 1
    note_unaligned(left_out)
    return written


def note_unaligned(left_out: int) -> None:
    """Say how many hits a format of alignments leaves out."""
    if left_out:
        _LOGGER.warning("%d hits without an alignment are not in the output", left_out)


def readable(name: str, value: Any) -> str:
    """A value of a column as text; nothing where there is none."""
    value = _rounded(name, value)
    if value is None:
        return ""
    if name in _EVALUES:
        return evalue_text(value)
    if isinstance(value, list | tuple) and not any(isinstance(one, dict | list) for one in value):
        return ";".join(readable("", one) for one in value)
    if isinstance(value, dict | list | tuple):
        return json.dumps(plain(value), ensure_ascii=False)
    return str(value)


def evalue_text(evalue: float) -> str:
    """Three significant digits: ``1.20e-05``, ``0.0314``, ``2.50``, ``120``."""
    if 1e-3 <= evalue < 1e3:
        return f"{evalue:#.3g}".rstrip(".")
    return f"{evalue:.2e}"


def flat(text: str) -> str:
    """Text on one line: tabs, line ends and control characters as one blank."""
    return _BREAKS.sub(" ", text)


def _lines(
    results: Iterable[QueryHits],
    write: Callable[[Sequence[str]], object],
    columns: Sequence[str],
    clean: Callable[[str], str],
) -> int:
    write([clean(name) for name in columns])
    written = 0
    for _, hits in results:
        for hit in hits:
            line = hit.as_dict()
            write([clean(readable(name, line.get(name))) for name in columns])
            written += 1
    return written


def _table_columns(hits: Sequence[Hit]) -> dict[str, Callable[[Hit], str]]:
    """Names of the table's columns, and the cell of each."""

    def of_alignment(field: str, form: str) -> Callable[[Hit], str]:
        return lambda hit: (
            "" if hit.alignment is None else f"{getattr(hit.alignment, field):{form}}"
        )

    def rank_at(tier: str) -> Callable[[Hit], str]:
        def cell(hit: Hit) -> str:
            return next((str(at.rank or "") for at in hit.tiers if at.tier == tier), "")

        return cell

    columns: dict[str, Callable[[Hit], str]] = {
        "query": lambda hit: flat(hit.query),
        "rank": lambda hit: str(hit.rank),
        "accession": lambda hit: flat(hit.accession),
        "protein name": lambda hit: short(hit.protein_name),
        "organism": lambda hit: short(hit.organism),
    }
    for tier in hits[0].scores:
        columns[tier] = lambda hit, tier=tier: f"{hit.scores[tier]:.3f}"  # type: ignore[misc]
    ranked = {at.tier: None for hit in hits for at in hit.tiers if at.rank is not None}
    for at in hits[0].tiers if ranked else ():
        columns[f"rank {at.tier}"] = rank_at(at.tier)
    if any(hit.evalue is not None for hit in hits):
        columns["e-value"] = lambda hit: "" if hit.evalue is None else evalue_text(hit.evalue)
    if any(hit.probability is not None for hit in hits):
        columns["probability"] = lambda hit: (
            "" if hit.probability is None else f"{hit.probability:.3f}"
        )
    if any(hit.alignment is not None for hit in hits):
        columns["identity"] = of_alignment("identity", ".1%")
        columns["query coverage"] = of_alignment("query_coverage", ".1%")
        columns["bits"] = of_alignment("bits", ".1f")
    return columns


def short(text: str | None, most: int = _TABLE_TEXT) -> str:
    """Text on one line, shortened where it is longer than a table shows."""
    text = flat(text or "")
    return text if len(text) <= most else text[: most - 1] + "…"


def _rounded(name: str, value: Any) -> Any:
    """A number of the result's own columns without noise; what the catalog holds as it is."""
    if isinstance(value, np.generic):
        value = value.item()
    if not isinstance(value, float):
        return value
    if name in _EVALUES:
        return float(f"{value:.2e}")
    if name == "bits":
        return round(value, 2)
    return round(value, 6) if name in _SCORES or name.startswith("score_") else value


def plain(value: Any) -> Any:
    """A value that JSON can hold: numbers stay numbers, everything else is text."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float | Decimal):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(name): plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple | set):
        return [plain(one) for one in value]
    return value.hex() if isinstance(value, bytes) else str(value)


def _blast_evalue(evalue: float) -> str:
    """As ``blastp -outfmt 6`` prints it (``CAlignFormatUtil::GetScoreString``)."""
    if evalue < 1e-180:
        return "0.0"
    if evalue < 0.0009:
        return f"{evalue:.2e}"
    digits = 3 if evalue < 0.1 else 2 if evalue < 1 else 1 if evalue < 10 else 0
    return f"{evalue:.{digits}f}"


def _blast_bits(bits: float) -> str:
    """As ``blastp -outfmt 6`` prints it: above 99.9 the digits after the point are cut off."""
    if bits > 99_999:
        return f"{bits:.3e}"
    return str(int(bits)) if bits > 99.9 else f"{bits:.1f}"
