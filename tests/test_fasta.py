"""Reading FASTA: cleaning, headers, and an error with its line for whatever is wrong."""

from __future__ import annotations

import bz2
import gzip
import io
import logging
import lzma
import re
import subprocess
import sys
from hashlib import blake2b

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rdsearch import fasta
from rdsearch.errors import FastaError, InputError
from rdsearch.fingerprints import Fingerprints
from rdsearch.headers import HEADER_COLUMNS, parse_header


def read(text: str | bytes, **options) -> list[fasta.Record]:
    raw = text.encode() if isinstance(text, str) else text
    return list(fasta.read(io.BytesIO(raw), **options))


def sequences(text: str | bytes) -> dict[str, str]:
    return {record.id: record.sequence for record in read(text)}


def test_cleaning_and_its_counts(caplog):
    report = fasta.ReadReport()
    with caplog.at_level(logging.WARNING, "rdsearch"):
        records = read(">a first\nmk-v.\nJjA*\n>b\nXBUZOACDEFGHIKLMNPQRSTVWY\n", report=report)
    assert [record.sequence for record in records] == ["MKVXXA", "XBUZOACDEFGHIKLMNPQRSTVWY"]
    assert report == fasta.ReadReport(
        records=2, residues=31, replaced=2, gaps=2, stops=1, duplicates=0
    )
    (warning,) = caplog.messages
    assert "2 letters outside the ESM-2 alphabet (J)" in warning


def test_no_warning_where_nothing_was_replaced(caplog):
    read(">a\nMKX\n")
    assert not caplog.messages


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_line_ends_blank_lines_comments_and_no_final_newline(end):
    lines = ["; by hand", "# more", "", ">a one", "MK", "", ";within", "  VL\t", "> b  two ", "ACD"]
    assert sequences(end.join(lines)) == {"a": "MKVL", "b": "ACD"}
    with pytest.raises(FastaError, match=r"line 12: .*'7'"):
        read(end.join([*lines, "", "AC7"]))


def test_byte_order_mark_and_text_that_is_not_ascii():
    (record,) = read("\ufeff>é β-lactamase\nMK\n")
    assert (record.id, record.accession, record.description) == ("é", "é", "β-lactamase")


def test_reading_does_not_depend_on_the_locale():
    code = (
        "import io\nfrom rdsearch import errors, fasta\n"
        "for text in ('>a \\u03b2\\nMK\\n', '\\u03b2\\n>a\\nMK\\n'):\n"
        "    file = io.BytesIO(text.encode('utf-8'))\n"
        "    try: print(ascii([record.description for record in fasta.read(file)]))\n"
        "    except errors.FastaError as error: print(ascii(str(error)))\n"
    )
    environment = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    descriptions, error = done.stdout.splitlines()
    assert descriptions == r"['\u03b2']"
    assert r"line 1: expected a header line that begins with '>', found '\u03b2'" in error


