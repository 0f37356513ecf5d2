"""The catalog: what DuckDB keeps of the proteins.

One file with the tables ``rows`` (a line for each distinct sequence), ``accessions`` (with what
their headers say), one for each table that was joined, ``meta``, and two views: ``joined`` has the
user's columns of each accession, ``proteins`` brings everything together, a line for each
accession. `rdsearch.catalogwriter` makes it, `rdsearch.catalogfile` opens it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import duckdb
import numpy as np
import pyarrow
from numpy.typing import NDArray

from rdsearch import expressions
from rdsearch.catalogfile import CatalogFile
from rdsearch.catalogschema import SQL_TYPE, sequence_key
from rdsearch.catalogwriter import CatalogWriter
from rdsearch.errors import InputError
from rdsearch.fasta import Record
from rdsearch.filters import within_taxon
from rdsearch.headers import HEADER_COLUMNS
from rdsearch.metadata import quoted

__all__ = ["FILTER_SECONDS", "Catalog", "CatalogWriter"]

#: What a filter expression may take.
FILTER_SECONDS = 30.0

# Types that Arrow has not, or changes on the way.
_AS_TEXT = frozenset({"BIT", "UHUGEINT", "TIME WITH TIME ZONE"})

_HEADERS = [name for name, _ in HEADER_COLUMNS]


class Catalog(CatalogFile):
    """A catalog opened for reading, by any number of processes and threads at once.

    DuckDB may read this file and nothing else, and its settings are locked.

    Parameters
    ----------
    path : str or Path
    removed : ndarray of int64, optional
        Positions of accessions that do not count: to everything but `sequences`,
        `rows_of_sequences` and `check` they are not there.

    Attributes
    ----------
    n_rows : int
        Distinct sequences, with and without accessions that count.
    n_accessions : int
        Proteins.
    columns : dict of str to str
        What `proteins` returns for each protein, and the SQL types: ``row``, ``accession``,
        ``length``, header columns, the user's columns.
    joined_columns : dict of str to str
        The user's columns alone.
    meta : dict of str to str
        What `CatalogWriter.finish` was given, ``format`` and ``row_checksum``.

    Raises
    ------
    CatalogError
        The file is missing, damaged, unfinished, or not a catalog of this version.
    """

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
            A row is not in the catalog or has no protein, or the file is damaged.
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
            f'SELECT {columns} FROM {self._proteins} WHERE "row" IN (SELECT unnest($1::BIGINT[]))',
            wanted,
        )
        entries = [dict(zip(self.columns, line, strict=True)) for line in lines]
        entries.sort(key=lambda entry: order[entry["accession"]])
        return self._by_row(rows, ((entry["row"], entry) for entry in entries))

    def records(self, rows: Sequence[int]) -> dict[int, list[Record]]:
        """The proteins behind each row as they were added: with what their headers said.

        Parameters
        ----------
        rows : sequence of int

        Returns
        -------
        dict of int to list of Record
            As `proteins` orders them.

        Raises
        ------
        CatalogError
            As `proteins`.
        """
        wanted = [int(row) for row in rows]
        headers = ", ".join(f"a.{quoted(name)}" for name in _HEADERS)
        lines = self._query(
            f'SELECT a."row", a.accession, r.sequence, {headers} '
            f'FROM {self._accessions} a JOIN rows r ON r."row" = a."row" '
            'WHERE r."row" BETWEEN $2 AND $3 AND r."row" IN (SELECT unnest($1::BIGINT[])) '
            "ORDER BY a.position",
            [wanted, min(wanted, default=0), max(wanted, default=0)],
        )
        return self._by_row(
            rows,
            (
                (row, Record(accession=accession, sequence=sequence, **_header(values)))
                for row, accession, sequence, *values in lines
            ),
        )

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
        return {accession: row for accession, (_, row) in self.locate(accessions).items()}

    def locate(self, accessions: Iterable[str]) -> dict[str, tuple[int, int]]:
        """Position and row of accessions; those that are not in the catalog are left out.

        Parameters
        ----------
        accessions : iterable of str

        Returns
        -------
        dict of str to (int, int)
            In the order asked for. Positions number a catalog's accessions in the order in which
            they were added.
        """
        wanted = list(dict.fromkeys(accessions))
        lines = self._look_up(
            f'SELECT accession, position, "row" FROM {self._accessions} '
            "WHERE accession IN (SELECT unnest($1::VARCHAR[]))",
            wanted,
        )
        found = {accession: (position, row) for accession, position, row in lines}
        return {value: found[value] for value in wanted if value in found}

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
        wanted = list(dict.fromkeys(sequences))
        # Sequences of one key are told apart by themselves.
        found = dict(
            self._look_up(
                'SELECT sequence, "row" FROM rows WHERE key IN (SELECT unnest($1::UBIGINT[]))',
                [sequence_key(hashlib.sha256(sequence.encode()).digest()) for sequence in wanted],
            )
        )
        return {value: found[value] for value in wanted if value in found}

    def inhabited(self, rows: Iterable[int], without: Iterable[int] = ()) -> set[int]:
        """Those of the rows that have a protein.

        Parameters
        ----------
        rows : iterable of int
        without : iterable of int, optional
            Positions of more accessions that do not count.
        """
        query = (
            f'SELECT "row", position FROM {self._accessions} '
            'WHERE "row" IN (SELECT unnest($1::BIGINT[]))'
        )
        gone = {int(position) for position in without}
        lines = self._look_up(query, [int(row) for row in rows])
        return {row for row, position in lines if position not in gone}

    def rows_where(
        self,
        expression: str,
        seconds: float = FILTER_SECONDS,
        absent: Mapping[str, str] | None = None,
    ) -> NDArray[np.int64]:
        """Rows with at least one protein that satisfies a SQL expression.

        Parameters
        ----------
        expression : str
            A condition on `columns` and ``sequence``, for example ``"organism = 'Escherichia coli'
            AND length < 400"``; what it may be is in `rdsearch.expressions`. A condition that is
            NULL is not satisfied.
        seconds : float, optional
            Stop after so long. DuckDB looks at the clock between blocks of 2,048 lines.
        absent : mapping of str to str, optional
            Columns that other catalogs have, and their SQL types; here they are NULL.

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
        rows = self._values_where('DISTINCT "row"', expression, seconds, absent)["row"]
        return np.sort(np.asarray(rows, dtype=np.int64))

    def accessions_where(
        self,
        expression: str,
        seconds: float = FILTER_SECONDS,
        absent: Mapping[str, str] | None = None,
    ) -> list[str]:
        """Accessions of the proteins that satisfy a SQL expression, sorted; see `rows_where`."""
        found = self._values_where("accession", expression, seconds, absent)["accession"]
        return sorted(map(str, found))

    def _values_where(
        self, value: str, expression: str, seconds: float, absent: Mapping[str, str] | None
    ) -> dict[str, NDArray[Any]]:
        nulls = (f"CAST(NULL AS {kind}) AS {quoted(name)}" for name, kind in (absent or {}).items())
        source = f"(SELECT {', '.join(['*', *nulls])} FROM {self._proteins})"
        columns = [*self.columns, *(absent or ()), "sequence"]
        try:
            with self._filter(seconds) as connection:
                expressions.check(connection, expression, columns)
                return connection.execute(
                    f"SELECT {value} FROM {source} AS proteins WHERE ({expression}\n)"
                ).fetchnumpy()
        except duckdb.InterruptException as error:
            reason = f"it took longer than {seconds:.3g} s"
            raise expressions.refusal(expression, reason, columns) from error
        except duckdb.Error as error:
            reason = str(error).partition("\n")[0]
            raise expressions.refusal(expression, reason, columns) from error

    def rows_of_taxon(
        self, taxon: int, absent: Mapping[str, str] | None = None
    ) -> NDArray[np.int64]:
        """Rows with a protein of a taxon or of one below it.

        Parameters
        ----------
        taxon : int
            NCBI taxon id. It is looked for in ``taxon_id`` and in the user's column ``lineage``: a
            list of taxon ids, or text with ids between semicolons, commas or spaces.
        absent : mapping of str to str, optional
            As in `rows_where`.

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
        below = "false"
        if lineage is not None:
            below = within_taxon(lineage, self.columns[lineage])
        elif not any(name.lower() == "lineage" for name in absent or ()):
            raise InputError(
                f"{self.path}: there is no column lineage, so that only the exact taxon_id of a "
                f"protein is known (--where 'taxon_id = {taxon}'). For taxa above it build with a "
                "metadata table that has a column lineage: the taxon ids of all ancestors, "
                'for example "2;1224;562"',
                taxon=taxon,
            )
        names = [int(taxon), str(int(taxon))] if lineage is not None else [int(taxon)]
        found = self._query(
            f'SELECT DISTINCT "row" FROM {self._proteins} WHERE taxon_id = $1 OR {below} '
            'ORDER BY "row"',
            names,
        )
        return np.array([row for (row,) in found], dtype=np.int64)

    def joined(self, accessions: Iterable[str] | None = None) -> pyarrow.Table | None:
        """The user's columns, for `CatalogWriter.carry`.

        Parameters
        ----------
        accessions : iterable of str, optional
            Only these.

        Returns
        -------
        pyarrow.Table or None
            ``accession`` and `joined_columns`, whose SQL types stand in the fields' metadata; a
            line for each protein in the order in which they were added. None where no table was
            joined.
        """
        if not self.joined_columns:
            return None
        values = (
            f"CAST(j.{quoted(name)} AS VARCHAR) AS {quoted(name)}"
            if kind in _AS_TEXT
            else f"j.{quoted(name)}"
            for name, kind in self.joined_columns.items()
        )
        chosen, wanted = "", []
        if accessions is not None:
            chosen = "WHERE a.accession IN (SELECT unnest($1::VARCHAR[])) "
            wanted = [list(accessions)]
        table = self._arrow(
            f"SELECT j.accession, {', '.join(values)} FROM joined j "
            f"JOIN {self._accessions} a ON a.accession = j.accession {chosen}ORDER BY a.position",
            wanted,
        )
        fields = [
            field.with_metadata({SQL_TYPE: self.joined_columns[field.name]})
            if field.name in self.joined_columns
            else field
            for field in table.schema
        ]
        return table.cast(pyarrow.schema(fields))


def _header(values: Iterable[Any]) -> dict[str, Any]:
    return dict(zip(_HEADERS, values, strict=True))
