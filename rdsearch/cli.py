"""The command line: each command parses, calls and prints.

Results go to standard output, everything else to standard error. Exit codes: 0 done, 1 a named
error, 2 usage, 130 interrupted.
"""

from __future__ import annotations

import contextlib
import json
import logging
import sys
from collections.abc import Callable, Iterator
from functools import reduce
from pathlib import Path
from typing import Any

import click
from tabulate import tabulate

from rdsearch import __version__, family
from rdsearch.errors import RdsearchError
from rdsearch.progress import TerminalProgress

__all__ = ["main"]

_EXISTING = click.Path(exists=True, path_type=Path)
_FASTA = click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=str)
_OUTPUT = click.Path(path_type=Path)


def _options(*decorators: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Several click options as one decorator."""
    return lambda command: reduce(lambda done, add: add(done), reversed(decorators), command)


_EMBEDDING = _options(
    click.option(
        "--weights",
        type=_EXISTING,
        help="Folder with the family's checkpoints. [default: torch hub's cache, else a download]",
    ),
    click.option("--device", default="auto", show_default=True, help="cpu, cuda, or auto."),
    click.option("--threads", type=click.IntRange(1), help="CPU threads. [default: all]"),
    click.option("--quiet", is_flag=True, help="No progress."),
)


class _Commands(click.Group):
    """Named errors end with their message and exit code 1, wherever they come from."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise  # the reader of a pipe has enough: click ends quietly
        except (RdsearchError, OSError) as error:
            click.echo(f"rdsearch: error: {error}", err=True)
            ctx.exit(1)
        except KeyboardInterrupt:
            click.echo("rdsearch: interrupted", err=True)
            ctx.exit(130)


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="rdsearch")
def main() -> None:
    """Find homologous proteins with nested protein language model embeddings.

    \b
    A first search, offline:
      rdsearch fit    sample.fasta.gz   --family mini -o chain.safetensors
      rdsearch build  proteins.fasta.gz --chain chain.safetensors -o indexes/mine
      rdsearch search indexes/mine query.fasta
    """
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("rdsearch: %(levelname)s: %(message)s"))
    logger = logging.getLogger("rdsearch")
    logger.handlers = [handler]
    logger.setLevel(logging.INFO)


@contextlib.contextmanager
def _working(threads: int | None, quiet: bool) -> Iterator[TerminalProgress]:
    """Progress on standard error and the wanted number of threads."""
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


def _say(text: str) -> None:
    click.echo(text, err=True)


def _names(_: click.Context, __: click.Parameter, value: str | None) -> list[str] | None:
    return None if value is None else [name.strip() for name in value.split(",") if name.strip()]


