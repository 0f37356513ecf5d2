"""Joining a user's table: every format, its types, and what is wrong where."""

from __future__ import annotations

import contextlib
import datetime
import gzip
import json
import os
import re
import shutil

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rdsearch.catalog import Catalog, CatalogWriter
from rdsearch.errors import MetadataError
from rdsearch.fasta import Record
from rdsearch.metadata import RESERVED_COLUMNS
from tests.test_catalog import RECORDS, write


def joined(tmp_path, name, text, records=RECORDS):
    """Report and catalog lines by accession after joining one table."""
    table = tmp_path / name
    table.write_bytes(text if isinstance(text, bytes) else text.encode())
    _, (report,), _ = write(tmp_path / f"{name}.duckdb", records, [table])
    with Catalog(tmp_path / f"{name}.duckdb") as catalog:
        catalog.check()
        behind = catalog.proteins(range(catalog.n_rows))
        lines = {entry["accession"]: entry for entries in behind.values() for entry in entries}
        return report, lines, catalog.columns


LINES = [
    {"accession": "P1", "n": 3, "f": 0.5, "day": "2020-02-29", "ok": True, "t": "a b"},
    {"accession": "nobody", "n": 9, "f": 1.5, "day": "2020-03-01", "ok": False, "t": "x"},
    {"accession": "sp|P2|B_X", "n": 4, "f": None, "day": None, "ok": None, "t": 'β, "q"'},
]


def as_text(delimiter, end="\n"):
    def cell(value):
        if value is None:
            return ""
        text = str(value)
        return '"' + text.replace('"', '""') + '"' if '"' in text else text

    lines = [list(LINES[0]), *([cell(value) for value in line.values()] for line in LINES)]
    return end.join(delimiter.join(line) for line in lines)


def as_parquet():
    sink = pyarrow.BufferOutputStream()
    lines = [
        {**line, "day": line["day"] and datetime.date.fromisoformat(line["day"])} for line in LINES
    ]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(lines), sink)
    return sink.getvalue().to_pybytes()


FORMATS = {
    "t.tsv": as_text("\t").encode(),
    "t.TAB": as_text("\t", "\r\n").encode(),
    "t.txt": b"\xef\xbb\xbf" + as_text("\t").encode() + b"\n",
    "t.csv": as_text(",").encode(),
    "semicolon.csv": as_text(";").encode(),
    "a [b]*?.tsv": as_text("\t").encode(),
    "t.jsonl": "\n".join(json.dumps(line) for line in LINES).encode(),
    "t.parquet": as_parquet(),
    "t.tsv.gz": gzip.compress(as_text("\t").encode()),
    "t.ndjson.gz": gzip.compress("\n".join(json.dumps(line) for line in LINES).encode()),
}


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_keeps_its_types(tmp_path, name):
    report, lines, columns = joined(tmp_path, name, FORMATS[name])
    kinds = {"n": "BIGINT", "f": "DOUBLE", "day": "DATE", "ok": "BOOLEAN", "t": "VARCHAR"}
    assert {column: columns[column] for column in kinds} == kinds == report.columns
    assert [lines["P1"][column] for column in kinds] == [
        3,
        0.5,
        datetime.date(2020, 2, 29),
        True,
        "a b",
    ]
    assert lines["P2"]["n"] == 4
    assert '"q"' in lines["P2"]["t"]
    assert [lines["third"][column] for column in kinds] == [None] * 5
    assert (report.lines, report.matched, report.unmatched_lines) == (3, 2, 1)
    assert (report.proteins, report.unmatched_proteins, report.key) == (4, 2, "accession")
    assert report.examples == ("nobody",)
    assert "2 of 3 lines and of 4 proteins matched (no protein for nobody)" in str(report)


def test_user_values_override_header_columns(tmp_path):
    text = "Entry\tOrganism\tGENE\ttaxon_id\nP1\tNew\t\t9606\nP2\t\t1e5\t\n"
    report, lines, columns = joined(tmp_path, "t.tsv", text)
    assert report.columns == {"organism": "VARCHAR", "gene": "VARCHAR", "taxon_id": "BIGINT"}
    assert [lines["P1"][name] for name in report.columns] == ["New", "abc", 9606]
    assert [lines["P2"][name] for name in report.columns] == [None, "1e5", None]
    assert lines["P1"]["protein_name"] == "Name"
    assert list(columns).count("organism") == 1
    assert not {"Organism", "GENE"} & set(columns)
    for value in ("1.5", "human", "1e+300"):
        with pytest.raises(MetadataError, match=rf"'taxon_id' holds.*'{re.escape(value)}'"):
            joined(tmp_path, f"{value}.tsv", f"accession\ttaxon_id\nP1\t{value}\nP2\t1\n")


