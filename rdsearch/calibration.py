"""What an index carries about the meaning of its scores, learnt from proteins of known relation.

Only data lives here, for every manifest is read with it; how a calibration is learnt is in
`rdsearch.calibrating`.
"""

from __future__ import annotations

import itertools
import math
import reprlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from rdsearch.errors import CalibrationError, InputError
from rdsearch.plainvalues import UNFIT, entry

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from rdsearch.manifest import Manifest

__all__ = [
    "CALIBRATED_LEVELS",
    "EVALUES",
    "MOST_KNOTS",
    "Calibration",
    "Cut",
    "TierCalibration",
]

#: Levels at which a pair can count as related; nearer ones count too.
CALIBRATED_LEVELS = ("family", "superfamily", "fold")

#: E-values at which false positives are counted, from 0.001 to 30.
EVALUES = tuple(1e-3 * 30_000 ** (i / 45) for i in range(46))

#: Knots of one tier at most, and tiers of one calibration.
MOST_KNOTS = 1000
_MOST_TIERS = 64

_LONGEST_NAME = 1024
# Far above any score: cosines lie in [-1, 1].
_LARGEST_SCORE = 1e6
# So much may the rows change before what was learnt is doubtful.
_CHANGED = 0.1


@dataclass(frozen=True, slots=True)
class Cut:
    """A score that hits are cut at, and what that gave for proteins that had no part in it.

    Attributes
    ----------
    score : float
        A hit passes where its score, a float32, is at least this float32.
    risk : float
        Mean over the groups that calibrated of what was bounded.
    groups : int
        Groups that calibrated.
    fdp : float
        Mean false discovery proportion of the groups that were held out.
    answered : float
        Mean share of their queries that have hits which count; the others' proportion is 0.
    fdp_answered : float or None
        The mean proportion of these queries alone; None where there are none.
    found : float
        Mean share of their related proteins that pass.
    hits : float
        Labelled proteins that pass, a query that was held out.
    """

    score: float
    risk: float
    groups: int
    fdp: float
    answered: float
    fdp_answered: float | None
    found: float
    hits: float

    def __post_init__(self) -> None:
        shares = (self.risk, self.fdp, self.answered, self.fdp_answered or 0, self.found)
        if not (abs(self.score) <= _LARGEST_SCORE and all(0 <= share <= 1 for share in shares)):
            raise InputError(f"a cut needs a score, and shares from 0 to 1; found {self}")
        if self.groups < 1 or self.hits < 0:
            raise InputError(f"a cut is learnt on groups and passes hits or none; found {self}")


@dataclass(frozen=True, slots=True)
class TierCalibration:
    """What the scores of one tier mean.

    Attributes
    ----------
    tier, codec : str
    fdr, fnr : Cut or None
        None where no score could be certified, or none was wanted.
    scores, probabilities : tuple of float
        Knots: rising scores, and the probability that a hit with such a score is related.
        Between them it is interpolated, outside it stays that of the last.
    brier : float
        Mean squared error of the probability over the pairs of the held-out half.
    brier_constant : float
        The same for one probability for all pairs, their share of related ones.
    false_positives : tuple of float
        Unrelated labelled rows a labelled query with an e-value of at most each of `EVALUES`;
        nothing where the index has too few rows for e-values.
    """

    tier: str
    codec: str
    fdr: Cut | None
    fnr: Cut | None
    scores: tuple[float, ...]
    probabilities: tuple[float, ...]
    brier: float
    brier_constant: float
    false_positives: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        _check_names(tier=self.tier, codec=self.codec)
        if not 1 <= len(self.scores) == len(self.probabilities) <= MOST_KNOTS:
            raise InputError(
                f"tier {self.tier}: expected 1 to {MOST_KNOTS:,} knots with a probability each; "
                f"found {len(self.scores)} and {len(self.probabilities)}"
            )
        rising = all(a < b for a, b in itertools.pairwise(self.scores))
        if not (rising and all(abs(score) <= _LARGEST_SCORE for score in self.scores)):
            raise InputError(f"tier {self.tier}: the scores of knots must rise")
        growing = all(a <= b for a, b in itertools.pairwise(self.probabilities))
        if not (growing and all(0 < p < 1 for p in self.probabilities)):
            raise InputError(
                f"tier {self.tier}: probabilities lie between 0 and 1, both excluded, and do not "
                "fall"
            )
        if not (0 <= self.brier <= 1 and 0 <= self.brier_constant <= 1):
            raise InputError(f"tier {self.tier}: a Brier score lies between 0 and 1")
        growing = all(0 <= a <= b for a, b in itertools.pairwise(self.false_positives))
        if len(self.false_positives) not in (0, len(EVALUES)) or not growing:
            raise InputError(
                f"tier {self.tier}: expected {len(EVALUES)} numbers of false positives that do not "
                f"fall; found {len(self.false_positives)}"
            )


