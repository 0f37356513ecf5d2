"""Tables of hits, read back by the readers that people use."""

from __future__ import annotations

import csv
import io
import json
import logging
import math
import shutil
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rdsearch import outputs, tables
from rdsearch.alignment import ALIGNMENT_COLUMNS
from rdsearch.errors import InputError
from rdsearch.hits import QueryHits
from tests.results import COLUMNS, TYPES, hit, results


def flat_hits():
    return [one for _, hits in results() for one in hits]


def written(format_, found=None, columns=COLUMNS) -> str:
    out = io.StringIO()
    outputs.write(results() if found is None else found, out, format_, columns, types=TYPES)
    return out.getvalue()


def same(found, value) -> bool:
    """Equal, or missing on both sides."""
    missing = found is None or (isinstance(found, float) and math.isnan(found))
    return missing if value is None or value != value else found == value


# Tables, by their usual readers.


@pytest.mark.parametrize(("format_", "separator"), [("tsv", "\t"), ("csv", ",")])
def test_pandas_reads_tables(format_, separator):
    pandas = pytest.importorskip("pandas")
    frame = pandas.read_csv(io.StringIO(written(format_), newline=""), sep=separator)
    assert list(frame.columns) == COLUMNS
    assert len(frame) == 4
    for found, one in zip(frame.to_dict("records"), flat_hits(), strict=True):
        values = one.as_dict()
        assert (found["query"], found["rank"], found["length"]) == (one.query, one.rank, 24)
        assert found["score"] == pytest.approx(one.score, abs=5e-7)
        assert same(found["evalue"], None if one.evalue is None else float(f"{one.evalue:.2e}"))
        assert found["accessions"] == ";".join(one.accessions)
        # What the catalog holds is not rounded.
        assert same(found["mass"], one.columns.get("mass"))
        assert same(found["go"], values["go"] and ";".join(values["go"]))
        assert same(found["rank_8M"], one.tiers[0].rank)
        for name in ("identity", "query_start", "cigar", "alignment_evalue"):
            wanted = None if one.alignment is None else values[name]
            wanted = round(wanted, 8) if isinstance(wanted, float) else wanted
            assert same(found[name], wanted) or found[name] == pytest.approx(wanted, rel=5e-3)
        if "place" in one.columns:
            assert json.loads(found["place"]) == one.columns["place"]


def test_csv_keeps_line_ends_and_tsv_does_not():
    awkward = flat_hits()[1].protein_name
    lines = list(csv.DictReader(io.StringIO(written("csv"), newline="")))
    assert lines[1]["protein_name"] == awkward
    assert written("csv").endswith("\r\n")
    lines = list(csv.DictReader(io.StringIO(written("tsv")), delimiter="\t"))
    assert lines[1]["protein_name"] == 'tab here, "quoted"; next line and <b>é</b>'
    assert len(written("tsv").splitlines()) == 5


TEXTS = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"))


@settings(max_examples=60, deadline=None)
@given(TEXTS, TEXTS)
def test_any_text_is_one_cell(name, note):
    found = [QueryHits(results()[0].query, [hit(1, protein_name=name, columns={"note": note})])]
    columns = ["query", "protein_name", "note"]
    lines = list(csv.reader(io.StringIO(written("csv", found, columns), newline="")))
    assert lines[1:] == [["q1", name, note]]
    text = written("tsv", found, columns)
    assert len(text.splitlines()) == 2
    cells = next(csv.reader([text.splitlines()[1]], delimiter="\t"))
    assert len(cells) == 3
    assert "".join(cells[1].split()) == "".join(
        letter for letter in name if tables.flat(letter) != " " and not letter.isspace()
    )


def test_chosen_columns_come_in_their_order():
    columns = outputs.chosen(COLUMNS, ["go", "query", "score_8M"])
    assert written("tsv", columns=columns).splitlines()[0] == "go\tquery\tscore_8M"
    assert set(json.loads(written("jsonl", columns=columns).splitlines()[0])) == set(columns)


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (["query", "evlaue"], "no column 'evlaue'; they have query, rank, accession"),
        (["query", "query"], "'query' is chosen twice"),
        ([], "no column is chosen"),
    ],
)
def test_columns_that_cannot_be_chosen(wanted, message):
    with pytest.raises(InputError, match=message):
        outputs.chosen(COLUMNS, wanted)


def test_json_lines():
    pandas = pytest.importorskip("pandas")
    text = written("jsonl")
    assert "NaN" not in text
    lines = [json.loads(line) for line in text.splitlines()]
    for line, one in zip(lines, flat_hits(), strict=True):
        assert list(line) == [*COLUMNS, "tiers"]
        assert line["tiers"] == [
            {"tier": at.tier, "score": round(at.score, 6), "rank": at.rank} for at in one.tiers
        ]
        for name in ALIGNMENT_COLUMNS:
            number = None if one.alignment is None else one.alignment.as_dict()[name]
            assert type(line[name]) is type(number)
        assert line["accessions"] == list(one.accessions)
    assert lines[0]["price"] == 12.5
    assert lines[0]["day"] == "2020-02-29"
    assert lines[0]["mass"] == 1.23456789012e-9
    assert lines[1]["mass"] is None
    assert lines[1]["note"] == flat_hits()[1].columns["note"]
    frame = pandas.read_json(io.StringIO(text), lines=True)
    assert frame["rank"].tolist() == [1, 2, 3, 1]


def test_json_lines_have_tiers_of_a_trace_only():
    columns = [name for name in COLUMNS if not name.startswith("rank_")]
    assert "tiers" not in json.loads(written("jsonl", columns=columns).splitlines()[0])


