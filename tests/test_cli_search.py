"""What `rdsearch search` makes of e-values, cuts, alignments and formats: real processes."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from dataclasses import replace

import pytest

import rdsearch
from rdsearch.calibration import EVALUES
from rdsearch.generations import publish, successor
from rdsearch.manifest import Manifest
from tests.described import calibration, distinct_proteins


@pytest.fixture(scope="module")
def records():
    return distinct_proteins(120, 205)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, mini_chain, records):
    folder = tmp_path_factory.mktemp("cli_search")
    file = folder / "proteins.fasta"
    file.write_text("".join(f">{r.accession} name\n{r.sequence}\n" for r in records))
    rdsearch.build(file, mini_chain, folder / "index", recipe="exact")
    (folder / "two.fasta").write_text(
        "".join(f">{r.accession}\n{r.sequence}\n" for r in records[:2])
    )
    return folder


def run(folder, *options, index="index", code=0):
    command = [sys.executable, "-m", "rdsearch", "search", folder / index, folder / "two.fasta"]
    done = subprocess.run(
        [str(part) for part in (*command, *options)],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done


def lines(done):
    return list(csv.DictReader(io.StringIO(done.stdout), delimiter="\t"))


def test_evalues_cut_and_scale(folder):
    everything = lines(run(folder, "-k", 205, "--format", "tsv"))
    cut = lines(run(folder, "--evalue", 1, "--format", "tsv"))
    assert [line["accession"] for line in cut] == [
        line["accession"] for line in everything if float(line["evalue"]) <= 1
    ]
    larger = lines(run(folder, "-k", 205, "--dbsize", 205_000, "--format", "tsv"))
    for line, other in zip(everything, larger, strict=True):
        assert float(other["evalue"]) == pytest.approx(1000 * float(line["evalue"]), rel=0.01)
    none = run(folder, "--no-evalues", "--format", "tsv", "--quiet")
    assert "evalue" not in lines(none)[0]
    assert none.stderr == ""


def test_a_cut_that_k_cuts_short_says_so(folder):
    done = run(folder, "--evalue", 100, "-k", 3, "--format", "tsv")
    assert len(lines(done)) == 6
    assert "2 queries have 3 hits, the most that are given" in done.stderr
    assert "the most that are given" not in run(folder, "-k", 3).stderr
    assert "the most that are given" not in run(folder, "--evalue", 0.01).stderr


def test_nothing_found_is_no_error(folder):
    done = run(folder, "--evalue", 1e-280, "--exclude-self", "--format", "tsv")
    assert lines(done) == []
    assert done.stdout.startswith("query\trank\taccession")
    assert "no hits" in run(folder, "--evalue", 1e-280, "--exclude-self").stdout


def test_alignments_and_columns(folder):
    names = ["accession", "identity", "cigar", "alignment_evalue", "rank_4.8M"]
    found = lines(
        run(folder, "-k", 3, "--align", "--trace", "--format", "tsv", "--columns", ",".join(names))
    )
    assert list(found[0]) == names
    assert [line["rank_4.8M"] for line in found] == ["1", "2", "3"] * 2
    assert found[0]["identity"] == "1.0"
    assert found[0]["cigar"].endswith("M")
    assert run(folder, "--align", "--matrix", "PAM30", "-k", 1, "--format", "tsv").stdout


def test_hits_by_alignment(folder):
    found = lines(run(folder, "-k", 4, "--rerank", "align", "--format", "tsv"))
    bits = [float(line["bits"]) for line in found]
    assert bits[:4] == sorted(bits[:4], reverse=True)
    assert [line["rank"] for line in found] == ["1", "2", "3", "4"] * 2


def test_blast_tabular_and_sequences(folder, records):
    found = run(folder, "-k", 2, "--format", "m8").stdout.splitlines()
    assert all(len(line.split("\t")) == 12 for line in found)
    assert found[0].split("\t")[:3] == [records[0].accession] * 2 + ["100.000"]
    text = run(folder, "-k", 1, "--format", "fasta").stdout
    assert records[0].sequence in text.replace("\n", "")
    run(folder, "-k", 5, "--format", "a3m", "-o", folder / "alignments")
    assert sorted(path.name for path in (folder / "alignments").iterdir()) == sorted(
        f"{record.accession}.a3m" for record in records[:2]
    )


def test_a_report_in_one_file(folder):
    path = folder / "report.html"
    done = run(folder, "-k", 3, "--evalue", 5, "--format", "html", "-o", path)
    assert done.stdout == ""
    text = path.read_text()
    assert "BLOSUM62, gaps 11 and 1" in text
    assert "http" not in text.replace("http-equiv", "").replace("http://www.w3.org", "")


def test_jsonl_has_numbers_and_tiers(folder):
    done = run(folder, "-k", 2, "--align", "--trace", "--format", "jsonl")
    first = json.loads(done.stdout.splitlines()[0])
    assert isinstance(first["evalue"], float)
    assert first["rank_0.1M"] == first["tiers"][0]["rank"] == 1
    assert first["identity"] == 1.0


def test_an_index_with_few_rows_says_so(folder, mini_index, tmp_path):
    (tmp_path / "two.fasta").write_text((folder / "two.fasta").read_text())
    done = run(tmp_path, "-k", 1, "--format", "tsv", index=mini_index)
    assert "evalue" not in lines(done)[0]
    assert "no e-values: the index has 120 rows: an e-value needs at least 200" in done.stderr
    refused = run(tmp_path, "--evalue", 1, index=mini_index, code=1)
    assert "hits cannot be cut at an e-value" in refused.stderr


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (("--fdr", 0.1), 1, "LABELS.tsv --fdr 0.1"),
        (("--fdr", 0.1, "--fnr", 0.1), 1, "not both"),
        (("--evalue", -1), 1, "above 0"),
        (("--columns", "accession,nonsense", "--format", "tsv"), 1, "no column 'nonsense'"),
        (("--columns", "accession", "--format", "m8"), 2, "m8 has columns of its own"),
        (("--matrix", "BLOSUM62"), 2, "need --align"),
        (("--align", "--matrix", "BLOSUM61"), 1, "no matrix BLOSUM61; choose from BLOSUM"),
        (("--align", "--gap-open", 3), 1, "gap"),
        (("--format", "a3m"), 1, "one query"),
        (("--format", "parquet", "-o", "no/such/folder/x"), 1, "no/such/folder: make it first"),
    ],
)
def test_what_cannot_be_is_named(folder, options, code, message):
    done = run(folder, *options, code=code)
    assert message in done.stderr
    assert done.stdout == "" or options[0] == "--format"


def test_a_report_of_a_calibrated_index(folder):
    """Its plot shows how the e-values hold at the tier that was searched."""
    path = folder / "index"
    manifest = Manifest.read(path)
    made = calibration(manifest, {"fdr": 0.2})
    [tier] = made.tiers
    observed = tuple(value / 2 for value in EVALUES)
    made = replace(made, tiers=(replace(tier, false_positives=observed),))
    publish(path, successor(manifest, "calibrate", calibration=made))
    report = folder / "calibrated.html"
    done = run(folder, "-k", 2, "--fdr", 0.1, "--format", "html", "-o", report)
    text = report.read_text()
    assert "Certified threshold" in text
    assert "Calibration of the e-values" in text
    run(folder, "-k", 2, "--to-tier", "0.1M", "--format", "html", "-o", report)
    assert "Calibration of the e-values" not in report.read_text()
    found = lines(run(folder, "-k", 1, "--format", "tsv"))
    assert 0 < float(found[0]["probability"]) < 1
    assert done.stdout == ""
