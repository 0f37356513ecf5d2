"""Join a user's table to the proteins of a catalog by accession.

DuckDB's readers infer the types. What they would pass over in silence (columns of the same name,
a missing header line, a line that is there twice) is looked for here.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import duckdb

from rdsearch.columntypes import conversion, read_as_text
from rdsearch.errors import MetadataError
from rdsearch.headers import HEADER_COLUMNS
from rdsearch.tablefile import TableFile, named_errors

__all__ = [
    "KEY_COLUMNS",
    "RESERVED_COLUMNS",
    "SQL_TYPES",
    "MetadataReport",
    "join_table",
    "quoted",
    "read_keys",
]

#: The column with the accessions is the first of these that a table has, else its first column.
KEY_COLUMNS = ("accession", "entry", "id")

#: Facts of a row, which no table may set.
RESERVED_COLUMNS = ("row", "sequence", "accession", "accessions", "query", "rank", "score")

#: Column types for what a header yields.
SQL_TYPES: dict[type, str] = {str: "VARCHAR", int: "BIGINT"}

_LOGGER = logging.getLogger(__name__)
_HEADER_TYPES = {name: SQL_TYPES[kind] for name, kind in HEADER_COLUMNS}
_EXAMPLES = 3
# DuckDB's type of JSON fields that are null in every line; a field with this name has a space
# behind it.
_NO_TYPE = re.compile(r'"NULL"(?! )')


@dataclass(frozen=True, slots=True)
class MetadataReport:
    """What a join found.

    Attributes
    ----------
    path : Path
        The table.
    key : str
        Its column of accessions.
    columns : dict of str to str
        Columns that were joined, and their SQL types.
    lines : int
        Lines of the table, without the header.
    matched : int
        Of these, lines with the accession or the full id of a protein.
    unmatched_lines : int
        ``lines - matched``; they are not in the catalog.
    proteins : int
        Accessions in the catalog.
    unmatched_proteins : int
        ``proteins - matched``; their values are NULL.
    examples : tuple of str
        Keys of a few unmatched lines.
    """

    path: Path
    key: str
    columns: dict[str, str] = field(default_factory=dict)
    lines: int = 0
    matched: int = 0
    unmatched_lines: int = 0
    proteins: int = 0
    unmatched_proteins: int = 0
    examples: tuple[str, ...] = ()

    def __str__(self) -> str:
        text = (
            f"{self.path}: {len(self.columns)} columns joined by {self.key}; "
            f"{self.matched:,} of {self.lines:,} lines and of {self.proteins:,} proteins matched"
        )
        if self.examples:
            text += f" (no protein for {', '.join(self.examples)}"
            text += ", …)" if self.unmatched_lines > len(self.examples) else ")"
        return text


def quoted(name: str) -> str:
    """A name as SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def join_table(
    connection: duckdb.DuckDBPyConnection,
    path: Path,
    table: str,
    taken: Iterable[str],
    types: Mapping[str, str] | None = None,
) -> MetadataReport:
    """Read a table and keep the lines of known proteins.

    Parameters
    ----------
    connection : DuckDBPyConnection
        To a catalog whose table ``accessions`` is complete.
    path : Path
        See `rdsearch.tablefile.TableFile`.
    table : str
        Name of the table to make: column ``accession``, then the user's columns. A column with
        the name of a header column gets that column's type; timestamps with a zone are kept as
        UTC without one.
    taken : iterable of str
        Columns of tables that were joined before.
    types : mapping of str to str, optional
        Columns that the index has already, and their SQL types: they keep name and type.

    Returns
    -------
    MetadataReport

    Raises
    ------
    MetadataError
        The file is missing or cannot be read as what its name says; two columns of one name
        (case does not count), a reserved or a taken name; no header line; two lines for one
        protein; a value that does not fit its header column, or the type that the index has.
    """
    source = TableFile(path)
    names = source.column_names()
    key = _key_column(path, names, taken)
    if _is_protein(connection, key):
        raise MetadataError(
            f"{path}: expected a header line, found the accession {key!r} in it. Add a first line "
            "with the names of the columns",
            path=path,
        )
    # A header column keeps its spelling and type whatever the table's are.
    settled = {name.lower(): (name, kind) for name, kind in (types or {}).items()}
    settled.update({name: (name, kind) for name, kind in _HEADER_TYPES.items()})
    kinds = _stage(connection, source, names, key, {n: kind for n, (_, kind) in settled.items()})
    _check_single(connection, source)
    selected, joined = ["k.accession"], {}
    for position, (name, kind) in enumerate(zip(names, kinds, strict=True)):
        if name == key:
            continue
        if name.lower() == "length":
            # In every export of UniProt; the catalog counts the sequence it has.
            _LOGGER.info("%s: column %r is left out: length is the sequence's own", path, name)
            continue
        kept = kind.replace("TIMESTAMP WITH TIME ZONE", "TIMESTAMP")
        kept = _NO_TYPE.sub("VARCHAR", kept)
        column, wanted = settled.get(name.lower(), (name, kept))
        value = f"CAST(s.c{position} AS {kept})"
        if wanted != kept:
            value = _converted(connection, source, name, (value, kept, wanted))
        joined[column] = wanted
        selected.append(f"{value} AS {quoted(column)}")
    with named_errors(source):
        connection.execute(
            f"CREATE TABLE {quoted(table)} AS SELECT {', '.join(selected)} FROM staged s "
            "JOIN staged_keys k ON s.rowid = k.line WHERE k.known ORDER BY k.position"
        )
        report = _report(connection, path, key, joined)
        connection.execute("DROP TABLE staged")
        connection.execute("DROP TABLE staged_keys")
    if not report.matched:
        _LOGGER.warning("%s: no line has the accession or id of a protein", path)
    return report


