"""Calibrations: learnt on a real index of planted families, checked by hand, stored, taken over."""

from __future__ import annotations

import math
import shutil

import numpy as np
import pytest

import rdsearch
from rdsearch import calibrating, calibrationfile, reliability, tiercalibration
from rdsearch import labels as label_files
from rdsearch.calibration import EVALUES, Calibration, TierCalibration
from rdsearch.details import Details
from rdsearch.errors import CalibrationError, ChainMismatchError, InputError, MetadataError
from rdsearch.fasta import Record
from rdsearch.funnel import Funnel
from rdsearch.labels import LabelledRows
from rdsearch.manifest import Manifest
from rdsearch.tiercalibration import Halves, Wanted, learn_tier
from tests.planted import FOLDS, UNLABELLED, plant


@pytest.fixture(scope="module", params=["exact", "balanced"])
def planted(request, tmp_path_factory, mini_chain):
    return plant(tmp_path_factory.mktemp("planted") / request.param, mini_chain, request.param)


@pytest.fixture(scope="module")
def exact(tmp_path_factory, mini_chain):
    return plant(tmp_path_factory.mktemp("planted") / "one", mini_chain)


@pytest.fixture(scope="module")
def learnt(exact):
    with rdsearch.open(exact / "index") as index:
        return calibrating.calibrate(index, exact / "labels.tsv", fdr=0.2, fnr=0.3)


@pytest.fixture
def own(exact, tmp_path):
    """A copy of the index, to change."""
    return shutil.copytree(exact / "index", tmp_path / "index")


def expected_cut(index, folder, tier, score, first_folds):
    """What a cut gives on the held-out folds, and its risks on the others; slowly, by text."""
    lines = (folder / "labels.tsv").read_text().splitlines()[1:]
    label = dict(line.split("\t") for line in lines)
    rows = index.catalog.rows_of(list(label))
    of_row = {row: label[name] for name, row in rows.items()}
    groups: dict[str, list] = {}
    for row, own_label in of_row.items():
        [ranking] = index.rank_rows([row], index.n_rows, Funnel((tier,), ()))
        parts = own_label.split(".")
        true = {r for r, o in of_row.items() if r != row and o.split(".")[:3] == parts[:3]}
        false = {r for r, o in of_row.items() if o.split(".")[1] != parts[1]}
        hits = {
            row
            for row, one in zip(ranking.rows.tolist(), ranking.scores[:, -1], strict=True)
            if one >= np.float32(score) and row in of_row
        }
        found, wrong = len(hits & true), len(hits & false)
        fdp = wrong / (found + wrong) if found + wrong else 0.0
        share = found / len(true) if true else None
        groups.setdefault(parts[1], []).append((fdp, share, found + wrong, len(hits)))
    held = [group for fold, group in groups.items() if fold not in first_folds]
    first = [group for fold, group in groups.items() if fold in first_folds]

    def mean(parts, take):
        means = [[take(one) for one in group if take(one) is not None] for group in parts]
        return np.mean([np.mean(values) for values in means if values])

    return {
        "fdp": mean(held, lambda one: one[0]),
        "answered": mean(held, lambda one: float(one[2] > 0)),
        "fdp_answered": mean(held, lambda one: one[0] if one[2] else None),
        "found": mean(held, lambda one: one[1]),
        "hits": np.mean([one[3] for group in held for one in group]),
        "risk fdr": mean(first, lambda one: one[0]),
        "risk fnr": mean(first, lambda one: None if one[1] is None else 1 - one[1]),
    }


def test_cuts_are_what_they_say(planted):
    """For flat tiers, and for RaBitQ and scalar quantizers."""
    with rdsearch.open(planted / "index") as index:
        done = calibrating.calibrate(
            index, planted / "labels.tsv", fdr=0.2, fnr=0.3, seed=3, answered=False
        )
        labelled = label_files.join(
            index.catalog, label_files.read(planted / "labels.tsv", None, None)
        )
        halves = tiercalibration.halve(labelled, 3)
        lines = (planted / "labels.tsv").read_text().splitlines()[1:]
        label = dict(line.split("\t") for line in lines)
        rows = index.catalog.rows_of(list(label))
        first_rows = set(labelled.rows[halves.first].tolist())
        first_folds = {label[name].split(".")[1] for name, row in rows.items() if row in first_rows}
        calibration = done.calibration
        assert calibration.groups == len(first_folds) == FOLDS // 2
        assert calibration.groups_held_out == FOLDS // 2
        assert (calibration.rows, calibration.rows_labelled) == (index.n_rows, len(labelled))
        assert index.n_rows == len(labelled) + UNLABELLED
        assert [tier.tier for tier in calibration.tiers] == [*index.tiers]
        for tier in (calibration.tiers[0], calibration.tiers[-1]):
            assert tier.codec == index.entry(tier.tier).codec
            for name, cut in (("fdr", tier.fdr), ("fnr", tier.fnr)):
                expected = expected_cut(index, planted, tier.tier, cut.score, first_folds)
                for fact in ("fdp", "answered", "fdp_answered", "found", "hits"):
                    assert getattr(cut, fact) == pytest.approx(expected[fact]), (tier.tier, fact)
                assert cut.risk == pytest.approx(expected[f"risk {name}"])
                assert cut.risk < (0.2 if name == "fdr" else 0.3)
                assert float(np.float32(cut.score)) == cut.score
            # Planted families are found, and the rates say more than nothing.
            assert tier.fdr.found > 0.3
            assert tier.fdr.groups == FOLDS // 2
            assert tier.fnr.groups < FOLDS // 2  # some folds have no relatives
            assert 1 - tier.brier / tier.brier_constant > 0.3


