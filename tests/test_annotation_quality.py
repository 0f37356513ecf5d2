"""Labels, evidence and confidences: by hand, by their properties, against an oracle."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import isotonic_regression

from rdsearch import evidence
from rdsearch.annotation_quality import THRESHOLDS, Trials, fit, measure
from rdsearch.errors import InputError
from rdsearch.evidence import DOUBT, FLOOR, split

# Values ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "labels"),
    [
        (None, ()),
        ("", ()),
        (" ; - |;", ()),
        ("GO:0005524", ("GO:0005524",)),
        ("GO:0005524; GO:0016301;GO:0005524;", ("GO:0005524", "GO:0016301")),
        ("GO:0005524|GO:0016301", ("GO:0005524", "GO:0016301")),
        ("GO:0005524, GO:0016301", ("GO:0005524", "GO:0016301")),
        ("GO:0005524 GO:0016301", ("GO:0005524", "GO:0016301")),
        ("2.7.11.1; 2.7.-.-", ("2.7.11.1", "2.7.-.-")),
        ("2.7.11.1,2.7.10.n2", ("2.7.11.1", "2.7.10.n2")),
        ("PF00069,PF07714 IPR000719", ("PF00069", "PF07714", "IPR000719")),
        ("a.1.1.1 b.2.1.3", ("a.1.1.1", "b.2.1.3")),
        ("G3DSA:1.10.510.10, PTHR24416:SF611", ("G3DSA:1.10.510.10", "PTHR24416:SF611")),
        ("Escherichia coli", ("Escherichia coli",)),
        ("kinase, ATP-binding", ("kinase, ATP-binding",)),
        ("ATP binding [GO:0005524]; cytosol", ("ATP binding [GO:0005524]", "cytosol")),
        ("binding of GO:0005524, GO:0016301", ("binding of GO:0005524, GO:0016301",)),
        ("1.5, 2.5", ("1.5, 2.5",)),
        (["a, b", " c;d ", None, "", "a, b"], ("a, b", "c;d")),
        ([], ()),
        ([3, 5], ("3", "5")),
        (562, ("562",)),
        (True, ("true",)),
    ],
)
def test_values_are_taken_apart_where_that_is_safe(value, labels):
    assert split(value) == labels


@given(
    st.lists(st.from_regex(r"GO:[0-9]{7}|PF[0-9]{5}|[1-7]\.[1-9]\.[1-9]{2}\.-", fullmatch=True)),
    st.sampled_from([";", "; ", "|", ",", ", ", " ", "\t", " ; "]),
)
def test_identifiers_come_back_whatever_separates_them(identifiers, separator):
    assert split(separator.join(identifiers)) == tuple(dict.fromkeys(identifiers))


# Evidence ----------------------------------------------------------------------------------------


def test_evidence_by_hand():
    found = evidence.evidence([3, 1, 2], [{"a": "x"}, {"a": "y", "b": "y"}, {}], doubt=2)
    # The third hit has no label: it is neither for nor against.
    assert found == pytest.approx({"a": 4 / 6, "b": 1 / 6})
    assert evidence.evidence([], [], doubt=2) == {}
    assert evidence.evidence([1.0], [{}], doubt=2) == {}


def test_weights_by_hand():
    weights, doubt = evidence.weighed(np.array([0.9, 0.5, 0.1]), np.array([1e-9, 1.0, 1e9]))
    assert weights == pytest.approx([9 * math.log(10) + 1e-9 + FLOOR, math.log(2) + FLOOR, FLOOR])
    assert doubt == DOUBT == pytest.approx(math.log(20))
    weights, _ = evidence.weighed(np.array([0.9, 0.8]), np.array([0.0, 1e-320]))
    assert all(math.isfinite(weight) for weight in weights)
    assert evidence.weighed(np.array([0.5, -0.2]), None)[0] == [0.5, FLOOR]


WEIGHTS = st.lists(st.floats(0.01, 800), min_size=1, max_size=12)


@given(WEIGHTS, st.data())
def test_a_label_of_all_hits_is_never_less_sure(weights, data):
    some = data.draw(st.lists(st.booleans(), min_size=len(weights), max_size=len(weights)))
    labels = [{"all": "", **({"some": ""} if has else {})} for has in some]
    found = evidence.evidence(weights, labels, DOUBT)
    assert 0 < found["all"] < 1
    if any(some):
        assert 0 < found["some"] <= found["all"]
        learnt = fit(trials_of([(value, value > 0.4) for value in (0.1, 0.3, 0.5, 0.7, 0.5)]))
        assert 0 < learnt(found["some"]) <= learnt(found["all"]) < 1


@given(WEIGHTS, st.floats(0.01, 800))
def test_another_supporter_adds_and_another_opponent_takes_away(weights, more):
    labels = [{"a": ""} for _ in weights]
    alone = evidence.evidence(weights, labels, DOUBT)["a"]
    assert evidence.evidence([*weights, more], [*labels, {"a": ""}], DOUBT)["a"] >= alone
    assert evidence.evidence([*weights, more], [*labels, {"b": ""}], DOUBT)["a"] <= alone
    assert evidence.evidence([*weights, more], [*labels, {}], DOUBT)["a"] == alone


# Calibration -------------------------------------------------------------------------------------


def trials_of(pairs):
    """A protein for each (evidence, right)."""
    return Trials(
        tuple(frozenset(["a" if right else "b"]) for _, right in pairs),
        tuple({"a": value} for value, _ in pairs),
    )


def venn_abers(pairs, value):
    """The definition: isotonic regression with the new pair as wrong and as right."""
    p = []
    for right in (0.0, 1.0):
        ordered = sorted([*pairs, (value, right)])
        x = [one for one, _ in ordered]
        # Equal evidence shares one value.
        distinct = sorted(set(x))
        means = [np.mean([y for at, y in ordered if at == one]) for one in distinct]
        sizes = [x.count(one) for one in distinct]
        p.append(isotonic_regression(means, weights=sizes).x[distinct.index(value)])
    return p[1] / (1 - p[0] + p[1])


@given(st.lists(st.tuples(st.integers(1, 9).map(lambda i: i / 10), st.booleans()), min_size=1))
def test_confidences_are_venn_abers(pairs):
    learnt = fit(trials_of(pairs))
    for value, _ in pairs:
        assert learnt(value) == pytest.approx(venn_abers(pairs, value))
    assert list(learnt.confidence) == sorted(learnt.confidence)
    assert 0 < learnt(0.0) <= learnt(1.0) < 1
    assert (learnt.pairs, learnt.right) == (len(pairs), sum(right for _, right in pairs))


def test_many_pairs_are_binned_finely_where_the_evidence_is_strong():
    rng = np.random.default_rng(0)
    values = rng.random(20_000)
    learnt = fit(trials_of(list(zip(values, rng.random(20_000) < values**2, strict=True))))
    assert len(learnt.evidence) <= 200
    inside = np.linspace(0.05, 0.95, 19)
    assert np.allclose([learnt(value) for value in inside], inside**2, atol=0.06)


def test_no_pairs_say_nothing():
    assert fit(Trials((frozenset("a"),), ({},)))(0.7) == 0.5


def test_quality_by_hand():
    # Every protein: labels a and b; its hits say a, c and d alike. One of three is right.
    same = Trials((frozenset("ab"),) * 60, ({"a": 0.4, "c": 0.4, "d": 0.4},) * 60)
    found = measure(same, "go")
    sure = Fraction(30 + 1, 90 + 1) / (1 - Fraction(30, 91) + Fraction(31, 91))
    assert 0.3 < sure < 0.4
    for at in found.operating:
        given_ = at.threshold <= 0.3
        assert (at.coverage, at.recall) == ((1.0, 0.5) if given_ else (0.0, 0.0))
        assert at.precision == (pytest.approx(1 / 3) if given_ else None)
        assert at.f == pytest.approx(0.4 if given_ else 0)
    assert (found.best.threshold, found.best.f) == (0.01, pytest.approx(0.4))
    # All proteins have the same labels: their frequency says everything.
    assert all((at.recall, at.precision) == (1, 1) for at in found.naive)
    assert (found.trials, found.labels, found.pairs, found.right) == (60, 2, 180, 60)
    [held] = [one for one in found.reliability if one.pairs]
    assert (held.low, held.high, held.pairs) == (0.3, 0.4, 180)
    assert held.expected == pytest.approx(float(sure))
    assert found.mean_confidence == pytest.approx(float(sure))
    assert held.observed == found.observed == pytest.approx(1 / 3)
    assert found.as_dict()["fmax"] == found.best.f


def test_proteins_count_alike_whatever_they_have_and_get():
    kinds = [
        ("a", {"a": 0.9}, 40),
        ("axy", {"a": 0.9, "b": 0.9, "c": 0.9}, 20),
        # Without a label from its hits it has a part in recall, none in precision.
        ("a", {}, 10),
    ]
    drawn = [(frozenset(truth), found) for truth, found, times in kinds for _ in range(times)]
    truths, predicted = zip(*drawn, strict=True)
    at = measure(Trials(truths, predicted), "go").operating[0]
    assert at.threshold == THRESHOLDS[0] == 0
    assert at.coverage == pytest.approx(60 / 70)
    assert at.recall == pytest.approx((40 + 20 / 3) / 70)
    assert at.precision == pytest.approx((40 + 20 / 3) / 60)


def test_halves_do_not_see_themselves():
    # One half is all right and the other all wrong: each has the confidences of the other.
    first = set(np.random.default_rng(5).permutation(100)[:50].tolist())
    found = measure(trials_of([(0.5, place in first) for place in range(100)]), "go", seed=5)
    low, *_, high = found.reliability
    assert (low.pairs, low.observed) == (50, 1)
    assert (high.pairs, high.observed) == (50, 0)
    assert low.expected < 0.1 < 0.9 < high.expected


def test_too_few_trials_are_refused():
    with pytest.raises(InputError, match="49 proteins") as error:
        measure(trials_of([(0.5, True)] * 49), "go")
    assert (error.value.needed, error.value.found) == (50, 49)
    assert measure(trials_of([(0.5, True)] * 50), "go").trials == 50