def test_a_very_long_line():
    long = "ACDEFGHIKL" * 200_000
    assert sequences(f">a\n{long}\n>b\nM\n") == {"a": long, "b": "M"}


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("\n\nMKV\n", 3, "expected a header line that begins with '>', found 'MKV'"),
        (">a\nMK\n>\nMK\n", 3, "empty header"),
        (">a\nMK\n>b\n\n>c\nMK\n", 3, "the sequence of 'b' is empty"),
        (">a\nMK\n>b\n-..\n*\n", 3, "the sequence of 'b' is empty"),
        (">a\nMK\n>b", 3, "the sequence of 'b' is empty"),
        (">a\nMK\n\nVL1\n>b\nMK\n", 4, "found '1'"),
        (">a\nMK\n;c\nV L\n", 4, "found ' ' (a header without its '>'?)"),
        (">a\nMK\nMÄ\n", 3, "found 'Ä'"),
        (">a\nMK\nM\xa0K\n", 3, "found '\\xa0'"),
        (">a\nMK?*\n", 2, "found '?'"),
        (">a\nMK\nM*\nK\n", 3, "a stop (*) inside the sequence"),
        (">a\nM**\n", 2, "a stop (*) inside the sequence"),
        (">a\nM>K\n", 2, "found '>'"),
        (">a\nMK\n>b\nM\0K\n", 4, "binary"),
        (b">a\nMK\n>b \xff\nMK\n", 3, "UTF-8"),
        (">a\nMK\n".encode("utf-16"), 1, "UTF-8"),
        ("", None, "found no record"),
        ("\n;only a comment\n", None, "found no record"),
        (">a\nMK\n>b\nML\n>a\nMV\n", 5, "accession a is on line 1 already, with another sequence"),
        (">sp|P1|A\nMK\n>tr|P1|B\nML\n", 3, "accession P1 is on line 1 already"),
    ],
)
def test_errors_name_file_line_and_reason(tmp_path, text, line, reason):
    raw = text.encode() if isinstance(text, str) else text
    for path, data in [("a.fasta", raw), ("a.fasta.gz", gzip.compress(raw))]:
        (tmp_path / path).write_bytes(data)
        with pytest.raises(FastaError, match=re.escape(reason)) as caught:
            list(fasta.read(tmp_path / path))
        assert caught.value.facts["path"] == str(tmp_path / path)
        assert caught.value.facts["line"] == line
        assert str(tmp_path / path) in str(caught.value)


def test_a_line_that_is_no_line_is_refused(monkeypatch):
    monkeypatch.setattr(fasta, "_LONGEST_LINE", 1 << 20)
    with pytest.raises(FastaError, match="line 2: a line of 1 MiB"):
        read(b">a\n" + b"M" * (1 << 21))


def test_records_before_an_error_are_yielded():
    records = fasta.read(io.BytesIO(b">a\nMK\n>b\nM1\n"))
    assert next(records).id == "a"
    with pytest.raises(FastaError, match="line 4"):
        next(records)


def test_the_same_protein_again_is_skipped_and_counted():
    text = ">a\nMK\n>b\nMK\n>a again\nm-k*\n"
    report = fasta.ReadReport()
    assert [record.id for record in read(text, report=report)] == ["a", "b"]
    assert (report.records, report.residues, report.duplicates) == (2, 4, 1)
    assert [record.id for record in read(text, unique=False)] == ["a", "b", "a"]
    assert len(read(">a\nMK\n>a\nML\n", unique=False)) == 2


def packed(name: str, raw: bytes) -> bytes:
    if name == "zst":
        zstd = pytest.importorskip("backports.zstd")
        return zstd.compress(raw, options={zstd.CompressionParameter.checksum_flag: 1})
    return {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}[name](raw)


@pytest.mark.parametrize("name", ["gz", "bz2", "xz", "zst"])
def test_compressed_by_content_whatever_the_name(tmp_path, name):
    raw = b">a\nMKV\n>b\nACD\n"
    for ending in (f".{name}", ""):
        path = tmp_path / f"a.fasta{ending}"
        path.write_bytes(packed(name, raw))
        assert [record.sequence for record in fasta.read(str(path))] == ["MKV", "ACD"]
    assert sequences(packed(name, raw)) == {"a": "MKV", "b": "ACD"}


