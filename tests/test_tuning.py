"""Tuning: candidates, the choice of a sequence, the guarantee on a real funnel, the command."""

from __future__ import annotations

import dataclasses
import itertools
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from click.testing import CliRunner

import rdsearch
from rdsearch import certification, tiers, tuning
from rdsearch import funnel as planning
from rdsearch.certification import Target, certify
from rdsearch.cli_tune import tune as command
from rdsearch.codecs import Codec, learn
from rdsearch.errors import FastaError, InputError, TuningError
from rdsearch.funnel import Funnel
from rdsearch.generations import publish
from rdsearch.guarantee import Guarantee
from rdsearch.manifest import Manifest, TierEntry
from rdsearch.searcher import Ranking, Searcher
from rdsearch.space import Space
from rdsearch.tombstones import Tombstones

DIMS = (8, 16, 32, 64)
NAMES = ("a", "b", "c", "d")
N = 600
REPETITIONS = 200


def make_vectors(seed: int, n: int) -> np.ndarray:
    """Clusters whose first dimensions say most, as in nested embeddings."""
    centres = np.random.default_rng(99).standard_normal((60, DIMS[-1]))
    rng = np.random.default_rng(seed)
    made = centres[rng.integers(60, size=n)] + rng.standard_normal((n, DIMS[-1]))
    return (made * 0.93 ** np.arange(DIMS[-1]) + 1).astype(np.float32)


class Vectors(Searcher):
    """An index of made-up vectors: real tier files and funnels, no chain and no catalog."""

    def __init__(self, folder, vectors, codecs):
        entries = [
            TierEntry(name, dims, codec.name, codec.cells)
            for name, dims, codec in zip(NAMES, DIMS, codecs, strict=True)
        ]
        own = Funnel(NAMES, (200, 100, 50))
        manifest = SimpleNamespace(
            tiers=tuple(entries),
            scan=None,
            funnel=own,
            guarantee=None,
            segments=(SimpleNamespace(name="1", rows=len(vectors)),),
        )
        super().__init__(folder, manifest, Tombstones(), in_memory=True)
        self.space = Space("centred", vectors.mean(axis=0, dtype=np.float64))
        for name, dims, codec in zip(NAMES, DIMS, codecs, strict=True):
            prefix = np.ascontiguousarray(vectors[:, :dims])
            path = folder / f"{name}.faiss"
            part = self.space.prefix(dims)
            tiers.write(path, part, learn(codec, part, prefix), [prefix])
            self._tiers[name] = tiers.read(path, name, dims, self.n_rows)
        self.tiers = NAMES
        self._known = {}

    def plan(self, **options):
        return planning.plan(self.manifest.funnel, self.tiers, **options)

    def rank_rows(self, queries, k, funnel, **options):
        """All rows are ranked the first time a funnel is asked for: repetitions cost little."""
        assert not options
        if (k, funnel) not in self._known:
            self._known[k, funnel] = super().rank_rows(range(self.n_rows), k, funnel)
        known = self._known[k, funnel]
        return [known[row] for row in queries]


FLAT = [Codec("flat")] * 4
CELLS = [Codec("rabitq", 16), Codec("sq8"), Codec("sq8"), Codec("sqfp16")]


