"""The catalog: what DuckDB keeps of the proteins.

One file with the tables ``rows`` (a line for each distinct sequence), ``accessions`` (with what
their headers say), one for each table that was joined, ``meta``, and the view ``proteins`` that
brings them together: a line for each accession. `rdsearch.catalogwriter` makes it.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import duckdb

from rdsearch.catalogwriter import (
    FORMAT,
    OFFLINE,
    CatalogWriter,
    named_errors,
    sequence_range,
    wal_file,
)
from rdsearch.errors import CatalogError
from rdsearch.metadata import quoted

__all__ = ["Catalog", "CatalogWriter"]

# Rows that are read together where all are read.
_SCAN_ROWS = 20_000

_BROKEN = "damaged, or not a catalog of rdsearch"

# What must be 0 in a sound catalog.
_FAULTS = {
    "rows that are not 0 to n - 1": 'SELECT count(*) - count(DISTINCT "row") '
    '+ count(*) FILTER (WHERE "row" < 0 OR "row" >= (SELECT count(*) FROM rows)) FROM rows',
    "lengths that are not those of the sequences": "SELECT count(*) FROM rows "
    "WHERE length IS DISTINCT FROM strlen(sequence)",
    "accessions without a row": "SELECT count(*) FROM accessions "
    'WHERE "row" IS NULL OR "row" NOT IN (SELECT "row" FROM rows)',
    "rows without an accession": "SELECT count(*) FROM rows "
    'WHERE "row" NOT IN (SELECT "row" FROM accessions)',
    "accessions that are there twice": "SELECT count(accession) - count(DISTINCT accession) "
    "FROM accessions",
}


class Catalog:
    """A catalog opened for reading, by any number of processes and threads at once.

    DuckDB may read this file and nothing else, and its settings are locked.

    Parameters
    ----------
    path : str or Path

    Attributes
    ----------
    n_rows, n_accessions : int
        Distinct sequences, and proteins.
    columns : dict of str to str
        What `proteins` returns for each protein, and the SQL types: ``row``, ``accession``,
        ``length``, header columns, the user's columns.
    meta : dict of str to str
        What `CatalogWriter.finish` was given, ``format`` and ``row_checksum``.

    Raises
    ------
    CatalogError
        The file is missing, damaged, unfinished, or not a catalog of this version.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise CatalogError(f"{self.path}: there is no catalog file", path=self.path)
        if wal_file(self.path).exists():
            raise CatalogError(
                f"{self.path}: not finished, for {wal_file(self.path).name} is beside it. "
                "Build it again",
                path=self.path,
            )
        self._lock = threading.Lock()
        # Attached to a database of its own: DuckDB would hand a second connection to one path the
        # file that it opened first, even if another was put in its place.
        self._connection = duckdb.connect(":memory:", config={**OFFLINE, "temp_directory": ""})
        try:
            with named_errors(self.path, _BROKEN):
                self._attach()
            self._read_facts()
        except BaseException:
            self.close()
            raise

    def _attach(self) -> None:
        location = str(self.path.absolute()).replace("'", "''")
        for statement in (
            f"ATTACH '{location}' AS catalog (READ_ONLY, TYPE duckdb)",
            "USE catalog",
            "SET enable_progress_bar = false",
            "SET enable_external_access = false",
            "SET lock_configuration = true",
        ):
            self._connection.execute(statement)

    def _read_facts(self) -> None:
        self.meta: dict[str, str] = dict(self._query("SELECT key, value FROM meta"))
        if self.meta.get("format") != FORMAT:
            raise CatalogError(
                f"{self.path}: expected a catalog of format {FORMAT}, found "
                f"{self.meta.get('format')}. Open it with the version of rdsearch that made it",
                path=self.path,
            )
        ((self.n_rows,),) = self._query("SELECT count(*) FROM rows")
        ((self.n_accessions,),) = self._query("SELECT count(*) FROM accessions")
        described = self._query("DESCRIBE proteins")
        self.columns = {name: kind for name, kind, *_ in described if name != "sequence"}

    def __enter__(self) -> Catalog:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release the file."""
        self._connection.close()

    @property
    def row_checksum(self) -> str:
        """The row checksum as it was stored; see `compute_row_checksum`."""
        return self.meta.get("row_checksum", "")

    def proteins(self, rows: Sequence[int]) -> dict[int, list[dict[str, Any]]]:
        """Every protein behind each row.

        Parameters
        ----------
        rows : sequence of int

        Returns
        -------
        dict of int to list of dict
            For each row its proteins in the order in which they were added, each a mapping with
            the keys `columns`.

        Raises
        ------
        CatalogError
            A row is not in the catalog, or the file is damaged.
        """
        wanted = [[int(row) for row in rows]]
        places = self._query(
            'SELECT accession FROM accessions WHERE "row" IN (SELECT unnest($1::BIGINT[])) '
            "ORDER BY position",
            wanted,
        )
        order = {accession: place for place, (accession,) in enumerate(places)}
        columns = ", ".join(map(quoted, self.columns))
        lines = self._query(
            f'SELECT {columns} FROM proteins WHERE "row" IN (SELECT unnest($1::BIGINT[]))', wanted
        )
        found: dict[int, list[dict[str, Any]]] = {int(row): [] for row in rows}
        entries = (dict(zip(self.columns, line, strict=True)) for line in lines)
        for entry in sorted(entries, key=lambda entry: order[entry["accession"]]):
            found[entry["row"]].append(entry)
        for row, behind in found.items():
            if not behind:
                raise self._no_row(row)
        return found

    def sequences(self, rows: Sequence[int]) -> list[str]:
        """Sequences of rows, in the order asked for.

        Raises
        ------
        CatalogError
            A row is not in the catalog, or the file is damaged.
        """
        wanted = [int(row) for row in rows]
        found = dict(
            self._query(
                'SELECT "row", sequence FROM rows WHERE "row" IN (SELECT unnest($1::BIGINT[]))',
                [wanted],
            )
        )
        for row in wanted:
            if row not in found:
                raise self._no_row(row)
        return [found[row] for row in wanted]

    def compute_row_checksum(self) -> str:
        """Row checksum of the sequences as they are, read one after the other.

        Equal to ``sha256(b"".join(sha256(s).digest() for s in sequences)).hexdigest()``.
        """
        checksum = hashlib.sha256()
        for start in range(0, self.n_rows, _SCAN_ROWS):
            with self._lock, named_errors(self.path, _BROKEN):
                block = sequence_range(self._connection, start, start + _SCAN_ROWS)
            for sequence in block:
                checksum.update(hashlib.sha256(sequence.encode()).digest())
        return checksum.hexdigest()

    def check(self) -> None:
        """Read every table and compare it with the others.

        Raises
        ------
        CatalogError
            Rows are not 0 to n - 1, a row has no accession or an accession no row, a length or
            the row checksum is not that of the sequences, or the file is damaged.
        """
        for what, query in _FAULTS.items():
            ((count,),) = self._query(query)
            if count:
                raise CatalogError(f"{self.path}: {what}: {count}. Build it again", path=self.path)
        found = self.compute_row_checksum()
        if found != self.row_checksum:
            raise CatalogError(
                f"{self.path}: the sequences are not those it was made with: expected row checksum "
                f"{self.row_checksum[:12]}, found {found[:12]}. Build it again",
                path=self.path,
            )
        # Every value of every column is read.
        everything = ", ".join(f"count({quoted(name)}::VARCHAR)" for name in self.columns)
        self._query(f"SELECT {everything}, bit_xor(hash(proteins)) FROM proteins")

    def _query(self, query: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        with self._lock, named_errors(self.path, _BROKEN):
            return self._connection.execute(query, list(values)).fetchall()

    def _no_row(self, row: int) -> CatalogError:
        return CatalogError(
            f"{self.path}: expected a row from 0 to {self.n_rows - 1}, found {row}", path=self.path
        )
