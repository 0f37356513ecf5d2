"""Write a catalog; `rdsearch.catalog` says what it is and reads it."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import duckdb
import pyarrow

from rdsearch.errors import CatalogError
from rdsearch.fasta import Record
from rdsearch.fingerprints import Fingerprints
from rdsearch.headers import HEADER_COLUMNS
from rdsearch.metadata import SQL_TYPES, MetadataReport, join_table, quoted

__all__ = ["FORMAT", "OFFLINE", "CatalogWriter", "named_errors", "sequence_range", "wal_file"]

#: Version of the tables.
FORMAT = "1"

#: Nothing is fetched from the network, whatever a path or a column type asks for.
OFFLINE: dict[str, str | bool | int | float | list[str]] = {
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
}

_ACCESSION_COLUMNS = (
    ("row", "BIGINT"),
    ("position", "BIGINT"),
    ("accession", "VARCHAR"),
    *((name, SQL_TYPES[kind]) for name, kind in HEADER_COLUMNS),
)
_ROW_COLUMNS = (("row", "BIGINT"), ("sequence", "VARCHAR"), ("length", "INTEGER"))
_ARROW_TYPES = {
    "BIGINT": pyarrow.int64(),
    "INTEGER": pyarrow.int32(),
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
        self._joined: list[tuple[str, MetadataReport]] = []
        self._complete = False
        with named_errors(self.path, "cannot be written"):
            self._connection = duckdb.connect(str(self.path), config=OFFLINE)
            self._run("SET enable_progress_bar = false")
            self._run("SET TimeZone = 'UTC'")
            self._create("rows", _ROW_COLUMNS)
            self._create("accessions", _ACCESSION_COLUMNS)
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
            self._new_rows.append((row, record.sequence, len(record.sequence)))
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
            return sequence_range(self._open, start, stop)

    def join(self, path: str | Path) -> MetadataReport:
        """Join a table to the proteins by accession; see `rdsearch.metadata.join_table`.

        Parameters
        ----------
        path : str or Path
            TSV, CSV, Parquet or JSON lines. A column with the name of a header column overrides
            that where it has a value.

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
        taken = [name for _, report in self._joined for name in report.columns]
        try:
            report = join_table(self._open, Path(path), table, taken)
        except BaseException:
            for leftover in ("staged", "staged_keys"):
                self._run(f"DROP TABLE IF EXISTS {leftover}")
            raise
        self._joined.append((table, report))
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
            self._run(_view(self._joined))
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

    def _flush(self) -> None:
        """Write what waits, as Arrow tables: DuckDB takes those by column, not value by value."""
        with named_errors(self.path, "cannot be written"):
            self._insert("rows", _ROW_COLUMNS, self._new_rows)
            self._insert("accessions", _ACCESSION_COLUMNS, self._new_accessions)
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
        self._complete = True


def _view(joined: Sequence[tuple[str, MetadataReport]]) -> str:
    """The view ``proteins``: each column once, the user's value before the header's."""
    source = {
        column: f"{table}.{quoted(column)}" for table, report in joined for column in report.columns
    }
    columns = ['a."row"', "a.accession", "r.length", "r.sequence"]
    for name, _ in HEADER_COLUMNS:
        header = f"a.{quoted(name)}"
        if name in source:
            header = f"coalesce({source.pop(name)}, {header}) AS {quoted(name)}"
        columns.append(header)
    columns += [f"{value} AS {quoted(column)}" for column, value in source.items()]
    tables = 'accessions a JOIN rows r ON r."row" = a."row"'
    for table, _ in joined:
        tables += f" LEFT JOIN {table} ON {table}.accession = a.accession"
    return f"CREATE VIEW proteins AS SELECT {', '.join(columns)} FROM {tables}"


def sequence_range(connection: duckdb.DuckDBPyConnection, start: int, stop: int) -> list[str]:
    found = connection.execute(
        'SELECT sequence FROM rows WHERE "row" >= ? AND "row" < ? ORDER BY "row"', [start, stop]
    )
    return [sequence for (sequence,) in found.fetchall()]


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
