"""Learn then test: which of a fixed sequence of candidates keep their expected recall, surely.

Angelopoulos, Bates, Candès, Jordan and Lei, "Learn then Test" (arXiv 2110.01052): each candidate
has a null hypothesis, "its expected recall is below the target", and a p-value that is valid for
any number of queries; the candidates are tested in an order that was fixed before the queries
were seen, up to the first that is not rejected. The chance that any certified candidate misses
the target is then at most 1 - confidence.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtr, rel_entr

from rdsearch.errors import InputError

__all__ = ["Target", "Trial", "certify", "p_value"]

_Candidate = TypeVar("_Candidate")

# n times a mean of n shares is off by float rounding; a step up there would double the p-value.
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Target:
    """What is to be guaranteed.

    Attributes
    ----------
    recall : float
        Least expected recall, in (0, 1). Certainty needs the exhaustive search.
    confidence : float
        In (0, 1).
    """

    recall: float
    confidence: float

    def __post_init__(self) -> None:
        for name, value in (("recall", self.recall), ("confidence", self.confidence)):
            if not 0 < value < 1:
                raise InputError(
                    f"the target {name} must lie between 0 and 1, both excluded, for example "
                    f"0.99; found {value}"
                )

    @property
    def queries_needed(self) -> int:
        """Fewest queries with which a perfect recall is certified; 299 for 0.99 and 0.95.

        The least n with ``recall ** n <= 1 - confidence``.
        """
        needed = max(1, math.ceil(math.log1p(-self.confidence) / math.log(self.recall)))
        while not self.passed(p_value(0.0, needed, 1 - self.recall)):  # float rounding at an edge
            needed += 1
        return needed

    def passed(self, p: float) -> bool:
        """Whether a p-value rejects that the recall is below the target."""
        return p <= 1 - self.confidence


def p_value(risk: float, n: int, level: float) -> float:
    """Hoeffding–Bentkus p-value of "the expected risk is above `level`".

    As the paper above has it, after Bates et al. 2021 (arXiv 2101.02703)::

        min(exp(-n h(min(risk, level), level)),  e P(Binomial(n, level) <= ceil(n risk)))
        h(a, b) = a log(a / b) + (1 - a) log((1 - a) / (1 - b))

    Super-uniform under the hypothesis for independent risks in [0, 1], and for risks drawn without
    replacement, whose sums are no more spread (Hoeffding 1963, theorem 4).

    Parameters
    ----------
    risk : float
        Mean of the risks, here 1 - recall, in [0, 1].
    n : int
        Queries.
    level : float
        Largest expected risk that is tolerated, in (0, 1).

    Returns
    -------
    float
        At most 1.
    """
    below = min(risk, level)
    entropy = float(rel_entr(below, level) + rel_entr(1 - below, 1 - level))
    hoeffding = math.exp(-n * entropy)
    bentkus = math.e * float(bdtr(math.ceil(n * risk - _ROUNDING), n, level))
    return min(1.0, hoeffding, bentkus)


@dataclass(frozen=True, slots=True)
class Trial(Generic[_Candidate]):
    """One tested candidate.

    Attributes
    ----------
    candidate : object
        As it stood in the sequence.
    recall : float
        Mean recall over the queries.
    p : float
        See `p_value`.
    certified : bool
        It and all before it passed.
    """

    candidate: _Candidate
    recall: float
    p: float
    certified: bool


def certify(
    sequence: Iterable[_Candidate],
    measure: Callable[[_Candidate], NDArray[np.float64]],
    target: Target,
) -> list[Trial[_Candidate]]:
    """Fixed sequence testing, as in the paper above.

    Parameters
    ----------
    sequence : iterable
        Candidates in an order that does not depend on the queries that `measure` uses.
    measure : callable
        Candidate to recall of each query, shape (n,), values in [0, 1]. Not called after the
        first candidate that fails.
    target : Target

    Returns
    -------
    list of Trial
        The candidates that were tested; all but perhaps the last are certified.
    """
    trials = []
    for candidate in sequence:
        recalls = measure(candidate)
        recall = float(np.mean(recalls))
        p = p_value(float(np.mean(1 - recalls)), len(recalls), 1 - target.recall)
        trials.append(Trial(candidate, recall, p, target.passed(p)))
        if not trials[-1].certified:
            break
    return trials
