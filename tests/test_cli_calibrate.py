"""The command that calibrates: what it prints, stores, saves and refuses."""

from __future__ import annotations

import json
import shutil

import pytest
from click.testing import CliRunner

import rdsearch
from rdsearch.calibration import Calibration
from rdsearch.cli_calibrate import calibrate
from rdsearch.errors import CalibrationError, ChainMismatchError, InputError, MetadataError
from rdsearch.manifest import Manifest
from tests.planted import plant


@pytest.fixture(scope="module")
def exact(tmp_path_factory, mini_chain):
    return plant(tmp_path_factory.mktemp("planted") / "one", mini_chain)


@pytest.fixture
def own(exact, tmp_path):
    return shutil.copytree(exact / "index", tmp_path / "index")


@pytest.fixture
def labels(exact):
    return exact / "labels.tsv"


def run(*arguments: object):
    return CliRunner().invoke(calibrate, [*map(str, arguments)], catch_exceptions=False)


def test_it_stores_what_it_prints(own, labels):
    before = Manifest.read(own)
    wanted = (labels, "--fdr", 0.2, "--fnr", 0.3, "--tier", "4.8M", "--tier", "0.1M")
    dry = run(own, *wanted, "--dry-run")
    assert (dry.exit_code, Manifest.read(own)) == (0, before)
    assert "nothing was stored" in dry.stderr
    done = run(own, *wanted)
    assert (done.exit_code, done.stdout) == (0, dry.stdout)
    assert "calibrated" in done.stderr
    calibration = Manifest.read(own).calibration
    assert [tier.tier for tier in calibration.tiers] == ["0.1M", "4.8M"]
    assert (calibration.fdr, calibration.fnr, calibration.labels) == (0.2, 0.3, "labels.tsv")
    for tier in calibration.tiers:
        for rate, cut in (("fdr 0.2", tier.fdr), ("fnr 0.3", tier.fnr)):
            [line] = [
                line.split()
                for line in done.stdout.splitlines()
                if line.startswith(rate) and line.split()[2] == tier.tier
            ]
            assert line[3:5] == [f"{cut.score:.4f}", f"{cut.fdp:.4f}"]
            assert line[-2:] == [f"{cut.found:.4f}", f"{cut.hits:.3f}"]
        assert f"tier {tier.tier}: Brier score {tier.brier:.6f}" in done.stdout
    assert str(calibration) in done.stdout
    assert "on 60 folds held out; 60 calibrated" in done.stdout
    rdsearch.verify(own)


def test_other_levels_columns_and_seeds(own, labels, tmp_path):
    other = tmp_path / "other.tsv"
    other.write_text(labels.read_text().replace("sid\tsccs", "protein\tclass", 1))
    with pytest.raises(MetadataError, match="--id-column"):
        run(own, other)
    columns = ("--id-column", "protein", "--label-column", "class")
    options = ("--level", "fold", "--seed", 5, "--confidence", 0.8, "--fdr", 0.3)
    assert run(own, other, *columns, *options, "--answered", "--quiet").stderr == ""
    calibration = Manifest.read(own).calibration
    assert (calibration.level, calibration.seed, calibration.confidence) == ("fold", 5, 0.8)
    assert calibration.answered


def test_rates_that_hide_wrong_hits_are_noted(own, labels):
    """Few queries have hits above the score, and most of these are wrong: it says so."""
    lines = labels.read_text().splitlines()
    names = [line.split("\t")[0] for line in lines[1:]]
    # Every close pair is torn apart, as labels that a model knows nothing of would be.
    wrong = labels.parent / "wrong.tsv"
    rows = (f"{name}\ta.{i % 120}.1.1" for i, name in enumerate(names))
    wrong.write_text("\n".join([lines[0], *rows]) + "\n")
    done = run(own, wrong, "--every-query", "--dry-run")
    assert done.exit_code == 0
    assert "of their hits are unrelated; --answered bounds this" in done.stdout
    done = run(own, wrong)
    assert done.exit_code == 0
    assert "not certified: tier 0.1M, fdr 0.1" in done.stdout
    with (
        rdsearch.open(own) as index,
        pytest.raises(CalibrationError, match="no score could be certified for fdr"),
    ):
        index.search(str(labels), fdr=0.1)


def test_a_tier_without_a_score_is_printed_with_its_reason(own, labels):
    done = run(own, labels, "--fdr", 0.2, "--fnr", 0.02, "--tier", "0.1M", "--dry-run")
    [line] = [line.split() for line in done.stdout.splitlines() if line.startswith("fnr 0.02")]
    assert line[2:4] == ["0.1M", "none"]
    assert "not certified: tier 0.1M, fnr 0.02: from " in done.stdout


def test_a_calibration_goes_to_another_index(own, exact, labels, tmp_path):
    file = tmp_path / "calibration.json"
    learnt = run(own, labels, "--fdr", 0.2, "--save", file)
    assert learnt.exit_code == 0
    other = shutil.copytree(exact / "index", tmp_path / "other")
    rdsearch.remove(other, ["d0003"])
    taken = run(other, "--from", file)
    assert taken.exit_code == 0
    assert Manifest.read(other).calibration == Manifest.read(own).calibration
    assert str(Manifest.read(own).calibration) in taken.stdout
    assert "rates and probabilities may be off" not in taken.stderr
    table = json.loads(file.read_text())
    table["rows"] = 5000
    file.write_text(json.dumps(table))
    assert "learnt on 5,000 rows and the index has 426" in run(other, "--from", file).stderr
    table["chain_hash"] = "0" * 64
    file.write_text(json.dumps(table))
    before = (other / "manifest.json").read_bytes()
    with pytest.raises(ChainMismatchError, match="learnt with chain 000000000000"):
        run(other, "--from", file)
    file.write_text("{}")
    with pytest.raises(InputError, match="expected a calibration"):
        run(other, "--from", file)
    assert (other / "manifest.json").read_bytes() == before


def test_what_does_not_go_together_is_a_usage_error(own, labels):
    for arguments, message in (
        ((own,), "give LABELS, or --from"),
        ((own, labels, "--from", labels), "give LABELS, or --from"),
        ((own, "--from", labels, "--fdr", 0.1), "--from takes a calibration as it is"),
        ((own, "--from", labels, "--answered"), "--from takes a calibration as it is"),
        ((own, labels, "--level", "class"), "level"),
    ):
        done = run(*arguments)
        assert (done.exit_code, message in done.output) == (2, True), arguments


def test_labels_that_match_nothing_leave_the_index_as_it_was(own, tmp_path):
    labels = tmp_path / "labels.tsv"
    labels.write_text("accession\tlabel\nnobody\ta.1.1.1\n")
    before = (own / "manifest.json").read_bytes()
    with pytest.raises(MetadataError, match=r"0 of the 427 rows.*1 of 1 labels name no protein"):
        run(own, labels)
    few = tmp_path / "few.tsv"
    few.write_text("accession\tlabel\nd0000\ta.1.1.1\nd0001\ta.2.1.1\n")
    with pytest.raises(CalibrationError, match=r"few\.tsv.*at least 22 folds.*found 1 and 1"):
        run(own, few)
    assert (own / "manifest.json").read_bytes() == before


def test_json_is_what_python_reads(own, labels, tmp_path):
    file = tmp_path / "calibration.json"
    run(own, labels, "--fdr", 0.2, "--save", file, "--dry-run")
    assert Manifest.read(own).calibration is None
    table = json.loads(file.read_text())
    assert (table.pop("format"), table.pop("format_version")) == ("rdsearch calibration", 1)
    assert Calibration.from_dict(table).fdr == 0.2
