"""Options and helpers that several commands share."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Callable, Iterator
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rdsearch import family
from rdsearch.formats import FORMATS
from rdsearch.progress import TerminalProgress

if TYPE_CHECKING:
    from rdsearch.index import Index

__all__ = [
    "EMBEDDING",
    "EVALUE",
    "EXISTING",
    "FASTA",
    "FDR",
    "JSON",
    "K",
    "LABELS",
    "OUTPUT",
    "PROGRESS",
    "QUERY",
    "RESULTS",
    "TO_TIER",
    "WHERE",
    "WINDOWS",
    "check_columns",
    "family_option",
    "format_option",
    "index_facts",
    "members_option",
    "names",
    "report",
    "say",
    "shortlists",
    "together",
    "vectors_given",
    "working",
]

EXISTING = click.Path(exists=True, path_type=Path)
FASTA = click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=str)
OUTPUT = click.Path(path_type=Path)
#: FASTA, or a store of embedded proteins.
QUERY = click.Path(exists=True, allow_dash=True, path_type=str)


def together(*decorators: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Several click options as one decorator."""
    return lambda command: reduce(lambda done, add: add(done), reversed(decorators), command)


#: How sequences are embedded; the names are those of `rdsearch.embed.Embedder`.
EMBEDDING = together(
    click.option(
        "--weights",
        type=EXISTING,
        help="Folder with the family's checkpoints. [default: torch hub's cache, else a download]",
    ),
    click.option(
        "--device",
        default="auto",
        show_default=True,
        help="cpu, cuda, cuda:0,cuda:1 (work is shared out), or auto.",
    ),
    click.option(
        "--dtype",
        type=click.Choice(["auto", "float32", "bfloat16", "float16"]),
        default="auto",
        show_default=True,
        help="auto: bfloat16 where the hardware computes in it, else float32.",
    ),
    click.option(
        "--tokens-per-batch",
        type=click.IntRange(1),
        default=4096,
        show_default=True,
        help="Halved by itself when memory runs out.",
    ),
    click.option(
        "--stream-layers",
        is_flag=True,
        help="One layer in memory at a time, for members larger than memory.",
    ),
)

WINDOWS = together(
    click.option(
        "--window",
        type=click.IntRange(1, 1022),
        default=1022,
        show_default=True,
        help="Residues the model sees at once; longer sequences are cut and averaged.",
    ),
    click.option(
        "--overlap", type=click.IntRange(0), help="Residues two windows share. [default: 255]"
    ),
)

#: Where a table of labels has what is needed.
LABELS = together(
    click.option(
        "--id-column", metavar="NAME", help="Column of accessions. [default: sid or accession]"
    ),
    click.option(
        "--label-column", metavar="NAME", help="Column of labels. [default: sccs or label]"
    ),
)


def names(_: click.Context, __: click.Parameter, value: str | None) -> list[str] | None:
    """``8M,650M`` as a list."""
    return None if value is None else [name.strip() for name in value.split(",") if name.strip()]


def check_columns(chosen: list[str] | None, format_: str) -> None:
    """Refuse a choice of columns where the format has its own."""
    if chosen is not None and not FORMATS[format_].columns:
        those = ", ".join(name for name, one in FORMATS.items() if one.columns)
        raise click.UsageError(f"--columns is for {those}; {format_} has columns of its own")


def format_option(*left_out: str) -> Callable[[Any], Any]:
    """``--format``, without those that the command cannot give."""
    return click.option(
        "--format",
        "format_",
        type=click.Choice([name for name in FORMATS if name not in left_out]),
        default="table",
        show_default=True,
        help="table to read; the others for programs, or (html) for a report.",
    )


#: Where results go, and what of them.
RESULTS = together(
    click.option(
        "-o",
        "--output",
        type=click.Path(allow_dash=True, path_type=str),
        default="-",
        help="File for the results; for a3m of several queries a folder. [default: - (stdout)]",
    ),
    click.option(
        "--columns",
        "chosen",
        callback=names,
        metavar="NAME,…",
        help="Columns of tsv, csv, jsonl and parquet. [default: all]",
    ),
)