@pytest.mark.parametrize("name", ["gz", "bz2", "xz", "zst"])
def test_damaged_and_cut_off_files(tmp_path, name):
    raw = b"".join(
        b">p%d\n%s\n"
        % (
            i,
            blake2b(b"%d" % i)
            .hexdigest()
            .translate(str.maketrans("0123456789", "GHIKLMNPQR"))
            .upper()
            .encode(),
        )
        for i in range(3000)
    )
    whole = packed(name, raw)
    path = tmp_path / f"a.fasta.{name}"
    for cut in (len(whole) // 2, len(whole) - 5):
        path.write_bytes(whole[:cut])
        with pytest.raises(FastaError, match="damaged or cut off"):
            list(fasta.read(path))
    for position in range(30, len(whole), len(whole) // 12):
        changed = bytearray(whole)
        changed[position] ^= 0x55
        path.write_bytes(changed)
        with pytest.raises(FastaError, match=re.escape(str(path))):
            list(fasta.read(path))


def test_files_that_cannot_be_opened(tmp_path):
    with pytest.raises(FastaError, match="No such file"):
        next(fasta.read(tmp_path / "absent.fasta"))
    with pytest.raises(FastaError, match="Is a directory"):
        next(fasta.read(tmp_path))
    with pytest.raises(InputError, match="binary mode"):
        next(fasta.read(io.StringIO(">a\nMK\n")))


def test_a_file_object_is_left_open():
    file = io.BytesIO(b">a\nMK\n")
    assert len(list(fasta.read(file))) == 1
    assert not file.closed


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_standard_input(pack):
    code = (
        "import sys\nfrom rdsearch import fasta, errors\n"
        "try:\n    for r in fasta.read('-'): print(r.id, r.sequence)\n"
        "except errors.FastaError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=pack(b">a\nMK\n\n>b\nM!\n"),
        capture_output=True,
        check=True,
    )
    first, error = done.stdout.decode().splitlines()
    assert first == "a MK"
    assert error.startswith("standard input, line 5: expected letters A to Z")


LETTERS = st.text(fasta.ALPHABET, min_size=1, max_size=150)
WORDS = st.text(
    st.characters(exclude_categories=("Z", "C"), exclude_characters=">;#"), min_size=1, max_size=12
)
PROTEINS = st.lists(
    st.tuples(WORDS, WORDS, LETTERS), min_size=1, max_size=8, unique_by=lambda p: p[0]
)


@given(PROTEINS, st.integers(1, 70), st.sampled_from(["\n", "\r\n", "\r"]), st.data())
def test_written_records_are_read_back(proteins, width, end, data):
    written = []
    for name, description, sequence in proteins:
        written.append(f">{name} {description}")
        for start in range(0, len(sequence), width):
            line = sequence[start : start + width]
            written.append(data.draw(st.sampled_from([line, line.lower(), f"-{line}", f"{line}."])))
            written += data.draw(st.sampled_from([[], [""], ["; comment"]]))
    found = [(r.id, r.description, r.sequence) for r in read(end.join(written), unique=False)]
    assert found == proteins


@given(st.binary(max_size=300))
def test_any_bytes_give_records_or_a_named_error(raw):
    for data in (raw, b">a\n" + raw):
        try:
            records = read(data)
        except FastaError:
            continue
        for record in records:
            assert record.sequence
            assert set(record.sequence) <= set(fasta.ALPHABET)


FULL = {
    "protein_name": "Name with (strain X = Y) 2-->3",
    "organism": "Escherichia coli (strain K12 = X) DSM 1 = JCM 2",
    "taxon_id": 562,
    "gene": "abc D",
    "existence": 1,
    "version": 12,
}
TAGS = {"organism": "OS", "taxon_id": "OX", "gene": "GN", "existence": "PE", "version": "SV"}


@given(
    st.permutations(list(TAGS)), st.integers(0, 5), st.sampled_from(["", " Split=0", " Split=3 "])
)
def test_uniprot_fields_in_any_order(order, kept, end):
    tags = order[:kept]
    text = " ".join([FULL["protein_name"], *(f"{TAGS[tag]}={FULL[tag]}" for tag in tags)])
    fields = parse_header(f"sp|P12345-2|AB_ECOLI {text}{end}")
    assert fields["accession"] == "P12345-2"
    assert fields["entry_name"] == "AB_ECOLI"
    assert fields["protein_name"] == FULL["protein_name"]
    assert {tag: fields[tag] for tag in TAGS} == {
        tag: FULL[tag] if tag in tags else None for tag in TAGS
    }


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (
            "UniRef50_Q9K794 Putative AgrB-like protein n=2 Tax=Bacillus TaxID=1386 RepID=A_B",
            ("UniRef50_Q9K794", "Putative AgrB-like protein", "Bacillus", 1386, None),
        ),
        ("tr|A0A0A0|A0_X Name OX=abc GN= PE=4", ("A0A0A0", "Name", None, None, "A0_X")),
        ("sp|P1|A_B The BOS=1 OS=Cow", ("P1", "The BOS=1", "Cow", None, "A_B")),
        ("sp|P1|A_B", ("P1", None, None, None, "A_B")),
        ("sp|P1|A_B Split=7", ("P1", None, None, None, "A_B")),
        ("sp|P1|A_B x Split=", ("P1", "x Split=", None, None, "A_B")),
        ("WP_1.1 porin OS=x [E. coli]", ("WP_1.1", None, None, None, None)),
        ("gi|1|ref|NP_2.1| porin", ("gi|1|ref|NP_2.1|", None, None, None, None)),
        ("sp|P1|A|B Name", ("P1", "Name", None, None, "A|B")),
        ("UPI00001 status=active", ("UPI00001", None, None, None, None)),
    ],
)
def test_header_forms(header, expected):
    fields = parse_header(header)
    names = ("accession", "protein_name", "organism", "taxon_id", "entry_name")
    assert tuple(fields[name] for name in names) == expected
    assert [fields["id"], fields["description"]] == [*header.split(" ", 1), ""][:2]