def test_halves_share_no_fold_and_hang_on_the_seed(exact):
    with rdsearch.open(exact / "index") as index:
        labelled = label_files.join(
            index.catalog, label_files.read(exact / "labels.tsv", None, None)
        )
    halves = [tiercalibration.halve(labelled, seed) for seed in (0, 0, 1)]
    assert (halves[0].first == halves[1].first).all()
    assert (halves[0].first != halves[2].first).any()
    fold = labelled.codes[:, 2]
    for half in halves:
        assert not set(fold[half.first]) & set(fold[~half.first])
        assert half.count(half.first) == half.count(~half.first) == FOLDS // 2


def test_nothing_is_learnt_from_the_labels_held_out():
    """Held-out rows are unrelated to those that calibrate, whatever they are to each other."""
    rng = np.random.default_rng(0)
    n = 240
    fold = np.repeat(np.arange(80), 3)
    scores = rng.standard_normal((n, n)).astype(np.float32)
    scores[fold[:, None] == fold] += 4
    first = fold < 40
    shuffled = fold.copy()
    shuffled[~first] = rng.permutation(fold[~first])
    learnt = []
    for folds in (fold, shuffled):
        labelled = LabelledRows.of(list(range(n)), [f"a.{one}.1.1" for one in folds])

        asked = []

        def rank(positions, asked=asked):
            asked.append(positions)
            for i in positions:
                others = np.delete(np.arange(n), i)
                order = others[np.argsort(-scores[i, others], kind="stable")]
                yield order, scores[i, order]

        wanted = Wanted(fdr=0.2, fnr=0.3)
        learnt.append(learn_tier("a", "flat", labelled, Halves(folds, first), rank, wanted))
        # The grid comes from queries held out, and only then all are asked for.
        assert not first[asked[0]].any()
        assert (len(asked), len(asked[1])) == (2, n)
    one, other = (found.calibration for found in learnt)
    for name in ("fdr", "fnr"):
        a, b = getattr(one, name), getattr(other, name)
        assert (a.score, a.risk, a.groups) == (b.score, b.risk, b.groups)
        assert a.found != b.found
    assert (one.scores, one.probabilities) == (other.scores, other.probabilities)
    assert learnt[0].trials == learnt[1].trials


def test_levels_change_what_is_related(exact):
    with rdsearch.open(exact / "index") as index:
        found = {
            level: calibrating.calibrate(
                index, exact / "labels.tsv", level=level, fdr=0.3, tiers=["4.8M"]
            ).calibration.tiers[0]
            for level in ("family", "superfamily", "fold")
        }
    # More pairs are related at a farther level, so that the same score is worth more.
    likely = [float(np.interp(0.3, one.scores, one.probabilities)) for one in found.values()]
    assert likely == sorted(likely)
    assert likely[0] < likely[1]


def test_the_proportion_of_queries_with_hits_can_be_bounded(exact):
    options = {"fdr": 0.3, "tiers": ["4.8M"]}
    labels = exact / "labels.tsv"
    with rdsearch.open(exact / "index") as index:
        every = calibrating.calibrate(index, labels, answered=False, **options).calibration
        some = calibrating.calibrate(index, labels, **options)
    [one], [alone] = every.tiers, some.calibration.tiers
    assert (every.answered, some.calibration.answered) == (False, True)
    assert "rate of queries with hits at most 0.3" in str(some.calibration)
    assert alone.fdr.score >= one.fdr.score
    assert alone.fdr.groups <= one.fdr.groups
    assert alone.probabilities == one.probabilities


