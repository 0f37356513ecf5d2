"""The command line: each command parses, calls and prints.

Results go to standard output, everything else to standard error. Exit codes: 0 done, 1 a named
error, 2 usage, 130 interrupted.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import click
from tabulate import tabulate

from rdsearch import (
    __version__,
    cli_annotate,
    cli_calibrate,
    cli_change,
    cli_evaluate,
    cli_key,
    cli_rerank,
    cli_search,
    cli_serve,
    cli_tools,
    cli_tune,
)
from rdsearch.cli_options import (
    EMBEDDING,
    EXISTING,
    FASTA,
    OUTPUT,
    PROGRESS,
    WINDOWS,
    family_option,
    members_option,
    say,
    vectors_given,
    working,
)
from rdsearch.errors import RdsearchError
from rdsearch.guarantee import Guarantee

__all__ = ["main"]


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
            click.echo(
                "rdsearch: interrupted; embed and build go on from there when run again", err=True
            )
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


@main.command()
@click.argument("sample", type=FASTA, nargs=-1, required=True)
@family_option()
@members_option
@click.option(
    "--proteins", "count", type=click.IntRange(1), help="Use only the first so many. [default: all]"
)
@click.option("-o", "--output", type=OUTPUT, required=True, help="Chain file to write.")
@EMBEDDING
@PROGRESS
def fit(
    sample: tuple[str, ...],
    family_name: str,
    members: list[str] | None,
    count: int | None,
    output: Path,
    threads: int | None,
    quiet: bool,
    **embedding: Any,
) -> None:
    """Fit a chain on a SAMPLE of proteins (FASTA; about 1,000 diverse ones).

    \b
    Example:
      rdsearch fit swissprot50-1000.fasta.gz --members 8M,35M,150M,650M -o chain.safetensors
    """
    from rdsearch import api

    with working(threads, quiet) as progress:
        chain = api.fit(
            sample, family_name, members, proteins=count, progress=progress, **embedding
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
    say(tabulate(lines, headers=("tier", "dims", "components kept", "R²")), quiet=quiet)
    say(
        f"{output}: chain {chain.hash[:12]} fitted on {chain.n_residues:,} residues "
        f"in {progress.seconds:.1f} s",
        quiet=quiet,
    )


@main.command()
@click.argument("proteins", type=FASTA, nargs=-1, required=True)
@click.option(
    "--chain", type=EXISTING, help="Chain file. Without one the members' own vectors are kept."
)
@family_option()
@members_option
@click.option("-o", "--output", type=OUTPUT, required=True, help="Store folder, or HDF5 file.")
@click.option("--keep-members", is_flag=True, help="Keep the members' own vectors too.")
@click.option(
    "--block-rows",
    type=click.IntRange(1),
    default=1024,
    show_default=True,
    help="Sequences that are made durable together: what a kill costs at most.",
)
@click.option("--per-residue", is_flag=True, help="rd embeddings of every residue, into HDF5.")
@click.option("--tier", help="With --per-residue: cut the prefix here. [default: the last]")
@click.option(
    "--precision",
    type=click.Choice(["float16", "float32"]),
    default="float16",
    show_default=True,
    help="With --per-residue: number type in the file.",
)
@WINDOWS
@EMBEDDING
@PROGRESS
def embed(
    proteins: tuple[str, ...],
    chain: Path | None,
    family_name: str,
    members: list[str] | None,
    output: Path,
    keep_members: bool,
    block_rows: int,
    per_residue: bool,
    tier: str | None,
    precision: str,
    threads: int | None,
    quiet: bool,
    **embedding: Any,
) -> None:
    """Embed PROTEINS (FASTA) into a store folder; run again, it goes on where it stopped.

    \b
    Examples:
      rdsearch embed proteins.fasta.gz --chain chain.safetensors -o vectors/
      rdsearch embed proteins.fasta.gz --chain chain.safetensors --per-residue -o residues.h5
    """
    from rdsearch import api

    if per_residue and chain is None:
        raise click.UsageError("--per-residue needs --chain")
    if tier is not None and not per_residue:
        raise click.UsageError("--tier belongs to --per-residue; rdsearch export cuts a store")
    with working(threads, quiet) as progress:
        if per_residue and chain is not None:
            count = api.embed_residues(
                proteins,
                chain,
                output,
                tier=tier,
                precision=precision,
                progress=progress,
                **embedding,
            )
        else:
            count = api.embed_proteins(
                proteins,
                chain,
                output,
                family_name=family_name,
                members=members,
                keep_members=keep_members,
                block_rows=block_rows,
                progress=progress,
                **embedding,
            ).n_rows
    rate = progress.residues / progress.seconds
    say(
        f"{output}: {count:,} sequences; {progress.residues:,} residues embedded in "
        f"{progress.seconds:.1f} s ({rate:,.0f} a second, all members)",
        quiet=quiet,
    )


@main.command()
@click.argument("source", type=click.Path(exists=True, allow_dash=True), nargs=-1, required=True)
@click.option("--chain", type=EXISTING, required=True, help="Chain file from rdsearch fit.")
@click.option(
    "--metadata",
    type=EXISTING,
    multiple=True,
    help="TSV, CSV, Parquet or JSON lines with an accession column; can be given again.",
)
@click.option(
    "--vectors",
    multiple=True,
    metavar="FILE|MEMBER=FILE",
    help="Vectors of the proteins in SOURCE that are at hand: rd embeddings, or each member's.",
)
@click.option("--ids", type=EXISTING, help="Names for the rows of a .npy, one a line.")
@click.option(
    "--recipe",
    default="balanced",
    show_default=True,
    help="exact, balanced, compact, or a .toml file.",
)
@click.option(
    "--space",
    type=click.Choice(["auto", "centred", "standardised", "whitened"]),
    default="auto",
    show_default=True,
    help="What is done to vectors before a cosine is taken. auto: whitened; centred where there "
    "are fewer sequences than dimensions.",
)
@click.option(
    "--space-from",
    default="indexed",
    show_default=True,
    metavar="indexed|chain|INDEX",
    help="Where its mean and covariance come from. Indexes of one space can be merged.",
)
@click.option("--overwrite", is_flag=True, help="Replace an index that is there.")
@click.option("-o", "--output", type=OUTPUT, required=True, help="Index folder.")
@WINDOWS
@EMBEDDING
@PROGRESS
def build(
    source: tuple[str, ...],
    chain: Path,
    metadata: tuple[Path, ...],
    vectors: tuple[str, ...],
    ids: Path | None,
    recipe: str,
    space: str,
    space_from: str,
    overwrite: bool,
    output: Path,
    threads: int | None,
    quiet: bool,
    **embedding: Any,
) -> None:
    """Build an index from SOURCE: FASTA files, or a store from rdsearch embed.

    \b
    Examples:
      rdsearch build proteins.fasta.gz --chain chain.safetensors --metadata more.tsv -o indexes/mine
      rdsearch build proteins.fasta.gz --chain chain.safetensors --vectors rd.npy -o indexes/mine
    """
    from rdsearch import api

    with working(threads, quiet) as progress:
        report = api.build(
            source[0] if len(source) == 1 else source,
            chain,
            output,
            metadata=metadata,
            vectors=vectors_given(vectors),
            ids=ids,
            recipe=recipe,
            space=space,
            space_from=space_from,
            overwrite=overwrite,
            progress=progress,
            **embedding,
        )
    for joined in report.metadata:
        say(str(joined), quiet=quiet)
    accessions = report.manifest.accessions
    say(
        f"{output}: {report.manifest.rows:,} sequences, {accessions:,} accessions, "
        f"{len(report.manifest.tiers)} tiers in {progress.seconds:.1f} s",
        quiet=quiet,
    )


@main.command()
@click.argument("index", type=OUTPUT)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def info(index: Path, as_json: bool) -> None:
    """Say what INDEX is: size, chain, tiers, funnel, columns.

    \b
    Example:
      rdsearch info indexes/mine
    """
    import rdsearch

    with rdsearch.open(index) as opened:
        facts, calibration = opened.info(), opened.manifest.calibration
    if as_json:
        click.echo(json.dumps(facts, indent=2))
        return
    tiers, columns = facts.pop("tiers"), facts.pop("columns")
    segments = facts.pop("segments")
    embedding = facts.pop("embedding")
    facts["embedding"] = ", ".join(f"{name} {value}" for name, value in embedding.items())
    facts["columns"] = ", ".join(columns)
    if facts["guarantee"] is None:
        facts["guarantee"] = "none; rdsearch tune gives one"
    else:
        facts["guarantee"] = str(Guarantee(**facts["guarantee"]))
    if facts["calibration"] is None:
        facts["calibration"] = "none; rdsearch calibrate gives one"
    else:
        facts["calibration"] = str(calibration)
    click.echo(tabulate(facts.items(), tablefmt="plain", disable_numparse=True))
    click.echo()
    click.echo(tabulate(tiers, headers="keys"))
    if len(segments) > 1 or facts["rows"] < segments[0]["rows"]:
        click.echo()
        click.echo(tabulate(segments, headers="keys", disable_numparse=True))


@main.command()
@click.argument("index", type=OUTPUT)
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
            say(f"rdsearch: error: {check.error}")
    if wrong:
        click.get_current_context().exit(1)


for command in (
    cli_search.search,
    cli_serve.serve,
    cli_key.key,
    cli_rerank.rerank,
    cli_tune.tune,
    cli_calibrate.calibrate,
    cli_annotate.annotate,
    cli_evaluate.evaluate,
    *cli_change.COMMANDS,
    cli_tools.weights,
    cli_tools.chain,
    cli_tools.export,
):
    main.add_command(command)
