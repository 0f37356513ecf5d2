"""Calibrate an index: what its scores mean, from proteins whose relations are known.

All labelled rows are searched for in all labelled rows, at each tier alone and exhaustively: the
scores are those of any funnel that ends at the tier. Folds are the groups: related proteins are
always of one group, and so are those that count neither way. Half of the groups, drawn with the
seed, calibrate. The other half gives the scores of the grid, without its labels, and then what is
reported: it takes no part in any choice.

The unrelated hits of a query are looked for in both halves. A search meets the whole index, and a
half of it would have half of the unrelated hits: the rate would be kept on paper alone. That an
unrelated pair with one end in each half counts for both is the price; no related pair does.

Rows without a label are left out, as if the index did not have them. Where labels are missing at
random that thins out related and unrelated hits alike, and the proportion stays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rdsearch import labels as label_files
from rdsearch import reliability
from rdsearch.calibration import Calibration
from rdsearch.errors import CalibrationError, InputError
from rdsearch.funnel import Funnel
from rdsearch.labels import LabelledRows
from rdsearch.layout import SPACE
from rdsearch.tiercalibration import (
    SCORES_AT_ONCE,
    Halves,
    LearntTier,
    Rankings,
    Wanted,
    halve,
    learn_tier,
)

if TYPE_CHECKING:
    from rdsearch.index import Index
    from rdsearch.progress import Progress

__all__ = ["Learnt", "calibrate"]


@dataclass(frozen=True, slots=True)
class Learnt:
    """What was found out.

    Attributes
    ----------
    calibration : Calibration
    tiers : tuple of LearntTier
        What stands behind it, in the order of its tiers.
    """

    calibration: Calibration
    tiers: tuple[LearntTier, ...]


def calibrate(
    index: Index,
    labels: str | Path,
    *,
    fdr: float = 0.1,
    confidence: float = 0.9,
    fnr: float | None = None,
    level: str = "superfamily",
    answered: bool = True,
    tiers: Sequence[str] | None = None,
    seed: int = 0,
    id_column: str | None = None,
    label_column: str | None = None,
    progress: Progress | None = None,
) -> Learnt:
    """Learn what the scores of an index mean. Nothing is written.

    Parameters
    ----------
    index : Index
    labels : str or Path
        Table that `rdsearch.labels.read` reads.
    fdr, confidence : float, optional
        See `Calibration`; 0.1 and 0.9 need 22 folds that calibrate at least.
    fnr : float, optional
        Certify a score that keeps this rate too.
    level : str, optional
        What counts as related.
    answered : bool, optional
        Bound the false discovery proportion of queries that have hits. Otherwise a query without
        hits counts, with a proportion of 0: a score so high that few queries have a hit keeps the
        rate even where most of these hits are unrelated.
    tiers : sequence of str, optional
        All of the index where not given.
    seed : int, optional
        Of the split.
    id_column, label_column : str, optional
        See `rdsearch.labels.read`.
    progress : Progress, optional
        Told of every block of queries.

    Returns
    -------
    Learnt

    Raises
    ------
    MetadataError
        The labels cannot be read, or match fewer than two rows.
    InputError
        A rate outside (0, 1), an unknown level or tier, a negative seed.
    CalibrationError
        There are too few folds (attributes ``needed``, ``found``) or no related pairs. A tier of
        which no score can be certified is calibrated without.
    """
    wanted = Wanted(fdr, fnr, confidence, level, answered)
    if seed < 0:
        raise InputError(f"the seed must be 0 or more; found {seed}")
    chosen = {index.entry(name).name for name in tiers or index.tiers}
    source = Path(labels).name
    labelled = label_files.join(index.catalog, label_files.read(labels, id_column, label_column))
    halves = halve(labelled, seed)
    _check_enough(labelled, halves, wanted, source)
    learnt = []
    for entry in index.manifest.tiers:
        if entry.name in chosen:
            told = None
            if progress is not None:
                told = progress.stage(f"tier {entry.name}", len(labelled))
            rank = _ranker(index, labelled, entry.name, told)
            learnt.append(learn_tier(entry.name, entry.codec, labelled, halves, rank, wanted))
    groups = halves.count(halves.first)
    counted = _false_positives(index, labelled, [one.calibration.tier for one in learnt], progress)
    learnt = [
        replace(one, calibration=replace(one.calibration, false_positives=counts))
        for one, counts in zip(learnt, counted, strict=True)
    ]
    manifest = index.manifest
    calibration = Calibration(
        chain_hash=manifest.chain_hash,
        space=manifest.space,
        space_sha256=manifest.file(SPACE).sha256,
        level=level,
        fdr=fdr,
        fnr=fnr,
        answered=answered,
        confidence=confidence,
        seed=seed,
        labels=source,
        groups=groups,
        groups_held_out=halves.count(~halves.first),
        rows=index.n_rows,
        rows_labelled=len(labelled),
        tiers=tuple(one.calibration for one in learnt),
    )
    return Learnt(calibration, tuple(learnt))


def _false_positives(
    index: Index, labelled: LabelledRows, tiers: Sequence[str], progress: Progress | None
) -> list[tuple[float, ...]]:
    """For each tier how its e-values hold; nothing where there are none."""
    if index.significance.reason is not None:
        return [()] * len(tiers)
    measured = reliability.measure(index, labelled, tiers, progress=progress)
    return [tuple(observed for _, observed in one.curve) for one in measured]


def _check_enough(labelled: LabelledRows, halves: Halves, wanted: Wanted, name: str) -> None:
    """Enough folds to certify, and related pairs in both halves."""
    found, needed = halves.count(halves.first), wanted.needed(wanted.fdr)
    if found < needed or halves.first.all():
        raise CalibrationError(
            f"{name}: a false discovery rate of {wanted.fdr:g} with confidence "
            f"{wanted.confidence:g} needs at least {needed:,} folds that calibrate, even if all of "
            f"their hits are right, and others to measure it on; found {found:,} and "
            f"{halves.count(~halves.first):,} in {len(labelled):,} labelled rows. Give more "
            "labels, a higher rate or a lower confidence",
            needed=needed,
            found=found,
        )
    relatives = labelled.relatives(wanted.level)
    for half, which in (("calibrate", halves.first), ("are held out", ~halves.first)):
        if not relatives[which].any():
            raise CalibrationError(
                f"{name}: no two of the {int(which.sum()):,} labelled rows that {half} are of one "
                f"{wanted.level}: what a related pair scores cannot be learnt. Give more labels "
                "or a farther --level",
                needed=1,
                found=0,
            )


def _ranker(
    index: Index,
    labelled: LabelledRows,
    tier: str,
    told: Callable[[int, int], None] | None,
) -> Callable[[NDArray[np.int64]], Rankings]:
    """What ranks labelled rows, given by position, among all others; in blocks."""
    n = len(labelled)
    rows = None if n == index.n_rows else labelled.rows
    at_once = max(1, SCORES_AT_ONCE // n)
    funnel = Funnel((tier,), ())

    def rank(
        positions: NDArray[np.int64],
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        for start in range(0, len(positions), at_once):
            block = labelled.rows[positions[start : start + at_once]].tolist()
            for ranking in index.rank_rows(block, n - 1, funnel, rows=rows):
                yield ranking.rows, ranking.scores[:, -1]
            if told is not None and len(positions) == n:
                told(len(block), 0)

    return rank
