"""The command that tunes the funnel of an index."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from tabulate import tabulate

from rdsearch.cli_options import EMBEDDING, FASTA, OUTPUT, PROGRESS, say, working

__all__ = ["tune"]


@click.command()
@click.argument("index", type=OUTPUT)
@click.option(
    "--recall", default=0.99, show_default=True, help="Least expected recall, between 0 and 1."
)
@click.option(
    "--confidence", default=0.95, show_default=True, help="How sure to be of it, between 0 and 1."
)
@click.option(
    "-k", default=10, show_default=True, help="Nearest proteins that the recall is about."
)
@click.option(
    "--queries",
    type=FASTA,
    metavar="FASTA",
    help="Queries like those to come. [default: a sample of the index]",
)
@click.option(
    "--sample",
    type=int,
    help="Rows of the index as queries, each left out of its own result. [default: 1000]",
)
@click.option("--to-tier", metavar="TIER", help="Where the search ends. [default: the last]")
@click.option("--seed", default=0, show_default=True, help="Of the draw.")
@click.option("--dry-run", is_flag=True, help="Print what would be stored; change nothing.")
@EMBEDDING
@PROGRESS
def tune(
    index: Path,
    recall: float,
    confidence: float,
    k: int,
    queries: str | None,
    sample: int | None,
    to_tier: str | None,
    seed: int,
    dry_run: bool,
    threads: int | None,
    quiet: bool,
    **embedding: Any,
) -> None:
    """Find the cheapest funnel of INDEX with a guaranteed recall and make it the default.

    Recall is measured against the exhaustive search at the last tier. The funnels are tested from
    the most expensive on, up to the first that fails.

    \b
    Examples:
      rdsearch tune indexes/mine --recall 0.99 --confidence 0.95
      rdsearch tune indexes/mine --queries like-mine.fasta --to-tier 650M --dry-run
    """
    import rdsearch
    from rdsearch import tuning

    if queries is not None and sample is not None:
        raise click.UsageError("--queries and --sample exclude each other")
    chosen = {} if sample is None else {"sample": sample}
    with working(threads, quiet) as progress, rdsearch.open(index, **embedding) as opened:
        found = tuning.tune(
            opened,
            recall=recall,
            confidence=confidence,
            k=k,
            queries=queries,
            to_tier=to_tier,
            seed=seed,
            progress=progress,
            **chosen,
        )
        lines = [
            (
                str(trial.candidate),
                f"{tuning.bytes_read(opened, trial.candidate):,}",
                f"{trial.recall:.4f}",
                f"{trial.p:.2g}",
                "yes" if trial.certified else "no",
            )
            for trial in found.trials
        ]
        if not dry_run:
            tuning.store(opened, found)
    headers = ("funnel", "bytes a query", f"recall@{k}", "p", "certified")
    click.echo(tabulate(lines, headers=headers, disable_numparse=True))
    click.echo()
    click.echo(f"{found.funnel}: {found.guarantee}")
    done = "nothing was stored" if dry_run else "now its default funnel"
    say(f"{index}: {done}, {progress.seconds:.1f} s", quiet=quiet)
