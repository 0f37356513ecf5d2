"""The next generation of an index while it is made."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rdsearch import durable, generations
from rdsearch.catalog import Catalog
from rdsearch.fasta import Record
from rdsearch.layout import CATALOG, load_codec, load_space, tombstones_file
from rdsearch.manifest import Manifest, SegmentEntry
from rdsearch.newcomers import Pairs
from rdsearch.opening import Opened, open_generation
from rdsearch.progress import Progress
from rdsearch.searcher import Searcher
from rdsearch.segmentwriter import Content, SegmentWriter, Vectors, file_entries
from rdsearch.tombstones import Place, Tombstones

if TYPE_CHECKING:
    import pyarrow

    from rdsearch.catalogs import Catalogs

__all__ = ["Draft", "Origin", "drafting", "learnt_codec"]

# Sequences of a new segment that are looked for together in the others.
_LOOKUP = 20_000


class Origin:
    """Follows which row of its source each row of a new segment is.

    Parameters
    ----------
    pairs : iterable of (int, Record)
        The proteins, with rows of the source.
    """

    def __init__(self, pairs: Pairs) -> None:
        self._pairs = pairs
        self._current = -1
        self._rows: list[int] = []

    def records(self) -> Iterator[Record]:
        """The proteins alone."""
        for row, record in self._pairs:
            self._current = row
            yield record

    def seen(self, row: int) -> None:
        """The catalog gave the last protein this row; new rows come in order."""
        if row == len(self._rows):
            self._rows.append(self._current)

    @property
    def rows(self) -> NDArray[np.int64]:
        """For each row of the segment that of the source."""
        return np.array(self._rows, dtype=np.int64)


class Draft:
    """Collects what the next generation removes and adds; nothing is seen before `publish`.

    Parameters
    ----------
    path : Path
    opened : Opened
        The published generation.

    Attributes
    ----------
    before : Opened
    catalog : Catalogs
        Of the proteins that are left after the removals so far.
    """

    def __init__(self, path: Path, opened: Opened) -> None:
        self.path, self.before = path, opened
        self.number = opened.manifest.generation + 1
        self._tombstones = opened.tombstones
        self._segments = list(opened.manifest.segments)
        self.catalog: Catalogs = opened.catalogs()

    @property
    def manifest(self) -> Manifest:
        """The published generation's."""
        return self.before.manifest

    def searcher(self) -> Searcher:
        """The vectors of the published generation."""
        return Searcher(self.path, self.manifest, self.before.tombstones)

    def close(self) -> None:
        """Release the files of the published generation."""
        self.catalog.close()
        if self.before.hold is not None:
            self.before.hold.close()

    def remove(self, accessions: Iterable[str]) -> int:
        """Remove proteins.

        Parameters
        ----------
        accessions : iterable of str
            Those that are not there do not count.

        Returns
        -------
        int
            How many were removed.
        """
        located = self.catalog.locate(accessions)
        positions: dict[str, list[int]] = {}
        for segment, position, _ in located.values():
            positions.setdefault(segment, []).append(position)
        tombstones = self._tombstones.without(positions)

        def inhabited(segment: str, rows: list[int]) -> set[int]:
            return self.catalog.inhabited(segment, rows, without=positions)

        order = {entry.name: place for place, entry in enumerate(self._segments)}
        touched = {(segment, row) for segment, _, row in located.values()}
        self._tombstones = tombstones.settled(touched, inhabited, order)
        self.catalog.close()
        self.catalog = dataclasses.replace(self.before, tombstones=self._tombstones).catalogs()
        return len(located)

    def append(
        self,
        pairs: Pairs,
        vectors: Callable[[NDArray[np.int64]], Vectors],
        *,
        carried: pyarrow.Table | None = None,
        metadata: Sequence[str | Path] = (),
        progress: Progress | None = None,
    ) -> Content:
        """Write a segment of proteins whose accessions the index does not have.

        Parameters
        ----------
        pairs : iterator of (int, Record)
            Proteins, with their rows in the source of the vectors.
        vectors : callable
            The vectors of rows of that source.
        carried : pyarrow.Table, optional
            User columns of these proteins from an earlier generation.
        metadata : sequence of path, optional
        progress : Progress, optional

        Returns
        -------
        Content
        """
        manifest = self.manifest
        writer = SegmentWriter(self.path, generations.label(self.number), manifest.chain_hash)
        origin = Origin(pairs)
        content = writer.catalog(
            origin.records(),
            carried=carried,
            metadata=metadata,
            types=self.catalog.columns,
            seen=origin.seen,
        )
        self._tombstones = self._tombstones.with_doubles(self._doubles(writer, content))
        space = load_space(self.path, manifest)
        source = vectors(origin.rows)
        for tier in manifest.stored:
            learnt = learnt_codec(self.path, manifest, tier.name, tier.dims)
            writer.tier(tier.name, space.prefix(tier.dims), learnt, source, progress)
        self._segments.append(writer.finish(content, [tier.name for tier in manifest.stored]))
        return content

    def replace(
        self,
        accessions: Collection[str],
        pairs: Pairs,
        vectors: Callable[[NDArray[np.int64]], Vectors],
        *,
        metadata: Sequence[str | Path] = (),
        progress: Progress | None = None,
    ) -> Content:
        """Remove proteins and append others of the same accessions, which keep their columns.

        Parameters
        ----------
        accessions : collection of str
            All of them in the index.
        pairs, vectors, metadata, progress
            As in `append`.

        Returns
        -------
        Content
        """
        carried = self.catalog.joined(accessions)
        self.remove(accessions)
        return self.append(pairs, vectors, carried=carried, metadata=metadata, progress=progress)

    def _doubles(self, writer: SegmentWriter, content: Content) -> dict[Place, Place]:
        """Rows of the new segment whose sequence is shown already, and where."""
        rowmap = self.catalog.rowmap
        names = [entry.name for entry in self._segments]
        doubles: dict[Place, Place] = {}
        with Catalog(writer.folder / CATALOG) as catalog:
            for start in range(0, content.rows, _LOOKUP):
                rows = range(start, min(start + _LOOKUP, content.rows))
                sequences = catalog.sequences(rows)
                shown = self.catalog.rows_of_sequences(sequences)
                both = [
                    (row, shown[sequence])
                    for row, sequence in zip(rows, sequences, strict=True)
                    if sequence in shown
                ]
                for part in rowmap.split([row for _, row in both]):
                    for place, row in zip(part.places.tolist(), part.rows.tolist(), strict=True):
                        doubles[writer.name, both[place][0]] = (names[part.segment], row)
        return doubles

    def publish(self, operation: str) -> Manifest:
        """Make this the index's generation.

        Parameters
        ----------
        operation : str
            What was done, for people.

        Returns
        -------
        Manifest
        """
        tombstones = None
        if self._tombstones:
            tombstones = save_tombstones(self.path, self.number, self._tombstones)
        manifest = generations.successor(
            self.manifest,
            operation,
            segments=tuple(_counted(entry, self._tombstones) for entry in self._segments),
            tombstones=tombstones,
            guarantee=None,
        )
        generations.publish(self.path, manifest)
        return manifest


def save_tombstones(path: Path, number: int, tombstones: Tombstones) -> Any:
    """Write a generation's tombstones and describe the file."""
    relative = tombstones_file(number)
    (path / relative).parent.mkdir(exist_ok=True)
    durable.replace(path / relative, tombstones.to_bytes())
    (entry,) = file_entries(path, [relative])
    return entry


@contextlib.contextmanager
def drafting(path: Path, operation: str) -> Iterator[Draft]:
    """Be the one writer of an index, with a draft of its next generation.

    Raises
    ------
    IndexMissingError, IndexDamagedError, IndexLockedError, IndexWriteError
        See `rdsearch.generations.changing`.
    """
    with generations.changing(path, operation):
        draft = Draft(path, open_generation(path))
        try:
            yield draft
        finally:
            draft.close()


def learnt_codec(path: Path, manifest: Manifest, tier: str, dims: int) -> Any:
    """An empty codec as the index's first rows had it."""
    return load_codec(path, manifest, tier, dims)


def _counted(entry: SegmentEntry, tombstones: Tombstones) -> SegmentEntry:
    return dataclasses.replace(
        entry,
        hidden=len(tombstones.hidden_in(entry.name)),
        removed=len(tombstones.removed_in(entry.name)),
    )
