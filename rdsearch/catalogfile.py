"""The file of a catalog: opened so that nothing else can be reached, and checked."""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import duckdb
import numpy as np
import pyarrow
from numpy.typing import NDArray

from rdsearch.catalogschema import FORMAT, OFFLINE, named_errors, sequence_key, wal_file
from rdsearch.errors import CatalogError
from rdsearch.metadata import quoted

__all__ = ["CatalogFile"]

# Values that are looked up together.
_LOOKUP = 50_000

# Rows that are read together where all are read.
_SCAN_ROWS = 20_000

# What DuckDB raises on a damaged file; all else is the fault of the expression.
_DAMAGE = (duckdb.IOException, duckdb.InternalException, duckdb.FatalException)

_BROKEN = "damaged, or not a catalog of rdsearch"

# Seconds between interrupts of a filter that takes too long.
_AGAIN = 0.1

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
    "positions that are not 0 to n - 1": "SELECT count(*) - count(DISTINCT position) "
    "+ count(*) FILTER (WHERE position < 0 OR position >= (SELECT count(*) FROM accessions)) "
    "FROM accessions",
}

_Entry = TypeVar("_Entry")
_Self = TypeVar("_Self", bound="CatalogFile")


class CatalogFile:
    """What `rdsearch.catalog.Catalog` asks its questions of; parameters and attributes are there.

    The names of tables are the file's own, in full. `_accessions` and `_proteins` are where the
    accessions that were not removed are found.
    """

    def __init__(self, path: str | Path, removed: NDArray[np.int64] | None = None) -> None:
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
        self._accessions, self._proteins = "accessions", "proteins"
        try:
            with named_errors(self.path, _BROKEN):
                self._attach()
            self._read_facts()
            if removed is not None and len(removed):
                with named_errors(self.path, _BROKEN):
                    self._hide(removed)
            ((self.n_accessions,),) = self._query(f"SELECT count(*) FROM {self._accessions}")
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
        described = self._query("DESCRIBE proteins")
        self.columns = {name: kind for name, kind, *_ in described if name != "sequence"}
        described = self._query("DESCRIBE joined")
        self.joined_columns = {name: kind for name, kind, *_ in described if name != "accession"}

    def _hide(self, removed: NDArray[np.int64]) -> None:
        """Views in the database in memory, without the accessions at these positions."""
        positions = pyarrow.table({"position": pyarrow.array(removed, type=pyarrow.int64())})
        self._connection.register("hidden", positions)
        self._connection.execute(
            "CREATE TABLE memory.removed AS "
            "SELECT position, accession FROM catalog.accessions SEMI JOIN hidden USING (position)"
        )
        self._connection.unregister("hidden")
        for view, key in (("accessions", "position"), ("proteins", "accession")):
            self._connection.execute(
                f"CREATE VIEW memory.{view} AS SELECT * FROM catalog.{view} "
                f"ANTI JOIN memory.removed USING ({key})"
            )
        self._accessions, self._proteins = "memory.accessions", "memory.proteins"

    def __enter__(self: _Self) -> _Self:
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

    def compute_row_checksum(self) -> str:
        """Row checksum of the sequences as they are, read one after the other.

        Equal to ``sha256(b"".join(sha256(s).digest() for s in sequences)).hexdigest()``.
        """
        checksum = hashlib.sha256()
        for digest, _ in self._digests():
            checksum.update(digest)
        return checksum.hexdigest()

    def _digests(self) -> Iterator[tuple[bytes, int]]:
        """SHA-256 of each sequence, and the key that is stored for it."""
        for start in range(0, self.n_rows, _SCAN_ROWS):
            lines = self._query(
                'SELECT sequence, key FROM rows WHERE "row" >= ? AND "row" < ? ORDER BY "row"',
                [start, start + _SCAN_ROWS],
            )
            for sequence, key in lines:
                yield hashlib.sha256(sequence.encode()).digest(), key

    def lowest_keys(self, count: int) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
        """The rows whose sequences have the lowest keys: the same sample wherever they are kept.

        A key is a part of the sequence's SHA-256, so that the lowest are a uniform draw.

        Parameters
        ----------
        count : int

        Returns
        -------
        rows : ndarray, shape (at most count,), int64
        keys : ndarray of uint64
            Rising.
        """
        table = self._arrow('SELECT "row", key FROM rows ORDER BY key, "row" LIMIT $1', [count])
        rows, keys = (table.column(name).to_numpy() for name in ("row", "key"))
        return rows.astype(np.int64), keys.astype(np.uint64)

    def residues(self, without: NDArray[np.int64]) -> int:
        """Residues of all sequences but those of these rows."""
        ((total,),) = self._query(
            'SELECT coalesce(sum(length), 0) FROM rows WHERE "row" NOT IN (SELECT unnest($1))',
            [without.tolist()],
        )
        return int(total)

    def check(self) -> None:
        """Read every table and compare it with the others; removed accessions count.

        Raises
        ------
        CatalogError
            Rows or positions are not 0 to n - 1, a row has no accession or an accession no row,
            a length, a key or the row checksum is not that of the sequences, or the file is
            damaged.
        """
        for what, query in _FAULTS.items():
            ((count,),) = self._query(query)
            if count:
                raise self._fault(f"{what}: {count}")
        checksum, odd = hashlib.sha256(), 0
        for digest, key in self._digests():
            checksum.update(digest)
            odd += key != sequence_key(digest)
        if checksum.hexdigest() != self.row_checksum:
            raise self._fault(
                "the sequences are not those it was made with: expected row checksum "
                f"{self.row_checksum[:12]}, found {checksum.hexdigest()[:12]}"
            )
        if odd:
            raise self._fault(f"keys that are not those of the sequences: {odd}")
        # Every value of every column is read.
        everything = ", ".join(f"count({quoted(name)}::VARCHAR)" for name in self.columns)
        self._query(f"SELECT {everything}, bit_xor(hash(proteins)) FROM proteins")

    def _fault(self, reason: str) -> CatalogError:
        return CatalogError(f"{self.path}: {reason}. Build it again", path=self.path)

    def _query(self, query: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        with self._lock, named_errors(self.path, _BROKEN):
            return self._connection.execute(query, list(values)).fetchall()

    def _arrow(self, query: str, values: Sequence[Any] = ()) -> pyarrow.Table:
        with self._lock, named_errors(self.path, _BROKEN):
            return self._connection.sql(query, params=list(values)).to_arrow_table()

    def _look_up(self, query: str, values: list[Any]) -> Iterator[tuple[Any, ...]]:
        for start in range(0, len(values), _LOOKUP):
            yield from self._query(query, [values[start : start + _LOOKUP]])

    def _by_row(
        self, rows: Sequence[int], entries: Iterable[tuple[int, _Entry]]
    ) -> dict[int, list[_Entry]]:
        found: dict[int, list[_Entry]] = {int(row): [] for row in rows}
        for row, entry in entries:
            found[row].append(entry)
        for row, behind in found.items():
            if not behind:
                raise self._no_row(row)
        return found

    def _no_row(self, row: int) -> CatalogError:
        if 0 <= row < self.n_rows:
            reason = f"expected a protein behind row {row}, found that all were removed"
        else:
            reason = f"expected a row from 0 to {self.n_rows - 1}, found {row}"
        return CatalogError(f"{self.path}: {reason}", path=self.path)

    def counted(
        self, column: str, most: int, seconds: float
    ) -> tuple[list[tuple[Any, int]], tuple[Any, Any, int]]:
        """Values of a column, the most frequent first; see `rdsearch.columnvalues.summary`.

        Parameters
        ----------
        column : str
            One of `columns`.
        most : int
            Values at most.
        seconds : float
            Stop after so long.

        Returns
        -------
        values : list of (value, int)
            Of a list its items.
        facts : (least value, greatest value, proteins without a value)
        """
        name, several = quoted(column), self.columns[column].endswith("[]")
        value = f"unnest({name})" if several else name
        with self._filter(seconds) as connection:
            values = connection.execute(
                f"SELECT value, count(*) AS n FROM (SELECT {value} AS value FROM {self._proteins}) "
                "WHERE value IS NOT NULL GROUP BY value ORDER BY n DESC, value LIMIT $1",
                [most],
            ).fetchall()
            (facts,) = connection.execute(
                f"SELECT min({name}), max({name}), count(*) - count({name}) FROM {self._proteins}"
            ).fetchall()
        return values, facts

    @contextlib.contextmanager
    def _filter(self, seconds: float) -> Iterator[duckdb.DuckDBPyConnection]:
        """The connection for filters, interrupted after some time; damage gets its name."""
        done = threading.Event()

        def watch() -> None:
            # More than once: an interrupt between two queries is lost.
            pause = seconds
            while not done.wait(pause):
                self._filtering.interrupt()
                pause = _AGAIN

        with self._filter_lock:
            watcher = threading.Thread(target=watch, daemon=True)
            watcher.start()
            try:
                yield self._filtering
            except _DAMAGE as error:
                reason = str(error).partition("\n")[0]
                raise CatalogError(f"{self.path}: {_BROKEN} ({reason})") from error
            finally:
                done.set()
                watcher.join()  # an interrupt that comes late would meet the next query
