"""The commands annotate and evaluate annotation: what they print, for readers and for programs."""

from __future__ import annotations

import csv
import io
import json

import pytest
from click.testing import CliRunner

import rdsearch
from rdsearch import cli_annotate, fasta
from rdsearch.annotation import Label, QueryLabels, Support, annotate
from rdsearch.cli import main
from rdsearch.cli_annotate import COLUMNS, evaluate_annotation
from rdsearch.cli_annotate import annotate as annotate_command
from rdsearch.fasta import Record

TABLE = ("column", "label", "confidence", "support", "e-value", "score", "hits")


@pytest.fixture(scope="module")
def labelled(tmp_path_factory, proteins_file, mini_chain, mini_store):
    """An index of 120 proteins with GO terms: one that most have, one that few have."""
    folder = tmp_path_factory.mktemp("labelled")
    lines = ["accession\tgo\tec\tmass"]
    for i, record in enumerate(fasta.read(str(proteins_file))):
        go = "GO:0000001; GO:000000" + str(2 + i % 5) if i % 4 else ""
        lines.append(f"{record.accession}\t{go}\t{'2.7.11.1' if i < 9 else ''}\t{i}.5")
    (folder / "table.tsv").write_text("\n".join(lines) + "\n")
    rdsearch.build(
        mini_store.path,
        mini_chain,
        folder / "index",
        metadata=[folder / "table.tsv"],
        recipe="exact",
    )
    return folder / "index"


@pytest.fixture(scope="module")
def queries(tmp_path_factory, proteins_file):
    """Three of its proteins."""
    path = tmp_path_factory.mktemp("queries") / "queries.fasta"
    records = list(fasta.read(str(proteins_file)))[1:4]
    path.write_text("".join(f">{r.id} {r.description}\n{r.sequence}\n" for r in records))
    return path


def run(*arguments: object, code: int = 0):
    """Run a command as the program does, named errors too; returns (stdout, stderr)."""
    commands = {"annotate": annotate_command, "annotation": evaluate_annotation}
    group = type(main)(commands=commands)
    done = CliRunner().invoke(group, [str(one) for one in arguments])
    assert done.exit_code == code, f"{done.stdout}\n{done.stderr}\n{done.exception}"
    return done.stdout, done.stderr


def test_tsv_and_json_lines_say_what_the_library_says(labelled, queries):
    arguments = ("annotate", labelled, queries, "--column", "go,ec", "-k", 7, "--exclude-self")
    out, err = run(*arguments, "--format", "tsv")
    lines = list(csv.DictReader(io.StringIO(out), delimiter="\t"))
    assert tuple(lines[0]) == COLUMNS
    assert "no confidence in column ec: 9 proteins" in err
    assert "scores weigh in place of e-values" in err
    objects = [json.loads(line) for line in run(*arguments, "--format", "jsonl")[0].splitlines()]
    with rdsearch.open(labelled) as index:
        found = annotate(index, str(queries), ["go", "ec"], k=7, exclude_self=True)
        expected = [(query, label) for query, _, labels in found for label in labels]
    assert len(lines) == len(objects) == len(expected) > 3
    for line, one, (query, label) in zip(lines, objects, expected, strict=True):
        accessions = [hit.accession for hit in label.hits]
        assert line["hits"].split(";") == one["hits"] == accessions
        for name, value in (("query", query.id), ("column", label.column), ("label", label.label)):
            assert line[name] == one[name] == value
        assert int(line["support"]) == one["support"] == len(accessions)
        assert int(line["of"]) == one["of"] == label.annotated
        assert float(line["best_score"]) == one["best_score"] == round(label.hits[0].score, 6)
        assert one["hit_scores"] == [round(hit.score, 6) for hit in label.hits]
        # 120 rows are too few for e-values.
        assert (line["best_evalue"], one["best_evalue"]) == ("", None)
        if label.column == "go":
            assert float(line["confidence"]) == one["confidence"]
            assert one["confidence"] == pytest.approx(label.confidence, rel=1e-3)
        else:
            assert (line["confidence"], one["confidence"]) == ("", None)


def test_a_table_to_read(labelled, queries):
    out, _ = run("annotate", labelled, queries, "--column", "go", "--exclude-self", "-k", 5)
    blocks = out.strip().split("\n\n")
    assert len(blocks) == 3
    for block in blocks:
        head, names, rule, *lines = block.splitlines()
        assert ":" in head
        assert names.split() == list(TABLE)
        assert set(rule) == {"-", " "}
        assert any(line.startswith("go") and "GO:0000001" in line for line in lines)
        assert all(" of " in line for line in lines)


HITS = tuple(Support(f"P{i}", i, 0.91234567 - i / 10, 1.2345e-7 * 1000**i) for i in range(4))
BY_HAND = [
    QueryLabels(Record("q1", "q1", "MKV", "one\tprotein"), 0, ()),
    QueryLabels(
        Record("q2", "q2", "MKV"),
        6,
        (Label("go", "a\t" + "b" * 60, 0.123456, 0.5, 5, HITS),),
    ),
]