def test_many_blanks_in_a_header_take_no_longer_than_letters():
    """A search for blanks before a word would begin at each of them: hours."""
    blanks = " " * 2_000_000
    fields = parse_header(f"sp|P1|A_B x{blanks}y{blanks}OS=z{blanks}Split=1")
    assert (fields["protein_name"], fields["organism"]) == (f"x{blanks}y", "z")


@given(st.text(min_size=1).filter(str.strip))
def test_any_header_is_parsed(header):
    for prefix in ("", "sp|P1|A ", "UniRef90_A "):
        fields = parse_header(prefix + header)
        assert fields["accession"]
        for name, kind in HEADER_COLUMNS:
            assert fields[name] is None or isinstance(fields[name], kind)


def test_real_proteins(data_dir):
    report = fasta.ReadReport()
    records = list(fasta.read(data_dir / "uniprot-20k.fasta.gz", report=report))
    assert (report.records, report.replaced, report.duplicates) == (20_000, 0, 0)
    # Counted with: zcat uniprot-20k.fasta.gz | grep -v '>' | tr -d '\n' | wc -c
    assert report.residues == 9_055_569
    for record in records:
        assert record.protein_name
        assert record.organism
        assert record.existence in range(1, 6)
        assert record.version is not None
        assert "Split=" not in f"{record.protein_name}{record.organism}{record.gene}"
        rebuilt = f"{record.protein_name} OS={record.organism}"
        rebuilt += f" GN={record.gene}" if record.gene else ""
        rebuilt += f" PE={record.existence} SV={record.version} Split=0"
        assert " ".join(rebuilt.split()) == " ".join(record.description.split())
    # zgrep -c ' OS=.* = ' uniprot-20k.fasta.gz
    assert sum(" = " in record.organism for record in records) == 67


@given(st.lists(st.integers(0, 3000), max_size=3000))
def test_fingerprints_number_things_in_order_of_appearance(items):
    table, numbers = Fingerprints(), {}
    for item in items:
        new = item not in numbers
        number = numbers.setdefault(item, len(numbers))
        assert table.add(blake2b(b"%d" % item, digest_size=16).digest()) == (number, new)
    assert len(table) == len(numbers)


def test_fingerprints_that_share_a_half_differ():
    table = Fingerprints()
    halves = [bytes(8) + bytes([i]) + bytes(7) for i in range(200)]
    assert [table.add(half)[0] for half in halves] == list(range(200))
    assert [table.add(half) for half in halves] == [(i, False) for i in range(200)]


def test_fingerprints_grow():
    table = Fingerprints()
    digests = [blake2b(b"%d" % i, digest_size=16).digest() for i in range(5000)]
    assert [table.add(digest)[0] for digest in digests * 2] == [*range(5000)] * 2
