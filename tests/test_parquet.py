"""Hits in Parquet: types of every column, nothing rounded."""

from __future__ import annotations

import json

import pytest

from rdsearch import outputs
from rdsearch.errors import InputError
from rdsearch.hits import QueryHits
from tests.results import COLUMNS, TYPES, hit, results
from tests.test_tables import flat_hits, same, written


def test_parquet_rounds_nothing(tmp_path):
    import pyarrow
    from pyarrow import parquet

    path = tmp_path / "hits.parquet"
    assert outputs.write(results(), path, "parquet", COLUMNS, types=TYPES) == 4
    table = parquet.read_table(path)
    kinds = {field.name: str(field.type) for field in table.schema}
    assert list(kinds) == COLUMNS
    expected = {
        "query": "string",
        "rank": "int32",
        "score": "double",
        "evalue": "double",
        "rank_8M": "int32",
        "identity": "double",
        "gap_openings": "int32",
        "cigar": "string",
        "length": "int32",
        "taxon_id": "int32",
        "mass": "double",
        "day": "date32[day]",
        "price": "decimal128(10, 2)",
        "reviewed": "bool",
        "note": "string",
        "place": "string",
    }
    assert {name: kinds[name] for name in expected} == expected
    assert all(pyarrow.types.is_list(table.schema.field(one).type) for one in ("accessions", "go"))
    for line, one in zip(table.to_pylist(), flat_hits(), strict=True):
        values = one.as_dict()
        for name in COLUMNS:
            if name != "place":
                assert same(line[name], values.get(name)), name
        if "place" in values:
            assert json.loads(line["place"]) == values["place"]
    pandas = pytest.importorskip("pandas")
    assert pandas.read_parquet(path)["evalue"].isna().tolist() == [False, True, False, False]


def test_parquet_by_row_groups(tmp_path, monkeypatch):
    from pyarrow import parquet

    from rdsearch import parquet as module

    monkeypatch.setattr(module, "_BATCH", 2)
    path = tmp_path / "hits.parquet"
    outputs.write(results(), path, "parquet", COLUMNS, types=TYPES)
    assert parquet.ParquetFile(path).num_row_groups == 2
    assert parquet.read_table(path)["rank"].to_pylist() == [1, 2, 3, 1]


def test_parquet_names_the_column_that_is_not_of_its_type(tmp_path):
    with pytest.raises(InputError, match="column note cannot be written to Parquet as int64"):
        outputs.write(
            results(), tmp_path / "x.parquet", "parquet", COLUMNS, types=TYPES | {"note": "BIGINT"}
        )
    assert list(tmp_path.iterdir()) == []


# Of each SQL type a value, and what Arrow has of it where that is not the value itself.
DUCKDB = {
    "BOOLEAN": "true",
    "TINYINT": "-1",
    "BIGINT": "-9223372036854775808",
    "UBIGINT": "18446744073709551615",
    "FLOAT": "0.1",
    "DOUBLE": "0.1",
    "DECIMAL(18,3)": "1.5",
    "VARCHAR": "'a'",
    "BLOB": "'a'",
    "DATE": "'2020-02-29'",
    "TIME": "'12:34:56.789'",
    "TIMESTAMP": "'2020-02-29 12:34:56.789'",
    "TIMESTAMP_S": "'2020-02-29 12:34:56'",
    "INTEGER[]": "[1, NULL, 3]",
    "INTEGER[3]": "[1, 2, 3]",
    "VARCHAR[][]": "[['a'], [], NULL]",
    "DECIMAL(4,1)[]": "[1.5, 2]",
    "ENUM('a','b')": "'a'",
}
AS_TEXT = {
    "HUGEINT": (
        "170141183460469231731687303715884105727",
        "170141183460469231731687303715884105727",
    ),
    "UUID": ("'12345678-1234-1234-1234-123456789012'", "12345678-1234-1234-1234-123456789012"),
    "UUID[]": (
        "['12345678-1234-1234-1234-123456789012']",
        ["12345678-1234-1234-1234-123456789012"],
    ),
    "JSON": ("'{\"a\": 1}'", '{"a": 1}'),
    "BIT": ("'101'", "101"),
    "INTERVAL": ("'3 days'", "3 days, 0:00:00"),
    "MAP(VARCHAR,INTEGER)": ("MAP {'a': 1}", '{"a": 1}'),
    "STRUCT(x INTEGER)": ("{'x': 1}", '{"x": 1}'),
    "STRUCT(x INTEGER)[]": ("[{'x': 1}]", ['{"x": 1}']),
}


@pytest.mark.parametrize("kind", [*DUCKDB, *AS_TEXT])
def test_parquet_takes_every_type_of_duckdb(kind, tmp_path):
    import duckdb
    from pyarrow import parquet

    text, wanted = AS_TEXT.get(kind) or (DUCKDB[kind], None)
    value = duckdb.sql(f"SELECT CAST({text} AS {kind})").fetchall()[0][0]
    if wanted is None:
        wanted = list(value) if isinstance(value, tuple) else value
    found = [QueryHits(results()[0].query, [hit(1, columns={"x": value}), hit(2, columns={})])]
    path = tmp_path / "x.parquet"
    outputs.write(found, path, "parquet", ["x"], types={"x": kind})
    assert parquet.read_table(path)["x"].to_pylist() == [wanted, None]
    assert len(written("jsonl", found, ["x"]).splitlines()) == 2
    assert len(written("tsv", found, ["x"]).splitlines()) == 3


def test_a_catalog_column_under_another_name_keeps_its_type():
    from rdsearch import parquet

    fields = parquet.schema(["score", "metadata_score"], {"score": "BIGINT"})
    assert [str(field.type) for field in fields] == ["double", "int64"]
