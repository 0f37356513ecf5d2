"""Tables of metadata: written ones come back, mutated ones are joined or refused by name.

DuckDB and Arrow read them in a process of its own (`tests.fuzzing`), which also checks that the
database goes on working whatever the table was.
"""

from __future__ import annotations

import datetime
import gzip
import io
import json

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import strategies as st

from tests.fuzzing import PIECES, Process, fuzz, mutated

TEXT_ENDINGS = (".tsv", ".tab", ".txt", ".csv")
ENDINGS = (*TEXT_ENDINGS, ".jsonl", ".ndjson")


@pytest.fixture(scope="module")
def join():
    process = Process("metadata")
    yield process.run
    process.close()


LINES = [
    {"accession": "P1", "n": 3, "f": 0.5, "day": "2020-02-29", "ok": True, "t": "a b"},
    {"accession": "nobody", "n": 9, "f": 1.5, "day": "2020-03-01", "ok": False, "t": "x"},
    {"accession": "sp|P2|P2_X", "n": 4, "f": None, "day": None, "ok": None, "t": 'é, "q"'},
]


def as_text(lines: list[dict], delimiter: str) -> bytes:
    def cell(value: object) -> str:
        text = "" if value is None else str(value)
        odd = any(letter in text for letter in f'{delimiter}"\r\n')
        return '"' + text.replace('"', '""') + '"' if odd else text

    rows = [[*lines[0]], *([*line.values()] for line in lines)]
    return "".join(delimiter.join(map(cell, row)) + "\n" for row in rows).encode()


def as_json(lines: list[dict]) -> bytes:
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode()


def as_parquet(lines: list[dict], **options: object) -> bytes:
    sink = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(lines), sink, **options)
    return sink.getvalue()


TYPED = [
    {**line, "day": line["day"] and datetime.date.fromisoformat(line["day"]), "list": ["a", None],
     "deep": {"x": [i]}, "raw": b"\xff", "taxon_id": i}
    for i, line in enumerate(LINES)
]  # fmt: skip
PARQUET = [
    as_parquet(TYPED),
    as_parquet(TYPED * 50, compression="zstd", use_dictionary=False),
    as_parquet(TYPED * 50, compression="gzip", data_page_version="2.0", row_group_size=40),
    as_parquet(TYPED, compression="none", column_encoding="PLAIN", use_dictionary=False),
]


def answered(answer: dict | str) -> None:
    if isinstance(answer, str):
        assert answer.startswith("MetadataError: "), answer
    else:
        assert answer.keys() <= {"P1", "P2", "P3"}


TEXTS = st.one_of(
    mutated(as_text(LINES, "\t")),
    mutated(as_text(LINES, ",")),
    mutated(as_text(LINES, ";")),
    mutated(as_json(LINES)),
    mutated(as_json([{**LINES[0], "list": [1], "deep": {"x": {"y": [None]}}}, LINES[2]])),
    st.lists(st.sampled_from((*PIECES, b"accession\tx\n", b"P1\t1\n")), max_size=9).map(b"".join),
)


@fuzz(st.sampled_from(ENDINGS), TEXTS, examples=100)
def test_mutated_text(join, ending, raw):
    answered(join(ending, raw))


@fuzz(st.sampled_from(ENDINGS), TEXTS, st.data(), examples=60)
def test_mutated_packed_text(join, ending, raw, data):
    packed = gzip.compress(raw, mtime=0)
    whole = data.draw(st.booleans())
    answered(join(f"{ending}.gz", packed if whole else data.draw(mutated(packed))))


@fuzz(st.sampled_from([".parquet", ".pq"]), st.sampled_from(PARQUET).flatmap(mutated),
      examples=200)  # fmt: skip
def test_mutated_parquet(join, ending, raw):
    answered(join(ending, raw))


WORDS = st.text(
    st.characters(codec="utf-8", exclude_categories=("C", "Zl", "Zp")), max_size=8
).map(lambda text: "a " + text.rstrip())  # fmt: skip
VALUES = st.tuples(
    st.integers(-(2**63), 2**63 - 1), st.booleans(), WORDS, st.floats(allow_nan=False, width=32)
)


@fuzz(st.permutations(["P1", "sp|P2|P2_X", "P3", "P4"]), st.lists(VALUES, min_size=4, max_size=4),
      st.integers(0, 3), examples=20)  # fmt: skip
def test_values_come_back(join, names, values, empty):
    """The same values from every format; an empty cell is NULL."""
    columns = ("whole", "yes", "some text", "real")
    lines = [
        {"accession": name, **dict(zip(columns, line, strict=True))}
        for name, line in zip(names, values, strict=True)
    ]
    lines[empty].update(dict.fromkeys(columns))
    accessions = {"P1": "P1", "sp|P2|P2_X": "P2", "P3": "P3"}
    expected = {
        accessions[line["accession"]]: {name: line[name] for name in columns}
        for line in lines
        if line["accession"] in accessions
    }
    for ending, raw in {
        ".tsv": as_text(lines, "\t"),
        ".csv": as_text(lines, ","),
        ".csv.gz": gzip.compress(as_text(lines, ";")),
        ".jsonl": as_json(lines),
        ".parquet": as_parquet(lines),
    }.items():
        answer = join(ending, raw)
        assert isinstance(answer, dict), answer
        for found in answer.values():
            found["real"] = found["real"] and float(found["real"])
            found["whole"] = found["whole"] and int(found["whole"])
            found["yes"] = found["yes"] and found["yes"] == "true"
        assert answer == expected, ending
