"""Learn what the scores of one tier mean; see `rdsearch.calibrating` for the design."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rdsearch import fdr as rates
from rdsearch import probability
from rdsearch.calibration import Cut, TierCalibration
from rdsearch.certification import Target, Trial
from rdsearch.errors import InputError
from rdsearch.fdr import Counts
from rdsearch.labels import LEVELS, LabelledRows
from rdsearch.probability import Reliability

__all__ = ["SCORES_AT_ONCE", "Halves", "LearntTier", "Rankings", "Wanted", "halve", "learn_tier"]

#: Scores of a block of queries that are held at once; FAISS and sorting take ten times the bytes.
SCORES_AT_ONCE = 1 << 20
# Queries that the grid is made from, and their scores at most.
_GRID_QUERIES = 512
_GRID_SCORES = 1 << 22

#: For each query the other labelled rows by falling score, with their scores.
Rankings = Iterable[tuple[NDArray[np.int64], NDArray[np.float32]]]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be kept; see `rdsearch.calibration.Calibration`."""

    fdr: float = 0.1
    fnr: float | None = None
    confidence: float = 0.9
    level: str = "superfamily"
    answered: bool = False

    def __post_init__(self) -> None:
        given = {"--fdr": self.fdr, "--confidence": self.confidence}
        for name, rate in {**given, **({} if self.fnr is None else {"--fnr": self.fnr})}.items():
            if not 0 < rate < 1:
                raise InputError(
                    f"{name} must lie between 0 and 1, both excluded, for example 0.1; found {rate}"
                )
        if self.level not in LEVELS:
            raise InputError(f"--level must be one of {', '.join(LEVELS)}; found {self.level!r}")

    @property
    def allowed(self) -> float:
        """Chance of error."""
        return 1 - self.confidence

    def needed(self, rate: float) -> int:
        """Fewest groups that can certify a rate, if none of them has any risk."""
        return Target(1 - rate, self.confidence).queries_needed


@dataclass(frozen=True, slots=True)
class Halves:
    """Queries by half.

    Attributes
    ----------
    groups : ndarray, shape (n,), int64
        Fold of each labelled row.
    first : ndarray, shape (n,), bool
        Whether it calibrates; the others are held out.
    """

    groups: NDArray[np.int64]
    first: NDArray[np.bool_]

    def count(self, which: NDArray[np.bool_]) -> int:
        """Groups of some of the queries."""
        return len(np.unique(self.groups[which]))


def halve(labelled: LabelledRows, seed: int) -> Halves:
    """Split the folds of labelled rows into halves, at random; the first may have one more."""
    groups = labelled.codes[:, LEVELS.index("fold")]
    names = np.unique(groups)
    drawn = np.random.default_rng(seed).permutation(names)[: (len(names) + 1) // 2]
    return Halves(groups, np.isin(groups, drawn))


@dataclass(frozen=True, slots=True)
class LearntTier:
    """What was found out about a tier.

    Attributes
    ----------
    calibration : TierCalibration
    reliability : tuple of Reliability
        Of the probability, on the held-out half.
    trials : dict of str to tuple of Trial
        For ``"fdr"`` and ``"fnr"`` the scores that were tested, by their place in the grid; the
        last one may have failed.
    reasons : tuple of str
        Why no score is certified, where none is.
    """

    calibration: TierCalibration
    reliability: tuple[Reliability, ...]
    trials: dict[str, tuple[Trial[int], ...]]
    reasons: tuple[str, ...]


def learn_tier(
    tier: str,
    codec: str,
    labelled: LabelledRows,
    halves: Halves,
    rank: Callable[[NDArray[np.int64]], Rankings],
    wanted: Wanted,
) -> LearntTier:
    """Learn what the scores of one tier mean.

    Parameters
    ----------
    tier, codec : str
    labelled : LabelledRows
    halves : Halves
        Both have queries with relatives.
    rank : callable
        Positions among the labelled rows to their rankings of all others, best first. Called
        with some positions of the held-out half, and then with all.
    wanted : Wanted

    Returns
    -------
    LearntTier
    """
    n = len(labelled)
    some = _spread(np.flatnonzero(~halves.first), min(_GRID_QUERIES, _GRID_SCORES // n))
    scores = rates.grid(np.concatenate([own for _, own in rank(some)]))
    counts = rates.count(labelled, rank(np.arange(n)), wanted.level, scores)
    first, second = counts.only(halves.first), counts.only(~halves.first)
    cuts: dict[str, Cut | None] = {"fdr": None, "fnr": None}
    trials: dict[str, tuple[Trial[int], ...]] = {}
    reasons = []
    for name, rate in (("fdr", wanted.fdr), ("fnr", wanted.fnr)):
        if rate is None:
            continue
        starts = [0]
        if name == "fnr":
            values = rates.false_negatives(first)
        else:
            values = rates.false_positives(first, answered=wanted.answered)
            if wanted.answered:
                held_out = halves.groups[~halves.first]
                starts = rates.starts(second.all_, held_out, wanted.needed(rate))
        risks = rates.group_means(values, halves.groups[halves.first])
        place, tested = rates.certified(
            risks, rate, wanted.confidence, laxest_first=name == "fnr", starts=starts
        )
        trials[name] = tuple(tested)
        if place is None:
            where = f"tier {tier}, {name} {rate:g}"
            reasons.append(_reason(where, scores, tested[0], risks, wanted.allowed / len(starts)))
        else:
            cuts[name] = _cut(place, risks[:, place], second, halves)
    held, brier, constant = probability.reliability(first, second, counts)
    knots = probability.knots(first, counts)
    one = TierCalibration(tier, codec, cuts["fdr"], cuts["fnr"], *knots, brier, constant)
    return LearntTier(one, held, trials, tuple(reasons))


def _spread(positions: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """So many of them, at equal distances."""
    count = max(1, min(count, len(positions)))
    return positions[np.linspace(0, len(positions) - 1, count).round().astype(np.int64)]


def _reason(
    where: str,
    scores: NDArray[np.float32],
    trial: Trial[int],
    risks: NDArray[np.float64],
    allowed: float,
) -> str:
    """Why the first score that was tested did not pass."""
    folds = int((~np.isnan(risks[:, trial.candidate])).sum())
    share = "missed relatives" if ", fnr" in where else "unrelated hits"
    return (
        f"{where}: from {scores[trial.candidate]:.4g} on, the first score tested, the share of "
        f"{share} is {1 - trial.recall:.3g} over {folds:,} folds (p = {trial.p:.2g}, at most "
        f"{allowed:.2g} passes)"
    )


def _cut(place: int, risks: NDArray[np.float64], second: Counts, halves: Halves) -> Cut:
    """A certified score, measured on the held-out half."""
    held_out = halves.groups[~halves.first]

    def mean(values: NDArray[np.float64]) -> float:
        return float(np.nanmean(rates.group_means(values[:, None], held_out)).clip(0, 1))

    fdp = rates.false_positives(second)[:, place]
    answered = (second.related + second.unrelated)[:, place] > 0
    return Cut(
        # Exactly the float32 that was tested.
        score=float(second.scores[place]),
        risk=float(np.nanmean(risks).clip(0, 1)),
        groups=int((~np.isnan(risks)).sum()),
        fdp=mean(fdp),
        answered=mean(answered.astype(np.float64)),
        fdp_answered=mean(np.where(answered, fdp, np.nan)) if answered.any() else None,
        found=1 - mean(rates.false_negatives(second)[:, place]),
        hits=float(second.all_[:, place].mean()),
    )
