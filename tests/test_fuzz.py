"""Text that users bring, mutated or arbitrary: what was meant, or a named error.

FASTA files, headers, labels, candidates. See `tests.fuzzing`.
"""

from __future__ import annotations

import bz2
import functools
import gzip
import io
import lzma
import re

import pytest
from hypothesis import strategies as st

from rdsearch import candidates, fasta, labels
from rdsearch.errors import FastaError, InputError, MetadataError
from rdsearch.headers import HEADER_COLUMNS, parse_header
from tests.fuzzing import PIECES, fuzz, mutated

FASTA = (
    b"; a comment\n>sp|P12345-2|AB_ECOLI Name OS=Escherichia coli (strain K12 = X) OX=562 GN=abc "
    b"PE=1 SV=2 Split=3\nMKVLAAGIVG\nLL-A.C*\n\n>UniRef50_A1 Name n=2 Tax=Bacillus TaxID=1386 "
    b"RepID=A_B\nACDEFGHIKLMNPQRSTVWY\r\n>tr|A0A0A0|A0_X\nXBUZOJ\n>WP_1.1 porin [E. coli]\nmkv\n"
)
_PACKERS = {"plain": bytes, "gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}


def pack(kind: str, raw: bytes) -> bytes:
    if kind == "zst":
        zstd = pytest.importorskip("backports.zstd")
        return zstd.compress(raw, options={zstd.CompressionParameter.checksum_flag: 1})
    return _PACKERS[kind](raw)


def sound(records) -> None:
    """What every record is, wherever it came from."""
    for record in records:
        assert set(record.sequence) <= set(fasta.ALPHABET)
        assert record.sequence
        assert record.id
        assert record.accession
        for name, kind in HEADER_COLUMNS:
            value = getattr(record, name)
            assert value is None or type(value) is kind
            assert "\n" not in str(value)


def read(raw: bytes, unique: bool = True) -> tuple[list[fasta.Record], FastaError | None]:
    """The records before the error, and the error."""
    records: list[fasta.Record] = []
    refused = None
    try:
        for record in fasta.read(io.BytesIO(raw), unique=unique):
            records.append(record)
    except FastaError as error:
        refused = error
    assert records if refused is None else str(refused).startswith("file object")
    return records, refused


@fuzz(
    st.one_of(
        mutated(FASTA),
        st.lists(st.sampled_from((*PIECES, b"\n>a\n", b"MKV", b"\r>")), max_size=12).map(b"".join),
        st.binary(max_size=200),
    ),
    st.booleans(),
    examples=200,
)
def test_any_fasta(raw, unique):
    records, _ = read(raw, unique)
    sound(records)


@fuzz(mutated(FASTA), st.sampled_from(["latin-1", "utf-16", "utf-32-le", "utf-7", "cp037"]),
      examples=60)  # fmt: skip
def test_other_encodings(raw, encoding):
    records, _ = read(raw.decode("latin-1").encode(encoding, "replace"))
    sound(records)


KINDS = st.sampled_from(["gz", "bz2", "xz", "zst"])
RECORDS = st.lists(st.text(fasta.ALPHABET, min_size=1, max_size=300), min_size=1, max_size=30)


def written(sequences: list[str]) -> bytes:
    return "".join(f">p{i} d\n{text}\n" for i, text in enumerate(sequences)).encode()


@fuzz(RECORDS, KINDS, st.integers(1, 1 << 20), examples=100)
def test_a_packed_file_that_was_cut_off(sequences, kind, cut):
    """Never taken for a whole one; what comes before the error is right."""
    whole = pack(kind, written(sequences))
    assert [r.sequence for r in read(whole)[0]] == sequences
    records, error = read(whole[: -(cut % len(whole)) - 1])
    assert error is not None
    assert [r.sequence for r in records] == sequences[: len(records)]


@fuzz(RECORDS, KINDS, st.integers(0, 1 << 20), st.integers(1, 255), examples=100)
def test_a_packed_file_with_one_changed_byte(sequences, kind, place, change):
    """An error, or, where the byte does not matter (a time, a name), the right records."""
    data = bytearray(pack(kind, written(sequences)))
    data[place % len(data)] ^= change
    records, error = read(bytes(data))
    sound(records)
    assert error is not None or [r.sequence for r in records] == sequences


@fuzz(st.data(), KINDS, examples=150)
def test_mutated_packed_files(data, kind):
    raw = data.draw(mutated(pack(kind, FASTA * 3)))
    sound(read(raw)[0])


# A value of a header: anything without line ends that is no tag and no "Split=3" of its own.
VALUES = (
    st.lists(
        st.text(st.characters(exclude_categories=("C", "Z"), exclude_characters="="), min_size=1),
        min_size=1,
        max_size=4,
    )
    .map(" ".join)
)  # fmt: skip
NUMBERS = st.integers(0, 10**18 - 1)
UNIPROT = {"OS": "organism", "OX": "taxon_id", "GN": "gene", "PE": "existence", "SV": "version"}


@fuzz(
    st.from_regex(r"[A-Za-z0-9]+(-[0-9]+)?\Z", fullmatch=True),
    st.from_regex(r"[A-Z0-9_]+", fullmatch=True),
    st.none() | VALUES,
    st.fixed_dictionaries({}, optional={"OS": VALUES, "GN": VALUES, "OX": NUMBERS, "PE": NUMBERS,
                                        "SV": NUMBERS}),
    st.sampled_from(["", " Split=0", "  Split=12 "]),
    st.randoms(use_true_random=False),
    examples=80,
)  # fmt: skip
def test_uniprot_headers_say_what_was_written(accession, entry, name, tags, end, shuffled):
    order = list(tags)
    shuffled.shuffle(order)
    words = [f"{shuffled.choice(['sp', 'tr'])}|{accession}|{entry}", *([name] if name else [])]
    fields = parse_header(" ".join([*words, *(f"{tag}={tags[tag]}" for tag in order)]) + end)
    assert (fields["accession"], fields["entry_name"]) == (accession, entry)
    assert fields["protein_name"] == name
    assert {tag: fields[field] for tag, field in UNIPROT.items()} == {
        tag: tags.get(tag) for tag in UNIPROT
    }


@fuzz(VALUES, VALUES, NUMBERS, examples=60)
def test_uniref_headers_say_what_was_written(name, organism, taxon):
    fields = parse_header(f"UniRef90_A1 {name} n=3 Tax={organism} TaxID={taxon} RepID=A_B")
    assert fields["accession"] == "UniRef90_A1"
    assert (fields["protein_name"], fields["organism"]) == (name, organism)
    assert fields["taxon_id"] == taxon


@fuzz(
    st.one_of(st.text(min_size=1), mutated(FASTA).map(lambda raw: raw.decode("utf-8", "replace")))
    .filter(str.strip),
    st.sampled_from(["", "sp|P1|A ", "UniRef50_A "]),
    examples=200,
)  # fmt: skip
def test_any_header(header, start):
    fields = parse_header(start + header)
    assert fields["id"] == (start + header).split()[0]
    for name, kind in HEADER_COLUMNS:
        assert fields[name] is None or type(fields[name]) is kind


def named(kind, reader, path, *options):
    """What a reader returns, or None where it refused the file by its name."""
    try:
        return reader(path, *options)
    except kind as error:
        message = str(error)
    assert message.startswith(str(path))
    return None


LABELS = b'sid\tsccs\textra\nd1a__\ta.1.1.1\tx\nd2a__\tb.2.3.4\t"y\nd3a__\tg.55.1.2\t\n'
TABULAR = (
    b"sp|P1|A_X\tsp|T1|B_Y\t45.000\t100\t55\t0\t1\t100\t1\t100\t1e-30\t110\n"
    b"# a comment\nother\tT3\t99.1\t80\t1\t0\t1\t80\t1\t80\t4.1e-52\t170\n"
)
TABLE = b'query\ttarget\tscore\nP1\t"T 1"\t4\nP1\tT2\t3\nP2\tT1\t1\n'
LIST = b"T1\nsp|T2|X_Y\n\nT3\r\n# comment\n"
TEXTS = st.one_of(*map(mutated, (LABELS, TABULAR, TABLE, LIST)))
PACKED = st.one_of(
    TEXTS, *(TEXTS.map(functools.partial(pack, kind)).flatmap(mutated) for kind in _PACKERS)
)


@fuzz(PACKED, st.sampled_from(["", ".gz", ".bz2", ".xz", ".zst"]), examples=200)
def test_any_labels(folder, raw, ending):
    path = folder / f"labels{ending}"
    path.write_bytes(raw)
    found = named(MetadataError, labels.read, path)
    if found is None:
        return
    assert found
    assert all(name == name.strip() and name for name in found)
    assert all(re.fullmatch(r"[A-Za-z0-9]+(\.[A-Za-z0-9]+){3}", label) for label in found.values())


@fuzz(
    PACKED,
    st.sampled_from(["", ".gz", ".bz2", ".xz", ".zst"]),
    st.sampled_from([None, *candidates.KINDS]),
    examples=200,
)
def test_any_candidates(folder, raw, ending, kind):
    path = folder / f"candidates{ending}"
    path.write_bytes(raw)
    found = named(InputError, candidates.read, path, kind)
    if found is not None:
        assert all(found.names)
        assert all(found.named)


# As the first line of a list they would be the header of a table.
HEADERS = ("target", "accession", "sseqid", "saccver", "sacc", "subject", "entry", "id")
NAMES = st.text(
    st.characters(exclude_categories=("C", "Z"), exclude_characters='"#|*'), min_size=1, max_size=9
).filter(lambda name: name.lower() not in HEADERS)
PAIRS = st.dictionaries(NAMES, st.lists(NAMES, min_size=1, unique=True), min_size=1)


@fuzz(PAIRS, st.sampled_from(["\n", "\r\n"]), st.booleans(), examples=100)
def test_candidates_are_read_as_written(folder, wanted, end, packed):
    """As tabular output, as a table whose fields are in quotes, and as a list."""
    path = folder / "written"

    def found(lines: list[str]) -> candidates.Candidates:
        raw = end.join(lines).encode()
        path.write_bytes(gzip.compress(raw) if packed else raw)
        return candidates.read(path)

    pairs = [(query, target) for query, targets in wanted.items() for target in targets]
    expected = candidates.Candidates({query: tuple(found) for query, found in wanted.items()})
    numbers = "1\t2\t3\t4\t5\t6\t7\t8\t1e-9\t10"
    assert found([f"{query}\t{target}\t{numbers}" for query, target in pairs]) == expected
    lines = [f'x\t"{query}"\t{target}' for query, target in pairs]
    assert found(["score\tquery\ttarget", *lines]) == expected
    everyone = tuple(dict.fromkeys(target for _, target in pairs))
    assert found([target for _, target in pairs]).everyone == everyone


@fuzz(
    st.dictionaries(
        NAMES, st.from_regex(r"[A-Za-z0-9]+(\.[A-Za-z0-9]+){3}", fullmatch=True), min_size=1
    ),
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from(["plain", "gz", "xz"]),
    examples=60,
)
def test_labels_are_read_as_written(folder, wanted, end, kind):
    path = folder / "written"
    lines = ["x\tsid\tsccs", *(f"\t{name}\t{label}" for name, label in wanted.items())]
    path.write_bytes(pack(kind, end.join(lines).encode()))
    assert labels.read(path) == wanted


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")
