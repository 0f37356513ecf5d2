"""Write a catalog; `rdsearch.catalog` says what it is and reads it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import duckdb
import pyarrow

from rdsearch.catalogschema import (
    ACCESSION_COLUMNS,
    FORMAT,
    OFFLINE,
    ROW_COLUMNS,
    SQL_TYPE,
    named_errors,
    sequence_key,
    views,
    wal_file,
)
from rdsearch.errors import CatalogError, MetadataError
from rdsearch.fasta import Record
from rdsearch.fingerprints import Fingerprints
from rdsearch.headers import HEADER_COLUMNS
from rdsearch.metadata import MetadataReport, join_table, quoted

__all__ = ["CatalogWriter"]

_ARROW_TYPES = {
    "BIGINT": pyarrow.int64(),
    "INTEGER": pyarrow.int32(),
    "UBIGINT": pyarrow.uint64(),
    "VARCHAR": pyarrow.string(),
}

# Records, and residues, that wait in memory before they are written together.
_BATCH_RECORDS = 20_000
_BATCH_RESIDUES = 32 << 20


class CatalogWriter:
    """Writes a catalog: add all proteins, join tables, finish.

    Sequences are told apart by the first 16 bytes of their SHA-256, at under 30 bytes of memory a
    row. An unfinished catalog is removed by `close`.

    Parameters
    ----------
    path : str or Path
        The file to make.

    Raises
    ------
    CatalogError
        There is a file already, or none can be made.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if self.path.exists():
            raise CatalogError(
                f"{self.path}: there is a file already. Choose another path", path=self.path
            )
        self._connection: duckdb.DuckDBPyConnection | None = None
        self._rows = Fingerprints()
        self._checksum = hashlib.sha256()
        self._residues = 0
        self._positions = 0
        self._new_rows: list[tuple[Any, ...]] = []
        self._new_accessions: list[tuple[Any, ...]] = []
        # Tables with the user's columns, and the SQL types of those that were brought along.
        self._joined: list[tuple[str, dict[str, str]]] = []
        self._carried: dict[str, str] = {}
        self._taken: list[str] = []
        self._complete = False
        with named_errors(self.path, "cannot be written"):
            self._connection = duckdb.connect(str(self.path), config=OFFLINE)
            self._run("SET enable_progress_bar = false")
            self._run("SET TimeZone = 'UTC'")
            self._create("rows", ROW_COLUMNS)
            self._create("accessions", ACCESSION_COLUMNS)
            self._create("meta", (("key", "VARCHAR"), ("value", "VARCHAR")))

    def __enter__(self) -> CatalogWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def n_rows(self) -> int:
        """Distinct sequences so far."""
        return len(self._rows)

    def add(self, record: Record) -> int:
        """Add a protein.

        Parameters
        ----------
        record : Record

        Returns
        -------
        int
            The row of its sequence: rows number distinct sequences in order of first appearance.

        Raises
        ------
        CatalogError
            A table was joined already, or the file cannot be written.
        """
        if self._complete:
            raise CatalogError(f"{self.path}: add all proteins before the first table is joined")
        digest = hashlib.sha256(record.sequence.encode()).digest()
        row, new = self._rows.add(digest[:16])
        if new:
            self._checksum.update(digest)
            self._residues += len(record.sequence)
            self._new_rows.append(
                (row, record.sequence, len(record.sequence), sequence_key(digest))
            )
        header = (getattr(record, name) for name, _ in HEADER_COLUMNS)
        self._new_accessions.append((row, self._positions, record.accession, *header))
        self._positions += 1
        if len(self._new_accessions) >= _BATCH_RECORDS or self._residues >= _BATCH_RESIDUES:
            self._flush()
        return row

    def sequences(self, start: int, stop: int) -> list[str]:
        """Sequences of rows ``start`` to ``stop - 1``, in row order."""
        self._flush()
        with named_errors(self.path, "cannot be read"):
            found = self._open.execute(
                'SELECT sequence FROM rows WHERE "row" >= ? AND "row" < ? ORDER BY "row"',
                [start, stop],
            )
            return [sequence for (sequence,) in found.fetchall()]

    def carry(self, table: pyarrow.Table) -> None:
        """Bring along user columns of proteins that come from other catalogs.

        A table that is joined afterwards may have the same columns: it has the first say where it
        has a value. So has the later one of two tables that are brought along.

        Parameters
        ----------
        table : pyarrow.Table
            As `rdsearch.catalog.Catalog.joined` returns it; of proteins that were not added
            nothing is kept.

        Raises
        ------
        MetadataError
            A column has another type than one of this name that was brought along before.
        CatalogError
            A table was joined already, an accession has two sequences or two lines, or the file
            cannot be written.
        """
        if self._taken:
            raise CatalogError(f"{self.path}: bring columns along before the first table is joined")
        self._complete_proteins()
        name = f"metadata_{len(self._joined) + 1}"
        with named_errors(self.path, "cannot be written"):
            self._open.register("carried", table)
            try:
                types = self._carried_types(table)
                self._keep(name, types)
            finally:
                self._open.unregister("carried")
        self._joined.append((name, {self._spelling(column): types[column] for column in types}))
        self._carried.update(self._joined[-1][1])

    def join(self, path: str | Path, types: Mapping[str, str] | None = None) -> MetadataReport:
        """Join a table to the proteins by accession; see `rdsearch.metadata.join_table`.

        Parameters
        ----------
        path : str or Path
            TSV, CSV, Parquet or JSON lines. A column with the name of a header column overrides
            that where it has a value.
        types : mapping of str to str, optional
            Columns that the index has already, and their SQL types: they keep name and type.

        Returns
        -------
        MetadataReport

        Raises
        ------
        MetadataError
            The table cannot be read or joined; the catalog is as before.
        CatalogError
            An accession has two sequences.
        """
        self._complete_proteins()
        table = f"metadata_{len(self._joined) + 1}"
        known = {**(types or {}), **self._carried}
        try:
            report = join_table(self._open, Path(path), table, self._taken, known)
        except BaseException:
            for leftover in ("staged", "staged_keys"):
                self._run(f"DROP TABLE IF EXISTS {leftover}")
            raise
        self._joined.append((table, report.columns))
        self._taken += report.columns
        return report

    def finish(self, meta: Mapping[str, str]) -> str:
        """Complete the file; it is on the disk when this returns.

        Parameters
        ----------
        meta : mapping of str to str
            Kept in the table ``meta`` beside ``format`` and ``row_checksum``.

        Returns
        -------
        str
            Row checksum: hex SHA-256 over the raw SHA-256 digests of the sequences in row order.

        Raises
        ------
        CatalogError
            An accession has two sequences, or the file cannot be written.
        """
        self._complete_proteins()
        row_checksum = self._checksum.hexdigest()
        with named_errors(self.path, "cannot be written"):
            for item in {**meta, "format": FORMAT, "row_checksum": row_checksum}.items():
                self._open.execute("INSERT INTO meta VALUES (?, ?)", item)
            for statement in views(self._joined):
                self._run(statement)
            self._run("CHECKPOINT")
            self._open.close()
        self._connection = None
        with self.path.open("rb") as file:
            os.fsync(file.fileno())
        return row_checksum

    def close(self) -> None:
        """Give up what is not finished and remove its file; nothing after `finish`."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
            for path in (self.path, wal_file(self.path)):
                path.unlink(missing_ok=True)

    @property
    def _open(self) -> duckdb.DuckDBPyConnection:
        if self._connection is None:
            raise CatalogError(f"{self.path}: this catalog is finished or closed")
        return self._connection

    def _run(self, statement: str) -> None:
        self._open.execute(statement)

    def _create(self, table: str, columns: Sequence[tuple[str, str]]) -> None:
        described = ", ".join(f"{quoted(name)} {kind}" for name, kind in columns)
        self._run(f"CREATE TABLE {quoted(table)} ({described})")

    def _carried_types(self, table: pyarrow.Table) -> dict[str, str]:
        """SQL types of ``carried``: those of its fields' metadata, one for all of a name."""
        twice = self._open.execute(
            "SELECT accession FROM carried GROUP BY accession HAVING count(*) > 1 LIMIT 1"
        ).fetchall()
        if twice:
            raise CatalogError(
                f"{self.path}: expected one line for each protein, found two lines for "
                f"{twice[0][0]}"
            )
        types = {}
        for column, guessed, *_ in self._open.execute("DESCRIBE carried").fetchall():
            kept = (table.schema.field(column).metadata or {}).get(SQL_TYPE, guessed.encode())
            types[column] = kept.decode()
            before = self._carried.get(self._spelling(column), types[column])
            if types[column] != before:
                raise MetadataError(
                    f"column {column!r} is {before} in one catalog and {types[column]} in another: "
                    "expected one type. Build one of them again with another name or type of the "
                    "column",
                    column=column,
                    expected=before,
                    found=types[column],
                )
        del types["accession"]
        return types

    def _spelling(self, column: str) -> str:
        """The name under which a column was brought along first; case does not count."""
        known = (name for name in self._carried if name.lower() == column.lower())
        return next(known, column)

    def _keep(self, name: str, types: Mapping[str, str]) -> None:
        """Lines of ``carried`` that have a protein and a value, as a table."""
        values = [
            f"CAST(c.{quoted(column)} AS {kind}) AS {quoted(self._spelling(column))}"
            for column, kind in types.items()
        ]
        some = " OR ".join(f"c.{quoted(column)} IS NOT NULL" for column in types) or "false"
        self._run(
            f"CREATE TABLE {name} AS SELECT {', '.join(['a.accession', *values])} FROM carried c "
            f"JOIN accessions a ON a.accession = c.accession WHERE {some} ORDER BY a.position"
        )

    def _flush(self) -> None:
        """Write what waits, as Arrow tables: DuckDB takes those by column, not value by value."""
        with named_errors(self.path, "cannot be written"):
            self._insert("rows", ROW_COLUMNS, self._new_rows)
            self._insert("accessions", ACCESSION_COLUMNS, self._new_accessions)
        self._new_rows, self._new_accessions, self._residues = [], [], 0

    def _insert(
        self, table: str, columns: Sequence[tuple[str, str]], lines: list[tuple[Any, ...]]
    ) -> None:
        if not lines:
            return
        arrays = [
            pyarrow.array(values, type=_ARROW_TYPES[kind])
            for values, (_, kind) in zip(zip(*lines, strict=True), columns, strict=True)
        ]
        batch = pyarrow.table(arrays, names=[name for name, _ in columns])
        self._open.register("waiting", batch)
        self._run(f"INSERT INTO {quoted(table)} SELECT * FROM waiting")
        self._open.unregister("waiting")

    def _complete_proteins(self) -> None:
        """All proteins are there: one line for each accession.

        Several FASTA files may share proteins; within one, `rdsearch.fasta.read` has looked.
        """
        if self._complete:
            return
        self._flush()
        with named_errors(self.path, "cannot be written"):
            repeated = self._open.execute(
                'SELECT accession, min("row") < max("row") AS differ FROM accessions '
                "GROUP BY accession HAVING count(*) > 1 ORDER BY differ DESC, min(position) LIMIT 1"
            ).fetchone()
            if repeated is not None and repeated[1]:
                raise CatalogError(
                    f"accession {repeated[0]} comes with two sequences: expected one. Remove one "
                    "of them, or give them different accessions",
                    accession=repeated[0],
                )
            if repeated is not None:
                self._run(
                    "DELETE FROM accessions WHERE position NOT IN "
                    "(SELECT min(position) FROM accessions GROUP BY accession)"
                )
                # Positions stay 0 to n - 1.
                self._run(
                    "UPDATE accessions SET position = place FROM (SELECT position AS old, "
                    "row_number() OVER (ORDER BY position) - 1 AS place FROM accessions) "
                    "WHERE position = old"
                )
        self._complete = True