@pytest.mark.parametrize("key", ["accession", "ACCESSION", "Entry", "id", "anything"])
def test_the_key_column(tmp_path, key):
    report, lines, _ = joined(tmp_path, "t.tsv", f'{key}\tx\n P1 \t1\nO\'Hara "β"\t2\n')
    assert (report.key, report.matched) == (key, 2)
    assert lines["P1"]["x"] == 1
    report, _, _ = joined(tmp_path, "u.tsv", "x\tid\tAccession\n1\t2\tP1\n")
    assert (report.key, report.columns) == ("Accession", {"x": "BIGINT", "id": "VARCHAR"})


@pytest.mark.parametrize("key", ["accession", "anything"])
def test_keys_are_text_even_where_they_look_like_numbers(tmp_path, key):
    records = [Record(name, name, "MK") for name in ("1e5", "100000", "2")]
    for name, text in [
        ("t.csv", f"{key},x\n1e5,1\n100000,2\n2,3\n"),
        ("t.jsonl", "".join(f'{{"{key}": {k}, "x": {x}}}\n' for k, x in [("100000", 2), ("2", 3)])),
    ]:
        _, lines, _ = joined(tmp_path, name, text, records)
        assert [lines["100000"]["x"], lines["2"]["x"]] == [2, 3]


def test_wildcards_in_a_name_are_letters(tmp_path):
    for ending, text in [("tsv", "accession\tx\nP1\t{}\n"), ("jsonl", '{{"id":"P1","x":{}}}\n')]:
        (tmp_path / f"table.{ending}").write_text(text.format(1))
        report, lines, _ = joined(tmp_path, f"ta*?[b].{ending}", text.format(2))
        assert (report.lines, lines["P1"]["x"]) == (1, 2)
        report, lines, _ = joined(tmp_path, f"ta*.{ending}", text.format(3))
        assert (report.lines, lines["P1"]["x"]) == (1, 3)


def test_many_sparse_columns_stay_columns(tmp_path):
    records = [Record(f"P{i}", f"P{i}", "MK") for i in range(20)]
    lines = [{"accession": f"P{i}", **{f"k{i}_{j}": j for j in range(40)}} for i in range(20)]
    report, found, _ = joined(tmp_path, "t.jsonl", "\n".join(map(json.dumps, lines)), records)
    assert len(report.columns) == 800
    assert (found["P3"]["k3_7"], found["P3"]["k4_7"]) == (7, None)


def test_odd_column_names(tmp_path):
    names = ['say "x"', "two words", "β", "select", "position", "metadata_1", "c0", "a;b--", "line"]
    line = {"accession": "P1", **{name: place for place, name in enumerate(names)}}
    tables = {
        "t.jsonl": json.dumps(line).encode(),
        "t.tsv": "\n".join(
            "\t".join('"' + str(v).replace('"', '""') + '"' for v in values)
            for values in (line, line.values())
        ).encode(),
    }
    for name, raw in tables.items():
        _, lines, columns = joined(tmp_path, name, raw)
        assert [lines["P1"][column] for column in names] == list(range(len(names)))
        assert list(columns)[-len(names) :] == names


def test_several_tables(tmp_path):
    (tmp_path / "a.tsv").write_text("accession\tx\nP1\t1\n")
    (tmp_path / "b.csv").write_text("accession,y\nthird,2.5\n")
    (tmp_path / "c.csv").write_text("accession,X\nP1,1\n")
    with CatalogWriter(tmp_path / "c.duckdb") as writer:
        for record in RECORDS:
            writer.add(record)
        writer.join(tmp_path / "a.tsv")
        with pytest.raises(MetadataError, match="'X' is in a table that was joined before"):
            writer.join(tmp_path / "c.csv")
        writer.join(tmp_path / "b.csv")
        writer.finish({})
    with Catalog(tmp_path / "c.duckdb") as catalog:
        first, third = catalog.proteins([0])[0]
        assert (first["x"], first["y"], third["x"], third["y"]) == (1, None, None, 2.5)


def test_times_with_a_zone_are_kept_as_utc(tmp_path):
    when = datetime.datetime(2020, 1, 1, 12, tzinfo=datetime.timezone(datetime.timedelta(hours=2)))
    pyarrow.parquet.write_table(
        pyarrow.table({"accession": ["P1"], "t": [when], "l": [[when]]}), tmp_path / "x.parquet"
    )
    _, lines, _ = joined(tmp_path, "t.parquet", (tmp_path / "x.parquet").read_bytes())
    utc = datetime.datetime(2020, 1, 1, 10)
    assert (lines["P1"]["t"], lines["P1"]["l"]) == (utc, [utc])


