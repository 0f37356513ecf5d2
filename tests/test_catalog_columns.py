"""User columns that go from catalog to catalog, and columns that keep the type they have."""

from __future__ import annotations

import datetime
import decimal
import json
import tempfile
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rdsearch.catalog import Catalog, CatalogWriter
from rdsearch.catalogs import Catalogs
from rdsearch.errors import CatalogError, MetadataError
from rdsearch.fasta import Record
from rdsearch.metadata import read_keys
from rdsearch.rowmap import RowMap
from rdsearch.tombstones import Tombstones

RECORDS = [
    Record("p0", "p0", "MKV", "zero", organism="Mus", taxon_id=10090),
    Record("x|p1", "p1", "ACD"),
    Record("p2", "p2", "MKV", "two", gene="g"),
    Record("p3", "p3", "WW"),
]


def write(path, records=RECORDS, tables=(), carried=(), types=None):
    """Reports of the joins."""
    with CatalogWriter(path) as writer:
        for record in records:
            writer.add(record)
        for table in carried:
            writer.carry(table)
        reports = [writer.join(table, types) for table in tables]
        writer.finish({})
    return reports


def lines_of(path):
    """What a catalog says of each accession, without the row, and its columns."""
    with Catalog(path) as catalog:
        catalog.check()
        behind = catalog.proteins(range(catalog.n_rows))
        lines = {entry.pop("accession"): entry for entries in behind.values() for entry in entries}
        return lines, catalog.columns


TIMES = st.datetimes(datetime.datetime(1970, 1, 1), datetime.datetime(2100, 1, 1))
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=6)
# Arrow types of a Parquet file, and their values.
PARQUET = {
    pyarrow.int64(): st.integers(-(2**63), 2**63 - 1),
    pyarrow.uint64(): st.integers(0, 2**64 - 1),
    pyarrow.int8(): st.integers(-128, 127),
    pyarrow.float64(): st.floats(),
    pyarrow.float32(): st.floats(width=32),
    pyarrow.bool_(): st.booleans(),
    pyarrow.string(): TEXT,
    pyarrow.dictionary(pyarrow.int8(), pyarrow.string()): st.sampled_from(["a", "b"]),
    pyarrow.binary(): st.binary(max_size=4),
    pyarrow.date32(): st.dates(datetime.date(1, 1, 1), datetime.date(9999, 1, 1)),
    pyarrow.time64("us"): st.times(),
    pyarrow.timestamp("us"): TIMES,
    pyarrow.timestamp("ns"): TIMES,
    pyarrow.timestamp("us", "Europe/Paris"): TIMES,
    pyarrow.decimal128(38, 3): st.decimals(-(10**9), 10**9, places=3),
    pyarrow.list_(pyarrow.string()): st.lists(st.none() | TEXT, max_size=3),
    pyarrow.list_(pyarrow.float64(), 2): st.lists(st.floats(), min_size=2, max_size=2),
    pyarrow.struct({"a b": pyarrow.int32(), "c": pyarrow.list_(pyarrow.date32())}): (
        st.fixed_dictionaries(
            {"a b": st.none() | st.integers(0, 9), "c": st.lists(st.dates(), max_size=2)}
        )
    ),
    pyarrow.map_(pyarrow.string(), pyarrow.int64()): st.dictionaries(
        st.sampled_from("abc"), st.integers(0, 9)
    ).map(lambda mapping: list(mapping.items())),
}
# What JSON lines can hold: whole numbers of any size, lines that differ in type.
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(-1e9, 1e9) | TEXT,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "B c"]), inner)
    ),
    max_leaves=4,
)


@st.composite
def parquet_tables(draw):
    """A table with a line for some of the proteins, and a header column now and then."""
    names = draw(st.lists(st.sampled_from(["u", 'V "v"', "organism", "w"]), unique=True))
    proteins = draw(st.lists(st.sampled_from(["p0", "p1", "p2", "p3", "none"]), unique=True))
    columns = {"accession": pyarrow.array(proteins, type=pyarrow.string())}
    for name in names:
        kind = pyarrow.string() if name == "organism" else draw(st.sampled_from(list(PARQUET)))
        value = st.none() | PARQUET[kind]
        values = draw(st.lists(value, min_size=len(proteins), max_size=len(proteins)))
        columns[name] = pyarrow.array(values, type=kind)
    return pyarrow.table(columns)


