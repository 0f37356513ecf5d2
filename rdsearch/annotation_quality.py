"""What the evidence for a transferred label is worth, learnt and measured where labels are known.

Trials are proteins of the index, each left out of its own hits, with the labels that they have and
the evidence that their hits give for labels (`rdsearch.annotation`). A pair is a protein and a
label that a hit of it carries; it is right where the protein has the label.

Databases are incomplete: a label that a protein has and nobody wrote down counts as wrong here.
Precision and confidence are therefore lower bounds, the more so the sparser the column.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rdsearch.errors import InputError
from rdsearch.probability import probabilities

__all__ = [
    "LEAST_TRIALS",
    "THRESHOLDS",
    "LabelCalibration",
    "Operating",
    "Quality",
    "ReliabilityBin",
    "Trials",
    "fit",
    "measure",
]

#: Proteins with a label that a calibration needs at least.
LEAST_TRIALS = 50

#: Confidences at which coverage, recall and precision are told; 0 takes every label of every hit.
THRESHOLDS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)

# Bins of evidence at most, and the bins of confidence of a reliability diagram.
_BINS = 200
_EDGES = tuple(i / 10 for i in range(11))
# Where Fmax is looked for; those of CAFA.
_FINE = tuple(i / 100 for i in range(1, 101))


@dataclass(frozen=True, slots=True)
class Trials:
    """Proteins of the index, annotated as if their own labels were not known.

    Attributes
    ----------
    truths : tuple of frozenset of str
        The labels that each protein has; at least one.
    evidence : tuple of dict of str to float
        For each protein the labels of its hits.
    """

    truths: tuple[frozenset[str], ...]
    evidence: tuple[dict[str, float], ...]

    def __len__(self) -> int:
        return len(self.truths)

    def only(self, places: NDArray[np.int64]) -> Trials:
        """Some of them."""
        return Trials(
            tuple(self.truths[place] for place in places),
            tuple(self.evidence[place] for place in places),
        )


@dataclass(frozen=True, slots=True)
class LabelCalibration:
    """Confidence by evidence.

    Attributes
    ----------
    trials, pairs, right : int
        What it was learnt from.
    evidence, confidence : tuple of float
        Points that it runs through, both rising; straight between them, level beyond.
    """

    trials: int
    pairs: int
    right: int
    evidence: tuple[float, ...]
    confidence: tuple[float, ...]

    def __call__(self, evidence: float) -> float:
        """The probability, in (0, 1), that a label with such evidence is right."""
        return float(np.interp(evidence, self.evidence, self.confidence))


@dataclass(frozen=True, slots=True)
class Operating:
    """What is predicted where labels from one confidence on count.

    Attributes
    ----------
    threshold : float
    coverage : float
        Share of proteins that get a label.
    recall : float
        Share of its labels that a protein gets, averaged over all proteins.
    precision : float or None
        Share of right ones among the labels that a protein gets, averaged over those that get any.
    """

    threshold: float
    coverage: float
    recall: float
    precision: float | None

    @property
    def f(self) -> float:
        """Harmonic mean of precision and recall; 0 where nothing is right."""
        both = (self.precision or 0.0) + self.recall
        return 2 * (self.precision or 0.0) * self.recall / both if both else 0.0


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """Pairs whose confidence lies between two values.

    Attributes
    ----------
    low, high : float
        ``low <= confidence < high``.
    pairs : int
    expected, observed : float or None
        Their mean confidence and the share of right ones; None where there are none.
    """

    low: float
    high: float
    pairs: int
    expected: float | None
    observed: float | None


@dataclass(frozen=True, slots=True)
class Quality:
    """How good the labels are that are transferred in one column.

    Attributes
    ----------
    column : str
    trials : int
        Proteins.
    labels : int
        Distinct labels that they have.
    pairs : int
        Labels of their hits.
    right : int
        Of these, labels that the protein has.
    operating : tuple of Operating
        At `THRESHOLDS`.
    best : Operating
        Where F is highest: Fmax is ``best.f``.
    naive : tuple of Operating
        The same where every protein gets the labels that are frequent, with their frequency as
        confidence.
    naive_best : Operating
    reliability : tuple of ReliabilityBin
    mean_confidence, observed : float or None
        Of all pairs; None where there are none.
    """

    column: str
    trials: int
    labels: int
    pairs: int
    right: int
    operating: tuple[Operating, ...]
    best: Operating
    naive: tuple[Operating, ...]
    naive_best: Operating
    reliability: tuple[ReliabilityBin, ...]
    mean_confidence: float | None
    observed: float | None

    def as_dict(self) -> dict[str, Any]:
        """Nested plain values, for JSON."""
        return {**asdict(self), "fmax": self.best.f, "naive_fmax": self.naive_best.f}


def fit(trials: Trials) -> LabelCalibration:
    """Learn what evidence is worth.

    Venn–Abers prediction (`rdsearch.probability`) on pairs in bins of evidence: isotonic, so that
    more evidence never means less confidence, and never 0 or 1. The bins hold the first pair by
    falling evidence, …, all, in equal ratios, and depend on no label.

    Parameters
    ----------
    trials : Trials

    Returns
    -------
    LabelCalibration
        1/2 everywhere where there are no pairs.
    """
    evidence, right = _pairs(trials)
    if not len(evidence):
        return LabelCalibration(len(trials), 0, 0, (0.0,), (0.5,))
    ordered = np.sort(evidence)
    places = len(ordered) - np.geomspace(1, len(ordered), _BINS).round().astype(np.int64)
    starts = np.unique(ordered[places])
    bins = np.searchsorted(starts, evidence, side="right") - 1
    counts, sums, found = (
        np.bincount(bins, weights, len(starts)).astype(np.float64)
        for weights in (None, evidence, right)
    )
    # Sums of equal numbers differ from a multiple in the last digit: a mean stays in its bin.
    means = np.clip(sums / counts, starts, np.append(starts[1:], ordered[-1]))
    return LabelCalibration(
        trials=len(trials),
        pairs=len(evidence),
        right=int(right.sum()),
        evidence=tuple(means.tolist()),
        confidence=tuple(probabilities(found, counts - found).tolist()),
    )


def measure(trials: Trials, column: str, seed: int = 0) -> Quality:
    """Measure transferred labels: how many, how many of them right, and how sure.

    Cross-fitted: the trials are halved, and the confidences of each half are learnt from the
    other. Precision, recall and F by protein are those of CAFA (Radivojac et al., Nature Methods
    2013, 10:221), with labels as they are written, without their ancestors in an ontology.

    Parameters
    ----------
    trials : Trials
    column : str
        Their column, for the result.
    seed : int, optional
        Of the halves.

    Returns
    -------
    Quality

    Raises
    ------
    InputError
        There are fewer than `LEAST_TRIALS` (attributes ``needed``, ``found``).
    """
    n = len(trials)
    if n < LEAST_TRIALS:
        raise InputError(
            f"column {column}: {n} proteins with a label are too few to measure; expected "
            f"{LEAST_TRIALS} or more. Annotate more of the index",
            needed=LEAST_TRIALS,
            found=n,
        )
    order = np.random.default_rng(seed).permutation(n)
    halves = np.sort(order[: n // 2]), np.sort(order[n // 2 :])
    all_, right, naive_all, naive_right = ([np.empty(0)] * n for _ in range(4))
    for own, other in (halves, halves[::-1]):
        learnt = fit(trials.only(other))
        counted = Counter(itertools.chain.from_iterable(trials.only(other).truths))
        frequent = {label: count / len(other) for label, count in counted.items()}
        naive = np.sort(list(frequent.values()))
        for place in own.tolist():
            truth, evidence = trials.truths[place], trials.evidence[place]
            sure = {label: learnt(value) for label, value in evidence.items()}
            all_[place], right[place] = _sorted(sure.values()), _known(sure, truth)
            naive_all[place], naive_right[place] = naive, _known(frequent, truth)
    sizes = np.array([len(truth) for truth in trials.truths])
    sure_all, sure_right = np.concatenate(all_), np.concatenate(right)
    return Quality(
        column=column,
        trials=n,
        labels=len(frozenset().union(*trials.truths)),
        pairs=len(sure_all),
        right=len(sure_right),
        operating=_operating(all_, right, sizes, THRESHOLDS),
        best=max(_operating(all_, right, sizes, _FINE), key=lambda at: at.f),
        naive=_operating(naive_all, naive_right, sizes, THRESHOLDS),
        naive_best=max(_operating(naive_all, naive_right, sizes, _FINE), key=lambda at: at.f),
        reliability=_reliability(sure_all, sure_right),
        mean_confidence=float(sure_all.mean()) if len(sure_all) else None,
        observed=len(sure_right) / len(sure_all) if len(sure_all) else None,
    )


def _pairs(trials: Trials) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Evidence of each pair, and whether it is right."""
    pairs = [
        (value, label in truth)
        for truth, evidence in zip(trials.truths, trials.evidence, strict=True)
        for label, value in evidence.items()
    ]
    values = np.array([value for value, _ in pairs], dtype=np.float64)
    return values, np.array([right for _, right in pairs], dtype=np.bool_)