@pytest.fixture(scope="module", params=["flat", "cells"])
def index(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    return Vectors(folder, make_vectors(0, N), FLAT if request.param == "flat" else CELLS)


@pytest.fixture
def flat(tmp_path):
    return Vectors(tmp_path, make_vectors(0, N), FLAT)


def recall_by_hand(vectors, queries, found, k):
    """Exhaustive cosines in float64; a row is right when it scores as high as the k-th."""
    mean = vectors.astype(np.float64).mean(axis=0)
    unit = vectors - mean
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    shares = []
    for row, rows in zip(queries, found, strict=True):
        scores = unit @ unit[row]
        scores[row] = -2
        worst = np.sort(scores)[-k]
        shares.append(sum(scores[r] >= worst - 1e-6 for r in rows) / k)
    return shares


def test_recall_is_that_of_an_exhaustive_search(flat):
    vectors, queries, k = make_vectors(0, N), list(range(0, N, 6)), 10
    recall = tuning.Recall(
        lambda funnel: flat.rank_rows(queries, k, funnel), Funnel(NAMES[-1:], ())
    )
    for funnel in (Funnel(("a", "d"), (20,)), Funnel(NAMES, (60, 40, 20)), Funnel(("d",), ())):
        found = [ranking.rows for ranking in flat.rank_rows(queries, k, funnel)]
        expected = recall_by_hand(vectors, queries, found, k)
        np.testing.assert_allclose(recall(funnel), expected)
    assert 0.1 < recall(Funnel(("a", "d"), (20,))).mean() < 0.9


def test_recall_respects_ties():
    def ranking(rows, scores):
        return Ranking(np.array(rows, dtype=np.int64), np.array(scores, np.float32)[:, None])

    answers = {
        Funnel(("d",), ()): [ranking([1, 2, 3], [0.9, 0.5, 0.5]), ranking([4], [0.1])],
        Funnel(("a", "d"), (9,)): [ranking([1, 8, 9], [0.9, 0.5, 0.4]), ranking([], [])],
        Funnel(("b", "d"), (9,)): [
            ranking([1, 2, 3], [0.9, 0.5, 0.4999999]),
            ranking([4], [0.0999999]),
        ],
    }
    recall = tuning.Recall(answers.__getitem__, Funnel(("d",), ()))
    # Row 8 scores as row 3, the last of the exhaustive search; the second query has one row only.
    assert recall(Funnel(("a", "d"), (9,))).tolist() == [2 / 3, 0]
    # The same rows, whose sums were rounded the other way.
    assert recall(Funnel(("b", "d"), (9,))).tolist() == [1, 1]
    assert recall(Funnel(("d",), ())).tolist() == [1, 1]


def test_candidates_are_sorted_distinct_and_cheaper_than_the_exhaustive_search(index):
    made = tuning.candidates(index, "d", 10)
    costs = [tuning.bytes_read(index, funnel) for funnel in made]
    assert costs == sorted(costs)
    assert len(set(made)) == len(made)
    assert max(costs) < tuning.bytes_read(index, Funnel(("d",), ()))
    assert {funnel.tiers for funnel in made} == {
        ("a", "d"), ("b", "d"), ("c", "d"), ("a", "b", "d"), ("a", "c", "d"), NAMES,
    }  # fmt: skip
    assert index.manifest.funnel in made
    assert {f.shortlists[0] for f in made if f.tiers == ("a", "d")} > {10, 14, 20, 28, 40}
    probes = {funnel.probes for funnel in made if funnel.tiers[0] == "a"}
    assert probes == ({None} if index.entry("a").cells is None else {None, 1, 4})
    assert {funnel.probes for funnel in made if funnel.tiers[0] != "a"} == {None}


def test_candidates_end_where_they_are_told(index):
    made = tuning.candidates(index, "b", 10)
    assert {funnel.tiers for funnel in made} == {("a", "b")}
    alone = tuning.candidates(index, "a", 10)
    assert [f.probes for f in alone] == ([] if index.entry("a").cells is None else [1, 4])


def test_a_tuned_funnel_is_no_candidate_of_the_next_tuning(flat):
    """It depends on the queries that chose it, which may be those that test."""
    own = flat.manifest.funnel
    assert own in tuning.candidates(flat, "d", 10)
    flat.manifest.guarantee = Guarantee(0.9, 0.9, 10, 300, 0.95, "sample", 0)
    assert own not in tuning.candidates(flat, "d", 10)


def test_the_sequence_is_the_exhaustive_search_safer_funnels_and_the_pareto_front(flat):
    exact = Funnel(("d",), ())
    offered = [Funnel(("a", "d"), (size,)) for size in (10, 20, 30, 40, 50, 60)]
    means = dict(zip(offered, (0.5, 0.8, 0.7, 0.9, 1.0, 1.0), strict=True))
    asked = []

    def recall(funnel):
        asked.append(funnel)
        return np.full(3, means[funnel])

    sequence = tuning.choose(flat, exact, offered, recall)
    assert asked == offered[:5]  # 60 costs more and cannot be better
    sizes = [funnel.shortlists[0] for funnel in sequence[1:]]
    assert sequence[0] == exact
    assert sizes == [200, 100, 50, 40, 20, 10]
    costs = [tuning.bytes_read(flat, funnel) for funnel in sequence]
    assert costs == sorted(costs, reverse=True)
    assert tuning.choose(flat, exact, [], recall) == [exact]


def test_of_two_funnels_at_one_cost_the_better_is_kept(flat, monkeypatch):
    monkeypatch.setattr(tuning, "bytes_read", lambda _, funnel: 1 + (len(funnel.tiers) == 1))
    offered = [Funnel(("a", "d"), (10,)), Funnel(("b", "d"), (10,))]
    means = dict(zip(offered, (0.5, 0.9), strict=True))
    sequence = tuning.choose(
        flat, Funnel(("d",), ()), offered, lambda funnel: np.full(3, means[funnel])
    )
    assert offered[0] not in sequence
    assert sequence[-1] == offered[1]


def test_a_tuned_funnel_is_cheap_and_the_test_uses_rows_that_did_not_choose(index, monkeypatch):
    asked = []
    real = type(index).rank_rows

    def spy(self, queries, k, funnel, **options):
        asked.append(tuple(queries))
        return real(self, queries, k, funnel, **options)

    monkeypatch.setattr(type(index), "rank_rows", spy)
    tuned = tuning.tune(index, recall=0.9, confidence=0.95, sample=300, seed=4)
    tested = {queries for queries in asked if len(queries) == 300}
    chose = {queries for queries in asked if len(queries) != 300}
    assert len(tested) == 1
    assert {len(queries) for queries in chose} == {64, 150}
    assert not set(itertools.chain(*chose)) & set(*tested)
    assert tuned.guarantee.queries == 300
    assert tuned.guarantee == Guarantee(
        0.9, 0.95, 10, 300, tuned.guarantee.measured_recall, "sample", 4
    )
    exact = Funnel(("d",), ())
    assert tuned.trials[0].candidate == exact
    assert tuned.trials[0].recall == 1
    assert tuning.bytes_read(index, tuned.funnel) < 0.7 * tuning.bytes_read(index, exact)
    costs = [tuning.bytes_read(index, trial.candidate) for trial in tuned.trials]
    assert costs == sorted(costs, reverse=True)
    assert all(trial.certified for trial in tuned.trials[:-1])
    last = [trial for trial in tuned.trials if trial.certified][-1]
    assert (last.candidate, last.recall) == (tuned.funnel, tuned.guarantee.measured_recall)
    again = tuning.tune(index, recall=0.9, confidence=0.95, sample=300, seed=4)
    assert again == tuned


@pytest.mark.slow
def test_the_guarantee_holds_in_200_tunings(flat, monkeypatch):
    """The whole of it, seed after seed; the true recall of a funnel is its mean over all rows."""
    whole = tuning.Recall(
        lambda funnel: flat.rank_rows(range(N), 10, funnel), Funnel(NAMES[-1:], ())
    )

    def tuned(repetitions):
        options = {"recall": 0.94, "confidence": 0.9, "sample": 120}
        return [tuning.tune(flat, seed=seed, **options).funnel for seed in range(repetitions)]

    funnels = tuned(REPETITIONS)
    true = {funnel: whole(funnel).mean() for funnel in set(funnels)}
    assert sum(true[funnel] < 0.94 for funnel in funnels) <= 0.1 * REPETITIONS
    assert sum(len(funnel.tiers) > 1 for funnel in funnels) > 0.9 * REPETITIONS

    # The same with the measured recall taken at its word: this index can tell.
    monkeypatch.setattr(certification, "p_value", lambda risk, n, level: float(risk > level))
    missed = [whole(funnel).mean() < 0.94 for funnel in tuned(40)]
    assert sum(missed) > 0.2 * 40


@pytest.mark.slow
def test_the_guarantee_holds_for_queries_from_a_population(flat):
    """20,000 queries that the index does not hold; 200 draws; a target just above a true recall."""
    population = make_vectors(1, 20_000)
    exact, k, n = Funnel(("d",), ()), 10, 400
    recall = tuning.Recall(lambda funnel: flat.rank(population, k, funnel), exact)
    sequence = [exact, *(Funnel(("a", "d"), (size,)) for size in (300, 200, 140, 100, 70))]
    recalls = {funnel: recall(funnel) for funnel in sequence}
    true = {funnel: recalls[funnel].mean() for funnel in sequence}
    assert sorted(true.values(), reverse=True) == list(true.values())
    rng = np.random.default_rng(0)
    for just_below in sequence[2:5]:
        target = Target(true[just_below] + 1e-4, 0.95)
        missed = naive_missed = 0
        for _ in range(REPETITIONS):
            drawn = rng.choice(len(population), n, replace=False)
            trials = certify(sequence, lambda funnel, d=drawn: recalls[funnel][d], target)
            certified = [trial.candidate for trial in trials if trial.certified]
            missed += bool(certified) and true[certified[-1]] < target.recall
            naive = [f for f in sequence if recalls[f][drawn].mean() >= target.recall]
            naive_missed += true[naive[-1]] < target.recall
        assert missed <= 0.05 * REPETITIONS
        assert naive_missed > 0.3 * REPETITIONS


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"recall": 0}, InputError, "target recall must lie between 0 and 1.*found 0"),
        ({"recall": 1}, InputError, "target recall must lie between 0 and 1.*found 1"),
        ({"confidence": 1.2}, InputError, "target confidence must lie.*found 1.2"),
        ({"k": 0}, InputError, "k must be at least 1; found 0"),
        ({"k": N}, InputError, "k must be smaller than the 600 rows.*found 600"),
        ({"seed": -1}, InputError, "seed must be 0 or more; found -1"),
        ({"sample": 0}, InputError, "at least 1 row; found 0"),
        ({"sample": 451}, InputError, "at most 450 rows.*found 451"),
        ({"to_tier": "z"}, InputError, "no tier 'z'; it has a, b, c, d"),
        ({"sample": 298}, TuningError, "needs at least 299 queries.*found 298"),
        ({"recall": 0.9999}, TuningError, "needs at least 29,956 queries.*found 400"),
    ],
)
def test_bad_arguments_are_named(flat, options, error, words):
    with pytest.raises(error, match=words):
        tuning.tune(flat, **{"sample": 400, **options})


