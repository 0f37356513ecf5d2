"""A3M and FASTA of the hits, read back by HMMER's, Biopython's and our own reader."""

from __future__ import annotations

import io
import logging
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rdsearch import fasta, outputs
from rdsearch.a3m import paired, safe_name
from rdsearch.errors import InputError
from rdsearch.fasta import Record
from rdsearch.hits import QueryHits
from tests.results import COLUMNS, QUERY, alignment, hit, mutated, results


def a3m(found, out=None) -> str:
    out = io.StringIO() if out is None else out
    outputs.write(found, out, "a3m", COLUMNS)
    return out.getvalue()


def rows(text: str) -> list[tuple[str, str]]:
    """Headers and rows; a row is one line."""
    lines = text.splitlines()
    assert all(header.startswith(">") for header in lines[::2])
    return [(header[1:], row) for header, row in zip(lines[::2], lines[1::2], strict=True)]


def test_an_alignment_on_the_columns_of_the_query(caplog):
    with caplog.at_level(logging.WARNING):
        text = a3m(results()[:1])
    # 3M1I3M2D8M from residue 2 of the query and 3 of the target; the second hit has no alignment.
    assert rows(text) == [
        ("q1 first query", "MKVLATWHHGDEENPQRSTVWY"),
        ("P00001/3-18 protein 1 [Homo sapiens]", "-KVL-TWHaaHGDEENPP------"),
    ]
    assert caplog.messages == ["1 hits without an alignment are not in the output"]


def test_pairs_of_rows():
    target = results()[0].hits[0].sequence
    found = results()[0].hits[0].alignment
    assert paired(QUERY, target, found) == ("KVLATWH--HGDEENPQ", "KVL-TWHAAHGDEENPP")


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 5))
def test_rows_keep_everything_that_is_aligned(seed, n):
    """From the row alone the target's part and its pairs with the query come back."""
    rng = random.Random(seed)
    query = "".join(rng.choices("ACDEFGHIKLMNPQRSTVWY", k=rng.randint(1, 40)))
    made = [mutated(rng, query) for _ in range(n)]
    hits = [hit(at, alignment=one, sequence=other) for at, (other, one) in enumerate(made, 1)]
    (_, first), *others = rows(a3m([QueryHits(Record("q", "q", query), hits)]))
    assert first == query
    for (header, row), (target, found) in zip(others, made, strict=True):
        assert f"/{found.target_start}-{found.target_end} " in header
        assert len([letter for letter in row if not letter.islower()]) == len(query)
        part = target[found.target_start - 1 : found.target_end]
        assert row.replace("-", "").upper() == part
        columns = "".join(letter for letter in row if not letter.islower())
        assert columns.strip("-") == columns[found.query_start - 1 : found.query_end]
        equal = sum(one == other for one, other in zip(query, columns, strict=True))
        assert equal == round(found.identity * found.length)


def test_easel_reads_the_alignment(tmp_path):
    easel = pytest.importorskip("pyhmmer.easel")
    rng = random.Random(3)
    query = "".join(rng.choices("ACDEFGHIKLMNPQRSTVWY", k=60))
    made = [mutated(rng, query) for _ in range(8)]
    hits = [hit(at, alignment=one, sequence=other) for at, (other, one) in enumerate(made, 1)]
    path = tmp_path / "query.a3m"
    outputs.write([QueryHits(Record("q", "q", query, "a query"), hits)], path, "a3m", COLUMNS)
    with easel.MSAFile(path, format="a2m") as file:
        alignment = file.read()
    assert [name if isinstance(name, str) else name.decode() for name in alignment.names] == [
        "q",
        *(f"P{at:05}/{one.target_start}-{one.target_end}" for at, (_, one) in enumerate(made, 1)),
    ]
    # Easel opens a column for each insertion; without those that the query lacks, columns are ours.
    texts = list(alignment.alignment)
    kept = [at for at, letter in enumerate(texts[0]) if letter.isalpha()]
    assert "".join(texts[0][at] for at in kept).upper() == query
    for text, (target, one) in zip(texts[1:], made, strict=True):
        residues = "".join(letter for letter in text if letter.isalpha()).upper()
        assert residues == target[one.target_start - 1 : one.target_end]
        first, second = paired(query, target, one)
        columns = [b for a, b in zip(first, second, strict=True) if a != "-"]
        found = [text[at].upper() for at in kept][one.query_start - 1 : one.query_end]
        assert [letter if letter.isalpha() else "-" for letter in found] == columns


