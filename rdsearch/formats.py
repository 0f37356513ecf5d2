"""The formats of results: what each is and needs; `rdsearch.outputs` writes them."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["FORMATS", "Format"]


@dataclass(frozen=True, slots=True)
class Format:
    """What a format is and needs.

    Attributes
    ----------
    help : str
        For a reader, in a line.
    needs_alignment, needs_sequences : bool
        Whether hits are to have these.
    binary : bool
    streaming : bool
        Whether hits are written as they come; otherwise all are collected first.
    columns : bool
        Whether its columns can be chosen.
    """

    help: str
    needs_alignment: bool = False
    needs_sequences: bool = False
    binary: bool = False
    streaming: bool = True
    columns: bool = False


#: Format by name.
FORMATS: dict[str, Format] = {
    "table": Format("for reading, a table a query"),
    "tsv": Format("columns separated by tabs, with a header line", columns=True),
    "csv": Format("columns separated by commas, with a header line (RFC 4180)", columns=True),
    "jsonl": Format("JSON lines, an object a hit", columns=True),
    "m8": Format("BLAST tabular, the 12 columns of -outfmt 6", needs_alignment=True),
    "parquet": Format("Apache Parquet, typed columns", binary=True, columns=True),
    "fasta": Format("sequences of the hits, each once", needs_sequences=True),
    "a3m": Format(
        "hits aligned to their query, for HH-suite and ColabFold",
        needs_alignment=True,
        needs_sequences=True,
    ),
    "html": Format("a report in one file, for a browser and for print", streaming=False),
}