def test_false_positives_are_counted_by_evalue(exact):
    """What `rdsearch evaluate calibration` counts is kept for reports."""
    with rdsearch.open(exact / "index") as index:
        tier = index.tiers[-1]
        done = calibrating.calibrate(index, exact / "labels.tsv", tiers=[tier])
        labelled = label_files.join(
            index.catalog, label_files.read(exact / "labels.tsv", None, None)
        )
        [expected] = reliability.measure(index, labelled, [tier])
    [found] = done.calibration.tiers
    assert list(zip(EVALUES, found.false_positives, strict=True)) == list(expected.curve)


def test_several_segments_and_removed_rows(own, exact, mini_chain):
    rng = np.random.default_rng(1)
    lines = (exact / "labels.tsv").read_text().splitlines()[1:]
    rdsearch.remove(own, [line.split("\t")[0] for line in rng.choice(lines, 5, replace=False)])
    with rdsearch.open(own) as index:
        done = calibrating.calibrate(index, exact / "labels.tsv", fdr=0.2, tiers=["0.1M"])
        assert done.calibration.rows == index.n_rows
        assert done.calibration.rows_labelled == len(lines) - 5
        calibrationfile.store(index, done.calibration)


# --- what cannot be ------------------------------------------------------------------------------


def test_bad_requests_are_named(exact, tmp_path):
    labels = exact / "labels.tsv"
    with rdsearch.open(exact / "index") as index:
        for options, message in (
            ({"fdr": 0}, "--fdr must lie between 0 and 1"),
            ({"fdr": 1.5}, "--fdr must lie between 0 and 1"),
            ({"fnr": 1.0}, "--fnr must lie between 0 and 1"),
            ({"confidence": math.nan}, "--confidence must lie between 0 and 1"),
            ({"level": "class"}, "--level must be one of family, superfamily, fold"),
            ({"seed": -1}, "seed must be 0 or more"),
            ({"tiers": ["15B"]}, "15B"),
        ):
            with pytest.raises(InputError, match=message):
                calibrating.calibrate(index, labels, **options)
        other = tmp_path / "other.tsv"
        other.write_text("sid\tsccs\nnobody\ta.1.1.1\nnothing\ta.1.1.1\n")
        with pytest.raises(MetadataError, match=r"2 of 2 labels name no protein"):
            calibrating.calibrate(index, other)


def test_too_few_folds_are_counted(exact, tmp_path):
    lines = (exact / "labels.tsv").read_text().splitlines()
    few = tmp_path / "few.tsv"
    some = [line for line in lines[1:] if line.split("\t")[1].split(".")[1] in map(str, range(42))]
    few.write_text("\n".join([lines[0], *some]) + "\n")
    with rdsearch.open(exact / "index") as index:
        with pytest.raises(
            CalibrationError, match=r"few\.tsv.*at least 22 folds.*found 21 and 21"
        ) as error:
            calibrating.calibrate(index, few)
        assert (error.value.needed, error.value.found) == (22, 21)
        one = tmp_path / "one.tsv"
        one.write_text("sid\tsccs\nd0000\ta.1.1.1\nd0001\ta.1.1.1\n")
        with pytest.raises(CalibrationError, match="found 1 and 0"):
            calibrating.calibrate(index, one, fdr=0.9, confidence=0.1)
        loners = tmp_path / "loners.tsv"
        loners.write_text("sid\tsccs\n" + "".join(f"d{i:04}\ta.{i}.1.1\n" for i in range(100)))
        with pytest.raises(CalibrationError, match=r"no two of the 50 labelled rows.*superfamily"):
            calibrating.calibrate(index, loners)


def test_scores_that_say_nothing_are_not_certified(exact, tmp_path):
    """Labels at random: no score has few unrelated hits, and few folds could show it."""
    lines = (exact / "labels.tsv").read_text().splitlines()
    names, labels = zip(*(line.split("\t") for line in lines[1:]), strict=True)
    mixed = np.random.default_rng(0).permutation(labels)
    wrong = tmp_path / "wrong.tsv"
    wrong.write_text("\n".join([lines[0], *map("\t".join, zip(names, mixed, strict=True))]))
    with rdsearch.open(exact / "index") as index:
        done = calibrating.calibrate(index, wrong)
        for one in done.tiers:
            [reason] = one.reasons
            assert f"tier {one.calibration.tier}, fdr 0.1" in reason
            assert "p = 1" in reason
            assert one.calibration.fdr is None
        done = calibrating.calibrate(index, wrong, fnr=0.9, tiers=["0.1M"])
    [tier] = done.calibration.tiers
    assert (tier.fdr, tier.fnr is None) == (None, False)
    assert [reason[:18] for reason in done.tiers[0].reasons] == ["tier 0.1M, fdr 0.1"]
    with pytest.raises(CalibrationError, match=r"0\.1M: no score could be certified for fdr 0\.1"):
        done.calibration.threshold("0.1M", 0.1)