def test_a_table_without_matches_or_lines(tmp_path, caplog):
    report, _, columns = joined(tmp_path, "t.tsv", "accession\tx\nQ\t1\n")
    assert (report.matched, report.unmatched_lines, "x" in columns) == (0, 1, True)
    assert "no line has the accession" in caplog.text
    report, _, _ = joined(tmp_path, "empty.tsv", "accession\tx\n")
    assert (report.lines, report.unmatched_proteins) == (0, 4)


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("t.tsv", "", "expected a header line, found an empty file"),
        ("t.tsv", "P1\t3\nP2\t4\n", "expected a header line, found the accession 'P1'"),
        ("t.tsv", "accession\tx\tX\nP1\t1\t2\n", "columns 'x' and 'X' have one name"),
        ("t.tsv", "accession\tx\tx\nP1\t1\t2\n", "columns 'x' and 'x' have one name"),
        ("t.jsonl", '{"accession": "P1", "x": 1}\n{"X": 2}\n', "have one name"),
        ("t.tsv", "accession\t\nP1\t1\n", "column 2 has no name"),
        ("t.tsv", "accession\tscore_8M\nP1\t1\n", "'score_8M' has a reserved name"),
        ("t.tsv", "accession\tx\nP1\t1\nP9\t2\n\nP1\t3\n", "P1 is on lines 2 and 5"),
        ("t.csv", 'accession,x\nP9,"1\n2"\nP1,1\nsp|P1|A_X,3\n', "P1 is on lines 4 and 5"),
        ("t.tsv", "accession\tx\nP9\t1\nP9\t1\n", "P9 is on lines 2 and 3"),
        ("t.jsonl", '{"accession": "P1"}\n{"accession": "P1"}\n', "P1 is on lines 1 and 2"),
        ("t.tsv", "accession\tx\nP1\t1\nP2\n", "line 3: expected 2 columns, found 1"),
        ("t.csv", "accession,x\nP1,1,2\n", "line 2: expected 2 columns, found 3"),
        ("t.tsv", b"accession\tx\nP1\t\xff\xfe\n", "t.tsv"),
        ("t.tsv", b"\xff\xfea\0", "expected text in UTF-8"),
        ("t.tsv.gz", b"accession\tx\nP1\t1\n", "cannot be read"),
        ("t.tsv.gz", gzip.compress(as_text("\t").encode())[:-20], "cannot be read"),
        ("t.jsonl", '{"accession": "P1"}\n{"acc', "t.jsonl"),
        ("t.jsonl", "[1, 2]\n", "t.jsonl"),
        ("t.parquet", b"PAR1 not really PAR1", "cannot be read"),
        ("t.parquet", as_parquet()[:-30], "cannot be read"),
        ("t.parquet", as_parquet().replace(b"accession", b"\xffccession"), "cannot be read"),
        ("t.xlsx", "PK", "expected a name that ends in"),
        ("table", "accession\tx\n", "expected a name that ends in"),
        ("t.parquet.gz", "", "expected a name that ends in"),
    ],
)
def test_tables_that_cannot_be_joined(tmp_path, name, text, reason):
    with pytest.raises(MetadataError) as caught:
        joined(tmp_path, name, text)
    assert reason in str(caught.value)
    assert str(caught.value).startswith(str(tmp_path / name))


def test_a_length_column_is_left_out(tmp_path):
    report, lines, _ = joined(tmp_path, "t.tsv", "accession\tLength\tx\nP1\t99\t2\n")
    assert list(report.columns) == ["x"]
    assert (lines["P1"]["x"], lines["P1"]["length"]) == (2, len(RECORDS[0].sequence))


@pytest.mark.parametrize("reserved", [name for name in RESERVED_COLUMNS if name != "accession"])
def test_reserved_columns(tmp_path, reserved):
    with pytest.raises(MetadataError, match="reserved"):
        joined(tmp_path, "t.tsv", f"accession\t{reserved.upper()}\nP1\t1\n")


@pytest.mark.parametrize("name", [b"\xff.tsv", b"\xff.jsonl", b"\xff.parquet"])
def test_a_path_that_is_not_utf8(tmp_path, name):
    table = tmp_path / os.fsdecode(name)
    table.write_bytes(as_parquet())
    with pytest.raises(MetadataError, match="expected a path in UTF-8"):
        write(tmp_path / "c.duckdb", tables=[table])


def test_missing_tables(tmp_path):
    with pytest.raises(MetadataError, match="no such file"):
        write(tmp_path / "c.duckdb", tables=[tmp_path / "absent.tsv"])
    (tmp_path / "folder.tsv").mkdir()
    with pytest.raises(MetadataError, match="is not a file"):
        write(tmp_path / "c.duckdb", tables=[tmp_path / "folder.tsv"])


CELLS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)


@settings(max_examples=40, deadline=None)
@given(st.binary(max_size=120) | st.lists(st.lists(CELLS, max_size=4), max_size=4))
def test_any_table_is_joined_or_refused_by_name(tmp_path_factory, content):
    folder = tmp_path_factory.mktemp("any")
    raw = content if isinstance(content, bytes) else None
    raw = raw if raw is not None else "\n".join("\t".join(line) for line in content).encode()
    writer = CatalogWriter(folder / "c.duckdb")
    writer.add(RECORDS[0])
    for name in ("t.tsv", "t.csv", "t.jsonl", "t.parquet", "t.tsv.gz"):
        (folder / name).write_bytes(raw)
        with contextlib.suppress(MetadataError):
            writer.join(folder / name)
    writer.finish({})
    Catalog(folder / "c.duckdb").close()
    shutil.rmtree(folder)
