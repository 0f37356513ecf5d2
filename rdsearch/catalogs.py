"""The catalogs of an index's segments, as one.

An index shows rows by numbers of its own (`rdsearch.rowmap`), leaves out accessions that were
removed, and brings proteins of one sequence together that lie in different segments
(`rdsearch.tombstones`). Here its catalogs are asked accordingly.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pyarrow
from numpy.typing import NDArray

from rdsearch.catalog import FILTER_SECONDS, Catalog
from rdsearch.errors import CatalogError, IndexDamagedError
from rdsearch.fasta import Record
from rdsearch.rowmap import RowMap
from rdsearch.tombstones import Tombstones

__all__ = ["Catalogs"]

_Rows = NDArray[np.int64]

# Rows whose proteins are read together where all are read.
_SCAN_ROWS = 10_000


class _Doubles(NamedTuple):
    """Hidden rows of a segment, sorted, and the index's rows that are shown in their place.

    In one segment a sequence has one row, so that a shown row has at most one double there.
    """

    rows: _Rows
    shown: _Rows
    # Places in these, by shown row.
    order: _Rows


class _Piece(NamedTuple):
    """What one segment has behind rows of the index."""

    segment: int
    # Numbers inside the segment, and of the index, which are sorted.
    rows: _Rows
    shown: _Rows


class Catalogs:
    """The catalog of an index: rows are the index's, accessions those that were not removed.

    Parameters
    ----------
    catalogs : sequence of Catalog
        One for each segment, opened without its removed accessions; `close` closes them.
    names : sequence of str
        The segments.
    rowmap : RowMap
        Of these segments.
    tombstones : Tombstones
        Only its doubles are read.

    Attributes
    ----------
    n_rows, n_accessions : int
        Rows that the index shows, and proteins.
    columns : dict of str to str
        What `proteins` returns for each protein, and the SQL types: ``row``, ``accession``,
        ``length``, header columns, the user's columns of all segments. Where a segment lacks a
        column its proteins have None there.

    Raises
    ------
    CatalogError
        A column has different types in different segments.
    IndexDamagedError
        The tombstones are of other segments.
    """

    def __init__(
        self,
        catalogs: Sequence[Catalog],
        names: Sequence[str],
        rowmap: RowMap,
        tombstones: Tombstones,
    ) -> None:
        self.catalogs = tuple(catalogs)
        self.names = tuple(names)
        self.rowmap = rowmap
        self.n_rows = rowmap.n_rows
        self.n_accessions = sum(catalog.n_accessions for catalog in catalogs)
        self.columns = _united(catalogs)
        self._doubles = self._read_doubles(tombstones)
        # For each segment: the columns that it lacks, and the names that the others have here.
        self._absent, self._own = [], []
        for catalog in catalogs:
            own = {name.lower(): name for name in catalog.columns}
            self._own.append([own.get(name.lower()) for name in self.columns])
            self._absent.append(
                {name: kind for name, kind in self.columns.items() if name.lower() not in own}
            )

    def _read_doubles(self, tombstones: Tombstones) -> list[_Doubles]:
        order = {name: place for place, name in enumerate(self.names)}
        pairs: list[list[tuple[int, int, int]]] = [[] for _ in self.names]
        for (segment, row), (head, shown) in tombstones.doubles.items():
            if segment not in order or head not in order:
                raise IndexDamagedError(
                    f"the tombstones name segments {segment} and {head}: expected "
                    f"{', '.join(self.names)}. Restore the index"
                )
            pairs[order[segment]].append((row, order[head], shown))
        doubles = []
        for listed in pairs:
            rows, heads, shown = np.array(sorted(listed), dtype=np.int64).reshape(-1, 3).T
            for head in np.unique(heads).tolist():
                inside = heads == head
                shown[inside] = self.rowmap.join(head, shown[inside])
            if (shown < 0).any():
                raise IndexDamagedError("the tombstones name a hidden row as shown")
            doubles.append(_Doubles(rows, shown, np.argsort(shown)))
        return doubles

    def __enter__(self) -> Catalogs:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the files."""
        for catalog in self.catalogs:
            catalog.close()

    @cached_property
    def n_residues(self) -> int:
        """Residues of all rows."""
        pairs = zip(self.catalogs, self.rowmap.hidden, strict=True)
        return sum(catalog.residues(hidden) for catalog, hidden in pairs)

    def proteins(self, rows: Sequence[int]) -> dict[int, list[dict[str, Any]]]:
        """Every protein behind each row, by segment and in the order in which they were added.

        See `Catalog.proteins`.
        """
        if self.rowmap.plain:
            return self.catalogs[0].proteins(rows)
        found: dict[int, list[dict[str, Any]]] = {row: [] for row in self._checked(rows).tolist()}
        for piece in self._pieces(np.array(sorted(found), dtype=np.int64)):
            behind = self.catalogs[piece.segment].proteins(piece.rows.tolist())
            own = self._own[piece.segment]
            for row, shown in zip(piece.rows.tolist(), piece.shown.tolist(), strict=True):
                for entry in behind[row]:
                    entry["row"] = shown
                    values = (None if name is None else entry[name] for name in own)
                    found[shown].append(dict(zip(self.columns, values, strict=True)))
        return found

    def records(self, rows: Sequence[int] | _Rows | None = None) -> Iterator[Record]:
        """Proteins as they were added: with what their headers said.

        Parameters
        ----------
        rows : sequence of int, optional
            Only those behind these rows.

        Yields
        ------
        Record
            By row, then by segment and in the order in which they were added. Blocks of rows are
            read from the files as they are needed.
        """
        chosen = None if rows is None else np.unique(self._checked(rows))
        count = self.n_rows if chosen is None else len(chosen)
        for start in range(0, count, _SCAN_ROWS):
            stop = min(start + _SCAN_ROWS, count)
            block = np.arange(start, stop) if chosen is None else chosen[start:stop]
            behind: dict[int, list[Record]] = {row: [] for row in block.tolist()}
            for piece in self._pieces(block):
                read = self.catalogs[piece.segment].records(piece.rows.tolist())
                for row, shown in zip(piece.rows.tolist(), piece.shown.tolist(), strict=True):
                    behind[shown] += read[row]
            for row in block.tolist():
                yield from behind[row]

    def sequences(self, rows: Sequence[int]) -> list[str]:
        """Sequences of rows, in the order asked for; see `Catalog.sequences`."""
        if self.rowmap.plain:
            return self.catalogs[0].sequences(rows)
        found = [""] * len(rows)
        for part in self.rowmap.split(self._checked(rows)):
            read = self.catalogs[part.segment].sequences(part.rows.tolist())
            for place, sequence in zip(part.places.tolist(), read, strict=True):
                found[place] = sequence
        return found

    def rows_of(self, accessions: Iterable[str]) -> dict[str, int]:
        """Rows of accessions, in the order asked for; those that are not there are left out."""
        if self.rowmap.plain:
            return self.catalogs[0].rows_of(accessions)

        def look(segment: int, wanted: list[str]) -> dict[str, int]:
            found = self.catalogs[segment].rows_of(wanted)
            rows = self._shown(segment, np.array(list(found.values()), dtype=np.int64))
            return dict(zip(found, rows.tolist(), strict=True))

        return self._first(accessions, look)

    def rows_of_sequences(self, sequences: Iterable[str]) -> dict[str, int]:
        """Rows of sequences, in the order asked for; those that are not shown are left out."""
        if self.rowmap.plain:
            return self.catalogs[0].rows_of_sequences(sequences)

        def look(segment: int, wanted: list[str]) -> dict[str, int]:
            found = self.catalogs[segment].rows_of_sequences(wanted)
            rows = self.rowmap.join(segment, np.array(list(found.values()), dtype=np.int64))
            return {value: row for value, row in zip(found, rows.tolist(), strict=True) if row >= 0}

        return self._first(sequences, look)

    def locate(self, accessions: Iterable[str]) -> dict[str, tuple[str, int, int]]:
        """Where accessions are kept; those that are not there are left out.

        Parameters
        ----------
        accessions : iterable of str

        Returns
        -------
        dict of str to (str, int, int)
            Name of the segment, position and row inside it, in the order asked for.
        """

        def look(segment: int, wanted: list[str]) -> dict[str, tuple[str, int, int]]:
            found = self.catalogs[segment].locate(wanted)
            return {value: (self.names[segment], *place) for value, place in found.items()}

        return self._first(accessions, look)

    def inhabited(
        self, segment: str, rows: Iterable[int], without: Mapping[str, Iterable[int]] | None = None
    ) -> set[int]:
        """Those of a segment's own rows that have a protein.

        Parameters
        ----------
        segment : str
        rows : iterable of int
        without : mapping of str to iterable of int, optional
            By segment, positions of more accessions that do not count.
        """
        catalog = self.catalogs[self.names.index(segment)]
        return catalog.inhabited(rows, (without or {}).get(segment, ()))

    def rows_where(self, expression: str, seconds: float = FILTER_SECONDS) -> _Rows:
        """Rows with at least one protein that satisfies a SQL expression on `columns`.

        See `Catalog.rows_where`; ``seconds`` is for all segments together.
        """

        def ask(segment: int, left: float) -> _Rows:
            found = self.catalogs[segment].rows_where(expression, left, self._absent[segment])
            return self._shown(segment, found)

        return np.unique(np.concatenate(list(self._in_time(seconds, ask))))

    def accessions_where(self, expression: str, seconds: float = FILTER_SECONDS) -> list[str]:
        """Accessions of the proteins that satisfy a SQL expression on `columns`, sorted."""

        def ask(segment: int, left: float) -> list[str]:
            return self.catalogs[segment].accessions_where(expression, left, self._absent[segment])

        return sorted(found for part in self._in_time(seconds, ask) for found in part)

    def rows_of_taxon(self, taxon: int) -> _Rows:
        """Rows with a protein of a taxon or of one below it; see `Catalog.rows_of_taxon`."""
        found = [
            self._shown(segment, catalog.rows_of_taxon(taxon, self._absent[segment]))
            for segment, catalog in enumerate(self.catalogs)
        ]
        return np.unique(np.concatenate(found))

    def joined(self, accessions: Iterable[str] | None = None) -> pyarrow.Table | None:
        """The user's columns, for `CatalogWriter.carry`; see `Catalog.joined`.

        Parameters
        ----------
        accessions : iterable of str, optional
            Only these.

        Returns
        -------
        pyarrow.Table or None
            By segment; where one lacks a column there are nulls.
        """
        wanted = None if accessions is None else list(accessions)
        read = (catalog.joined(wanted) for catalog in self.catalogs)
        spellings = {name.lower(): name for name in self.columns}
        tables = [
            table.rename_columns([spellings[name.lower()] for name in table.column_names])
            for table in read
            if table is not None
        ]
        if not tables:
            return None
        fields = {field.name: field for table in tables for field in table.schema}
        return pyarrow.concat_tables([_completed(table, fields.values()) for table in tables])

    def _checked(self, rows: Sequence[int] | _Rows) -> _Rows:
        asked = np.asarray(rows, dtype=np.int64)
        outside = asked[(asked < 0) | (asked >= self.n_rows)]
        if len(outside):
            raise CatalogError(f"expected a row from 0 to {self.n_rows - 1}, found {outside[0]}")
        return asked

    def _pieces(self, rows: _Rows) -> Iterator[_Piece]:
        """By segment what is behind rows, which are sorted and distinct: theirs, and doubles."""
        parts = {part.segment: part for part in self.rowmap.split(rows)}
        for segment, (doubles, shown, order) in enumerate(self._doubles):
            behind = _translated(shown[order], doubles[order], rows)
            if segment in parts:
                part = parts[segment]
                behind[part.places] = part.rows
            there = behind >= 0
            if there.any():
                yield _Piece(segment, behind[there], rows[there])

    def _shown(self, segment: int, rows: _Rows) -> _Rows:
        """Rows of a segment that have proteins, as the index counts them."""
        found = self.rowmap.join(segment, rows)
        hidden = found < 0
        if hidden.any():
            doubles = self._doubles[segment]
            found[hidden] = _translated(doubles.rows, doubles.shown, rows[hidden])
            lost = rows[found < 0]
            if len(lost):
                raise IndexDamagedError(
                    f"{self.catalogs[segment].path}: row {lost[0]} has proteins and is hidden: "
                    "the tombstones are of another index. Restore the index",
                    path=self.catalogs[segment].path,
                )
        return found

    def _first(
        self, values: Iterable[str], look: Callable[[int, list[str]], dict[str, Any]]
    ) -> dict[str, Any]:
        """What the first segment that knows it says of each value."""
        wanted = list(dict.fromkeys(values))
        found: dict[str, Any] = {}
        for segment in range(len(self.catalogs)):
            found.update(look(segment, [value for value in wanted if value not in found]))
        return {value: found[value] for value in wanted if value in found}

    def _in_time(self, seconds: float, ask: Callable[[int, float], Any]) -> Iterator[Any]:
        """Every segment's answer, given what is left of the time."""
        began = time.monotonic()
        for segment in range(len(self.catalogs)):
            yield ask(segment, max(seconds - (time.monotonic() - began), 0.0))


