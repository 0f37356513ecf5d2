"""The rerank command."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from rdsearch.cli_options import (
    EMBEDDING,
    FASTA,
    OUTPUT,
    PROGRESS,
    QUERY,
    RESULTS,
    check_columns,
    format_option,
    say,
    working,
)

__all__ = ["rerank"]


@click.command()
@click.argument("index", type=OUTPUT)
@click.argument("query", type=QUERY)
@click.argument("candidates", type=FASTA)
@click.option("-k", type=click.IntRange(1), help="Hits a query. [default: every candidate]")
@click.option("--tier", metavar="TIER", help="Score here. [default: the last of the funnel]")
@click.option(
    "--sequences",
    type=FASTA,
    help="FASTA with candidates that INDEX lacks; they are embedded.",
)
@click.option(
    "--candidates-format",
    "kind",
    type=click.Choice(["list", "tsv", "blast"]),
    help="blast: query and target are the first two columns. [default: by the first line]",
)
@format_option("html", "fasta", "m8", "a3m")
@RESULTS
@EMBEDDING
@PROGRESS
def rerank(
    index: Path,
    query: str,
    candidates: str,
    k: int | None,
    tier: str | None,
    sequences: str | None,
    kind: str | None,
    format_: str,
    output: str,
    chosen: list[str] | None,
    threads: int | None,
    quiet: bool,
    **embedding: Any,
) -> None:
    """Score the CANDIDATES that another tool found for the proteins in QUERY.

    CANDIDATES is a list of accessions (for every query), a TSV with a header line and the columns
    query and target, or tabular output of BLAST, MMseqs2 or DIAMOND. QUERY is FASTA, or a store.
    One of the files can be -, standard input.

    \b
    Examples:
      rdsearch rerank indexes/mine query.fasta hits.m8 --format tsv > reranked.tsv
      rdsearch rerank indexes/mine query.fasta names.txt --tier 150M --sequences more.fasta
    """
    if [query, candidates, sequences].count("-") > 1:
        raise click.UsageError("only one of QUERY, CANDIDATES and --sequences can be -")
    check_columns(chosen, format_)
    import rdsearch
    from rdsearch import outputs
    from rdsearch import rerank as reranking

    with (
        working(threads, quiet) as progress,
        rdsearch.open(index, **embedding) as opened,
    ):
        scored_at = tier or opened.default_funnel.tiers[-1]
        columns = reranking.columns(opened, scored_at)
        columns = columns if chosen is None else outputs.chosen(columns, chosen)
        results, report = reranking.rerank(
            opened,
            query,
            candidates,
            scored_at,
            sequences=sequences,
            k=k,
            kind=kind,
            progress=progress,
        )
        outputs.write(results, output, format_, columns, types=opened.columns)
    say(str(report), quiet=quiet)
