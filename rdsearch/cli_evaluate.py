"""The commands that measure an index: recall, sensitivity to homologs, e-values."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from tabulate import tabulate

from rdsearch.cli_annotate import evaluate_annotation
from rdsearch.cli_options import (
    EMBEDDING,
    EXISTING,
    FASTA,
    JSON,
    LABELS,
    OUTPUT,
    PROGRESS,
    index_facts,
    report,
    say,
    shortlists,
    working,
)

if TYPE_CHECKING:
    from rdsearch.evaluation import Candidate, FunnelRecall
    from rdsearch.homologs import Measured
    from rdsearch.index import Index

__all__ = ["evaluate"]


def _shortlists(
    context: click.Context, parameter: click.Parameter, values: tuple[str, ...]
) -> list[dict[str, int] | int]:
    found = (shortlists(context, parameter, value) for value in values)
    return [value for value in found if value is not None]


_PLOT = click.option(
    "--plot", type=OUTPUT, metavar="FILE", help="Draw a plot: .png or .svg (needs matplotlib)."
)

_FUNNELS = (
    click.option(
        "--funnel",
        "given",
        multiple=True,
        callback=_shortlists,
        metavar="N|TIER:N,…",
        help="Measure this funnel too, as --shortlist of rdsearch search; can be given again.",
    ),
    click.option(
        "--to-tier", metavar="TIER", help="Where the funnels given end. [default: the last]"
    ),
    JSON,
    _PLOT,
)


def _measuring(command: Any) -> Any:
    for option in reversed(_FUNNELS):
        command = option(command)
    return command


@click.group()
def evaluate() -> None:
    """Measure an index: recall, homologs, labels carried over, and whether e-values hold.

    \b
    Examples:
      rdsearch evaluate recall   indexes/mine queries.fasta
      rdsearch evaluate homologs indexes/scope scope.tsv.gz --plot sensitivity.png
      rdsearch evaluate calibration indexes/scope scope.tsv.gz --plot calibration.png
      rdsearch evaluate annotation indexes/mine --column go
    """


evaluate.add_command(evaluate_annotation)


@evaluate.command("recall")
@click.argument("index", type=OUTPUT)
@click.argument("queries", type=FASTA)
@click.option("-k", type=click.IntRange(1), default=10, show_default=True, help="Hits a query.")
@click.option(
    "--rounds",
    type=click.IntRange(1),
    default=3,
    show_default=True,
    help="Times each funnel is timed; the median is shown.",
)
@_measuring
@EMBEDDING
@PROGRESS
def evaluate_recall(
    index: Path,
    queries: str,
    k: int,
    rounds: int,
    given: list[dict[str, int] | int],
    to_tier: str | None,
    as_json: str | None,
    plot: Path | None,
    threads: int | None,
    quiet: bool,
    **embedding: Any,
) -> None:
    """Recall@k, time and bytes read of each tier and funnel of INDEX.

    Each tier alone, the index's funnel up to each tier, and funnels given, against exhaustive
    search at the last tier, for the proteins in QUERIES (FASTA; - reads standard input). Times
    are of the search, without embedding the queries.

    \b
    Example:
      rdsearch evaluate recall indexes/mine queries.fasta --funnel 8M:500,650M:50 --plot recall.png
    """
    import rdsearch
    from rdsearch import evaluation, fasta, plots

    if plot is not None:
        plots.check(plot)
    with working(threads, quiet) as progress, rdsearch.open(index, **embedding) as opened:
        candidates = _candidates(opened, given, to_tier)
        sequences = [record.sequence for record in fasta.read(queries, unique=False)]
        vectors = opened.embed(sequences, opened.tiers[-1], progress)
        measured = evaluation.measure(
            opened, vectors, candidates, k, rounds=rounds, progress=progress
        )
        facts = {
            **index_facts(opened),
            "queries": len(sequences),
            "k": k,
            "rounds": rounds,
            "results": [result.as_dict() for result in measured],
        }
    table = tabulate(
        [_recall_line(result) for result in measured],
        headers=(
            "search",
            f"recall@{k}",
            "rank agreement",
            "ms single",
            "ms batched",
            "KB a query",
        ),
        floatfmt=("", ".4f", ".3f", ".3f", ".3f", ",.1f"),
        missingval="-",
    )
    report(table, facts, as_json)
    if plot is not None:
        plots.recall_against_time(measured, plot, k)
        say(f"{plot}: recall against time", quiet=quiet)


def _recall_line(result: FunnelRecall) -> Sequence[Any]:
    return (
        _title(result.kind, result.name),
        result.recall,
        result.rank_agreement,
        result.single_seconds * 1e3,
        result.batch_seconds * 1e3,
        result.bytes_per_query / 1e3,
    )


@evaluate.command("homologs")
@click.argument("index", type=OUTPUT)
@click.argument("labels", type=EXISTING)
@LABELS
@_measuring
@PROGRESS
def evaluate_homologs(
    index: Path,
    labels: Path,
    id_column: str | None,
    label_column: str | None,
    given: list[dict[str, int] | int],
    to_tier: str | None,
    as_json: str | None,
    plot: Path | None,
    threads: int | None,
    quiet: bool,
) -> None:
    """Sensitivity of each tier and funnel of INDEX to homologs, by Foldseek's SCOPe protocol.

    LABELS is a tab-separated table, plain or compressed, with labels
    class.fold.superfamily.family of the proteins in INDEX, as SCOPe's sccs: a.1.1.1. All labelled
    proteins are searched for in all others.

    \b
    sensitivity  share of true positives before the first of another fold: mean over the
                 queries that have true positives of all three kinds; "any": of this kind
    hit@k, MAP   nearer relatives are left out of the ranking, everything farther is wrong

    \b
    Example:
      rdsearch evaluate homologs indexes/scope scope.tsv.gz --json scope.json --plot scope.png
    """
    import rdsearch
    from rdsearch import homologs, plots
    from rdsearch import labels as label_files

    if plot is not None:
        plots.check(plot)
    read = label_files.read(labels, id_column, label_column)
    with working(threads, quiet) as progress, rdsearch.open(index) as opened:
        candidates = _candidates(opened, given, to_tier)
        labelled = label_files.join(opened.catalog, read)
        measured = list(homologs.evaluate(opened, labelled, candidates, progress=progress))
        measured.append(homologs.floor(homologs.sequences_of(opened, labelled), labelled))
        facts = {
            **index_facts(opened),
            "labels": {
                "read": labelled.labels_read,
                "unmatched": labelled.labels_unmatched,
                "rows_labelled": len(labelled),
                "rows_unlabelled": labelled.rows_unlabelled,
                "rows_conflicting": labelled.rows_conflicting,
            },
            "results": [result.as_dict() for result in measured],
        }
    scores = measured[0].scores
    table = "\n".join(
        [
            f"{scores.queries:,} queries; {scores.queries_all:,} have true positives of all kinds",
            *(_level_table(level, measured) for level in label_files.LEVELS),
        ]
    )
    report(table, facts, as_json)
    if plot is not None:
        plots.sensitivity_by_tier(measured, plot)
        say(f"{plot}: sensitivity by tier", quiet=quiet)


@evaluate.command("calibration")
@click.argument("index", type=OUTPUT)
@click.argument("labels", type=EXISTING)
@LABELS
@click.option(
    "--tier", "tiers", multiple=True, metavar="TIER", help="Only this tier; can be given again."
)
@click.option(
    "--decoys",
    is_flag=True,
    help="Search for shuffled and for reversed sequences too; they are embedded.",
)
@click.option("--sample", type=click.IntRange(1), help="Draw so many queries. [default: all]")
@click.option("--seed", default=0, show_default=True, help="Of the draw and the shuffling.")
@JSON
@_PLOT
@EMBEDDING
@PROGRESS
def evaluate_calibration(
    index: Path,
    labels: Path,
    id_column: str | None,
    label_column: str | None,
    tiers: tuple[str, ...],
    decoys: bool,
    sample: int | None,
    seed: int,
    as_json: str | None,
    plot: Path | None,
    threads: int | None,
    quiet: bool,
    **embedding: Any,
) -> None:
    """Whether the e-values of INDEX hold: false positives observed against those expected.

    LABELS is a table as for evaluate homologs. A false positive is a protein of another fold. A
    ratio of 1 at an e-value of 0.1 says that a query has 0.1 false positives, on average, with
    this e-value or a lower one; above 1 there are more than the e-values say.

    \b
    Example:
      rdsearch evaluate calibration indexes/scope scope.tsv.gz --decoys --plot calibration.png
    """
    import rdsearch
    from rdsearch import labels as label_files
    from rdsearch import plots, reliability

    if plot is not None:
        plots.check(plot)
    read = label_files.read(labels, id_column, label_column)
    with working(threads, quiet) as progress, rdsearch.open(index, **embedding) as opened:
        labelled = label_files.join(opened.catalog, read)
        measured = list(
            reliability.measure(
                opened,
                labelled,
                tiers or None,
                tuple(reliability.DECOYS) if decoys else (),
                sample=sample,
                seed=seed,
                progress=progress,
            )
        )
        facts = {**index_facts(opened), "results": [result.as_dict() for result in measured]}
    lines = [(one.tier, one.kind, f"{one.queries:,}", *one.ratios) for one in measured]
    headers = ("tier", "queries", "n", *(f"E = {level:g}" for level in reliability.LEVELS))
    table = tabulate(lines, headers=headers, floatfmt=".2f", disable_numparse=[0, 1, 2])
    report(f"observed / expected false positives\n\n{table}", facts, as_json)
    if plot is not None:
        plots.false_positives_by_evalue(measured, plot)
        say(f"{plot}: false positives by e-value", quiet=quiet)


def _level_table(level: str, measured: Iterable[Measured]) -> str:
    lines = []
    for result in measured:
        found = getattr(result.scores, level)
        values = (found.sensitivity, found.sensitivity_any, found.hit1, found.hit10, found.map)
        lines.append((_title(result.kind, result.name), *values))
    headers = (level, "sensitivity", "any", "hit@1", "hit@10", "MAP")
    return "\n" + tabulate(lines, headers=headers, floatfmt=".4f", missingval="-")


def _candidates(
    index: Index, given: Iterable[dict[str, int] | int], to_tier: str | None
) -> list[Candidate]:
    from rdsearch.evaluation import candidates

    plan = partial(index.plan, to_tier=to_tier)
    return candidates(index, [plan(shortlists=value) for value in given])


def _title(kind: str, name: str) -> str:
    return f"{name} (given)" if kind == "given" else name
