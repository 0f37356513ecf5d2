"""The tables and views of a catalog, for those who write it and those who read it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import duckdb

from rdsearch.errors import CatalogError
from rdsearch.headers import HEADER_COLUMNS
from rdsearch.metadata import SQL_TYPES, quoted

__all__ = [
    "ACCESSION_COLUMNS",
    "FORMAT",
    "OFFLINE",
    "ROW_COLUMNS",
    "SQL_TYPE",
    "named_errors",
    "sequence_key",
    "views",
    "wal_file",
]

#: Version of the tables.
FORMAT = "2"

#: Where the metadata of an Arrow field has the SQL type of its column.
SQL_TYPE = b"sql_type"

#: Nothing is fetched from the network, whatever a path or a column type asks for.
OFFLINE: dict[str, str | bool | int | float | list[str]] = {
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
}

#: Table ``accessions``: a line for each protein.
ACCESSION_COLUMNS = (
    ("row", "BIGINT"),
    ("position", "BIGINT"),
    ("accession", "VARCHAR"),
    *((name, SQL_TYPES[kind]) for name, kind in HEADER_COLUMNS),
)
#: Table ``rows``: a line for each distinct sequence.
ROW_COLUMNS = (
    ("row", "BIGINT"),
    ("sequence", "VARCHAR"),
    ("length", "INTEGER"),
    ("key", "UBIGINT"),
)


def views(joined: Sequence[tuple[str, Mapping[str, str]]]) -> Iterator[str]:
    """Statements that make the views.

    ``joined`` has the user's columns: where several tables have one, the last has the first say.
    ``proteins`` has each column once, the user's value before the header's.
    """
    sources: dict[str, list[str]] = {}
    for table, columns in reversed(joined):
        for column in columns:
            sources.setdefault(column, []).append(f"{table}.{quoted(column)}")
    tables = "".join(
        f" LEFT JOIN {table} ON {table}.accession = a.accession" for table, _ in joined
    )
    # In the order in which the columns came.
    names = list(dict.fromkeys(column for _, columns in joined for column in columns))
    users = [_first_of(name, sources[name]) for name in names]
    chosen = ", ".join(["a.accession", *users])
    yield f"CREATE VIEW joined AS SELECT {chosen} FROM accessions a{tables}"
    headers = [name for name, _ in HEADER_COLUMNS]
    parts = ['a."row"', "a.accession", "r.length", "r.sequence"]
    parts += [_first_of(name, [*sources.get(name, ()), f"a.{quoted(name)}"]) for name in headers]
    parts += [_first_of(name, sources[name]) for name in names if name not in headers]
    yield (
        f"CREATE VIEW proteins AS SELECT {', '.join(parts)} FROM accessions a "
        f'JOIN rows r ON r."row" = a."row"{tables}'
    )


def _first_of(name: str, values: Sequence[str]) -> str:
    """Column with the first value that is there."""
    value = f"coalesce({', '.join(values)})" if len(values) > 1 else values[0]
    return f"{value} AS {quoted(name)}"


def sequence_key(digest: bytes) -> int:
    """What a sequence is looked up by: the first 8 bytes of its SHA-256, the lowest first."""
    return int.from_bytes(digest[:8], "little")


def wal_file(path: Path) -> Path:
    """What DuckDB keeps beside a database that is being written."""
    return path.with_name(path.name + ".wal")


@contextlib.contextmanager
def named_errors(path: Path, what: str) -> Iterator[None]:
    """DuckDB's errors as the catalog's."""
    try:
        yield
    except duckdb.Error as error:
        reason = str(error).partition("\n")[0]
        raise CatalogError(f"{path}: {what} ({reason})", path=path) from error