@pytest.fixture
def copy(mini_index, tmp_path):
    return shutil.copytree(mini_index, tmp_path / "copy")


def run(*arguments):
    return CliRunner().invoke(command, [*map(str, arguments), "--quiet"], catch_exceptions=False)


def test_the_command_stores_funnel_and_guarantee(copy):
    before = Manifest.read(copy)
    wanted = ("--recall", 0.8, "--confidence", 0.9, "-k", 3, "--sample", 60)
    dry = run(copy, *wanted, "--dry-run")
    assert Manifest.read(copy) == before
    result = run(copy, *wanted)
    assert result.exit_code == 0
    assert dry.stdout == result.stdout
    after = Manifest.read(copy)
    assert (after.generation, after.operation) == (2, f"tune: {after.funnel}")
    assert after == dataclasses.replace(
        before,
        generation=2,
        operation=after.operation,
        created=after.created,
        funnel=after.funnel,
        guarantee=after.guarantee,
    )
    assert (after.guarantee.recall, after.guarantee.confidence) == (0.8, 0.9)
    assert (after.guarantee.k, after.guarantee.queries) == (3, 60)
    assert (after.guarantee.source, after.guarantee.seed) == ("sample", 0)
    assert 0.8 < after.guarantee.measured_recall <= 1
    assert f"{after.funnel}: {after.guarantee}" in result.stdout
    assert "funnel" in result.stdout
    assert "recall@3" in result.stdout
    rdsearch.verify(copy)
    with rdsearch.open(copy) as opened:
        assert opened.default_funnel == after.funnel


