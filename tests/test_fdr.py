"""Rates and probabilities from labelled hits: by hand, against oracles, and in simulation."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from rdsearch import fdr, probability
from rdsearch.fdr import Counts
from rdsearch.labels import LabelledRows
from rdsearch.tiercalibration import Halves, Wanted, learn_tier

# Twelve domains: two folds with relatives, one fold of two superfamilies, three loners.
LABELS = (
    *("a.1.1.1", "a.1.1.1", "a.1.1.2"),
    *("b.1.1.1", "b.1.1.1", "b.1.1.1", "b.1.2.1"),
    *("c.1.1.1", "c.1.1.1"),
    *("d.1.1.1", "d.2.1.1", "e.1.1.1"),
)
GRID = np.array([0.9, 0.7, 0.5, 0.1], dtype=np.float32)


def cosines() -> np.ndarray:
    """Scores of the twelve, symmetric, in tenths; ties on purpose, some at a score of the grid."""
    rng = np.random.default_rng(5)
    upper = np.triu(rng.integers(0, 11, (12, 12)), 1)
    return ((upper + upper.T) / 10).astype(np.float32)


def ranked(matrix: np.ndarray, rows: np.ndarray):
    """Rankings of all against all, each without itself."""
    for i, scores in enumerate(matrix):
        others = np.delete(np.arange(len(matrix)), i)
        order = others[np.argsort(-scores[others], kind="stable")]
        yield rows[order], scores[order]


def relation(one: str, other: str) -> int:
    """3 family, 2 superfamily, 1 fold, 0 none; by the text alone."""
    return sum(one.split(".")[:parts] == other.split(".")[:parts] for parts in (2, 3, 4))


@pytest.mark.parametrize(("level", "near"), [("family", 3), ("superfamily", 2), ("fold", 1)])
def test_counts_and_shares_of_twelve_domains_by_hand(level, near):
    rows = np.arange(12) * 3 + 1
    matrix = cosines()
    labelled = LabelledRows.of(rows.tolist(), LABELS)
    counts = fdr.count(labelled, ranked(matrix, rows), level, GRID)
    discoveries, missed = fdr.false_positives(counts), fdr.false_negatives(counts)
    answered = fdr.false_positives(counts, answered=True)
    for i in range(12):
        others = [j for j in range(12) if j != i]
        true = [j for j in others if relation(LABELS[i], LABELS[j]) >= near]
        false = [j for j in others if relation(LABELS[i], LABELS[j]) == 0]
        assert (counts.relatives[i], counts.strangers[i]) == (len(true), len(false))
        for place, score in enumerate(GRID):
            hits = [j for j in others if matrix[i, j] >= score]
            found = [j for j in hits if j in true]
            wrong = [j for j in hits if j in false]
            assert counts.all_[i, place] == len(hits)
            assert counts.related[i, place] == len(found)
            assert counts.unrelated[i, place] == len(wrong)
            both = len(found) + len(wrong)
            assert discoveries[i, place] == pytest.approx(len(wrong) / both if both else 0)
            assert math.isnan(answered[i, place]) == (not both)
            assert both == 0 or answered[i, place] == discoveries[i, place]
            if true:
                assert missed[i, place] == pytest.approx(1 - len(found) / len(true))
            else:
                assert math.isnan(missed[i, place])
    related, unrelated = counts.binned()
    bins = [[0, 0] for _ in range(5)]
    for i in range(12):
        for j in range(12):
            kind = relation(LABELS[i], LABELS[j])
            if i != j and (kind == 0 or kind >= near):
                place = sum(matrix[i, j] >= score for score in GRID)
                bins[place][0 if kind else 1] += 1
    assert np.stack([related, unrelated], axis=1).tolist() == bins


def test_a_score_equal_to_the_cut_passes_in_float32():
    labelled = LabelledRows.of([0, 1], ["a.1.1.1", "a.1.1.1"])
    third = np.float32(1) / np.float32(3)
    grid = np.array([np.nextafter(third, np.float32(1)), third], dtype=np.float32)
    both = [(np.array([1]), np.array([third])), (np.array([0]), np.array([third]))]
    assert fdr.count(labelled, both, "family", grid).related.tolist() == [[0, 1], [0, 1]]
    # As it is stored, a float64, it is the same number.
    assert np.float32(float(grid[1])) == third


def test_group_means_pass_over_what_is_not_there():
    values = np.array([[0.0, 1.0], [1.0, np.nan], [0.5, np.nan], [np.nan, np.nan], [0.2, 0.4]])
    means = fdr.group_means(values, np.array([7, 7, 3, 5, 7]))
    expected = np.array([[0.5, np.nan], [np.nan, np.nan], [0.4, 0.7]])
    assert means == pytest.approx(expected, nan_ok=True)


def test_the_grid_goes_from_one_hit_to_all():
    scores = np.random.default_rng(0).permutation(np.linspace(-1, 1, 100_000)).astype(np.float32)
    grid = fdr.grid(scores)
    assert grid.dtype == np.float32
    assert (grid[0], grid[-1]) == (1, -1)
    assert len(grid) <= fdr.STEPS
    assert (np.diff(grid) < 0).all()
    passed = np.array([(scores >= score).sum() for score in grid])
    ratios = passed[1:] / passed[:-1]
    assert ratios[passed[:-1] > 100] == pytest.approx(100_000 ** (1 / (fdr.STEPS - 1)), rel=0.02)
    assert fdr.grid(np.full(9, 0.5, np.float32)).tolist() == [0.5]


def test_testing_stops_at_the_first_failure_and_keeps_the_last_that_passed():
    good, bad = np.zeros(100), np.ones(100)
    risks = np.stack([good, good, bad, good], axis=1)
    place, trials = fdr.certified(risks, 0.1, 0.9)
    assert place == 1
    assert [trial.candidate for trial in trials] == [0, 1, 2]
    assert fdr.certified(risks, 0.1, 0.9, laxest_first=True)[0] == 3
    assert fdr.certified(risks[:, ::-1], 0.1, 0.9, laxest_first=True)[0] == 2
    assert fdr.certified(risks[:, 2:], 0.1, 0.9)[0] is None
    # A start behind the failure, at half of the chance of error each.
    place, trials = fdr.certified(risks, 0.1, 0.9, starts=[0, 3])
    assert (place, [trial.candidate for trial in trials]) == (3, [3])
    assert fdr.certified(risks, 0.1, 0.9, starts=[2])[0] is None
    # 22 groups without any risk pass, 21 do not; with two starts it takes 29.
    for groups, starts, passes in ((22, [0], 1), (21, [0], 0), (29, [0, 0], 1), (28, [0, 0], 0)):
        found = fdr.certified(np.zeros((groups, 1)), 0.1, 0.9, starts=starts)[0]
        assert (found is not None) == passes


def test_groups_without_a_risk_are_no_witnesses():
    risks = np.full((1000, 2), np.nan)
    assert fdr.certified(risks, 0.1, 0.9)[0] is None
    assert fdr.certified(risks, 0.9, 0.1)[0] is None
    risks[:22, 0] = 0
    risks[:21, 1] = 0
    assert fdr.certified(risks, 0.1, 0.9)[0] == 0


def test_starts_are_where_enough_groups_have_hits():
    hits = np.zeros((40, 30), dtype=np.int32)
    for query in range(40):
        hits[query, query // 2 :] = 1 + query  # two queries a group: group g has hits from g on
    assert fdr.starts(hits, np.arange(40) // 2, 1) == [1, 2, 5, 11]
    assert fdr.starts(hits, np.arange(40) // 2, 4) == [5, 11]
    assert fdr.starts(hits, np.arange(40) // 2, 400) == [29]


# --- probability ----------------------------------------------------------------------------


def isotonic(values: list[Fraction], weights: list[Fraction]) -> list[Fraction]:
    """Pool adjacent violators, exactly."""
    pools: list[list] = []
    for value, weight in zip(values, weights, strict=True):
        pools.append([value * weight, weight, 1])
        while len(pools) > 1 and pools[-2][0] * pools[-1][1] >= pools[-1][0] * pools[-2][1]:
            last = pools.pop()
            pools[-1] = [a + b for a, b in zip(pools[-1], last, strict=True)]
    return [total / weight for total, weight, size in pools for _ in range(size)]


def venn_abers(related: list[int], unrelated: list[int]) -> list[float]:
    """Both regressions for every bin, with one more pair in it."""
    found = []
    for i in range(len(related)):
        p = []
        for new in (0, 1):
            yes, no = list(related), list(unrelated)
            yes[i] += new
            no[i] += 1 - new
            # Bins without pairs have no say.
            there = [j for j in range(len(yes)) if yes[j] + no[j]]
            values = [Fraction(yes[j], yes[j] + no[j]) for j in there]
            weights = [Fraction(yes[j] + no[j]) for j in there]
            p.append(isotonic(values, weights)[there.index(i)])
        found.append(float(p[1] / (1 - p[0] + p[1])))
    return found


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=12))
def test_probabilities_are_venn_abers(pairs):
    related, unrelated = ([pair[i] for pair in pairs] for i in (0, 1))
    found = probability.probabilities(
        np.array(related, dtype=np.float64), np.array(unrelated, dtype=np.float64)
    )
    assert found == pytest.approx(venn_abers(related, unrelated), abs=1e-12)
    assert (np.diff(found) >= 0).all()
    assert ((found > 0) & (found < 1)).all()


def test_probabilities_of_much_that_is_sure_are_not_0_or_1():
    found = probability.probabilities(np.array([0.0, 0, 50]), np.array([1e7, 9, 0]))
    # 9 unrelated pairs of 9: p0 = 0, p1 = 1 / 10; 50 related of 50: p0 = 50 / 51, p1 = 1.
    assert found[1:] == pytest.approx([0.1 / 1.1, 1 / (1 + 1 / 51)])
    assert 0 < found[0] < 1e-6


def made_counts(related, unrelated, scores) -> Counts:
    """Of one query, from pairs by bin of rising score; the first bin is below the grid."""
    yes, no = (np.cumsum(np.array(part)[::-1])[None] for part in (related, unrelated))
    grid = np.array(scores, dtype=np.float32)[::-1]
    return Counts(
        grid,
        yes[:, :-1].astype(np.int32),
        no[:, :-1].astype(np.int32),
        (yes + no)[:, :-1].astype(np.int32),
        yes[:, -1],
        no[:, -1],
    )


def test_knots_weigh_pairs_to_the_share_of_all_labels():
    part = made_counts([0, 10, 10, 40], [0, 1000, 10, 0], [0.0, 0.25, 0.5])
    whole = made_counts([0, 10, 10, 10], [0, 1000, 10, 0], [0.0, 0.25, 0.5])
    assert [list(bins) for bins in part.binned()] == [[0, 10, 10, 40], [0, 1000, 10, 0]]
    assert probability.weight(part, whole) == pytest.approx(0.5)
    assert probability.weight(part, part) == 1
    scores, likely = probability.knots(part, whole)
    assert scores == (0.125, 0.375, 0.5)
    expected = probability.probabilities(np.array([5.0, 5, 20]), np.array([1000.0, 10, 0]))
    assert likely == pytest.approx(expected.tolist(), rel=1e-8)


def test_reliability_and_brier_score_by_hand():
    first = made_counts([0, 10, 50, 40], [0, 990, 50, 10], [0.0, 0.25, 0.5])
    # Twice as many related pairs as in all labels: each counts half.
    second = made_counts([0, 40, 120, 40], [0, 980, 40, 30], [0.0, 0.25, 0.5])
    likely = probability.probabilities(np.array([10.0, 50, 40]), np.array([990.0, 50, 10]))
    rows, brier, constant = probability.reliability(first, second, first)
    by_low = {row.low: row for row in rows if row.pairs}
    assert [row.pairs for row in by_low.values()] == [1020, 160, 70]
    assert [row.expected for row in by_low.values()] == pytest.approx(likely.tolist())
    assert [row.observed for row in by_low.values()] == pytest.approx([0.02, 0.6, 0.4])
    related, unrelated = np.array([20, 60, 20]), np.array([980, 40, 30])
    squares = (related * (1 - likely) ** 2 + unrelated * likely**2).sum()
    assert brier == pytest.approx(squares / 1150)
    assert constant == pytest.approx(100 / 1150 * 1050 / 1150)


# --- simulation -----------------------------------------------------------------------------

THRESHOLDS = np.linspace(6, -3, 91).astype(np.float32)
RUNS = 400


def draw(rng: np.random.Generator, groups: int) -> tuple[Counts, np.ndarray]:
    """Groups of random size and quality; queries of one are alike, in what they miss too."""
    sizes = rng.choice([1, 2, 3, 6], groups)
    group = np.repeat(np.arange(groups), sizes)
    good, bad = rng.normal(4.5, 1.2, groups)[group], rng.exponential(0.5, groups)[group]
    relatives = sizes[group] - 1
    own = rng.normal(good[:, None], 0.7, (len(group), 5))
    own[np.arange(5) >= relatives[:, None]] = -np.inf
    others = rng.normal(bad[:, None], 1.0, (len(group), 20))
    related, unrelated = (
        (scores[:, :, None] >= THRESHOLDS).sum(axis=1, dtype=np.int32) for scores in (own, others)
    )
    strangers = np.full(len(group), 20)
    return Counts(THRESHOLDS, related, unrelated, related + unrelated, relatives, strangers), group


KINDS = {
    "fdr": (lambda counts: fdr.false_positives(counts), 0.1, False),
    "fdr of queries with hits": (lambda counts: fdr.false_positives(counts, answered=True), 0.1, 0),
    "fnr": (fdr.false_negatives, 0.2, True),
}


@pytest.fixture(scope="module")
def truth():
    """True risks at each threshold, from 40,000 groups."""
    counts, group = draw(np.random.default_rng(99), 40_000)
    return {
        kind: np.nanmean(fdr.group_means(measure(counts), group), axis=0)
        for kind, (measure, *_) in KINDS.items()
    }


@pytest.mark.parametrize("kind", KINDS)
def test_the_true_rate_is_kept_in_simulation(kind, truth):
    """Worlds with known truth; taking the mean at its word misses the target."""
    measure, rate, laxest_first = KINDS[kind]
    rng = np.random.default_rng(1)
    missed = naive = nothing = 0
    for _ in range(RUNS):
        counts, group = draw(rng, 150)
        risks = fdr.group_means(measure(counts), group)
        starts = [0]
        if kind.endswith("hits"):
            other, other_group = draw(rng, 150)
            starts = fdr.starts(other.all_, other_group, 22)
        place, _ = fdr.certified(risks, rate, 0.9, laxest_first=bool(laxest_first), starts=starts)
        nothing += place is None
        missed += place is not None and truth[kind][place] > rate
        # Of the scores that some groups have hits at.
        passed = np.flatnonzero(np.nanmean(risks[:, 9:], axis=0) <= rate) + 9
        if len(passed):
            naive += truth[kind][passed[0] if laxest_first else passed[-1]] > rate
    assert missed <= binom.ppf(0.9999, RUNS, 0.1)
    assert naive > 0.25 * RUNS  # the simulation can tell
    assert nothing < 0.1 * RUNS  # and certifying has power


def test_groups_not_queries_are_the_witnesses(truth):
    """Counting every query as a witness of its own breaks the guarantee."""
    rng = np.random.default_rng(3)
    missed = 0
    for _ in range(RUNS):
        counts, _ = draw(rng, 150)
        place, _ = fdr.certified(fdr.false_positives(counts), 0.1, 0.9)
        missed += place is not None and truth["fdr"][place] > 0.1
    assert missed > binom.ppf(0.9999, RUNS, 0.1)


def world(rng: np.random.Generator) -> tuple[LabelledRows, np.ndarray]:
    """Proteins of 80 folds and their scores with each other: symmetric, and some score high."""
    sizes = rng.choice([1, 1, 2, 3], 80)
    fold = np.repeat(np.arange(80), sizes)
    labels = [f"a.{one}.1.1" for one in fold]
    n = len(fold)
    noise = rng.standard_normal((n, n))
    sticky = rng.exponential(0.4, n)
    close = rng.normal(4.0, 1.5, 80)[fold]
    scores = (noise + noise.T) / math.sqrt(2) + sticky[:, None] + sticky
    scores += np.where(fold[:, None] == fold, close[:, None], 0)
    return LabelledRows.of(list(range(n)), labels), scores.astype(np.float32)


def true_risk(rng: np.random.Generator, grid: np.ndarray, worlds: int) -> np.ndarray:
    """Mean risk of a group at each threshold, over many worlds; without the package's counting."""
    total, groups = np.zeros(len(grid)), 0
    for _ in range(worlds):
        labelled, scores = world(rng)
        fold = labelled.codes[:, 2]
        other = fold[:, None] != fold
        np.fill_diagonal(scores, -np.inf)
        passed = scores[:, :, None] >= grid
        wrong = (passed & other[:, :, None]).sum(axis=1)
        share = wrong / np.maximum(passed.sum(axis=1), 1)
        for one in np.unique(fold):
            total += share[fold == one].mean(axis=0)
            groups += 1
    return total / groups


def test_the_true_rate_is_kept_where_queries_share_their_targets():
    """All the way from scores: an unrelated pair counts for both, and rows are targets of all."""
    rng = np.random.default_rng(4)
    grid = np.linspace(9, 0, 46)
    risk = true_risk(rng, grid, 60)
    runs, missed, found = 150, 0, 0
    for _ in range(runs):
        labelled, scores = world(rng)
        first = np.isin(labelled.codes[:, 2], rng.permutation(80)[:40])
        halves = Halves(labelled.codes[:, 2], first)
        rankings = list(ranked(scores, labelled.rows))
        learnt = learn_tier(
            "a",
            "flat",
            labelled,
            halves,
            lambda positions, known=rankings: [known[i] for i in positions],
            Wanted(fdr=0.2, confidence=0.8),
        )
        cut = learnt.calibration.fdr
        found += cut is not None
        missed += cut is not None and np.interp(-cut.score, -grid, risk) > 0.2
    assert missed <= binom.ppf(0.9999, runs, 0.2)
    assert found > 0.9 * runs