@dataclass(frozen=True, slots=True)
class Calibration:
    """Scores of an index, certified on one half of its labelled proteins.

    A pair is related where both are of one family, superfamily or fold (`level`), unrelated where
    they are of different folds, and counts neither way in between. The false discovery proportion
    of a query is the share of unrelated hits among those that pass and count, 0 where none does.
    With `confidence`, for each tier and each rate alone:

    * the expected false discovery proportion above the tier's `Cut` for `fdr` is at most `fdr`;
    * the expected share of a query's related proteins below that for `fnr` is at most `fnr`.

    Expected is over queries of a group drawn as those that calibrated; a group is a fold, so that
    large ones count no more than small ones. The search is exhaustive at the tier: what a funnel
    or a number of hits leaves out is missed besides.

    Attributes
    ----------
    chain_hash : str
    space, space_sha256 : str
        Kind and checksum of the scoring space.
    level : str
        One of `CALIBRATED_LEVELS`.
    fdr : float
        In (0, 1).
    fnr : float or None
    answered : bool
        The proportion is bounded for the queries that have hits alone.
    confidence : float
        In (0, 1).
    seed : int
        Of the split into halves.
    labels : str
        Name of the file.
    groups, groups_held_out : int
        Groups of the half that calibrated, and of the other.
    rows, rows_labelled : int
        Of the index that was calibrated.
    tiers : tuple of TierCalibration
    """

    chain_hash: str
    space: str
    space_sha256: str
    level: str
    fdr: float
    fnr: float | None
    answered: bool
    confidence: float
    seed: int
    labels: str
    groups: int
    groups_held_out: int
    rows: int
    rows_labelled: int
    tiers: tuple[TierCalibration, ...]

    def __post_init__(self) -> None:
        _check_names(chain=self.chain_hash, space=self.space, checksum=self.space_sha256)
        _check_names(labels=self.labels)
        if self.level not in CALIBRATED_LEVELS:
            raise InputError(
                f"the level must be one of {', '.join(CALIBRATED_LEVELS)}; found {self.level!r}"
            )
        rates = (self.fdr, self.confidence, 0.5 if self.fnr is None else self.fnr)
        if not all(0 < rate < 1 for rate in rates):
            raise InputError(f"rates lie between 0 and 1, both excluded; found {rates}")
        if min(self.seed, self.groups - 1, self.groups_held_out - 1, self.rows_labelled - 2) < 0:
            raise InputError("a calibration needs groups in both halves, and labelled rows")
        names = [tier.tier for tier in self.tiers]
        if not 1 <= len(names) == len(set(names)) <= _MOST_TIERS:
            raise InputError(f"a calibration needs tiers of different names; found {names}")
        if self.rows < self.rows_labelled:
            raise InputError(f"{self.rows_labelled} rows are labelled, of {self.rows}")

    def __str__(self) -> str:
        scores = (
            f"{one.tier} {'none' if one.fdr is None else f'from {one.fdr.score:.4g}'}"
            for one in self.tiers
        )
        of = " of queries with hits" if self.answered else ""
        return (
            f"false discovery rate{of} at most {self.fdr:g} with confidence {self.confidence:g} at "
            f"{self.level} level ({', '.join(scores)}; {self.groups:,} folds of {self.labels})"
        )

    def covers(self, tier: str) -> bool:
        """Whether a tier was calibrated: there `probability` has an answer."""
        return any(one.tier == tier for one in self.tiers)

    def at(self, tier: str) -> TierCalibration:
        """What is known of one tier.

        Raises
        ------
        CalibrationError
            It was not calibrated.
        """
        for one in self.tiers:
            if one.tier == tier:
                return one
        names = ", ".join(one.tier for one in self.tiers)
        raise CalibrationError(
            f"tier {tier} is not calibrated, only {names}. End the search there (--to-tier), or "
            f"calibrate it: rdsearch calibrate INDEX LABELS.tsv --tier {tier}",
            tier=tier,
        )

    def threshold(self, tier: str, fdr: float | None = None, *, fnr: float | None = None) -> float:
        """The score that hits need at a tier for a rate.

        Parameters
        ----------
        tier : str
            The one whose scores the hits are ranked by.
        fdr, fnr : float, optional
            One of them: the rate, as it was calibrated.

        Returns
        -------
        float
            A float32 value; hits pass whose score is at least this.

        Raises
        ------
        CalibrationError
            The tier or the rate was not calibrated, or no score could be certified.
        InputError
            Not one of the rates.
        """
        if (fdr is None) == (fnr is None):
            raise InputError("give a false discovery rate or a false negative rate, and not both")
        name, rate, known = ("fdr", fdr, self.fdr) if fnr is None else ("fnr", fnr, self.fnr)
        one = self.at(tier)
        if rate is None or known is None or not math.isclose(rate, known, rel_tol=1e-9):
            to = "none" if known is None else f"{known:g}"
            raise CalibrationError(
                f"the index is calibrated to {name} {to}, not to {rate:g}. Ask for that, or "
                f"calibrate again: rdsearch calibrate INDEX LABELS.tsv --{name} {rate:g}",
                expected=rate,
                found=known,
            )
        cut = one.fdr if name == "fdr" else one.fnr
        if cut is None:
            certified = [t.tier for t in self.tiers if (t.fdr if name == "fdr" else t.fnr)]
            raise CalibrationError(
                f"tier {tier}: no score could be certified for {name} {rate:g} with the labels of "
                f"{self.labels} (certified: {', '.join(certified) or 'no tier'}). Calibrate with a "
                "higher rate, a lower confidence or more labels",
                tier=tier,
            )
        return cut.score

    def probability(self, tier: str, scores: NDArray[np.floating]) -> NDArray[np.float64]:
        """How likely hits with these scores are related to their query.

        It is the share of related ones among the labelled pairs with such a score, so it knows
        how many there are of either kind: in an index of other size or content a score has
        another probability.

        Parameters
        ----------
        tier : str
        scores : ndarray

        Returns
        -------
        ndarray of float64, shaped as `scores`
            Never 0 or 1.

        Raises
        ------
        CalibrationError
            The tier was not calibrated.
        """
        import numpy as np

        one = self.at(tier)
        values = np.asarray(scores, dtype=np.float64)
        likely: NDArray[np.float64] = np.interp(values, one.scores, one.probabilities)
        return likely

    def notes(self, manifest: Manifest) -> str | None:
        """What is doubtful about it for an index as it is now; None where nothing is.

        More rows bring more unrelated hits above the same score, so that rates and probabilities
        learnt before are too good.
        """
        if abs(manifest.rows - self.rows) <= _CHANGED * self.rows:
            return None
        return (
            f"the calibration was learnt on {self.rows:,} rows and the index has "
            f"{manifest.rows:,}: rates and probabilities may be off. Calibrate again: "
            "rdsearch calibrate INDEX LABELS.tsv"
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, table: Mapping[str, Any]) -> Calibration:
        """From plain values that nobody vouches for.

        Parameters
        ----------
        table : mapping
            As `as_dict` gives it, lists in place of tuples.

        Raises
        ------
        InputError
            A value is missing, unknown, of another type, or makes no sense.
        """
        try:
            values = {"tiers": (), **table}
            return entry(cls, {**values, "tiers": tuple(map(_tier, values["tiers"]))})
        except UNFIT as error:
            raise InputError(f"calibration: an entry is missing or wrong ({error})") from error


def _tier(table: Any) -> TierCalibration:
    lists = {name: tuple(table[name]) for name in ("scores", "probabilities", "false_positives")}
    cuts = {
        name: None if table[name] is None else entry(Cut, table[name]) for name in ("fdr", "fnr")
    }
    return entry(TierCalibration, {**table, **lists, **cuts})


def _check_names(**names: str) -> None:
    """Refuse names that are empty, endless or not printable."""
    for name, value in names.items():
        if not (0 < len(value) <= _LONGEST_NAME and value.isprintable()):
            raise InputError(
                f"calibration: expected a {name} of printable characters, found "
                f"{reprlib.repr(value)}"
            )