def _shortlists(
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


@main.command()
@click.argument("sample", type=_FASTA, nargs=-1, required=True)
@click.option(
    "--family",
    "family_name",
    type=click.Choice(list(family.FAMILIES)),
    default="esm2",
    show_default=True,
    help="mini comes with rdsearch, for demonstration; it is weak as a homology model.",
)
@click.option(
    "--members", callback=_names, help="Members to chain, for example 8M,650M. [default: all]"
)
@click.option("-o", "--output", type=_OUTPUT, required=True, help="Chain file to write.")
@_EMBEDDING
def fit(
    sample: tuple[str, ...],
    family_name: str,
    members: list[str] | None,
    output: Path,
    weights: Path | None,
    device: str,
    threads: int | None,
    quiet: bool,
) -> None:
    """Fit a chain on a SAMPLE of proteins (FASTA; about 1,000 diverse ones).

    \b
    Example:
      rdsearch fit swissprot50-1000.fasta.gz --members 8M,35M,150M,650M -o chain.safetensors
    """
    from rdsearch import api

    with _working(threads, quiet) as progress:
        chain = api.fit(
            sample, family_name, members, progress=progress, weights=weights, device=device
        )
        output.parent.mkdir(parents=True, exist_ok=True)
        chain.save(output)
    lines = [
        (
            tier,
            chain.dim(tier),
            "" if step is None else step.n_components_,
            "" if step is None else f"{step.r2_:.4f}",
        )
        for tier, step in zip(chain.tiers, (None, *chain.steps), strict=True)
    ]
    _say(tabulate(lines, headers=("tier", "dims", "components kept", "R²")))
    _say(
        f"{output}: chain {chain.hash[:12]} fitted on {chain.n_residues:,} residues "
        f"in {progress.seconds:.1f} s"
    )


@main.command()
@click.argument("proteins", type=_FASTA, nargs=-1, required=True)
@click.option("--chain", type=_EXISTING, required=True, help="Chain file from rdsearch fit.")
@click.option("-o", "--output", type=_OUTPUT, required=True, help="Store folder.")
@click.option("--keep-members", is_flag=True, help="Keep the members' own vectors too.")
@_EMBEDDING
def embed(
    proteins: tuple[str, ...],
    chain: Path,
    output: Path,
    keep_members: bool,
    weights: Path | None,
    device: str,
    threads: int | None,
    quiet: bool,
) -> None:
    """Embed PROTEINS (FASTA) into a store folder; run again, it goes on where it stopped.

    \b
    Example:
      rdsearch embed proteins.fasta.gz --chain chain.safetensors -o vectors/
    """
    from rdsearch import api

    with _working(threads, quiet) as progress:
        store = api.embed_proteins(
            proteins,
            chain,
            output,
            keep_members=keep_members,
            progress=progress,
            weights=weights,
            device=device,
        )
    _say(
        f"{output}: {store.n_rows:,} sequences, {progress.residues:,} residues embedded "
        f"in {progress.seconds:.1f} s"
    )


@main.command()
@click.argument("source", type=click.Path(exists=True, allow_dash=True), nargs=-1, required=True)
@click.option("--chain", type=_EXISTING, required=True, help="Chain file from rdsearch fit.")
@click.option(
    "--metadata",
    type=_EXISTING,
    multiple=True,
    help="TSV, CSV, Parquet or JSON lines with an accession column; can be given again.",
)
@click.option(
    "--recipe", default="balanced", show_default=True, help="exact, balanced, or a .toml file."
)
@click.option("--overwrite", is_flag=True, help="Replace an index that is there.")
@click.option("-o", "--output", type=_OUTPUT, required=True, help="Index folder.")
@_EMBEDDING
def build(
    source: tuple[str, ...],
    chain: Path,
    metadata: tuple[Path, ...],
    recipe: str,
    overwrite: bool,
    output: Path,
    weights: Path | None,
    device: str,
    threads: int | None,
    quiet: bool,
) -> None:
    """Build an index from SOURCE: FASTA files, or a store from rdsearch embed.

    \b
    Example:
      rdsearch build proteins.fasta.gz --chain chain.safetensors --metadata more.tsv -o indexes/mine
    """
    from rdsearch import api

    with _working(threads, quiet) as progress:
        report = api.build(
            source[0] if len(source) == 1 else source,
            chain,
            output,
            metadata=metadata,
            recipe=recipe,
            overwrite=overwrite,
            progress=progress,
            weights=weights,
            device=device,
        )
    for joined in report.metadata:
        _say(str(joined))
    accessions = sum(segment.accessions for segment in report.manifest.segments)
    _say(
        f"{output}: {report.manifest.rows:,} sequences, {accessions:,} accessions, "
        f"{len(report.manifest.tiers)} tiers in {progress.seconds:.1f} s"
    )


@main.command()
@click.argument("index", type=_OUTPUT)
@click.argument("query", type=_FASTA)
@click.option("-k", type=click.IntRange(1), default=10, show_default=True, help="Hits a query.")
@click.option("--to-tier", metavar="TIER", help="Stop here: wider members are never loaded.")
@click.option(
    "--shortlist",
    "shortlists",
    callback=_shortlists,
    metavar="N|TIER:N,…",
    help="Rows passed on, for every tier before the last or for the tiers named.",
)
@click.option(
    "--format",
    "format_",
    type=click.Choice(["table", "tsv", "jsonl"]),
    default="table",
    show_default=True,
    help="table to read; tsv and jsonl with every column.",
)
@_EMBEDDING
def search(
    index: Path,
    query: str,
    k: int,
    to_tier: str | None,
    shortlists: dict[str, int] | int | None,
    format_: str,
    weights: Path | None,
    device: str,
    threads: int | None,
    quiet: bool,
) -> None:
    """Search INDEX for homologs of the proteins in QUERY (FASTA; - reads standard input).

    \b
    Examples:
      rdsearch search indexes/mine query.fasta -k 20 --format tsv > hits.tsv
      rdsearch search indexes/mine - --to-tier 150M --shortlist 8M:2000 < query.fasta
    """
    import rdsearch
    from rdsearch import hits

    with (
        _working(threads, quiet) as progress,
        rdsearch.open(index, weights=weights, device=device) as opened,
    ):
        found = opened.search(query, k, to_tier=to_tier, shortlists=shortlists, progress=progress)
        columns = opened.hit_columns(opened.plan(to_tier, shortlists))
        hits.write(found, sys.stdout, format_, columns)


@main.command()
@click.argument("index", type=_OUTPUT)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def info(index: Path, as_json: bool) -> None:
    """Say what INDEX is: size, chain, tiers, funnel, columns.

    \b
    Example:
      rdsearch info indexes/mine
    """
    import rdsearch

    with rdsearch.open(index) as opened:
        facts = opened.info()
    if as_json:
        click.echo(json.dumps(facts, indent=2))
        return
    tiers, columns = facts.pop("tiers"), facts.pop("columns")
    embedding = facts.pop("embedding")
    facts["embedding"] = ", ".join(f"{name} {value}" for name, value in embedding.items())
    facts["columns"] = ", ".join(columns)
    click.echo(tabulate(facts.items(), tablefmt="plain", disable_numparse=True))
    click.echo()
    click.echo(tabulate(tiers, headers="keys"))


@main.command()
@click.argument("index", type=_OUTPUT)
def verify(index: Path) -> None:
    """Read every byte of INDEX and compare it with the manifest.

    \b
    Example:
      rdsearch verify indexes/mine
    """
    from rdsearch.verification import checks

    wrong = 0
    for check in checks(index):
        click.echo(f"{'ok' if check.error is None else 'WRONG':5}  {check.path}")
        if check.error is not None:
            wrong += 1
            _say(f"rdsearch: error: {check.error}")
    if wrong:
        click.get_current_context().exit(1)