def test_lines_by_hand():
    out = io.StringIO()
    cli_annotate._tsv(BY_HAND, out)
    _, line = out.getvalue().splitlines()
    label = "a " + "b" * 60
    assert line == f"q2\tgo\t{label}\t0.1235\t4\t5\t1.23e-07\t0.912346\tP0;P1;P2;P3"
    out = io.StringIO()
    cli_annotate._jsonl(BY_HAND, out)
    one = json.loads(out.getvalue())
    assert one["label"] == "a\t" + "b" * 60
    assert one["best_evalue"] == one["hit_evalues"][0] == 1.23e-7
    assert one["hit_evalues"] == [1.23e-7, 1.23e-4, 0.123, 123]
    out = io.StringIO()
    cli_annotate._table(BY_HAND, out)
    first, no_hits, blank, second, _, _, row, *_ = out.getvalue().splitlines()
    assert (first, no_hits, blank, second) == ("q1: one protein", "no hits", "", "q2: ")
    assert f"a {'b' * 47}…  " in row
    assert " ".join(row.split()[-10:]) == "0.123 4 of 5 1.23e-07 0.912 P0, P1, P2, …"


def test_what_finds_nothing_is_no_error(labelled, queries):
    arguments = ("annotate", labelled, queries, "--column", "go", "--min-confidence", "0.999")
    assert run(*arguments)[0].count("no labels from 10 hits") == 3
    assert run(*arguments, "--format", "tsv")[0] == "\t".join(COLUMNS) + "\n"
    assert not run(*arguments, "--format", "jsonl")[0]


def test_a_filter_limits_what_labels_come_from(labelled, queries):
    arguments = ("annotate", labelled, queries, "--column", "ec", "--format", "jsonl", "--where")
    out, _ = run(*arguments, "ec IS NOT NULL")
    objects = [json.loads(line) for line in out.splitlines()]
    assert [(one["label"], one["support"], one["of"]) for one in objects] == [
        ("2.7.11.1", 9, 9)
    ] * 3
    _, err = run(*arguments, "length < 0", code=1)
    assert "ec has no value to transfer" in err
    assert "among the proteins that may be found" in err


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (("--column", "kegg"), 1, "no column 'kegg'; it has row, accession"),
        (("--column", "mass"), 1, "mass is DOUBLE; expected labels"),
        (("--column", ""), 1, "name a column"),
        (("--column", "go", "--evalue", "1e-3"), 1, "hits cannot be cut at an e-value"),
        (("--column", "go", "--fdr", "0.1"), 1, "not calibrated"),
        (("--column", "ec", "--min-confidence", "0.5"), 1, "column ec has no confidence"),
        (("--column", "go", "--min-confidence", "1"), 2, "--min-confidence"),
        (("--column", "go", "-k", "0"), 2, "-k"),
        (("--column", "go", "--sample", "0"), 2, "--sample"),
        ((), 2, "--column"),
    ],
    ids=str,
)
def test_errors_are_named(labelled, queries, options, code, message):
    out, err = run("annotate", labelled, queries, *options, code=code)
    assert message in err
    assert not out


def test_quality_as_table_and_json(labelled, tmp_path):
    out, err = run(
        *("annotation", labelled, "--column", "go", "-k", 8, "--sample", 70, "--seed", 3),
        *("--json", tmp_path / "new" / "quality.json"),
    )
    facts = json.loads((tmp_path / "new" / "quality.json").read_text())
    assert (facts["k"], facts["sample"], facts["seed"], facts["evalue"]) == (8, 70, 3, None)
    assert facts["index"]["rows"] == 120
    assert "scores weigh" in facts["notes"][0]
    assert "scores weigh" in err
    [found] = facts["results"]
    assert (found["column"], found["trials"], found["labels"]) == ("go", 70, 6)
    head, *_ = out.splitlines()
    assert head.startswith(f"go: 70 proteins with 6 labels; their hits carry {found['pairs']:,}")
    assert f"Fmax {found['fmax']:.3f}" in out
    assert f"naive {found['naive_fmax']:.3f}" in out
    for at in found["operating"]:
        assert f"{at['coverage']:.3f}" in out
        assert at["precision"] is None or 0 <= at["precision"] <= 1
    # What all proteins have is right wherever it is predicted; frequency knows it as well.
    assert found["naive_fmax"] > 0.4
    assert (
        json.loads(
            run(
                "annotation",
                labelled,
                "--column",
                "go",
                "-k",
                8,
                "--sample",
                70,
                "--seed",
                3,
                "--json",
                "-",
            )[0]
        )
        == facts
    )


def test_a_column_with_few_labels_cannot_be_measured(labelled):
    _, err = run("annotation", labelled, "--column", "go,ec", code=1)
    assert "column ec: 9 proteins with a label are too few to measure; expected 50" in err


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("annotate", ("lower bound", "--exclude-self", "Examples:")),
        ("annotation", ("lower bound", "naive", "coverage", "Example:")),
    ],
)
def test_the_help_says_what_the_numbers_are(name, words):
    out, _ = run(name, "--help")
    assert all(word in out for word in words)