def read_keys(path: Path) -> list[str]:
    """The column of accessions of a table, as it is written there.

    Raises
    ------
    MetadataError
        As `join_table`, as far as the header and the reading go.
    """
    source = TableFile(path)
    names = source.column_names()
    key = f"c{names.index(_key_column(path, names, ()))}"
    columns = [f"c{position}" for position in range(len(names))]
    with duckdb.connect(":memory:") as connection, named_errors(source):
        lines = connection.execute(
            f"SELECT trim(CAST({key} AS VARCHAR)) FROM {source.reader(columns, [key])} "
            f"AS t({', '.join(columns)})",
            [source.argument],
        ).fetchall()
    return [value for (value,) in lines if value]


def _key_column(path: Path, names: list[str], taken: Iterable[str]) -> str:
    """The column with the accessions; the others have names that can be kept."""

    def refuse(reason: str) -> MetadataError:
        return MetadataError(f"{path}: {reason}", path=path)

    if not names:
        raise refuse("expected a header line, found an empty file")
    if blank := [place for place, name in enumerate(names, start=1) if not name.strip()]:
        raise refuse(f"column {blank[0]} has no name: expected one for each column")
    spellings: dict[str, str] = {}
    for name in names:
        if name.lower() in spellings:
            raise refuse(
                f"columns {spellings[name.lower()]!r} and {name!r} have one name (case does not "
                "count): rename one of them"
            )
        spellings[name.lower()] = name
    key = next((spellings[name] for name in KEY_COLUMNS if name in spellings), names[0])
    joined = {name.lower() for name in taken}
    for name in names:
        if name == key:
            continue
        if name.lower() in RESERVED_COLUMNS or name.lower().startswith("score_"):
            raise refuse(
                f"column {name!r} has a reserved name ({', '.join(RESERVED_COLUMNS)}, score_…): "
                "rename it or leave it out"
            )
        if name.lower() in joined:
            raise refuse(f"column {name!r} is in a table that was joined before: rename it")
    return key


def _is_protein(connection: duckdb.DuckDBPyConnection, text: str) -> bool:
    found = connection.execute(
        "SELECT count(*) FROM accessions WHERE accession = $1 OR id = $1", [text]
    ).fetchone()
    return bool(found and found[0])