JSON_LINES = st.lists(
    st.fixed_dictionaries({}, optional={"x": JSON, "Y": JSON, "taxon_id": st.integers(1, 9)}),
    max_size=4,
)


@settings(max_examples=10, deadline=None)
@given(table=parquet_tables(), lines=JSON_LINES, gone=st.sets(st.integers(0, 3), max_size=2))
def test_a_catalog_that_is_written_again_says_the_same(table, lines, gone):
    with tempfile.TemporaryDirectory() as folder:
        first, more = Path(folder) / "t.parquet", Path(folder) / "t.jsonl"
        old, new = Path(folder) / "old", Path(folder) / "new"
        pyarrow.parquet.write_table(table, first)
        named = [{"accession": f"p{number}", **line} for number, line in enumerate(lines)]
        more.write_text("\n".join(map(json.dumps, named)))
        write(old, tables=[first, *([more] if lines else [])])
        removed = np.array(sorted(gone), dtype=np.int64)
        # Without p0 and p2 their common row would not be shown.
        removed = removed if gone != {0, 2} else removed[:1]
        hidden = np.array([1] * (1 in gone) + [2] * (3 in gone), dtype=np.int64)
        catalog, rowmap = Catalog(old, removed), RowMap([3], [hidden])
        with Catalogs([catalog], ["000001"], rowmap, Tombstones()) as catalogs:
            joined = catalogs.joined()
            write(new, list(catalogs.records()), carried=[] if joined is None else [joined])
            with Catalog(new) as again:
                again.check()
                assert again.columns == catalogs.columns
                assert again.n_accessions == catalogs.n_accessions == 4 - len(removed)
                rows = range(again.n_rows)
                # As text, where NaN is equal to itself.
                assert repr(again.proteins(rows)) == repr(catalogs.proteins(rows))
                assert again.sequences(rows) == catalogs.sequences(rows)
                assert list(map(again.records, [[row] for row in rows])) == [
                    {row: list(catalogs.records([row]))} for row in rows
                ]
                for expression in ("organism IS NULL", "taxon_id > 4 OR gene = 'g'"):
                    expected = catalogs.rows_where(expression).tolist()
                    assert again.rows_where(expression).tolist() == expected
                assert again.joined_columns == catalog.joined_columns


def test_what_is_brought_along_yields_to_a_table(tmp_path):
    (tmp_path / "a.tsv").write_text("accession\tN\tnote\torganism\np0\t1\told\tBos\np1\t2\t\tSus\n")
    (tmp_path / "b.tsv").write_text("accession\tn\tmore\np1\t\tx\np2\t7\ty\np0\t5\t\n")
    write(tmp_path / "old", tables=[tmp_path / "a.tsv"])
    with Catalog(tmp_path / "old") as catalog:
        assert catalog.joined_columns == {
            "N": "BIGINT",
            "note": "VARCHAR",
            "organism": "VARCHAR",
        }
        carried = catalog.joined(["p1", "p0", "absent"])
    assert carried.column("accession").to_pylist() == ["p0", "p1"]
    write(tmp_path / "new", RECORDS[:3], [tmp_path / "b.tsv"], [carried])
    lines, columns = lines_of(tmp_path / "new")
    assert [name for name in columns if name.lower() in "n note more"] == ["N", "note", "more"]
    found = {
        name: [line[c] for c in ("N", "note", "more", "organism")] for name, line in lines.items()
    }
    assert found == {
        "p0": [5, "old", None, "Bos"],
        "p1": [2, None, "x", "Sus"],
        "p2": [7, None, "y", None],
    }


def test_columns_of_several_catalogs(tmp_path):
    for name, text in (("a", "N\np0\t1\np1\t2"), ("b", "n\np1\t\np2\t4"), ("c", "n\np2\tx")):
        (tmp_path / f"{name}.tsv").write_text(f"accession\t{text}\n")
        write(tmp_path / name, tables=[tmp_path / f"{name}.tsv"])
    tables = []
    for name in "abc":
        with Catalog(tmp_path / name) as catalog:
            tables.append(catalog.joined())
    write(tmp_path / "new", carried=tables[:2])
    lines, columns = lines_of(tmp_path / "new")
    assert [lines[f"p{number}"]["N"] for number in range(4)] == [1, 2, 4, None]
    assert "n" not in columns
    with pytest.raises(MetadataError, match="column 'n' is BIGINT in one catalog and VARCHAR"):
        write(tmp_path / "bad", carried=[tables[0], tables[2]])
    assert not (tmp_path / "bad").exists()