def test_the_command_takes_queries_and_a_tier(copy, proteins_file):
    result = run(
        copy, "--recall", 0.9, "--queries", proteins_file, "--to-tier", "1.2M", "--seed", 3
    )
    assert result.exit_code == 0
    after = Manifest.read(copy)
    assert after.funnel.tiers[-1] == "1.2M"
    assert (after.guarantee.queries, after.guarantee.seed) == (121, 3)
    assert after.guarantee.source == "proteins.fasta"
    assert "on 121 proteins of proteins.fasta" in result.stdout


def test_what_cannot_be_certified_leaves_the_index_as_it_was(copy, proteins_file, tmp_path):
    before = (copy / "manifest.json").read_bytes()
    with pytest.raises(
        TuningError, match=r"proteins\.fasta: a recall of 0\.99.*found 121"
    ) as error:
        run(copy, "--queries", proteins_file)
    assert (error.value.needed, error.value.found) == (299, 121)
    with pytest.raises(TuningError, match="at least 299 queries"):
        run(copy, "--sample", 90)
    with pytest.raises(InputError, match="at most 90 rows"):
        run(copy, "--sample", 91, "--recall", 0.9)
    empty = tmp_path / "empty.fasta"
    empty.write_text("")
    with pytest.raises((FastaError, TuningError)):
        run(copy, "--queries", empty)
    both = run(copy, "--queries", proteins_file, "--sample", 9)
    assert both.exit_code == 2
    assert "exclude each other" in both.output
    assert (copy / "manifest.json").read_bytes() == before


def test_an_index_that_changed_meanwhile_is_not_written(copy):
    with rdsearch.open(copy) as opened:
        tuned = tuning.tune(opened, recall=0.8, confidence=0.9, sample=60, k=3)
        other = dataclasses.replace(opened.manifest, funnel=Funnel(opened.tiers[-1:], ()))
        publish(copy, other)
        with pytest.raises(TuningError, match="was changed while it was tuned"):
            tuning.store(opened, tuned)
    assert Manifest.read(copy) == other
