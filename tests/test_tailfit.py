"""The tail of chance scores: against known distributions, and by its own properties."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import genpareto, norm

from rdsearch import tailfit

SEED = 20261126


def rising(scores):
    return np.sort(np.asarray(scores, dtype=np.float64), axis=1)


def fitted(background):
    return tailfit.fit(background, tailfit.typical_shape([background]))


def observed_over_expected(draw, n, levels=(0.1, 1.0, 10.0), queries=300):
    """Fresh scores of chance below an e-value, over that e-value: the definition of one."""
    tails = fitted(rising(draw((queries, n))))
    observed = np.zeros(len(levels))
    repeats = max(1, 20_000 // n)
    for query in range(queries):
        evalues = n * tails.survival(query, draw(n * repeats))
        observed += (evalues[:, None] <= levels).sum(axis=0) / repeats
    return observed / queries / levels


@pytest.mark.parametrize("n", [1000, 10_000])
@pytest.mark.parametrize("shape", [-0.2, 0.0, 0.1])
def test_expected_and_observed_agree(shape, n):
    """Where the tail is what the fit takes it for."""
    random = np.random.default_rng(SEED)

    def draw(size):
        return genpareto.rvs(shape, scale=0.05, size=size, random_state=random)

    ratio = observed_over_expected(draw, n)
    assert (ratio > 0.5).all(), ratio
    assert (ratio < 1.6).all(), ratio


@pytest.mark.parametrize("n", [200, 10_000])
def test_normal_scores_are_the_known_weakness(n):
    random = np.random.default_rng(SEED)
    ratio = observed_over_expected(lambda size: 0.1 * random.standard_normal(size), n)
    assert (ratio > 0.5).all(), ratio
    assert (ratio < [8, 2.2, 1.3]).all(), ratio


def test_homologs_in_the_background_change_little():
    """The best eight of 10,000 say only that they are there."""
    random = np.random.default_rng(SEED)
    clean = 0.1 * random.standard_normal((50, 10_000))
    dirty = clean.copy()
    dirty[:, :7] = 0.9
    prior = tailfit.typical_shape([rising(clean)])
    at = norm.isf([1e-3, 1e-5]) * 0.1
    before, after = tailfit.fit(rising(clean), prior), tailfit.fit(rising(dirty), prior)
    ratios = [after.survival(i, at) / before.survival(i, at) for i in range(50)]
    change = np.median(ratios, axis=0)
    assert (change > 0.7).all(), change
    # Seven homologs make e-values too high, which is the safe side.
    assert (change < [2, 15]).all(), change


@pytest.mark.parametrize("members", [20, 60, 100])
def test_a_large_family_in_the_background_is_taken_out(members):
    """Scores far beyond the others, more than are censored anyway, do not make a tail heavy."""
    random = np.random.default_rng(SEED)
    clean = 0.1 * random.standard_normal((30, 2000))
    dirty = clean.copy()
    dirty[:, :members] = random.uniform(0.7, 1, (30, members))
    prior = tailfit.typical_shape([rising(clean)])
    at = np.array([0.3, 0.5, 0.8])
    before, after = tailfit.fit(rising(clean), prior), tailfit.fit(rising(dirty), prior)
    ratios = [after.survival(i, at) / before.survival(i, at) for i in range(30)]
    np.testing.assert_allclose(np.median(ratios, axis=0), 1, atol=0.3)


def test_chance_is_not_taken_out():
    random = np.random.default_rng(SEED)
    background = rising(0.1 * random.standard_t(8, (500, 2000)))
    tails = tailfit.fit(background, tailfit.typical_shape([background]))
    assert (tails.background != background).any(axis=1).sum() <= 5


def test_a_generalised_pareto_tail_is_found():
    """Shape and scale of exceedances that are drawn from the distribution itself."""
    random = np.random.default_rng(SEED)
    shape, scale = -0.15, 0.05
    scores = random.uniform(0, 0.3, (200, 10_000))
    tail = genpareto.rvs(shape, scale=scale, size=(200, 300), random_state=random)
    scores[:, :300] = 0.3 + tail
    background = rising(scores)
    prior = tailfit.typical_shape([background])
    # The likeliest shape of so few exceedances lies 0.02 too low on average.
    assert prior.shape == pytest.approx(shape, abs=0.03)
    tails = tailfit.fit(background, prior)
    at = 0.3 + genpareto.isf([0.5, 0.1, 0.01], shape, scale=scale)
    found = np.array([tails.survival(query, at) for query in range(200)])
    expected = 0.03 * np.array([0.5, 0.1, 0.01])
    np.testing.assert_allclose(np.median(found, axis=0), expected, rtol=0.25)


def test_below_the_threshold_it_is_the_share_of_the_background():
    random = np.random.default_rng(SEED)
    background = rising(random.standard_normal((3, 1000)))
    tails = fitted(background)
    for query in range(3):
        scores = background[query, [0, 100, 500, 700]]
        expected = np.array([1.0, 0.9, 0.5, 0.3])
        np.testing.assert_allclose(tails.survival(query, scores), expected)
    assert tails.survival(0, np.array([-100.0])) == 1.0


def test_it_falls_with_the_score_and_is_never_zero():
    random = np.random.default_rng(SEED)
    tails = fitted(rising(2 * random.beta(30, 30, (20, 2000)) - 1))
    scores = np.linspace(-1, 1, 500)
    for query in range(20):
        found = tails.survival(query, scores)
        assert (np.diff(found) <= 0).all()
        assert (found > 0).all()
        assert (found <= 1).all()


def test_scale_and_shift_change_nothing():
    random = np.random.default_rng(SEED)
    background = rising(random.standard_normal((5, 1000)))
    scores = np.array([0.0, 2.0, 3.0, 5.0])
    one, other = fitted(background), fitted(7 * background - 3)
    for query in range(5):
        np.testing.assert_allclose(
            one.survival(query, scores), other.survival(query, 7 * scores - 3), rtol=1e-9
        )


def test_a_query_is_fitted_alone():
    """Whatever other queries are fitted with it."""
    random = np.random.default_rng(SEED)
    background = rising(random.standard_normal((6, 500)))
    prior = tailfit.Prior(-0.1)
    together = tailfit.fit(background, prior)
    alone = tailfit.fit(background[4:5], prior)
    scores = np.array([1.0, 3.0, 6.0])
    np.testing.assert_allclose(together.survival(4, scores), alone.survival(0, scores), rtol=1e-12)


def test_equal_scores_have_no_tail_and_no_error():
    tails = tailfit.fit(np.full((1, 300), 0.25), tailfit.Prior(-0.1))
    found = tails.survival(0, np.array([0.2, 0.25, 0.5]))
    assert found[0] == found[1] == 1.0
    assert 0 < found[2] < 1e-6