def test_bringing_along_comes_first_and_lines_are_single(tmp_path):
    (tmp_path / "a.tsv").write_text("accession\tN\np0\t1\n")
    table = pyarrow.table({"accession": ["p0", "p0"], "N": [1, 2]})
    with CatalogWriter(tmp_path / "c") as writer:
        writer.add(RECORDS[0])
        with pytest.raises(CatalogError, match="two lines for p0"):
            writer.carry(table)
        writer.carry(table.slice(1))
        writer.join(tmp_path / "a.tsv")
        with pytest.raises(CatalogError, match="before the first table is joined"):
            writer.carry(table)
        writer.finish({})
    assert lines_of(tmp_path / "c")[0]["p0"]["N"] == 1


@pytest.mark.parametrize(
    ("kind", "text", "expected"),
    [
        ("VARCHAR", "007", "007"),
        ("VARCHAR", "1.50", "1.50"),
        ("VARCHAR", "2020-01-01", "2020-01-01"),
        ("BIGINT", "3.0", 3),
        ("BIGINT", "9007199254740993", 9007199254740993),
        ("DOUBLE", "7", 7.0),
        ("BOOLEAN", "1", True),
        ("DATE", "2020-02-29", datetime.date(2020, 2, 29)),
        ("TIMESTAMP", "2020-02-29", datetime.datetime(2020, 2, 29)),
        ("DECIMAL(6,2)", "1.25", decimal.Decimal("1.25")),
        ("BIGINT[]", '"[1, 2]"', [1, 2]),
    ],
)
def test_a_column_keeps_its_type(tmp_path, kind, text, expected):
    table = tmp_path / "t.tsv"
    table.write_text(f"accession\tCOL\tother\np1\t{text}\t1\np2\t\t2\n")
    (report,) = write(tmp_path / "c", tables=[table], types={"Col": kind, "row": "BIGINT"})
    assert report.columns == {"Col": kind, "other": "BIGINT"}
    lines, columns = lines_of(tmp_path / "c")
    assert columns["Col"] == kind
    assert (lines["p1"]["Col"], lines["p2"]["Col"]) == (expected, None)


def test_a_fraction_beside_a_large_number_loses_nothing(tmp_path):
    (tmp_path / "t.tsv").write_text("accession\tN\np1\t9007199254740993\np2\t2.0\n")
    write(tmp_path / "c", tables=[tmp_path / "t.tsv"], types={"N": "BIGINT"})
    lines, _ = lines_of(tmp_path / "c")
    assert [lines[name]["N"] for name in ("p1", "p2")] == [9007199254740993, 2]


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("BIGINT", "1.5"),
        ("BIGINT", "x"),
        ("BIGINT", "true"),
        ("BIGINT", "2020-01-01"),
        ("BIGINT", "99999999999999999999"),
        ("DOUBLE", "high"),
        ("BOOLEAN", "2"),
        ("DATE", "2020-01-01 10:00:00"),
        ("DATE", "7"),
        ("TIMESTAMP", "2020-01-01 10:00:00+02 x"),
        ("DECIMAL(6,2)", "1.255"),
        ("BIGINT[]", '"[1.5]"'),
        ("BIGINT[]", "4"),
        ("JSON", "{oops"),
    ],
)
def test_a_value_that_does_not_fit_is_named(tmp_path, kind, text):
    table = tmp_path / "t.tsv"
    table.write_text(f"accession\tCol\np1\t\n\np2\t{text}\n")
    with pytest.raises(MetadataError) as caught:
        write(tmp_path / "c", tables=[table], types={"col": kind})
    bare = text.strip('"')
    assert str(caught.value).startswith(
        f"{table}, line 4: column 'Col' holds {kind} in this index; found '{bare}'"
    )
    assert str(caught.value).endswith("for p2. Correct it, or rename the column")
    assert (caught.value.expected, caught.value.found) == (kind, bare)
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize(
    ("kind", "sound", "odd"),
    [
        # DuckDB's casts would leave out the time, and the offset.
        ("DATE", "2020-01-02", "2020-01-01 10:00:00"),
        ("TIMESTAMP", "2020-01-02", "2020-01-01 10:00:00+02"),
        ("BIGINT", "5", "2.5"),
    ],
)
def test_a_value_beside_others_loses_nothing(tmp_path, kind, sound, odd):
    table = tmp_path / "t.tsv"
    table.write_text(f"accession\tCol\np1\t{sound}\np2\t{odd}\n")
    with pytest.raises(MetadataError, match="line 3: column 'Col' holds"):
        write(tmp_path / "c", tables=[table], types={"col": kind})


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        ("VARCHAR", 7, "7"),
        ("VARCHAR", ["a"], "[a]"),
        ("BIGINT", 7.0, 7),
        ("BIGINT", 7.5, None),
        ("BIGINT", True, None),
        ("BIGINT", "7", 7),
        ("BIGINT", "7.5", None),
        ("BIGINT", {"a": 1}, None),
        ("DOUBLE", 3, 3.0),
        ("JSON", "text", '"text"'),
        ("JSON", {"a": [1]}, '{"a":[1]}'),
        ("BIGINT[]", [1.0, 2.0], [1, 2]),
        ("BIGINT[]", [1.5], None),
        ("BIGINT[]", [{"a": 1}], None),
        ("STRUCT(a BIGINT)", {"a": 1, "b": 2}, None),
        ("STRUCT(a BIGINT)", {"b": 2}, None),
        ("STRUCT(a BIGINT, b BIGINT)", {"a": 1}, {"a": 1, "b": None}),
    ],
)
def test_values_of_json_lines_keep_their_type_or_are_named(tmp_path, kind, value, expected):
    table = tmp_path / "t.jsonl"
    table.write_text(json.dumps({"accession": "p1", "Col": value}) + "\n")
    if expected is not None:
        write(tmp_path / "c", tables=[table], types={"col": kind})
        lines, columns = lines_of(tmp_path / "c")
        assert (columns["col"], lines["p1"]["col"]) == (kind, expected)
    else:
        with pytest.raises(MetadataError, match="column 'Col' holds"):
            write(tmp_path / "c", tables=[table], types={"col": kind})


