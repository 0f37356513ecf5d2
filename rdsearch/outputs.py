"""Formats that results are written in, and where they go.

    write(index.search("query.fasta"), Path("hits.tsv"), "tsv", index.hit_columns())

A file appears when it is complete, so that a crash leaves none or the old one; standard output
gets hits as they are found.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import rdsearch
from rdsearch import a3m, outfiles, parquet, report, tables
from rdsearch.calibration import EVALUES
from rdsearch.errors import InputError
from rdsearch.formats import FORMATS, Format
from rdsearch.hits import QueryHits

if TYPE_CHECKING:
    from rdsearch.details import Details
    from rdsearch.funnel import Funnel
    from rdsearch.index import Index

__all__ = ["FORMATS", "Format", "Run", "chosen", "run_of", "versions", "write"]

# What a search computes with; both of FAISS's packages provide one module.
_LIBRARIES = ("faiss-cpu", "faiss-gpu", "torch", "fair-esm", "numpy", "duckdb", "pyopal")


def versions() -> dict[str, str]:
    """Installed versions of the libraries that a search computes with."""
    found = {}
    for name in _LIBRARIES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def _now() -> str:
    return datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")


@dataclass(frozen=True, slots=True)
class Run:
    """What was run, for a report.

    Attributes
    ----------
    settings : mapping of str to str
        In the order in which they are shown: the command, its options.
    index : mapping
        ``index.info()``.
    notes : sequence of str
        What a reader of the results has to know, for example that there are no e-values.
    calibration : sequence of (float, float)
        E-values, and false positives a query that were observed below each.
    threshold : str or None
        The certified threshold, in words.
    matrix : str
        Whose positive scores mark an alignment.
    version : str
        Of rdsearch.
    versions : mapping of str to str
        Of the libraries.
    time : str
        When.
    """

    settings: Mapping[str, str] = field(default_factory=dict)
    index: Mapping[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()
    calibration: Sequence[tuple[float, float]] = ()
    threshold: str | None = None
    matrix: str = "BLOSUM62"
    version: str = rdsearch.__version__
    versions: Mapping[str, str] = field(default_factory=versions)
    time: str = field(default_factory=_now)


def run_of(
    index: Index,
    funnel: Funnel,
    details: Details,
    settings: Mapping[str, str],
    notes: Sequence[str],
    name: str | None = None,
) -> Run:
    """What a report says of a search.

    Parameters
    ----------
    index : Index
    funnel : Funnel
    details : Details
    settings, notes
        As in `Run`.
    name : str, optional
        The index is called by it; by its path where it is not given.
    """
    calibration, last = index.manifest.calibration, funnel.tiers[-1]
    points: list[tuple[float, float]] = []
    threshold = None
    if calibration is not None and calibration.covers(last):
        tier = calibration.at(last)
        points = list(zip(EVALUES, tier.false_positives, strict=False))
        threshold = None if tier.fdr is None else str(calibration)
    facts = index.info()
    return Run(
        settings=settings,
        index=facts if name is None else facts | {"path": name},
        notes=notes,
        calibration=points,
        threshold=threshold,
        matrix="BLOSUM62" if details.aligner is None else details.aligner.matrix,
    )


def chosen(columns: Sequence[str], wanted: Sequence[str]) -> list[str]:
    """Columns that were asked for, in the order that was asked for.

    Parameters
    ----------
    columns : sequence of str
        Those that there are.
    wanted : sequence of str

    Raises
    ------
    InputError
        There is no such column (attributes ``column``, ``columns``), one is named twice, or none.
    """
    for name in wanted:
        if name not in columns:
            raise InputError(
                f"the hits have no column {name!r}; they have {', '.join(columns)}",
                column=name,
                columns=tuple(columns),
            )
        if wanted.count(name) > 1:
            raise InputError(f"column {name!r} is chosen twice", column=name)
    if not wanted:
        raise InputError(f"no column is chosen; the hits have {', '.join(columns)}")
    return list(wanted)


def write(
    results: Iterable[QueryHits],
    out: Path | str | IO[Any],
    format: str,
    columns: Sequence[str],
    *,
    types: Mapping[str, str] | None = None,
    run: Run | None = None,
) -> int:
    """Write results.

    Parameters
    ----------
    results : iterable of QueryHits
        From ``index.search``; with alignments and sequences where ``FORMATS[format]`` needs them.
    out : path, file or "-"
        ``"-"`` is standard output. A file must be binary for a binary format. A3M of several
        queries goes to a folder: one that is there, or a name without suffix; each query gets a
        file there.
    format : str
        One of `FORMATS`.
    columns : sequence of str
        From ``index.hit_columns``, or some of them. What has columns of its own (table, m8, FASTA,
        A3M) goes without; the report shows those of the catalog.
    types : mapping of str to str, optional
        ``index.columns``, SQL types for Parquet. Columns of other types than text are text without.
    run : Run, optional
        For the report.

    Returns
    -------
    int
        Hits written; for FASTA sequences.

    Raises
    ------
    InputError
        There is no such format; the format cannot be written to `out`; `out` cannot be written;
        what the format needs is not there.
    """
    if format not in FORMATS:
        raise InputError(f"there is no format {format!r}; there are {', '.join(FORMATS)}")
    settings = columns, types or {}, Run() if run is None else run
    if isinstance(out, str | Path) and str(out) != "-":
        path = Path(out)
        with outfiles.named(path):
            if format == "a3m" and (path.is_dir() or (not path.suffix and not path.exists())):
                return _each_query(results, path)
            with outfiles.new_file(path, binary=FORMATS[format].binary) as file:
                return _written(results, file, format, *settings)
    file = sys.stdout if isinstance(out, str | Path) else out
    if FORMATS[format].binary:
        return _written(results, outfiles.bytes_of(file, format), format, *settings)
    with outfiles.text_of(file, format) as text:
        return _written(results, text, format, *settings)


def _written(
    results: Iterable[QueryHits],
    file: IO[Any],
    format: str,
    columns: Sequence[str],
    types: Mapping[str, str],
    run: Run,
) -> int:
    """Hand over to the format's writer."""
    if format == "parquet":
        return parquet.parquet(results, file, columns, types)
    if format == "html":
        return report.html(results, file, columns, run)
    if format in ("fasta", "a3m"):
        return (a3m.fasta if format == "fasta" else a3m.a3m)(results, file)
    writers = {
        "table": tables.table,
        "tsv": tables.tsv,
        "csv": tables.csv_,
        "jsonl": tables.jsonl,
        "m8": tables.m8,
    }
    return writers[format](results, file, columns)


def _each_query(results: Iterable[QueryHits], folder: Path) -> int:
    """A3M, a file a query; each appears when it is complete."""
    folder.mkdir(parents=True, exist_ok=True)
    total = 0
    for name, text, written in a3m.each(results):
        with outfiles.new_file(folder / name, binary=False) as file:
            file.write(text)
        total += written
    return total
