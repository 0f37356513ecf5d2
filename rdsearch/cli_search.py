"""The search command."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from tabulate import tabulate

from rdsearch.cli_options import (
    EMBEDDING,
    EVALUE,
    FASTA,
    FDR,
    OUTPUT,
    PROGRESS,
    QUERY,
    RESULTS,
    TO_TIER,
    WHERE,
    K,
    check_columns,
    format_option,
    say,
    shortlists,
    together,
    working,
)
from rdsearch.formats import FORMATS

if TYPE_CHECKING:
    from rdsearch.details import Details
    from rdsearch.fasta import Record
    from rdsearch.funnel import Funnel
    from rdsearch.searcher import Step

__all__ = ["search"]

_PLAN = together(
    click.option("--from-tier", metavar="TIER", help="Begin here. [default: the index's funnel]"),
    TO_TIER,
    click.option(
        "--shortlist",
        callback=shortlists,
        metavar="N|TIER:N,…",
        help="Rows passed on, for every tier before the last or for the tiers named.",
    ),
    click.option(
        "--nprobe",
        type=click.IntRange(1),
        help="Cells of the first tier that are scanned, where it has cells.",
    ),
)

_FILTERS = together(
    WHERE,
    click.option("--ids", type=FASTA, help="Only the accessions in this file, one a line."),
    click.option("--taxon", type=int, help="Only proteins of this NCBI taxon."),
    click.option("--exclude-self", is_flag=True, help="Leave the query out of its own hits."),
)

_MEANING = together(
    EVALUE,
    click.option(
        "--dbsize",
        type=click.IntRange(1),
        help="Rows that e-values count with. [default: those that are searched]",
    ),
    click.option("--no-evalues", is_flag=True, help="Leave e-values out, which saves time."),
    FDR,
    click.option("--fnr", type=float, help="The same for a false negative rate."),
    click.option("--trace", is_flag=True, help="Score and rank of every hit at every tier."),
)

_ALIGNMENT = together(
    click.option("--align", is_flag=True, help="Align each hit with its query."),
    click.option(
        "--rerank",
        type=click.Choice(["align"]),
        help="Align the best 100 hits, or -k, and order them by their alignments.",
    ),
    click.option("--matrix", help="Substitution matrix of the alignment. [default: BLOSUM62]"),
    click.option(
        "--gap-open", type=int, help="Cost of a gap besides its residues. [default: the matrix's]"
    ),
    click.option(
        "--gap-extend", type=int, help="Cost of each residue in a gap. [default: the matrix's]"
    ),
)


@click.command()
@click.argument("index", type=OUTPUT)
@click.argument("query", type=QUERY, required=False, metavar="QUERY")
@K
@_PLAN
@_FILTERS
@_MEANING
@_ALIGNMENT
@click.option("--in-memory", is_flag=True, help="Read the tiers into memory before searching.")
@click.option(
    "--explain",
    is_flag=True,
    help="Print on standard error what each tier did: rows, bytes, time.",
)
@format_option()
@click.option(
    "--url",
    metavar="URL",
    help="Ask an rdsearch server; INDEX is then the name of one of its indexes, and may be left "
    "out. Its key is read from RDSEARCH_API_KEY: everyone on this machine can read a command line.",
)
@RESULTS
@EMBEDDING
@PROGRESS
def search(
    index: Path,
    query: str | None,
    k: int | None,
    from_tier: str | None,
    to_tier: str | None,
    shortlist: dict[str, int] | int | None,
    nprobe: int | None,
    where: str | None,
    ids: str | None,
    taxon: int | None,
    exclude_self: bool,
    evalue: float | None,
    dbsize: int | None,
    no_evalues: bool,
    fdr: float | None,
    fnr: float | None,
    trace: bool,
    align: bool,
    rerank: str | None,
    matrix: str | None,
    gap_open: int | None,
    gap_extend: int | None,
    in_memory: bool,
    explain: bool,
    format_: str,
    url: str | None,
    output: str,
    chosen: list[str] | None,
    threads: int | None,
    quiet: bool,
    **embedding: Any,
) -> None:
    """Search INDEX for homologs of the proteins in QUERY.

    QUERY is FASTA (- reads standard input), or a store of rdsearch embed made with the index's
    chain. An e-value counts unrelated proteins of the index that score as high by chance. The
    alignment has an e-value of its own, in the column alignment_evalue.

    \b
    Examples:
      rdsearch search indexes/mine query.fasta -k 20 --format tsv > hits.tsv
      rdsearch search indexes/mine query.fasta --evalue 1e-3 --align --format html -o report.html
      rdsearch search indexes/mine - --to-tier 150M --shortlist 8M:2000 < query.fasta
      rdsearch search indexes/mine query.fasta --where "length < 400 AND organism LIKE 'Homo%'"
      rdsearch search --url http://127.0.0.1:8000 mine query.fasta --format tsv > hits.tsv
    """
    check_columns(chosen, format_)
    needs = FORMATS[format_]
    align = align or rerank is not None or needs.needs_alignment
    given = (matrix, gap_open, gap_extend)
    if not align and any(one is not None for one in given):
        raise click.UsageError("--matrix, --gap-open and --gap-extend need --align")
    if url is not None:
        from rdsearch import cli_remote

        cli_remote.search_from(click.get_current_context(), align=align)
        return
    if query is None:
        raise click.UsageError("Missing argument 'QUERY'.")
    import rdsearch
    from rdsearch import aligner, filters, outputs
    from rdsearch import details as detailed
    from rdsearch.finding import full_note, noting_full

    details = detailed.wanted(
        evalues=not no_evalues,
        evalue=evalue,
        dbsize=dbsize,
        fdr=fdr,
        fnr=fnr,
        trace=trace or format_ == "html",
        align=aligner.chosen(*given, threads or 1) if align or format_ == "html" else False,
        realign=rerank is not None,
        sequences=needs.needs_sequences,
    )
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
        columns = opened.hit_columns(funnel, details)
        if chosen is not None:
            columns = outputs.chosen(columns, chosen)
        found = opened.search(
            query,
            k,
            **plan,
            where=where,
            ids=None if ids is None else filters.read_ids(ids),
            taxon=taxon,
            exclude_self=exclude_self,
            details=details,
            explain=_explain if explain else None,
            progress=progress,
        )
        limit = details.hits(k, opened.n_rows, funnel if shortlist else None)
        full: list[str] = []
        found = noting_full(found, details, limit, opened.n_rows, full)
        notes, run = details.notes(opened, funnel), None
        if format_ == "html":
            run = outputs.run_of(opened, funnel, details, _settings(details, funnel), notes)
        outputs.write(found, output, format_, columns, types=opened.columns, run=run)
        for note in notes:
            say(note, quiet=quiet)
        if full:
            say(full_note(full, limit), quiet=quiet)


def _settings(details: Details, funnel: Funnel) -> dict[str, str]:
    """What a report says of the command."""
    context = click.get_current_context()
    settings = {"funnel": str(funnel)}
    for name, value in context.params.items():
        source = context.get_parameter_source(name)
        if source is click.core.ParameterSource.COMMANDLINE and name not in ("output", "format_"):
            settings[name.replace("_", "-")] = str(value)
    return settings | details.settings


def _explain(query: Record, steps: list[Step]) -> None:
    """What each tier did for a query, on standard error."""
    lines = [
        (step.tier, f"{step.rows:,}", f"{step.bytes:,}", f"{1e3 * (step.seconds or 0):.3f}")
        for step in steps
    ]
    headers = ("tier", "rows scored", "bytes read", "ms")
    table = tabulate(lines, headers=headers, colalign=("left", "right", "right", "right"))
    say(f"{query.id}\n{table}\n")