def _sorted(values: Any) -> NDArray[np.float64]:
    return np.sort(np.fromiter(values, dtype=np.float64))


def _known(predicted: dict[str, float], truth: frozenset[str]) -> NDArray[np.float64]:
    """Confidences of the right labels, rising."""
    return _sorted(predicted[label] for label in truth if label in predicted)


def _operating(
    all_: Sequence[NDArray[np.float64]],
    right: Sequence[NDArray[np.float64]],
    sizes: NDArray[np.int64],
    thresholds: Sequence[float],
) -> tuple[Operating, ...]:
    """`Operating` at each threshold, from rising confidences of all and of the right labels."""
    given, found = (
        np.stack([len(one) - np.searchsorted(one, thresholds) for one in part])
        for part in (all_, right)
    )
    answered = given > 0
    precision = np.divide(found, given, out=np.zeros(given.shape), where=answered).sum(axis=0)
    recall = (found / sizes[:, None]).mean(axis=0)
    points = []
    for i, threshold in enumerate(thresholds):
        count = int(answered[:, i].sum())
        points.append(
            Operating(
                threshold=threshold,
                coverage=count / len(sizes),
                recall=float(recall[i]),
                precision=float(precision[i]) / count if count else None,
            )
        )
    return tuple(points)


def _reliability(
    sure: NDArray[np.float64], right: NDArray[np.float64]
) -> tuple[ReliabilityBin, ...]:
    """Pairs by confidence, from the confidences of all and of the right ones."""
    counts, found = (np.histogram(part, _EDGES)[0] for part in (sure, right))
    sums = np.histogram(sure, _EDGES, weights=sure)[0]
    return tuple(
        ReliabilityBin(
            low=low,
            high=high,
            pairs=int(count),
            expected=float(total / count) if count else None,
            observed=float(good / count) if count else None,
        )
        for (low, high), count, good, total in zip(
            itertools.pairwise(_EDGES), counts, found, sums, strict=True
        )
    )