def _united(catalogs: Sequence[Catalog]) -> dict[str, str]:
    """Columns of all catalogs with their types; case does not count."""
    columns: dict[str, str] = {}
    first: dict[str, tuple[str, Catalog]] = {}
    for catalog in catalogs:
        for name, kind in catalog.columns.items():
            known, where = first.setdefault(name.lower(), (name, catalog))
            if columns.setdefault(known, kind) != kind:
                raise CatalogError(
                    f"{catalog.path}: column {name!r} is {kind} here and {columns[known]} in "
                    f"{where.path}: expected one type. Restore the index's own catalogs",
                    path=catalog.path,
                )
    return columns


def _completed(table: pyarrow.Table, fields: Iterable[pyarrow.Field]) -> pyarrow.Table:
    """A table with these columns in this order."""
    columns = [
        table.column(field.name)
        if field.name in table.column_names
        else pyarrow.nulls(len(table), field.type)
        for field in fields
    ]
    return pyarrow.table(columns, schema=pyarrow.schema(list(fields)))


def _translated(keys: _Rows, values: _Rows, asked: _Rows) -> _Rows:
    """The value of each key, which are sorted; -1 for those that are not there."""
    if not len(keys):
        return np.full(len(asked), -1, dtype=np.int64)
    places = np.minimum(np.searchsorted(keys, asked), len(keys) - 1)
    return np.where(keys[places] == asked, values[places], -1)
