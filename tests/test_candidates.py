"""Candidates of other tools, as those tools write them."""

from __future__ import annotations

import gzip
import io
import lzma

import pytest

from rdsearch import candidates
from rdsearch.candidates import Candidates
from rdsearch.errors import InputError
from rdsearch.fasta import Record

# blastp -query q.fasta -db db -outfmt 6
BLAST = """\
sp|P1|A_X\tsp|T1|B_Y\t45.000\t100\t55\t0\t1\t100\t1\t100\t1e-30\t110
sp|P1|A_X\tsp|T2|C_Y\t30.000\t90\t63\t1\t5\t94\t3\t92\t2e-05\t45.1
sp|P1|A_X\tsp|T1|B_Y\t28.000\t40\t29\t0\t60\t99\t10\t49\t0.003\t30.4
other\tT3\t99.1\t80\t1\t0\t1\t80\t1\t80\t4.1e-52\t170
"""
# mmseqs easy-search q.fasta db.fasta out.m8 tmp: fractions and accessions
MMSEQS = """\
P1\tT1\t0.450\t100\t55\t0\t1\t100\t1\t100\t1.1E-30\t110
P1\tT2\t0.300\t90\t63\t1\t5\t94\t3\t92\t2.0E-05\t45
other\tT3\t0.991\t80\t1\t0\t1\t80\t1\t80\t4.1E-52\t170
"""
# blastp -outfmt 7
COMMENTED = "# BLASTP 2.15.0+\n# Query: P1\n# Fields: query acc.ver, subject acc.ver\n" + MMSEQS
EXPECTED = Candidates({"P1": ("T1", "T2"), "other": ("T3",)})


def read(tmp_path, text, kind=None, name="candidates.txt"):
    path = tmp_path / name
    path.write_text(text)
    return candidates.read(path, kind)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (BLAST, Candidates(EXPECTED.named, repeated=1)),
        (MMSEQS, EXPECTED),
        (COMMENTED, EXPECTED),
        # mmseqs --format-mode 4, then other tools' names, in any order and case
        ("query\ttarget\tfident\nP1\tT1\t0.4\nP1\tT2\t0.3\nother\tT3\t0.9\n", EXPECTED),
        ("score\tTarget\tQuery\n3\tT1\tP1\n2\tT2\tP1\n1\tT3\tother\n", EXPECTED),
        ("qseqid\tsseqid\nP1\tsp|T1|A_B\nP1\ttr|T2|A_B\nother\tT3\n", EXPECTED),
        # rdsearch search --format tsv
        (
            'query\trank\taccession\tprotein_name\nP1\t1\tT1\t"a ""b"""\nP1\t2\tT2\t\n'
            "other\t1\tT3\t5' end\n",
            EXPECTED,
        ),
        ("T2\n# mine\n\nsp|T1|B_Y\r\nT2\n", Candidates({}, ("T2", "T1"), 1)),
        ("accession\nT2\nT1\n", Candidates({}, ("T2", "T1"))),
        ("accession\tnote\nT2\tx\nT1\n", Candidates({}, ("T2", "T1"))),
        ("lonely", Candidates({}, ("lonely",))),
        # diamond --unal 1
        (
            MMSEQS.replace("other\tT3", "other\t*"),
            Candidates({"P1": ("T1", "T2")}),
        ),
    ],
)
def test_the_first_line_says_what_a_file_is(tmp_path, text, expected):
    assert read(tmp_path, text) == expected


def test_the_kind_can_be_said(tmp_path):
    custom = "P1\tT1\t1e-30\nP1\tT2\t1e-5\nother\tT3\t1e-52\n"
    with pytest.raises(InputError, match=r"line 1: .*found 3 columns.*--candidates-format blast"):
        read(tmp_path, custom)
    assert read(tmp_path, custom, "blast") == EXPECTED
    assert read(tmp_path, "target\nT1\n", "list") == Candidates({}, ("target", "T1"))
    with pytest.raises(InputError, match=r"kind 'm8'; choose from list, tsv, blast"):
        read(tmp_path, custom, "m8")


def test_packed_files_and_standard_input(tmp_path, monkeypatch):
    path = tmp_path / "hits.m8.gz"
    path.write_bytes(gzip.compress(b"\xef\xbb\xbf" + MMSEQS.encode()))
    assert candidates.read(path) == EXPECTED
    stdin = io.TextIOWrapper(io.BytesIO(MMSEQS.encode()))
    monkeypatch.setattr("sys.stdin", stdin)
    assert candidates.read("-") == EXPECTED


@pytest.mark.parametrize(
    ("text", "kind", "reason"),
    [
        ("", None, "found none"),
        ("# only a comment\n", None, "found none"),
        ("two words\n", None, "line 1: expected an accession"),
        ("T1\nT2 T3\n", None, "line 2: expected one accession, found 'T2 T3'"),
        ("T1\nT2\tT3\n", None, "line 2: expected one accession"),
        ("a\tb\n1\t2\n", "tsv", "line 1: expected a column 'target' or 'accession', found a, b"),
        ("query\ttarget\nP1\n", None, "line 2: expected a value for each of the 2 columns"),
        ("query\ttarget\n# x\nP1\tT1\n\tT2\n", None, "line 4: expected a value"),
        ("query\ttarget\nP1\t\n", None, "line 2: expected a value"),
        (MMSEQS + "P1\n", None, "line 4: expected query and target between tabs, found 1"),
        (MMSEQS + "\tT1\n", None, "line 4: expected query and target"),
    ],
)
def test_what_cannot_be_read_is_named_with_its_line(tmp_path, text, kind, reason):
    with pytest.raises(InputError, match=reason) as caught:
        read(tmp_path, text, kind)
    assert str(tmp_path / "candidates.txt") in str(caught.value)


def test_files_that_are_no_text(tmp_path):
    packed = gzip.compress(b"T1\n" * 900)
    changed = bytearray(lzma.compress(b"T1\n" * 900))
    changed[len(changed) // 2] ^= 0x55
    for name, raw in (
        ("bad", b"\xff\xfe\x00"),
        ("cut.gz", packed[:20]),
        ("changed.gz", packed[:10] + b"\xff" + packed[11:]),
        ("changed.xz", bytes(changed)),
        ("plain.xz", b"T1\n"),
        ("plain.zst", b"T1\n"),
    ):
        (tmp_path / name).write_bytes(raw)
        with pytest.raises(InputError, match=name):
            candidates.read(tmp_path / name)
    with pytest.raises(InputError, match="absent"):
        candidates.read(tmp_path / "absent")


def test_candidates_from_python():
    assert candidates.gather(EXPECTED) is EXPECTED
    assert candidates.gather(["T1", "T2", "T1"]) == Candidates({}, ("T1", "T2"), 1)
    given = {"sp|P1|A_X": iter(["T1", "T2"]), "other": ["T3"]}
    assert candidates.gather(given) == EXPECTED
    with pytest.raises(InputError, match="empty"):
        candidates.gather(["T1", " "])


def test_candidates_of_a_query():
    found = Candidates({"P1": ("T1",)}, ("E",))
    assert found.of(Record("sp|P1|A_X", "P1", "M")) == ("T1",)
    assert found.of(Record("P1", "another", "M")) == ("T1",)
    assert found.of(Record("P2", "P2", "M")) == ("E",)
    assert found.names == {"T1", "E"}
