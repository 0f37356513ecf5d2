"""Whether e-values hold: counted by hand, and on SCOPe."""

from __future__ import annotations

import csv
import gzip
import json
import subprocess
import sys

import numpy as np
import pytest

import rdsearch
from rdsearch import labels, plots, reliability, samples
from rdsearch.errors import InputError
from tests.described import distinct_proteins


@pytest.fixture(scope="module")
def records():
    return distinct_proteins(150, 230)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, mini_chain, records):
    folder = tmp_path_factory.mktemp("reliability")
    file = folder / "proteins.fasta"
    file.write_text("".join(f">{r.accession}\n{r.sequence}\n" for r in records))
    rdsearch.build(file, mini_chain, folder / "index", recipe="exact", dtype="float32")
    # Folds of three; one protein in ten has no label.
    lines = [f"{r.accession}\ta.{i // 3}.1.{i % 2}\n" for i, r in enumerate(records) if i % 10 != 9]
    (folder / "labels.tsv").write_text("".join(["accession\tlabel\n", *lines]))
    return folder


@pytest.fixture(scope="module")
def index(folder):
    with rdsearch.open(folder / "index", dtype="float32") as opened:
        yield opened


@pytest.fixture(scope="module")
def labelled(index, folder):
    return labels.join(index.catalog, labels.read(folder / "labels.tsv"))


def by_hand(index, labelled, tier, queries, positions):
    """False positives at each level, over the expected: every pair looked at."""
    rows = labelled.rows
    targets = index.tier(tier).vectors(rows)
    scores = queries @ targets.T
    evalues = index.significance.evalues(queries, list(scores), tier, len(rows))
    folds = labelled.codes[:, 2]
    counts = np.zeros(len(reliability.LEVELS))
    for position, own in zip(positions, evalues, strict=True):
        false = folds != folds[position]
        counts += [(own[false] <= level).sum() for level in reliability.LEVELS]
    return counts / len(positions) / reliability.LEVELS


def test_ratios_are_those_counted_by_hand(index, labelled):
    everything = np.arange(len(labelled))
    for result in reliability.measure(index, labelled):
        queries = index.tier(result.tier).vectors(labelled.rows)
        expected = by_hand(index, labelled, result.tier, queries, everything)
        np.testing.assert_allclose(result.ratios, expected, atol=0.02)
        assert (result.kind, result.queries) == ("labelled", len(labelled))
        levels, observed = zip(*result.curve, strict=True)
        assert list(levels) == sorted(levels)
        assert list(observed) == sorted(observed)


def test_more_rows_are_looked_at_where_the_first_do_not_reach(index, labelled, monkeypatch):
    tier = index.tiers[0]
    [expected] = reliability.measure(index, labelled, [tier])
    monkeypatch.setattr(reliability, "_FIRST_ROWS", 3)
    [found] = reliability.measure(index, labelled, [tier])
    np.testing.assert_allclose(found.ratios, expected.ratios, atol=1e-6)


def test_decoys_are_not_counted_against_their_own_fold(index, labelled):
    tier = index.tiers[1]
    found = list(reliability.measure(index, labelled, [tier], ["reversed"], sample=40, seed=3))
    assert [one.kind for one in found] == ["labelled", "reversed"]
    random = np.random.default_rng(3)
    positions = np.sort(random.choice(len(labelled), 40, replace=False))
    sequences = index.catalog.sequences(labelled.rows[positions].tolist())
    vectors = index.embed([sequence[::-1] for sequence in sequences], tier)
    mapped = index.in_space(vectors, tier)
    queries = mapped / np.linalg.norm(mapped, axis=1, keepdims=True)
    expected = by_hand(index, labelled, tier, queries, positions)
    np.testing.assert_allclose(found[1].ratios, expected, atol=0.05)


def test_decoys_keep_the_composition():
    random = np.random.default_rng(1)
    assert reliability.reversed_("MKVL", random) == "LVKM"
    shuffled = reliability.shuffled("ACDEFGHIKLMNPQRSTVWY" * 3, random)
    assert sorted(shuffled) == sorted("ACDEFGHIKLMNPQRSTVWY" * 3)
    assert shuffled != "ACDEFGHIKLMNPQRSTVWY" * 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"decoys": ["mirrored"]}, "no decoy mirrored; choose from shuffled, reversed"),
        ({"sample": 0}, "1 query or more"),
        ({"tiers": ["15B"]}, "15B"),
    ],
)
def test_bad_options(index, labelled, options, message):
    with pytest.raises(InputError, match=message):
        next(reliability.measure(index, labelled, **options))


def test_too_few_rows(mini_index):
    with rdsearch.open(mini_index) as opened:
        some = labels.LabelledRows.of([0, 1, 2], ["a.1.1.1", "a.2.1.1", "a.3.1.1"])
        with pytest.raises(InputError, match="needs at least 200"):
            next(reliability.measure(opened, some))


def test_the_command(folder, tmp_path):
    plot = tmp_path / "calibration.svg"
    table = tmp_path / "calibration.json"
    command = [sys.executable, "-m", "rdsearch", "evaluate", "calibration", folder / "index"]
    command += [folder / "labels.tsv", "--tier", "0.1M", "--decoys", "--sample", "30"]
    command += ["--plot", plot, "--json", table, "--quiet"]
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, timeout=200, check=True
    )
    lines = done.stdout.splitlines()
    assert lines[0] == "observed / expected false positives"
    assert [line.split()[:2] for line in lines[-3:]] == [
        ["0.1M", "labelled"],
        ["0.1M", "shuffled"],
        ["0.1M", "reversed"],
    ]
    results = json.loads(table.read_text())["results"]
    assert [f"{value:.2f}" for value in results[1]["ratios"]] == lines[-2].split()[3:]
    assert "shuffled queries" in plot.read_text()


def test_the_plot_shows_every_tier(tmp_path):
    curve = ((0.001, 0.0), (0.1, 0.2), (10.0, 9.0))
    measured = [
        reliability.Reliability(tier, "labelled", 10, (1.0,) * 4, curve) for tier in ("8M", "35M")
    ]
    path = tmp_path / "plot.svg"
    plots.false_positives_by_evalue(measured, path)
    text = path.read_text()
    assert all(word in text for word in ("8M", "35M", "within a factor of 2", "e-value"))


@pytest.mark.slow
def test_evalues_hold_on_scope(tmp_path, eval_dir):
    """7,547 domains, shuffled and reversed ones: at every tier within a factor of 2."""
    source = eval_dir / "scope208-20.tsv.gz"
    file = tmp_path / "scope.fasta"
    with gzip.open(source, "rt") as table, file.open("w") as out:
        for line in csv.DictReader(table, delimiter="\t"):
            out.write(f">{line['sid']}\n{line['seq'].upper()}\n")
    chain = rdsearch.fit(samples.CHAIN_SAMPLE, "mini", proteins=300)
    rdsearch.build(file, chain, tmp_path / "scope", recipe="exact")
    with rdsearch.open(tmp_path / "scope") as index:
        labelled = labels.join(index.catalog, labels.read(source))
        decoys = tuple(reliability.DECOYS)
        for result in reliability.measure(index, labelled, None, decoys, sample=1000):
            at = dict(zip(reliability.LEVELS, result.ratios, strict=True))
            for level in (0.1, 1.0, 10.0):
                assert 0.5 <= at[level] <= 2, (result.tier, result.kind, result.ratios)
