"""Hoeffding–Bentkus p-values and fixed sequence testing: formulas, oracles, simulation."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from rdsearch.certification import Target, certify, p_value
from rdsearch.errors import InputError

REPETITIONS = 200


def expected_p(risk, n, level):
    """The formula as the paper prints it."""

    def h(a, b):
        first = 0 if a == 0 else a * math.log(a / b)
        return first + (0 if a == 1 else (1 - a) * math.log((1 - a) / (1 - b)))

    hoeffding = math.exp(-n * h(min(risk, level), level))
    return min(1, hoeffding, math.e * binom.cdf(math.ceil(n * risk), n, level))


@pytest.mark.parametrize("n", [1, 7, 50, 299, 1000, 20_000])
@pytest.mark.parametrize("level", [0.001, 0.01, 0.1, 0.5, 0.9])
def test_p_value_is_the_papers_formula(n, level):
    for found in np.unique(np.linspace(0, n, 40).astype(int)):
        # Eighths of a query: n times risk is exact, and mostly no whole number.
        for part in (0, 1, 7):
            risk = min(1, (found + part / 8) / n)
            if n * risk == found + part / 8:
                expected = expected_p(risk, n, level)
                assert p_value(risk, n, level) == pytest.approx(expected, rel=1e-9, abs=1e-300)


def test_p_value_by_exact_fractions():
    n, level = 40, Fraction(1, 10)

    def tail(most):
        return sum(math.comb(n, i) * level**i * (1 - level) ** (n - i) for i in range(most + 1))

    # At no risk Hoeffding is the smaller, (1 - level)ⁿ; near the level it is Bentkus.
    assert p_value(0.0, n, 0.1) == pytest.approx(float((1 - level) ** n))
    assert p_value(3 / n, n, 0.1) == pytest.approx(
        min(1, math.e * float(tail(3)), float(Fraction(4, 3) ** 3 * Fraction(36, 37) ** 37))
    )
    assert p_value(1.0, n, 0.1) == 1


def test_rounding_does_not_lift_the_binomial_count():
    risks = np.array([0.1] * 30)  # sums to 3.0000000000000004
    assert float(np.sum(risks)) > 3
    assert p_value(float(np.mean(risks)), 30, 0.5) == p_value(3 / 30, 30, 0.5)


@given(
    st.lists(st.floats(0, 1), min_size=2, max_size=2),
    st.integers(1, 5000),
    st.floats(0.001, 0.999),
)
def test_p_value_grows_with_the_risk(risks, n, level):
    low, high = sorted(risks)
    assert 0 <= p_value(low, n, level) <= p_value(high, n, level) * (1 + 1e-9) <= 1 + 1e-9


def test_p_value_falls_with_the_level_and_with_the_queries():
    levels = [p_value(0.01, 500, level) for level in np.linspace(0.011, 0.9, 50)]
    assert levels == sorted(levels, reverse=True)
    sizes = [p_value(0.0, n, 0.01) for n in range(1, 900, 20)]
    assert sizes == sorted(sizes, reverse=True)


@pytest.mark.parametrize("level", [0.01, 0.05, 0.3])
@pytest.mark.parametrize("n", [20, 300, 1000])
def test_p_value_is_super_uniform_for_all_or_nothing_risks(n, level):
    """Exactly: the chance of each count is known. This is the hardest risk of its mean."""
    counts = np.arange(n + 1)
    p = np.array([p_value(count / n, n, level) for count in counts])
    chance = binom.pmf(counts, n, level)
    for u in np.unique(p):
        assert chance[p <= u].sum() <= u + 1e-12


@pytest.mark.parametrize("kind", ["tenths", "beta", "rare"])
def test_p_value_is_super_uniform_for_graded_risks(kind):
    rng = np.random.default_rng(0)
    level, n, draws = 0.05, 200, 20_000
    means = draw_risks(kind, rng, level, (draws, n)).mean(axis=1)
    values = {mean: p_value(mean, n, level) for mean in np.unique(means)}
    p = np.array([values[mean] for mean in means])
    for u in (0.001, 0.01, 0.05, 0.1, 0.5):
        slack = 4 * math.sqrt(u / draws)
        assert (p <= u).mean() <= u + slack


def draw_risks(kind, rng, mean, shape):
    """Risks in [0, 1] of a known mean."""
    if kind == "all or nothing":
        return (rng.random(shape) < mean).astype(float)
    if kind == "tenths":
        return rng.binomial(10, mean, shape) / 10
    if kind == "rare":  # a few queries miss half
        return (rng.random(shape) < 2 * mean) / 2
    return rng.beta(0.2, 0.2 * (1 - mean) / mean, shape)


@pytest.mark.parametrize("kind", ["all or nothing", "tenths", "rare", "beta"])
def test_the_guarantee_holds_in_simulation(kind):
    """True expected recalls are known, some just below the target; a naive choice misses it."""
    target = Target(0.99, 0.95)
    true = [1.0, 0.999, 0.997, 0.9945, 0.992, 0.9899, 0.9898, 0.9895, 0.985, 0.97]
    rng = np.random.default_rng(1)
    missed = naive_missed = cheaper = 0
    for _ in range(REPETITIONS):
        recalls = {
            recall: 1 - draw_risks(kind, rng, 1 - recall, 1000) if recall < 1 else np.ones(1000)
            for recall in true
        }
        trials = certify(true, recalls.__getitem__, target)
        certified = [trial.candidate for trial in trials if trial.certified]
        missed += certified[-1] < target.recall
        cheaper += certified[-1] < 1
        naive = [recall for recall in true if recalls[recall].mean() >= target.recall]
        naive_missed += naive[-1] < target.recall
    assert missed <= 0.05 * REPETITIONS
    assert naive_missed > 0.3 * REPETITIONS  # the simulation can tell
    assert cheaper > 0.9 * REPETITIONS  # and certifying has power


def test_the_guarantee_holds_where_every_funnel_but_one_misses():
    """The worst case: the first test decides, and its null hypothesis is almost at the target."""
    target = Target(0.95, 0.9)
    rng = np.random.default_rng(2)
    missed = 0
    for _ in range(2000):
        trials = certify(
            ["exhaustive", "just below"],
            lambda name: np.ones(200) if name == "exhaustive" else rng.random(200) < 0.9499,
            target,
        )
        missed += trials[-1].certified
    assert missed <= 0.1 * 2000


def test_the_sequence_ends_at_the_first_failure():
    asked = []

    def measure(name):
        asked.append(name)
        return np.full(1000, {"a": 1.0, "b": 0.999, "c": 0.97, "d": 1.0}[name])

    trials = certify("abcd", measure, Target(0.99, 0.95))
    assert asked == ["a", "b", "c"]  # d would pass; it must not be reached past c
    assert [trial.candidate for trial in trials] == ["a", "b", "c"]
    assert [trial.certified for trial in trials] == [True, True, False]
    assert [trial.recall for trial in trials] == pytest.approx([1, 0.999, 0.97])
    assert trials[2].p == 1


def test_a_sequence_whose_first_fails_certifies_nothing():
    trials = certify("ab", lambda name: np.zeros(1000), Target(0.99, 0.95))
    assert [(trial.candidate, trial.certified) for trial in trials] == [("a", False)]


@pytest.mark.parametrize(
    ("recall", "confidence", "needed"),
    [(0.99, 0.95, 299), (0.9, 0.95, 29), (0.999, 0.95, 2995), (0.99, 0.99, 459), (0.5, 0.4, 1)],
)
def test_queries_needed(recall, confidence, needed):
    target = Target(recall, confidence)
    assert target.queries_needed == needed
    assert target.passed(p_value(0.0, needed, 1 - recall))
    if needed > 1:
        assert not target.passed(p_value(0.0, needed - 1, 1 - recall))


@pytest.mark.parametrize("value", [0, 1, -0.1, 1.5, 99, float("nan")])
def test_targets_lie_between_0_and_1(value):
    with pytest.raises(InputError, match="target recall must lie between 0 and 1"):
        Target(value, 0.95)
    with pytest.raises(InputError, match="target confidence must lie between 0 and 1"):
        Target(0.99, value)