#: Hits of a query, what they need to be one, and where the search ends.
K = click.option("-k", type=click.IntRange(1), help="Hits a query. [default: 10; with a cut 500]")
EVALUE = click.option("--evalue", type=float, help="Only hits with this e-value or a lower one.")
FDR = click.option(
    "--fdr",
    type=float,
    help="Only hits above the score that the index is calibrated to for this false discovery "
    "rate (rdsearch calibrate).",
)
WHERE = click.option(
    "--where",
    metavar="EXPRESSION",
    help="Only proteins for which this SQL expression over the index's columns is true.",
)
TO_TIER = click.option(
    "--to-tier", metavar="TIER", help="Stop here: wider members are never loaded."
)

#: What a measurement is written to besides.
JSON = click.option(
    "--json",
    "as_json",
    type=click.Path(dir_okay=False, allow_dash=True, path_type=str),
    metavar="FILE|-",
    help="Write everything as JSON; - prints it in place of the table.",
)

PROGRESS = together(
    click.option("--threads", type=click.IntRange(1), help="CPU threads. [default: all]"),
    click.option("--quiet", is_flag=True, help="No progress and no notes, only errors."),
)


@contextlib.contextmanager
def working(threads: int | None, quiet: bool) -> Iterator[TerminalProgress]:
    """Progress on standard error and the wanted number of threads."""
    logger = logging.getLogger("rdsearch")
    level = logger.level
    if quiet:
        logger.setLevel(logging.ERROR)
    if threads is not None:
        import torch

        from rdsearch import _faiss

        torch.set_num_threads(threads)
        _faiss.load().omp_set_num_threads(threads)
    progress = TerminalProgress(quiet=quiet)
    try:
        yield progress
    finally:
        progress.close()
        logger.setLevel(level)


def say(text: str, *, quiet: bool = False) -> None:
    """A closing line, on standard error."""
    if not quiet:
        click.echo(text, err=True)


def shortlists(
    _: click.Context, __: click.Parameter, value: str | None
) -> dict[str, int] | int | None:
    """``2000`` or ``8M:2000,650M:200``."""
    if value is None:
        return None
    try:
        if ":" not in value:
            return int(value)
        pairs = (pair.rpartition(":") for pair in value.split(","))
        return {name.strip(): int(size) for name, _, size in pairs}
    except ValueError:
        raise click.BadParameter(
            f"expected a number, or TIER:NUMBER,TIER:NUMBER; found {value!r}"
        ) from None


def family_option(default: str | None = "esm2") -> Callable[[Any], Any]:
    """``--family``."""
    return click.option(
        "--family",
        "family_name",
        type=click.Choice(list(family.FAMILIES)),
        default=default,
        show_default=default is not None,
        help="mini comes with rdsearch, for demonstration; it is weak as a homology model.",
    )


members_option = click.option(
    "--members", callback=names, help="For example 8M,650M. [default: all]"
)


def vectors_given(values: tuple[str, ...]) -> Path | dict[str, Path] | None:
    """``rd.npy``, or ``8M=a.npy`` for each member."""
    if not values:
        return None
    pairs = [value.rpartition("=") for value in values]
    if len(values) == 1 and not pairs[0][1]:
        return Path(values[0])
    if not all(name for name, _, _ in pairs):
        raise click.BadParameter(
            "expected one file of rd embeddings, or MEMBER=FILE for each member; found "
            + ", ".join(values),
            param_hint="--vectors",
        )
    return {name: Path(path) for name, _, path in pairs}


def index_facts(index: Index) -> dict[str, Any]:
    """What a measurement says of the index that it was made on."""
    facts = index.info()
    names = ("rdsearch", "family", "chain", "space", "recipe", "rows", "accessions", "funnel")
    return {"index": {name: facts[name] for name in names}}


def report(table: str, facts: dict[str, Any], as_json: str | None) -> None:
    """Print what was measured, and write it as `JSON` asks for."""
    text = json.dumps(facts, indent=2)
    if as_json == "-":
        click.echo(text)
        return
    click.echo(table)
    if as_json is not None:
        path = Path(as_json)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n", encoding="utf-8")
