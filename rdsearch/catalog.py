"""The catalog: what DuckDB keeps of the proteins.

One file with the tables ``rows`` (a line for each distinct sequence), ``accessions`` (with what
their headers say), one for each table that was joined, ``meta``, and the view ``proteins`` that
brings them together: a line for each accession. `rdsearch.catalogwriter` makes it.
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import duckdb
import numpy as np
from numpy.typing import NDArray

from rdsearch import expressions
from rdsearch.catalogwriter import (
    FORMAT,
    OFFLINE,
    CatalogWriter,
    named_errors,
    sequence_range,
    wal_file,
)
from rdsearch.errors import CatalogError, InputError
from rdsearch.filters import within_taxon
from rdsearch.metadata import quoted

__all__ = ["FILTER_SECONDS", "Catalog", "CatalogWriter"]

#: What a filter expression may take.
FILTER_SECONDS = 30.0

# Rows that are read together where all are read.
_SCAN_ROWS = 20_000

# Accessions that are looked up together.
_LOOKUP = 50_000

# What DuckDB raises on a damaged file; all else is the fault of the expression.
_DAMAGE = (duckdb.IOException, duckdb.InternalException, duckdb.FatalException)

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
        self._lock, self._filter_lock = threading.Lock(), threading.Lock()
        # Attached to a database of its own: DuckDB would hand a second connection to one path the
        # file that it opened first, even if another was put in its place.
        self._connection = duckdb.connect(":memory:", config={**OFFLINE, "temp_directory": ""})
        # A second one, so that what interrupts a filter interrupts nothing else.
        self._filtering = self._connection.cursor()
        try:
            with named_errors(self.path, _BROKEN):
                self._attach()
            self._read_facts()
        except BaseException:
            self.close()
            raise

    def _attach(self) -> None:
        location = str(self.path.absolute()).replace("'", "''")
        self._connection.execute(f"ATTACH '{location}' AS catalog (READ_ONLY, TYPE duckdb)")
        for connection in (self._connection, self._filtering):
            connection.execute("USE catalog")
            connection.execute("SET enable_progress_bar = false")
        # These two count for both connections.
        self._connection.execute("SET enable_external_access = false")
        self._connection.execute("SET lock_configuration = true")

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
        self._filtering.close()
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

    def rows_of(self, accessions: Iterable[str]) -> dict[str, int]:
        """Rows of accessions; those that are not in the catalog are left out.

        Parameters
        ----------
        accessions : iterable of str

        Returns
        -------
        dict of str to int
            In the order asked for.
        """
        return self._rows_by("accession", "accessions", accessions)

    def rows_of_sequences(self, sequences: Iterable[str]) -> dict[str, int]:
        """Rows of sequences; those that are not in the catalog are left out.

        Parameters
        ----------
        sequences : iterable of str

        Returns
        -------
        dict of str to int
            In the order asked for.
        """
        return self._rows_by("sequence", "rows", sequences)

    def _rows_by(self, column: str, table: str, values: Iterable[str]) -> dict[str, int]:
        wanted = list(dict.fromkeys(values))
        found: dict[str, int] = {}
        for start in range(0, len(wanted), _LOOKUP):
            found.update(
                self._query(
                    f'SELECT {column}, "row" FROM {table} '
                    f"WHERE {column} IN (SELECT unnest($1::VARCHAR[]))",
                    [wanted[start : start + _LOOKUP]],
                )
            )
        return {value: found[value] for value in wanted if value in found}

    def rows_where(self, expression: str, seconds: float = FILTER_SECONDS) -> NDArray[np.int64]:
        """Rows with at least one protein that satisfies a SQL expression.

        Parameters
        ----------
        expression : str
            A condition on `columns` and ``sequence``, for example ``"organism = 'Escherichia coli'
            AND length < 400"``; what it may be is in `rdsearch.expressions`. A condition that is
            NULL is not satisfied.
        seconds : float, optional
            Stop after so long. DuckDB looks at the clock between blocks of 2,048 lines.

        Returns
        -------
        ndarray, shape (rows,), int64
            Sorted, distinct.

        Raises
        ------
        InputError
            The expression is not one condition, names an unknown column, does not fit the types,
            or takes too long.
        CatalogError
            The file is damaged.
        """
        columns = [*self.columns, "sequence"]
        try:
            with self._filter_lock, _interrupting(self._filtering, seconds):
                expressions.check(self._filtering, expression, columns)
                found = self._filtering.execute(
                    f'SELECT DISTINCT "row" FROM proteins WHERE ({expression}\n)'
                ).fetchnumpy()["row"]
        except _DAMAGE as error:
            raise CatalogError(f"{self.path}: {_BROKEN} ({_first_line(error)})") from error
        except duckdb.InterruptException as error:
            reason = f"it took longer than {seconds:g} s"
            raise expressions.refusal(expression, reason, columns) from error
        except duckdb.Error as error:
            raise expressions.refusal(expression, _first_line(error), columns) from error
        return np.sort(np.asarray(found, dtype=np.int64))

    def rows_of_taxon(self, taxon: int) -> NDArray[np.int64]:
        """Rows with a protein of a taxon or of one below it.

        Parameters
        ----------
        taxon : int
            NCBI taxon id. It is looked for in ``taxon_id`` and in the user's column ``lineage``: a
            list of taxon ids, or text with ids between semicolons, commas or spaces.

        Returns
        -------
        ndarray, shape (rows,), int64
            Sorted, distinct.

        Raises
        ------
        InputError
            The catalog has no column ``lineage``, or `taxon` is no taxon id.
        """
        if taxon < 1:
            raise InputError(f"a taxon id is a positive number; found {taxon}")
        lineage = next((name for name in self.columns if name.lower() == "lineage"), None)
        if lineage is None:
            raise InputError(
                f"{self.path}: there is no column lineage, so that only the exact taxon_id of a "
                f"protein is known (--where 'taxon_id = {taxon}'). For taxa above it build with a "
                "metadata table that has a column lineage: the taxon ids of all ancestors, "
                'for example "2;1224;562"',
                taxon=taxon,
            )
        found = self._query(
            'SELECT DISTINCT "row" FROM proteins WHERE taxon_id = $1 OR '
            f'{within_taxon(lineage, self.columns[lineage])} ORDER BY "row"',
            [int(taxon), str(int(taxon))],
        )
        return np.array([row for (row,) in found], dtype=np.int64)

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


@contextlib.contextmanager
def _interrupting(connection: duckdb.DuckDBPyConnection, seconds: float) -> Iterator[None]:
    timer = threading.Timer(seconds, connection.interrupt)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()  # an interrupt that comes late would meet the next query


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
