"""Join a user's table to the proteins of a catalog by accession.

DuckDB's readers infer the types. What they would pass over in silence (columns of the same name,
a missing header line, a line that is there twice) is looked for here.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import duckdb

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
    connection: duckdb.DuckDBPyConnection, path: Path, table: str, taken: Iterable[str]
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

    Returns
    -------
    MetadataReport

    Raises
    ------
    MetadataError
        The file is missing or cannot be read as what its name says; two columns of one name
        (case does not count), a reserved or a taken name; no header line; two lines for one
        protein; a value that does not fit its header column.
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
    kinds = _stage(connection, source, names, key)
    _check_single(connection, source)
    selected, types = ["k.accession"], {}
    for position, (name, kind) in enumerate(zip(names, kinds, strict=True)):
        if name == key:
            continue
        if name.lower() == "length":
            # In every export of UniProt; the catalog counts the sequence it has.
            _LOGGER.info("%s: column %r is left out: length is the sequence's own", path, name)
            continue
        # A header column keeps its spelling and type whatever the table's are.
        column = name.lower() if name.lower() in _HEADER_TYPES else name
        kept = kind.replace("TIMESTAMP WITH TIME ZONE", "TIMESTAMP")
        types[column] = _HEADER_TYPES.get(column, kept)
        if types[column] != kept:
            _check_numbers(connection, path, name, position, types[column])
        selected.append(f"CAST(s.c{position} AS {types[column]}) AS {quoted(column)}")
    with named_errors(source):
        connection.execute(
            f"CREATE TABLE {quoted(table)} AS SELECT {', '.join(selected)} FROM staged s "
            "JOIN staged_keys k ON s.rowid = k.line WHERE k.known ORDER BY k.position"
        )
        report = _report(connection, path, key, types)
        connection.execute("DROP TABLE staged")
        connection.execute("DROP TABLE staged_keys")
    if not report.matched:
        _LOGGER.warning("%s: no line has the accession or id of a protein", path)
    return report


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
    connection: duckdb.DuckDBPyConnection, source: TableFile, names: list[str], key: str
) -> list[str]:
    """Read all lines into columns c0, c1 …, find the protein of each; the SQL types."""
    columns = [f"c{position}" for position in range(len(names))]
    text = [
        column
        for name, column in zip(names, columns, strict=True)
        if name == key or _HEADER_TYPES.get(name.lower()) == "VARCHAR"
    ]
    key_value = f"trim(CAST(s.c{names.index(key)} AS VARCHAR))"
    with named_errors(source):
        connection.execute(
            f"CREATE TEMP TABLE staged AS SELECT * FROM {source.reader(columns, text)} "
            f"AS t({', '.join(columns)})",
            [source.argument],
        )
        connection.execute(
            f"CREATE TEMP TABLE staged_keys AS SELECT s.rowid AS line, {key_value} AS key, "
            f"coalesce(a.accession, b.accession, {key_value}) AS accession, "
            "coalesce(a.position, b.position) AS position, "
            "coalesce(a.position, b.position) IS NOT NULL AS known FROM staged s "
            f"LEFT JOIN accessions a ON a.accession = {key_value} "
            f"LEFT JOIN accessions b ON b.id = {key_value}"
        )
        described = connection.execute("DESCRIBE staged").fetchall()
    return [kind for _, kind, *_ in described]


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


def _check_numbers(
    connection: duckdb.DuckDBPyConnection, path: Path, name: str, position: int, wanted: str
) -> None:
    """Values for a header column of whole numbers are whole numbers."""
    if wanted != "BIGINT":
        return
    value = f"s.c{position}"
    odd = connection.execute(
        f"SELECT k.accession, CAST({value} AS VARCHAR) FROM staged s JOIN staged_keys k "
        f"ON s.rowid = k.line WHERE {value} IS NOT NULL AND "
        f"(TRY_CAST({value} AS BIGINT) IS NULL OR TRY_CAST({value} AS DOUBLE) IS DISTINCT FROM "
        f"CAST(TRY_CAST({value} AS BIGINT) AS DOUBLE)) ORDER BY k.line LIMIT 1"
    ).fetchone()
    if odd is not None:
        raise MetadataError(
            f"{path}: column {name!r} holds whole numbers, as in UniProt's headers; found "
            f"{odd[1]!r} for {odd[0]}. Correct it, or rename the column",
            path=path,
        )


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