def _stage(
    connection: duckdb.DuckDBPyConnection,
    source: TableFile,
    names: list[str],
    key: str,
    wanted: Mapping[str, str],
) -> list[str]:
    """Read all lines into columns c0, c1 …, find the protein of each; the SQL types."""
    columns = [f"c{position}" for position in range(len(names))]
    text = [
        column
        for name, column in zip(names, columns, strict=True)
        if name == key or wanted.get(name.lower()) == "VARCHAR"
    ]
    key_value = f"trim(CAST(s.c{names.index(key)} AS VARCHAR))"
    with named_errors(source):
        kinds = _read(connection, source, columns, text)
        again = [
            column
            for name, column, kind in zip(names, columns, kinds, strict=True)
            if source.is_text and read_as_text(kind, wanted.get(name.lower(), kind))
        ]
        if again:
            connection.execute("DROP TABLE staged")
            kinds = _read(connection, source, columns, text + again)
        connection.execute(
            f"CREATE TEMP TABLE staged_keys AS SELECT s.rowid AS line, {key_value} AS key, "
            f"coalesce(a.accession, b.accession, {key_value}) AS accession, "
            "coalesce(a.position, b.position) AS position, "
            "coalesce(a.position, b.position) IS NOT NULL AS known FROM staged s "
            f"LEFT JOIN accessions a ON a.accession = {key_value} "
            f"LEFT JOIN accessions b ON b.id = {key_value}"
        )
    return kinds


def _read(
    connection: duckdb.DuckDBPyConnection, source: TableFile, columns: list[str], text: list[str]
) -> list[str]:
    connection.execute(
        f"CREATE TEMP TABLE staged AS SELECT * FROM {source.reader(columns, text)} "
        f"AS t({', '.join(columns)})",
        [source.argument],
    )
    return [kind for _, kind, *_ in connection.execute("DESCRIBE staged").fetchall()]


def _check_single(connection: duckdb.DuckDBPyConnection, source: TableFile) -> None:
    twice = connection.execute(
        "SELECT accession, list(line ORDER BY line) FROM staged_keys WHERE accession IS NOT NULL "
        "GROUP BY accession HAVING count(*) > 1 ORDER BY min(line) LIMIT 1"
    ).fetchone()
    if twice is not None:
        accession, records = twice
        where = source.places(records)
        raise MetadataError(
            f"{source.path}: {accession} is on {where}: expected one line for each protein. "
            "Merge them, or remove all but one",
            path=source.path,
            accession=accession,
        )


def _converted(
    connection: duckdb.DuckDBPyConnection,
    source: TableFile,
    name: str,
    column: tuple[str, str, str],
) -> str:
    """SQL for a column (expression, type, wanted type) whose values all fit the wanted type."""
    value, kind, wanted = column
    header = name.lower() in _HEADER_TYPES
    holds = "whole numbers, as in UniProt's headers" if header else f"{wanted} in this index"
    converted, fits = conversion(value, kind, wanted, source.is_text)
    try:
        odd = connection.execute(
            f"SELECT k.line, k.accession, CAST({value} AS VARCHAR) FROM staged s "
            f"JOIN staged_keys k ON s.rowid = k.line WHERE {value} IS NOT NULL AND NOT {fits} "
            "ORDER BY k.line LIMIT 1"
        ).fetchone()
    except duckdb.BinderException as error:
        raise MetadataError(
            f"{source.path}: column {name!r} holds {holds}; found {kind}. Correct it, or rename "
            "the column",
            path=source.path,
        ) from error
    if odd is not None:
        line, accession, found = odd
        raise MetadataError(
            f"{source.path}, {source.places([line])}: column {name!r} holds {holds}; found "
            f"{found!r} for {accession}. Correct it, or rename the column",
            path=source.path,
            expected=wanted,
            found=found,
        )
    return converted


def _report(
    connection: duckdb.DuckDBPyConnection, path: Path, key: str, types: dict[str, str]
) -> MetadataReport:
    counts = connection.execute(
        "SELECT count(*), count(*) FILTER (WHERE known), (SELECT count(*) FROM accessions) "
        "FROM staged_keys"
    ).fetchone()
    lines, matched, proteins = counts if counts is not None else (0, 0, 0)
    examples = connection.execute(
        "SELECT key FROM staged_keys WHERE NOT known AND key IS NOT NULL ORDER BY line LIMIT ?",
        [_EXAMPLES],
    ).fetchall()
    return MetadataReport(
        path=path,
        key=key,
        columns=types,
        lines=lines,
        matched=matched,
        unmatched_lines=lines - matched,
        proteins=proteins,
        unmatched_proteins=proteins - matched,
        examples=tuple(example for (example,) in examples),
    )
