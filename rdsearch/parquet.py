"""Hits as a Parquet file: typed columns, nothing rounded."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import IO, TYPE_CHECKING, Any

from rdsearch.alignment import ALIGNMENT_COLUMNS
from rdsearch.errors import InputError
from rdsearch.hits import QueryHits
from rdsearch.tables import readable

if TYPE_CHECKING:
    import pyarrow

__all__ = ["parquet", "schema"]

# Hits that go into one row group.
_BATCH = 10_000

_TEXTS = frozenset({"query", "accession", "protein_name", "organism", "cigar"})
_FLOATS = frozenset(
    {
        "score",
        "evalue",
        "probability",
        "identity",
        "positives",
        "query_coverage",
        "target_coverage",
        "bits",
        "alignment_evalue",
    }
)
_COUNTS = frozenset({"rank", "length", *ALIGNMENT_COLUMNS}) - _TEXTS - _FLOATS


def parquet(
    results: Iterable[QueryHits], out: IO[bytes], columns: Sequence[str], types: Mapping[str, str]
) -> int:
    """A Parquet file, a row group for every 10,000 hits.

    Parameters
    ----------
    results : iterable of QueryHits
    out : binary file
    columns : sequence of str
        Keys of `Hit.as_dict`.
    types : mapping of str to str
        SQL types of the catalog's columns.

    Returns
    -------
    int
        Hits.

    Raises
    ------
    InputError
        A value is not of its column's type.
    """
    import pyarrow
    from pyarrow import parquet as files

    fields = schema(columns, types)
    written = 0
    pending: list[dict[str, Any]] = []
    with files.ParquetWriter(out, fields) as writer:

        def pass_on() -> None:
            arrays = [_array([line.get(field.name) for line in pending], field) for field in fields]
            writer.write_table(pyarrow.table(arrays, schema=fields))
            pending.clear()

        for _, hits in results:
            pending += [hit.as_dict() for hit in hits]
            written += len(hits)
            if len(pending) >= _BATCH:
                pass_on()
        if pending:
            pass_on()
    return written


def schema(columns: Sequence[str], types: Mapping[str, str]) -> pyarrow.Schema:
    """Arrow's schema of hits.

    Parameters
    ----------
    columns : sequence of str
        Keys of `Hit.as_dict`.
    types : mapping of str to str
        SQL types of the catalog's columns. A type that Arrow has not, or that holds fields, is
        text; so is a column that is not named.

    Returns
    -------
    pyarrow.Schema
        Ranks, lengths and positions are int32; scores, e-values and shares float64.
    """
    import pyarrow

    def kind(name: str) -> pyarrow.DataType:
        if name in _TEXTS:
            return pyarrow.string()
        if name == "accessions":
            return pyarrow.list_(pyarrow.string())
        if name in _COUNTS or name.startswith("rank_"):
            return pyarrow.int32()
        if name in _FLOATS or name.startswith("score_"):
            return pyarrow.float64()
        return _arrow_type(types.get(name) or types.get(name.removeprefix("metadata_"), "VARCHAR"))

    return pyarrow.schema([(name, kind(name)) for name in columns])


def _arrow_type(kind: str) -> pyarrow.DataType:
    """Arrow's type for one of DuckDB's; text where there is none that every reader knows."""
    import pyarrow

    kind = kind.strip().upper()
    if kind.endswith("]"):
        return pyarrow.list_(_arrow_type(kind[: kind.rindex("[")]))
    if found := re.fullmatch(r"DECIMAL\((\d+),\s*(\d+)\)", kind):
        return pyarrow.decimal128(int(found[1]), int(found[2]))
    simple = {
        "BOOLEAN": pyarrow.bool_(),
        "TINYINT": pyarrow.int8(),
        "SMALLINT": pyarrow.int16(),
        "INTEGER": pyarrow.int32(),
        "BIGINT": pyarrow.int64(),
        "UTINYINT": pyarrow.uint8(),
        "USMALLINT": pyarrow.uint16(),
        "UINTEGER": pyarrow.uint32(),
        "UBIGINT": pyarrow.uint64(),
        "FLOAT": pyarrow.float32(),
        "DOUBLE": pyarrow.float64(),
        "DATE": pyarrow.date32(),
        "TIME": pyarrow.time64("us"),
        "TIMESTAMP": pyarrow.timestamp("us"),
        "TIMESTAMP_S": pyarrow.timestamp("us"),
        "TIMESTAMP_MS": pyarrow.timestamp("us"),
        "TIMESTAMP_NS": pyarrow.timestamp("us"),
        "TIMESTAMP WITH TIME ZONE": pyarrow.timestamp("us", "UTC"),
        "BLOB": pyarrow.binary(),
    }
    return simple.get(kind, pyarrow.string())


def _array(values: Sequence[Any], field: pyarrow.Field) -> pyarrow.Array:
    import pyarrow

    try:
        return pyarrow.array([_as(one, field.type) for one in values], field.type)
    except (pyarrow.ArrowException, OverflowError, TypeError, ValueError) as error:
        raise InputError(
            f"column {field.name} cannot be written to Parquet as {field.type}: {error}. Leave it "
            "out with --columns, or write another format",
            column=field.name,
        ) from error


def _as(value: Any, kind: pyarrow.DataType) -> Any:
    """A value of the catalog as text where its type is text to Arrow."""
    import pyarrow

    if value is None:
        return None
    if pyarrow.types.is_list(kind) and isinstance(value, list | tuple):
        return [_as(one, kind.value_type) for one in value]
    return readable("", value) if pyarrow.types.is_string(kind) else value