def test_a_column_without_values_is_text(tmp_path):
    table = tmp_path / "t.jsonl"
    table.write_text('{"accession": "p1", "a": null, "b": {"NULL": 1, "c": null}}\n')
    (report,) = write(tmp_path / "c", tables=[table])
    assert report.columns["b"] == 'STRUCT("NULL" BIGINT, c VARCHAR)'
    lines, columns = lines_of(tmp_path / "c")
    assert (columns["a"], lines["p1"]["b"]) == ("VARCHAR", {"NULL": 1, "c": None})


def test_lines_of_other_proteins_are_not_matched(tmp_path):
    (tmp_path / "t.tsv").write_text("accession\tN\np1\t1\nelsewhere\t2\n")
    (report,) = write(tmp_path / "c", tables=[tmp_path / "t.tsv"], types={"N": "BIGINT"})
    assert (report.matched, report.unmatched_lines, report.examples) == (1, 1, ("elsewhere",))


def test_positions_have_no_gap_where_files_share_proteins(tmp_path):
    write(tmp_path / "c", [RECORDS[0], RECORDS[1], RECORDS[0], RECORDS[2], RECORDS[1], RECORDS[3]])
    with Catalog(tmp_path / "c") as catalog:
        catalog.check()
        located = catalog.locate(["p3", "p2", "p1", "p0", "p0"])
        assert list(located.items()) == [
            ("p3", (3, 2)),
            ("p2", (2, 0)),
            ("p1", (1, 1)),
            ("p0", (0, 0)),
        ]


@pytest.mark.parametrize("name", ["t.tsv", "t.jsonl", "t.parquet"])
def test_keys_of_a_table(tmp_path, name):
    lines = {"x": [1, 2, 3], "Entry": ["007", " sp|P1|A ", None]}
    if name == "t.tsv":
        (tmp_path / name).write_text("x\tEntry\n1\t007\n2\t sp|P1|A \n3\t\n")
    elif name == "t.jsonl":
        pairs = zip(*lines.values(), strict=True)
        (tmp_path / name).write_text(
            "\n".join(json.dumps(dict(zip(lines, pair, strict=True))) for pair in pairs)
        )
    else:
        pyarrow.parquet.write_table(pyarrow.table(lines), tmp_path / name)
    assert read_keys(tmp_path / name) == ["007", "sp|P1|A"]
