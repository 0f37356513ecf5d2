"""The commands that transfer annotation, and that measure how well."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click
from tabulate import tabulate

from rdsearch.cli_options import (
    EMBEDDING,
    EVALUE,
    FDR,
    JSON,
    OUTPUT,
    PROGRESS,
    QUERY,
    TO_TIER,
    WHERE,
    K,
    index_facts,
    names,
    report,
    say,
    together,
    working,
)

if TYPE_CHECKING:
    from rdsearch.annotation import Label, QueryLabels
    from rdsearch.annotation_quality import Quality

__all__ = ["COLUMNS", "annotate", "evaluate_annotation"]

#: Columns of ``--format tsv``.
COLUMNS = (
    "query",
    "column",
    "label",
    "confidence",
    "support",
    "of",
    "best_evalue",
    "best_score",
    "hits",
)

# Supporting hits that the table names.
_NAMED = 3
# A label longer than this is shortened in the table, and only there.
_TABLE_TEXT = 50

_COLUMN = click.option(
    "--column",
    "columns",
    callback=names,
    required=True,
    metavar="NAME,…",
    help="Columns of the index that hold labels.",
)

_HITS = together(K, EVALUE, FDR, WHERE, TO_TIER)

_LEARNING = together(
    click.option(
        "--sample",
        type=click.IntRange(1),
        default=1000,
        show_default=True,
        help="Proteins of the index that confidences are learnt from.",
    ),
    click.option(
        "--seed", type=click.IntRange(0), default=0, show_default=True, help="Of their draw."
    ),
)


@click.command()
@click.argument("index", type=OUTPUT)
@click.argument("queries", type=QUERY)
@_COLUMN
@_HITS
@click.option(
    "--exclude-self",
    is_flag=True,
    help="Leave the query out of its own hits; else one that is in INDEX is its own witness.",
)
@click.option(
    "--min-confidence",
    type=click.FloatRange(0, 1, max_open=True),
    default=0.0,
    show_default=True,
    help="Leave out labels that are less sure.",
)
@_LEARNING
@click.option(
    "--format",
    "format_",
    type=click.Choice(["table", "tsv", "jsonl"]),
    default="table",
    show_default=True,
    help="table to read; the others for programs.",
)
@EMBEDDING
@PROGRESS
def annotate(
    index: Path,
    queries: str,
    columns: list[str],
    k: int | None,
    evalue: float | None,
    fdr: float | None,
    where: str | None,
    to_tier: str | None,
    exclude_self: bool,
    min_confidence: float,
    sample: int,
    seed: int,
    format_: str,
    threads: int | None,
    quiet: bool,
    **embedding: Any,
) -> None:
    """Give QUERIES the labels of their hits in INDEX, each with a confidence and what supports it.

    QUERIES is FASTA, a store of embedded proteins, or - for standard input. Several labels in one
    value are taken apart at ; and |, and identifiers (GO:0005524, 2.7.11.1) at commas and blanks.

    The confidence is the probability that the query has the label. It is learnt from proteins of
    INDEX that have labels, each left out of its own hits, and is a lower bound where annotation
    is incomplete; rdsearch evaluate annotation shows how far it can be relied on.

    \b
    Examples:
      rdsearch annotate indexes/mine query.fasta --column go,ec --evalue 1e-3
      rdsearch annotate indexes/mine query.fasta --column go --min-confidence 0.5 --format tsv
    """
    import rdsearch
    from rdsearch.annotation import Annotator

    with working(threads, quiet) as progress, rdsearch.open(index, **embedding) as opened:
        annotator = Annotator(
            opened, columns, k=k, evalue=evalue, fdr=fdr, where=where, to_tier=to_tier
        )
        annotator.calibrate(sample, seed, progress)
        found = annotator.annotate(
            queries,
            exclude_self=exclude_self,
            minimum_confidence=min_confidence,
            progress=progress,
        )
        {"table": _table, "tsv": _tsv, "jsonl": _jsonl}[format_](found, sys.stdout)
        for note in annotator.notes:
            say(note, quiet=quiet)


def _values(query: str, one: Label) -> dict[str, Any]:
    """What a line of TSV and JSON says of a label, in the order of `COLUMNS`."""
    from rdsearch.tables import evalue_text

    best = one.hits[0]
    sure = None if one.confidence is None else float(f"{one.confidence:.4g}")
    return {
        "query": query,
        "column": one.column,
        "label": one.label,
        "confidence": sure,
        "support": len(one.hits),
        "of": one.annotated,
        "best_evalue": None if best.evalue is None else float(evalue_text(best.evalue)),
        "best_score": round(best.score, 6),
        "hits": [hit.accession for hit in one.hits],
    }


def _tsv(results: Iterable[QueryLabels], out: IO[str]) -> None:
    """A header line, then a line a label."""
    from rdsearch.tables import evalue_text, flat, readable

    writer = csv.writer(out, delimiter="\t", lineterminator="\n")
    writer.writerow(COLUMNS)
    for query, _, labels in results:
        for one in labels:
            line = _values(query.id, one)
            if line["best_evalue"] is not None:
                line["best_evalue"] = evalue_text(line["best_evalue"])
            writer.writerow([flat(readable(name, value)) for name, value in line.items()])


def _jsonl(results: Iterable[QueryLabels], out: IO[str]) -> None:
    """A JSON object a label; the e-values and scores of its hits too."""
    from rdsearch.tables import evalue_text

    for query, _, labels in results:
        for one in labels:
            line = _values(query.id, one) | {
                "hit_evalues": [
                    None if hit.evalue is None else float(evalue_text(hit.evalue))
                    for hit in one.hits
                ],
                "hit_scores": [round(hit.score, 6) for hit in one.hits],
            }
            out.write(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n")


def _table(results: Iterable[QueryLabels], out: IO[str]) -> None:
    """A table for each query, for reading."""
    from rdsearch.tables import flat

    for query, n_hits, labels in results:
        out.write(flat(f"{query.id}: {query.protein_name or query.description}") + "\n")
        if labels:
            headers = ("column", "label", "confidence", "support", "e-value", "score", "hits")
            out.write(
                tabulate(
                    [_table_line(one) for one in labels],
                    headers,
                    "simple",
                    colalign=("left", "left", "right", "right", "right", "right", "left"),
                    disable_numparse=True,
                )
            )
        else:
            out.write("no hits" if not n_hits else f"no labels from {n_hits} hits")
        out.write("\n\n")


def _table_line(one: Label) -> Sequence[str]:
    from rdsearch.tables import evalue_text, flat, short

    best = one.hits[0]
    accessions = ", ".join(flat(hit.accession) for hit in one.hits[:_NAMED])
    return (
        flat(one.column),
        short(one.label, _TABLE_TEXT),
        "" if one.confidence is None else f"{one.confidence:.3f}",
        f"{len(one.hits)} of {one.annotated}",
        "" if best.evalue is None else evalue_text(best.evalue),
        f"{best.score:.3f}",
        accessions + (", …" if len(one.hits) > _NAMED else ""),
    )


@click.command("annotation")
@click.argument("index", type=OUTPUT)
@_COLUMN
@_HITS
@_LEARNING
@JSON
@PROGRESS
def evaluate_annotation(
    index: Path,
    columns: list[str],
    k: int | None,
    evalue: float | None,
    fdr: float | None,
    where: str | None,
    to_tier: str | None,
    sample: int,
    seed: int,
    as_json: str | None,
    threads: int | None,
    quiet: bool,
) -> None:
    """How good the labels are that rdsearch annotate transfers from INDEX.

    Proteins with labels are drawn from INDEX and annotated, each left out of its own hits; the
    confidences of one half are learnt from the other. A label that nobody wrote down counts as
    wrong, so that precision is a lower bound. The last table compares confidences, by their size,
    with the share of right labels.

    \b
    coverage   share of proteins that get a label with this confidence or more
    recall     share of its labels that a protein gets, averaged over all proteins
    precision  share of right ones among the labels that a protein gets, averaged over those
               that get any
    F, Fmax    harmonic mean of precision and recall, and its maximum over all confidences
    naive      Fmax where every protein gets the most frequent labels, by their frequency

    Confidence 0 takes every label of every hit: the recall that these hits can give.

    \b
    Example:
      rdsearch evaluate annotation indexes/mine --column go,ec --evalue 1e-3 --json quality.json
    """
    import rdsearch
    from rdsearch.annotation import Annotator
    from rdsearch.annotation_quality import measure

    with working(threads, quiet) as progress, rdsearch.open(index) as opened:
        annotator = Annotator(
            opened, columns, k=k, evalue=evalue, fdr=fdr, where=where, to_tier=to_tier
        )
        measured = [
            measure(annotator.trials(column, sample, seed, progress), column, seed)
            for column in annotator.columns
        ]
        facts = {
            **index_facts(opened),
            "k": k,
            "evalue": evalue,
            "fdr": fdr,
            "where": where,
            "to_tier": to_tier,
            "sample": sample,
            "seed": seed,
            "notes": annotator.notes,
            "results": [one.as_dict() for one in measured],
        }
    report("\n\n".join(_quality(one) for one in measured), facts, as_json)
    for note in annotator.notes:
        say(note, quiet=quiet)


def _quality(one: Quality) -> str:
    """The tables of a column."""
    headline = (
        f"{one.column}: {one.trials:,} proteins with {one.labels:,} labels; their hits carry "
        f"{one.pairs:,}, {one.right:,} of them right"
    )
    operating = tabulate(
        [(f"{at.threshold:g}", at.coverage, at.recall, at.precision, at.f) for at in one.operating],
        headers=("confidence", "coverage", "recall", "precision", "F"),
        floatfmt=".3f",
        missingval="-",
        disable_numparse=[0],
        colalign=("right",) * 5,
    )
    fmax = (
        f"Fmax {one.best.f:.3f} at confidence {one.best.threshold:g}; naive {one.naive_best.f:.3f}"
    )
    held = tabulate(
        [
            (f"{at.low:g} to {at.high:g}", f"{at.pairs:,}", at.expected, at.observed)
            for at in one.reliability
        ],
        headers=("confidence", "labels", "mean", "right"),
        floatfmt=".3f",
        missingval="-",
        disable_numparse=[0, 1],
        colalign=("left", "right", "right", "right"),
    )
    return f"{headline}\n\n{operating}\n\n{fmax}\n\n{held}"
