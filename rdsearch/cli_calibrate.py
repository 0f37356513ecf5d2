"""The command that calibrates the scores of an index."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from tabulate import tabulate

from rdsearch.calibration import CALIBRATED_LEVELS
from rdsearch.cli_options import EXISTING, LABELS, OUTPUT, PROGRESS, say, working

if TYPE_CHECKING:
    from rdsearch.calibration import Calibration, Cut
    from rdsearch.probability import Reliability
    from rdsearch.tiercalibration import LearntTier

__all__ = ["calibrate"]

# What has no meaning for a calibration that was learnt before.
_LEARNING = (
    "fdr",
    "confidence",
    "fnr",
    "level",
    "answered",
    "tiers",
    "seed",
    "id_column",
    "label_column",
)


@click.command()
@click.argument("index", type=OUTPUT)
@click.argument("labels", type=EXISTING, required=False)
@click.option(
    "--fdr",
    default=0.1,
    show_default=True,
    help="Largest expected share of unrelated hits, between 0 and 1.",
)
@click.option(
    "--confidence", default=0.9, show_default=True, help="How sure to be of it, between 0 and 1."
)
@click.option(
    "--fnr", type=float, help="Certify also a score that misses at most this share of relatives."
)
@click.option(
    "--level",
    type=click.Choice(CALIBRATED_LEVELS),
    default="superfamily",
    show_default=True,
    help="What counts as related; another fold counts as unrelated, and the rest neither way.",
)
@click.option(
    "--answered/--every-query",
    default=True,
    show_default=True,
    help="The share is that of queries that have hits, or every query counts, without hits as 0.",
)
@click.option(
    "--tier", "tiers", multiple=True, metavar="TIER", help="Can be given again. [default: all]"
)
@click.option("--seed", default=0, show_default=True, help="Of the split into halves.")
@LABELS
@click.option(
    "--save", type=OUTPUT, metavar="FILE", help="Write it for indexes of the same chain and space."
)
@click.option("--from", "given", type=EXISTING, metavar="FILE", help="Take what --save wrote.")
@click.option("--dry-run", is_flag=True, help="Print what would be stored; leave INDEX as it is.")
@PROGRESS
@click.pass_context
def calibrate(
    context: click.Context,
    index: Path,
    labels: Path | None,
    save: Path | None,
    given: Path | None,
    dry_run: bool,
    threads: int | None,
    quiet: bool,
    **options: Any,
) -> None:
    """Learn which scores of INDEX keep a false discovery rate, and what a score is worth.

    LABELS is a tab-separated table, plain or compressed, with labels
    class.fold.superfamily.family of proteins in INDEX, as SCOPe's sccs: a.1.1.1. Labelled
    proteins are searched for in all others, at each tier alone. One half of the folds calibrates,
    the other shows how that holds.

    \b
    Examples:
      rdsearch calibrate indexes/scope scope.tsv.gz --fdr 0.1 --confidence 0.9
      rdsearch calibrate indexes/scope scope.tsv.gz --save scope.json
      rdsearch calibrate indexes/mine --from scope.json
    """
    import rdsearch
    from rdsearch import calibrating, calibrationfile

    if (labels is None) == (given is None):
        raise click.UsageError("give LABELS, or --from with a calibration, and not both")
    if given is not None:
        for name in _LEARNING:
            if context.get_parameter_source(name) is not click.core.ParameterSource.DEFAULT:
                raise click.UsageError("--from takes a calibration as it is: leave out what learns")
    with working(threads, quiet) as progress, rdsearch.open(index) as opened:
        if labels is not None:
            learnt = calibrating.calibrate(opened, labels, progress=progress, **options)
            found, tiers = learnt.calibration, learnt.tiers
        elif given is not None:
            found, tiers = calibrationfile.load(given), ()
            calibrationfile.check_fits(found, opened.manifest, index)
        note = found.notes(opened.manifest)
        if not dry_run:
            calibrationfile.store(opened, found)
        if save is not None:
            calibrationfile.save(found, save)
    _print(found, tiers)
    if note is not None:
        say(f"rdsearch: {note}", quiet=quiet)
    done = "nothing was stored" if dry_run else "calibrated"
    say(f"{index}: {done}, {progress.seconds:.1f} s", quiet=quiet)


def _print(found: Calibration, learnt: Sequence[LearntTier]) -> None:
    lines = []
    for name, rate in (("fdr", found.fdr), ("fnr", found.fnr)):
        if rate is not None:
            lines += [
                (f"{name} {rate:g}", tier.tier, *_cut(tier.fdr if name == "fdr" else tier.fnr))
                for tier in found.tiers
            ]
    headers = ("rate", "tier", "score from", "FDP", "of queries with hits", "found", "hits a query")
    click.echo(tabulate(lines, headers=headers, disable_numparse=True))
    click.echo(
        f"\nFDP (share of unrelated hits, 0 for a query without hits), found (share of relatives) "
        f"and hits:\non {found.groups_held_out:,} folds held out; {found.groups:,} calibrated. In "
        "brackets the share of queries that have hits."
    )
    for one in learnt:
        for reason in one.reasons:
            click.echo(f"not certified: {reason}")
    for tier in found.tiers:
        if tier.fdr is not None and (tier.fdr.fdp_answered or 0) > 2 * found.fdr:
            click.echo(
                f"note: tier {tier.tier}: {tier.fdr.answered:.1%} of the queries have hits, and "
                f"{tier.fdr.fdp_answered:.1%} of their hits are unrelated; --answered bounds this"
            )
    if learnt:
        click.echo()
        click.echo(_reliability_table({one.calibration.tier: one.reliability for one in learnt}))
        for tier in found.tiers:
            skill = 1 - tier.brier / tier.brier_constant if tier.brier_constant else 0.0
            click.echo(f"tier {tier.tier}: Brier score {tier.brier:.6f}, skill {skill:.4f}")
    click.echo(f"\n{found}")


def _cut(cut: Cut | None) -> tuple[str, ...]:
    if cut is None:
        return ("none",) + ("-",) * 4
    alone = "-" if cut.fdp_answered is None else f"{cut.fdp_answered:.4f}"
    return (
        f"{cut.score:.4f}",
        f"{cut.fdp:.4f}",
        f"{alone} ({cut.answered:.1%})",
        f"{cut.found:.4f}",
        f"{cut.hits:.3f}",
    )


def _reliability_table(reliability: Mapping[str, Sequence[Reliability]]) -> str:
    """Expected and observed share of related pairs, and the pairs, by probability and tier."""
    lines = []
    for row in zip(*reliability.values(), strict=True):
        cells = (
            f"{one.expected:.4f} {one.observed:.4f} ({one.pairs:,})" if one.pairs else "-"
            for one in row
        )
        lines.append((f"{row[0].low:g}-{row[0].high:g}", *cells))
    headers = ("probability", *(f"{tier}: expected, observed (pairs)" for tier in reliability))
    return tabulate(lines, headers=headers, disable_numparse=True)
