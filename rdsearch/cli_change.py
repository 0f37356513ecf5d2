"""The commands that change an index."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from tabulate import tabulate

from rdsearch.cli_options import EMBEDDING, OUTPUT, PROGRESS, QUERY, say, working
from rdsearch.generations import counted

if TYPE_CHECKING:
    from rdsearch.changes import Change

__all__ = ["COMMANDS"]

_METADATA = click.option(
    "--metadata",
    type=click.Path(exists=True, path_type=Path),
    multiple=True,
    help="Table to join by accession: TSV, CSV, Parquet or JSON lines. May be given again.",
)


def _say(change: Change, quiet: bool, what: str) -> None:
    for joined in change.metadata:
        say(str(joined), quiet=quiet)
    manifest = change.manifest
    say(
        f"{change.path}: {what}; generation {manifest.generation}: {manifest.rows:,} sequences, "
        f"{manifest.accessions:,} accessions in {counted(len(manifest.segments), 'segment')}",
        quiet=quiet,
    )


@click.command()
@click.argument("index", type=OUTPUT)
@click.argument("source", type=QUERY, nargs=-1, required=True)
@_METADATA
@EMBEDDING
@PROGRESS
def add(
    index: Path,
    source: tuple[str, ...],
    metadata: tuple[Path, ...],
    threads: int | None,
    quiet: bool,
    **embedding: Any,
) -> None:
    """Add proteins to INDEX: FASTA files, or a store from rdsearch embed.

    Accessions that are there with the same sequence are skipped. Searches that run do not notice.

    \b
    Examples:
      rdsearch add indexes/mine new.fasta --metadata new.tsv
      zcat more.fasta.gz | rdsearch add indexes/mine -
    """
    from rdsearch import changes

    with working(threads, quiet) as progress:
        change = changes.add(index, _one(source), metadata=metadata, progress=progress, **embedding)
    _say(change, quiet, f"{counted(change.added)} added, {change.skipped:,} were there already")


@click.command()
@click.argument("index", type=OUTPUT)
@click.option(
    "--ids",
    type=click.Path(exists=True, allow_dash=True, path_type=str),
    metavar="FILE",
    help="Accessions, one a line; - is standard input.",
)
@click.option(
    "--where",
    metavar="EXPRESSION",
    help="A SQL expression over the columns: the proteins for which it is true.",
)
@click.option("--quiet", is_flag=True, help="No notes, only errors.")
def remove(index: Path, ids: str | None, where: str | None, quiet: bool) -> None:
    """Remove proteins from INDEX: they are not found any more.

    \b
    Examples:
      rdsearch remove indexes/mine --ids withdrawn.txt
      rdsearch remove indexes/mine --where "length < 30"
    """
    from rdsearch import changes
    from rdsearch.filters import read_ids

    if (ids is None) == (where is None):
        raise click.UsageError("give --ids or --where, and not both")
    with working(None, quiet):
        change = changes.remove(index, None if ids is None else read_ids(ids), where)
    missing = f", {change.skipped:,} were not there" if change.skipped else ""
    _say(change, quiet, f"{counted(change.removed)} removed{missing}")


@click.command()
@click.argument("index", type=OUTPUT)
@click.argument("source", type=QUERY, nargs=-1)
@_METADATA
@EMBEDDING
@PROGRESS
def update(
    index: Path,
    source: tuple[str, ...],
    metadata: tuple[Path, ...],
    threads: int | None,
    quiet: bool,
    **embedding: Any,
) -> None:
    """Replace sequences (SOURCE) or metadata of proteins that are in INDEX.

    Without SOURCE the proteins of the tables get new columns and no model runs. A column that
    nothing new is said about stays.

    \b
    Examples:
      rdsearch update indexes/mine corrected.fasta
      rdsearch update indexes/mine --metadata annotation-2026-11.tsv
    """
    from rdsearch import changes

    with working(threads, quiet) as progress:
        change = changes.update(
            index,
            _one(source) if source else None,
            metadata=metadata,
            progress=progress,
            **embedding,
        )
    missing = f", {change.skipped:,} were not there" if change.skipped else ""
    _say(change, quiet, f"{counted(change.added)} updated{missing}")


@click.command()
@click.argument("index", type=OUTPUT)
@PROGRESS
def compact(index: Path, threads: int | None, quiet: bool) -> None:
    """Write the segments of INDEX as one, without what was removed.

    Searches are fastest in one segment. The files before stay until rdsearch gc.

    \b
    Example:
      rdsearch compact indexes/mine
    """
    from rdsearch import merging
    from rdsearch.changes import Change

    with working(threads, quiet) as progress:
        manifest = merging.compact(index, progress=progress)
    _say(Change(index, manifest), quiet, "compacted")


@click.command()
@click.argument("first", type=OUTPUT)
@click.argument("second", type=OUTPUT)
@click.option("--overwrite", is_flag=True, help="Replace an index that is there.")
@click.option("-o", "--output", type=OUTPUT, required=True, help="The new index.")
@PROGRESS
def merge(
    first: Path,
    second: Path,
    overwrite: bool,
    output: Path,
    threads: int | None,
    quiet: bool,
) -> None:
    """Unite FIRST and SECOND, of one chain and one space, in a new index.

    To share a database out over several machines: build the second with --space-from FIRST.

    \b
    Example:
      rdsearch merge indexes/a indexes/b -o indexes/both
    """
    from rdsearch import merging
    from rdsearch.changes import Change

    with working(threads, quiet) as progress:
        manifest = merging.merge(first, second, output, overwrite=overwrite, progress=progress)
    _say(Change(output, manifest), quiet, "merged")


@click.command()
@click.argument("index", type=OUTPUT)
@click.option("--json", "as_json", is_flag=True, help="A list of JSON objects.")
def history(index: Path, as_json: bool) -> None:
    """List the generations of INDEX, the latest first.

    \b
    Example:
      rdsearch history indexes/mine
    """
    from rdsearch import generations

    lines = [asdict(one) for one in generations.history(index)]
    if as_json:
        click.echo(json.dumps(lines, indent=2))
        return
    for line in lines:
        current, complete = line.pop("current"), line.pop("complete")
        line["state"] = "current" if current else "kept" if complete else "files are gone"
    click.echo(tabulate(lines, headers="keys", disable_numparse=True))


@click.command()
@click.argument("index", type=OUTPUT)
@click.option("--to", type=int, required=True, metavar="N", help="The generation; see history.")
@click.option("--quiet", is_flag=True, help="No notes, only errors.")
def rollback(index: Path, to: int, quiet: bool) -> None:
    """Make an earlier generation's content that of INDEX again, as a new generation.

    \b
    Example:
      rdsearch rollback indexes/mine --to 3
    """
    from rdsearch import generations
    from rdsearch.changes import Change

    with working(None, quiet):
        manifest = generations.rollback(index, to)
    _say(Change(index, manifest), quiet, f"as generation {to} was")


@click.command()
@click.argument("index", type=OUTPUT)
@click.option(
    "--keep",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Latest generations to keep, the current one included.",
)
@click.option("--quiet", is_flag=True, help="No notes, only errors.")
def gc(index: Path, keep: int, quiet: bool) -> None:
    """Remove the files of INDEX that no kept generation needs.

    Generations that a running search has open stay.

    \b
    Example:
      rdsearch gc indexes/mine --keep 3
    """
    from rdsearch import generations

    with working(None, quiet):
        done = generations.gc(index, keep)
    removed = counted(len(done.removed), "generation")
    in_use = f"; in use and kept: {', '.join(map(str, done.in_use))}" if done.in_use else ""
    say(f"{index}: {removed} removed, {done.bytes:,} bytes freed{in_use}", quiet=quiet)


def _one(source: tuple[str, ...]) -> Any:
    """One source alone may be a store."""
    return source[0] if len(source) == 1 else source


COMMANDS = (add, remove, update, compact, merge, history, rollback, gc)
