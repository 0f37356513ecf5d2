"""The search command."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from tabulate import tabulate

from rdsearch.cli_options import (
    EMBEDDING,
    FASTA,
    FORMAT,
    OUTPUT,
    PROGRESS,
    QUERY,
    say,
    shortlists,
    working,
)

if TYPE_CHECKING:
    from rdsearch.fasta import Record
    from rdsearch.searcher import Step

__all__ = ["search"]


@click.command()
@click.argument("index", type=OUTPUT)
@click.argument("query", type=QUERY)
@click.option("-k", type=click.IntRange(1), help="Hits a query. [default: 10]")
@click.option("--from-tier", metavar="TIER", help="Begin here. [default: the index's funnel]")
@click.option("--to-tier", metavar="TIER", help="Stop here: wider members are never loaded.")
@click.option(
    "--shortlist",
    callback=shortlists,
    metavar="N|TIER:N,…",
    help="Rows passed on, for every tier before the last or for the tiers named.",
)
@click.option(
    "--nprobe",
    type=click.IntRange(1),
    help="Cells of the first tier that are scanned, where it has cells.",
)
@click.option(
    "--where",
    metavar="EXPRESSION",
    help="Only proteins for which this SQL expression over the index's columns is true.",
)
@click.option(
    "--ids",
    type=FASTA,
    help="Only the accessions in this file, one a line.",
)
@click.option("--taxon", type=int, help="Only proteins of this NCBI taxon.")
@click.option("--exclude-self", is_flag=True, help="Leave the query out of its own hits.")
@click.option("--in-memory", is_flag=True, help="Read the tiers into memory before searching.")
@click.option(
    "--explain",
    is_flag=True,
    help="Print on standard error what each tier did: rows, bytes, time.",
)
@FORMAT
@EMBEDDING
@PROGRESS
def search(
    index: Path,
    query: str,
    k: int | None,
    from_tier: str | None,
    to_tier: str | None,
    shortlist: dict[str, int] | int | None,
    nprobe: int | None,
    where: str | None,
    ids: str | None,
    taxon: int | None,
    exclude_self: bool,
    in_memory: bool,
    explain: bool,
    format_: str,
    threads: int | None,
    quiet: bool,
    **embedding: Any,
) -> None:
    """Search INDEX for homologs of the proteins in QUERY.

    QUERY is FASTA (- reads standard input), or a store of rdsearch embed made with the index's
    chain.

    \b
    Examples:
      rdsearch search indexes/mine query.fasta -k 20 --format tsv > hits.tsv
      rdsearch search indexes/mine - --to-tier 150M --shortlist 8M:2000 < query.fasta
      rdsearch search indexes/mine query.fasta --where "length < 400 AND organism LIKE 'Homo%'"
    """
    import rdsearch
    from rdsearch import filters, hits

    with (
        working(threads, quiet) as progress,
        rdsearch.open(index, in_memory=in_memory, **embedding) as opened,
    ):
        plan: dict[str, Any] = {
            "from_tier": from_tier,
            "to_tier": to_tier,
            "shortlists": shortlist,
            "probes": nprobe,
        }
        funnel = opened.plan(**plan)
        found = opened.search(
            query,
            k,
            **plan,
            where=where,
            ids=None if ids is None else filters.read_ids(ids),
            taxon=taxon,
            exclude_self=exclude_self,
            explain=_explain if explain else None,
            progress=progress,
        )
        hits.write(found, sys.stdout, format_, opened.hit_columns(funnel))
        guarantee = opened.manifest.guarantee
        if guarantee is not None and funnel == opened.default_funnel:
            say(f"funnel {funnel}: {guarantee}", quiet=quiet)


def _explain(query: Record, steps: list[Step]) -> None:
    """What each tier did for a query, on standard error."""
    lines = [
        (step.tier, f"{step.rows:,}", f"{step.bytes:,}", f"{1e3 * (step.seconds or 0):.3f}")
        for step in steps
    ]
    headers = ("tier", "rows scored", "bytes read", "ms")
    table = tabulate(lines, headers=headers, colalign=("left", "right", "right", "right"))
    say(f"{query.id}\n{table}\n")