def test_numbers_of_numpy_are_numbers():
    import numpy as np

    found = [QueryHits(results()[0].query, [hit(1, length=np.int64(24), score=np.float32(0.1))])]
    line = json.loads(written("jsonl", found))
    assert (line["length"], line["score"]) == (24, 0.1)


# BLAST tabular.


def test_m8_is_read_as_blast(tmp_path, caplog):
    search = pytest.importorskip("Bio.SearchIO")
    path = tmp_path / "hits.m8"
    with caplog.at_level(logging.WARNING):
        assert outputs.write(results(), path, "m8", COLUMNS) == 2
    assert "2 hits without an alignment" in caplog.text
    found = list(search.parse(path, "blast-tab"))
    assert [(one.id, [other.id for other in one]) for one in found] == [
        ("q1", ["P00001"]),
        ("q3", ["P00001"]),
    ]
    # 3M1I3M2D8M from residues 2 and 3: 17 columns, 14 pairs of which all but one are equal.
    part = found[0][0][0]
    assert part.aln_span == 17
    assert (part.query_start, part.query_end) == (1, 16)
    assert (part.hit_start, part.hit_end) == (2, 18)
    assert part.gapopen_num == 2
    assert part.mismatch_num == flat_hits()[0].alignment.mismatches
    assert part.ident_pct == pytest.approx(100 * flat_hits()[0].alignment.identity, abs=5e-4)
    assert (part.evalue, part.bitscore) == (0.003, 16.5)


# blastp 2.12 printed these; the values come from its scores and statistics at full precision.
@pytest.mark.parametrize(
    ("evalue", "printed"),
    [
        (0.0, "0.0"),
        (9.9e-181, "0.0"),
        (2.6149e-153, "2.61e-153"),
        (9.695e-88, "9.70e-88"),
        (8.94e-4, "8.94e-04"),
        (9.1e-4, "0.001"),
        (0.0031, "0.003"),
        (0.151, "0.15"),
        (0.996, "1.00"),
        (1.12, "1.1"),
        (9.96, "10.0"),
        (10.4, "10"),
        (198.6, "199"),
    ],
)
def test_evalues_as_blastp_prints_them(evalue, printed):
    assert tables._blast_evalue(evalue) == printed


@pytest.mark.parametrize(
    ("bits", "printed"),
    [(23.47, "23.5"), (99.9, "99.9"), (99.96, "99"), (380.95, "380"), (123456.0, "1.235e+05")],
)
def test_bits_as_blastp_prints_them(bits, printed):
    assert tables._blast_bits(bits) == printed


def place(line: str) -> tuple[str, ...]:
    """Names, length, mismatches, gaps and ends: which alignment a line is about."""
    cells = line.split("\t")
    return (*cells[:2], *cells[3:10])


def test_m8_is_what_blastp_prints(tmp_path):
    """Where blastp finds the same alignment, it prints the same line, to the character."""
    blastp = shutil.which("blastp")
    if blastp is None:
        pytest.skip("needs blastp (Debian: ncbi-blast+)")
    from itertools import islice

    from rdsearch import fasta, samples
    from rdsearch.aligner import Aligner

    records = list(islice(fasta.read(samples.PROTEINS), 150))
    path = tmp_path / "proteins.fasta"
    path.write_text("".join(f">{one.id}\n{one.sequence}\n" for one in records))
    options = (
        "-comp_based_stats 0 -seg no -soft_masking false -max_hsps 1 -evalue 50 -outfmt 6 "
        f"-dbsize {sum(len(one.sequence) for one in records)}"
    )
    queries = tmp_path / "queries.fasta"
    queries.write_text("".join(f">{one.id}\n{one.sequence}\n" for one in records[:12]))
    command = [blastp, "-query", queries, "-subject", path, *options.split()]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    printed = {place(line): line for line in done.stdout.splitlines()}
    tool = Aligner()
    residues = sum(len(one.sequence) for one in records)
    found = []
    for query in records[:12]:
        alignments = tool.align(
            query.sequence, [one.sequence for one in records], residues=residues
        )
        hits = [
            hit(at, query=query.id, accession=target.id, alignment=one)
            for at, (target, one) in enumerate(zip(records, alignments, strict=True), start=1)
            if one is not None and one.evalue < 40
        ]
        found.append(QueryHits(query, hits))
    lines = written("m8", found).splitlines()
    # blastp may miss a weak alignment, or print another one of several best ones.
    compared = [line for line in lines if place(line) in printed]
    assert len(compared) > 150
    assert [line for line in compared if printed[place(line)] != line] == []
    strong = [line for line in compared if float(line.split("\t")[10]) < 1e-3]
    assert len(strong) > 12


# The readable table.


def test_table():
    text = written("table")
    first, second, third = text.strip("\n").split("\n\n")
    assert first.splitlines()[0] == "q1: first query"
    header = first.splitlines()[1]
    for name in ("8M", "rank 8M", "e-value", "probability", "identity", "query coverage", "bits"):
        assert name in header
    assert "1.23e-18" in first
    assert second.splitlines() == ["q2: nothing is like it", "no hits"]
    assert "P00003" in third
    # One line a hit, whatever is in the names.
    assert len(first.splitlines()) == 1 + 2 + 2
    assert "\r" not in text


def test_table_shows_what_there_is():
    bare = hit(1, evalue=None, probability=None, tiers=())
    header = written("table", [QueryHits(results()[0].query, [bare])]).splitlines()[1]
    assert " ".join(header.split()) == "query rank accession protein name organism 150M 35M 8M"


@pytest.mark.parametrize(
    ("evalue", "text"),
    [(1.2e-5, "1.20e-05"), (0.0314159, "0.0314"), (2.5, "2.50"), (120.0, "120"), (1e4, "1.00e+04")],
)
def test_evalues_for_reading(evalue, text):
    assert tables.evalue_text(evalue) == text