# --- files and indexes ---------------------------------------------------------------------------


def test_a_calibration_is_stored_and_read_again(own, learnt):
    before = Manifest.read(own)
    with rdsearch.open(own) as index:
        stored = calibrationfile.store(index, learnt.calibration)
    after = Manifest.read(own)
    assert after == stored
    assert after.calibration == learnt.calibration
    assert (after.generation, after.operation) == (before.generation + 1, "calibrate: fdr 0.2")
    rdsearch.verify(own)
    with rdsearch.open(own) as index:
        assert index.manifest.calibration == learnt.calibration


def test_a_search_is_cut_at_the_calibrated_score(own, exact, learnt):
    with rdsearch.open(own) as index:
        calibrationfile.store(index, learnt.calibration)
    vectors = np.load(exact / "rd.npy")[:5]
    queries = [Record(f"q{i}", f"q{i}", "MKTAYIAK") for i in range(5)]
    with rdsearch.open(own) as index:
        tier = index.tiers[-1]
        funnel = Funnel((tier,), ())
        k = index.n_rows
        every = index.search_vectors(queries, vectors, k, funnel)
        cut = index.search_vectors(queries, vectors, k, funnel, details=Details(fdr=0.2))
        threshold = learnt.calibration.threshold(tier, 0.2)
        for whole, some in zip(every, cut, strict=True):
            passed = [hit.accession for hit in whole.hits if hit.score >= threshold]
            assert [hit.accession for hit in some.hits] == passed
            assert 0 < len(passed) < k
            for hit in some.hits:
                [likely] = learnt.calibration.probability(tier, np.array([hit.score]))
                assert hit.probability == pytest.approx(likely)
        with pytest.raises(CalibrationError, match=r"not to 0\.1"):
            index.search_vectors(queries, vectors, 5, funnel, details=Details(fdr=0.1))


def test_an_index_that_changed_meanwhile_is_not_written(own, learnt):
    with rdsearch.open(own) as index:
        rdsearch.remove(own, ["d0003"])
        before = Manifest.read(own)
        with pytest.raises(CalibrationError, match="was changed while it was calibrated"):
            calibrationfile.store(index, learnt.calibration)
    assert Manifest.read(own) == before


def test_files_bring_it_to_another_index_of_the_same_space(own, learnt, tmp_path):
    path = tmp_path / "new" / "calibration.json"
    calibrationfile.save(learnt.calibration, path)
    read = calibrationfile.load(path)
    assert read == learnt.calibration
    calibrationfile.check_fits(read, Manifest.read(own), own)


def test_a_calibration_of_other_scores_is_refused(own, learnt):
    manifest = Manifest.read(own)
    before = (own / "manifest.json").read_bytes()
    values = {field: getattr(learnt.calibration, field) for field in learnt.calibration.__slots__}
    other = Calibration(**{**values, "chain_hash": "f" * 64})
    with pytest.raises(ChainMismatchError, match=f"chain ffffffffffff.*{manifest.chain_hash[:12]}"):
        calibrationfile.check_fits(other, manifest, own)
    space = Calibration(**{**values, "space_sha256": "e" * 64})
    with (
        pytest.raises(ChainMismatchError, match="space eeeeeeeeeeee") as error,
        rdsearch.open(own) as index,
    ):
        calibrationfile.store(index, space)
    assert (error.value.found, error.value.expected) == ("e" * 64, values["space_sha256"])
    for tier, codec, message in (
        ("15B", "flat", "has no such tier"),
        ("4.8M", "sq8", "tier 4.8M with codec sq8, the index .* has flat"),
    ):
        knots = ((0.0,), (0.5,))
        one = TierCalibration(tier, codec, None, None, *knots, 0.1, 0.1)
        with pytest.raises(CalibrationError, match=message):
            calibrationfile.check_fits(Calibration(**{**values, "tiers": (one,)}), manifest, own)
    assert (own / "manifest.json").read_bytes() == before


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cannot be read as JSON"),
        (b"\xff\xfe", "cannot be read as JSON"),
        (b"[" * 100_000, "cannot be read as JSON"),
        (b"[]", "expected a calibration that rdsearch calibrate --save wrote"),
        (b'{"format": "rdsearch index"}', "expected a calibration"),
        (b'{"format": "rdsearch calibration", "format_version": 9}', "version 1; found 9"),
        (b'{"format": "rdsearch calibration", "format_version": 1}', "expected the entries"),
    ],
)
def test_files_that_are_no_calibration_are_named(tmp_path, content, message):
    path = tmp_path / "calibration.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as error:
        calibrationfile.load(path)
    assert str(path) in str(error.value)
    with pytest.raises(InputError, match="cannot be read"):
        calibrationfile.load(tmp_path / "none.json")