def test_a_file_for_each_query(tmp_path, caplog):
    found = [*results(), QueryHits(Record("Q1", "Q1", "MK"), [])]
    with caplog.at_level(logging.WARNING):
        assert outputs.write(found, tmp_path / "new" / "folder", "a3m", COLUMNS) == 2
    names = sorted(path.name for path in (tmp_path / "new" / "folder").iterdir())
    # Q1 and q1 are one name to some file systems.
    assert names == ["Q1-2.a3m", "q1.a3m", "q2.a3m", "q3.a3m"]
    for number, one in enumerate(results()):
        text = (tmp_path / "new" / "folder" / f"q{number + 1}.a3m").read_text()
        assert text == a3m([one])
    assert caplog.messages[0] == "2 hits without an alignment are not in the output"


def test_a_folder_that_is_there_and_a_file(tmp_path):
    (tmp_path / "v1.2").mkdir()
    outputs.write(results(), tmp_path / "v1.2", "a3m", COLUMNS)
    assert len(list((tmp_path / "v1.2").iterdir())) == 3
    outputs.write(results()[:1], tmp_path / "one.a3m", "a3m", COLUMNS)
    assert (tmp_path / "one.a3m").read_text() == a3m(results()[:1])


def test_several_queries_in_one_file_are_refused(tmp_path):
    out = io.StringIO()
    with pytest.raises(InputError, match="one query; found q1 and q2"):
        a3m(results(), out)
    assert out.getvalue() == ""
    with pytest.raises(InputError, match="one query"):
        outputs.write(results(), tmp_path / "all.a3m", "a3m", COLUMNS)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("query", "name"),
    [
        ("sp|P12345|AATM_RABIT", "sp_P12345_AATM_RABIT"),
        ("../../etc/passwd", "_.._etc_passwd"),
        (".hidden", "hidden"),
        ("-rf", "rf"),
        ("..", "query"),
        ("é" * 500, "_" * 120),
        ("a\0b", "a_b"),
    ],
)
def test_names_of_files(query, name):
    assert safe_name(query, set()) == name


def test_names_of_files_do_not_meet():
    taken: set[str] = set()
    names = [safe_name(one, taken) for one in ("a|b", "a/b", "A_B", "a_b-2", "a_b")]
    assert names == ["a_b", "a_b-2", "A_B-3", "a_b-2-2", "a_b-4"]
    assert len({name.lower() for name in names}) == 5


@pytest.mark.parametrize("cigar", ["3M1I3M2D7M", "30M", "3M", ""])
def test_an_alignment_of_other_sequences(cigar):
    from dataclasses import replace

    found = replace(results()[0].hits[0].alignment, cigar=cigar)
    with pytest.raises(InputError, match="has the CIGAR"):
        paired(QUERY, results()[0].hits[0].sequence, found)
    shorter = results()[0].hits[0].sequence[:10]
    with pytest.raises(InputError, match="of 10 has the CIGAR"):
        paired(QUERY, shorter, results()[0].hits[0].alignment)


def test_an_alignment_without_its_target():
    found = alignment(QUERY, QUERY, 1, 1, "5M")
    with pytest.raises(InputError, match="hit P00001 of q1 has no sequence"):
        a3m([QueryHits(results()[0].query, [hit(1, alignment=found)])])


# FASTA.


def whole() -> list[QueryHits]:
    """Results whose hits all have sequences."""
    return [QueryHits(query, [one for one in hits if one.sequence]) for query, hits in results()]


def test_fasta_has_each_protein_once(tmp_path):
    path = tmp_path / "hits.fasta"
    # Rows 0, 1 for the first query, 2 and 0 again for the last.
    assert outputs.write(whole(), path, "fasta", COLUMNS) == 3
    lines = path.read_text().splitlines()
    assert lines[0] == ">P00001 protein 1 [Homo sapiens]"
    assert lines[2] == '>P00002 tab here, "quoted"; next line and <b>é</b>'
    assert [len(line) for line in lines[5:]] == [60, 60, 10]
    sequences = [one.sequence for _, hits in whole() for one in hits][:3]
    assert [record.sequence for record in fasta.read(path)] == sequences


def test_biopython_reads_the_fasta(tmp_path):
    reader = pytest.importorskip("Bio.SeqIO")
    path = tmp_path / "hits.fasta"
    outputs.write(whole(), path, "fasta", COLUMNS)
    assert [one.id for one in reader.parse(path, "fasta")] == ["P00001", "P00002", "P00003"]


def test_fasta_needs_sequences():
    with pytest.raises(InputError, match=r"hit P00001 of q1 has no sequence.*sequences=True"):
        outputs.write([QueryHits(results()[0].query, [hit(1)])], io.StringIO(), "fasta", COLUMNS)
