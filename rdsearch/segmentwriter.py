"""Write one segment: its catalog, and a tier file for every prefix boundary."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rdsearch import durable, tiers
from rdsearch.catalog import Catalog, CatalogWriter
from rdsearch.errors import RdsearchError
from rdsearch.fasta import Record
from rdsearch.fileentry import FileEntry
from rdsearch.layout import CATALOG, tier_file
from rdsearch.manifest import SegmentEntry
from rdsearch.metadata import MetadataReport
from rdsearch.progress import Progress
from rdsearch.space import Space

if TYPE_CHECKING:
    import pyarrow

__all__ = ["Content", "SegmentWriter", "Vectors", "file_entries"]


class Vectors(Protocol):
    """Where the rows of a new segment come from.

    Attributes
    ----------
    n_rows : int
    in_space : bool
        Whether `blocks` yields unit vectors in the index's space; rd prefixes otherwise.
    """

    @property
    def n_rows(self) -> int: ...

    @property
    def in_space(self) -> bool: ...

    def blocks(self, tier: str) -> Iterator[NDArray[np.float32]]:
        """All rows in order, block by block."""
        ...


@dataclass(frozen=True, slots=True)
class Content:
    """What a catalog holds.

    Attributes
    ----------
    rows, accessions : int
    row_checksum : str
    reports : tuple of MetadataReport
        One for each joined table.
    """

    rows: int
    accessions: int
    row_checksum: str
    reports: tuple[MetadataReport, ...]


class SegmentWriter:
    """Writes the files of one segment into an index folder.

    Parameters
    ----------
    root : Path
        The index folder.
    name : str
        The segment's.
    chain_hash : str
    """

    def __init__(self, root: Path, name: str, chain_hash: str) -> None:
        self.root, self.name, self.chain_hash = root, name, chain_hash
        self.folder = root / "segments" / name
        self.folder.mkdir(parents=True)

    def catalog(
        self,
        records: Iterable[Record],
        *,
        carried: pyarrow.Table | None = None,
        metadata: Sequence[str | Path] = (),
        types: Mapping[str, str] | None = None,
        seen: Callable[[int], None] | None = None,
    ) -> Content:
        """Write the catalog.

        Parameters
        ----------
        records : iterable of Record
        carried : pyarrow.Table, optional
            User columns of these proteins from another catalog.
        metadata : sequence of path, optional
            Tables to join.
        types : mapping of str to str, optional
            SQL types of columns that the index has already.
        seen : callable, optional
            Called with the row of each record.

        Returns
        -------
        Content
        """
        writer = CatalogWriter(self.folder / CATALOG)
        try:
            for record in records:
                row = writer.add(record)
                if seen is not None:
                    seen(row)
            if carried is not None:
                writer.carry(carried)
            reports = tuple(writer.join(table, types=types) for table in metadata)
            facts = {"chain": self.chain_hash, "segment": self.name}
            row_checksum = writer.finish(facts)
        except BaseException:
            writer.close()
            raise
        with Catalog(self.folder / CATALOG) as catalog:
            return Content(catalog.n_rows, catalog.n_accessions, row_checksum, reports)

    def tier(
        self,
        name: str,
        space: Space,
        learnt: Any,
        vectors: Vectors,
        progress: Progress | None = None,
    ) -> None:
        """Write a tier file.

        Parameters
        ----------
        name : str
        space : Space
            Of the tier's dimensions.
        learnt : faiss.Index
            Its empty codec; it is used up.
        vectors : Vectors
        progress : Progress, optional
            Told of every block.
        """
        advance = None if progress is None else progress.stage(f"tier {name}", vectors.n_rows)

        def blocks() -> Iterator[NDArray[np.float32]]:
            for block in vectors.blocks(name):
                yield block
                if advance is not None:
                    advance(len(block), 0)

        path = self.folder / tier_file(name)
        written = tiers.write(path, space, learnt, blocks(), in_space=vectors.in_space)
        if written != vectors.n_rows:
            raise RdsearchError(
                f"{path}: wrote {written} rows of {vectors.n_rows}: what they come from changed"
            )

    def finish(self, content: Content, tier_names: Iterable[str]) -> SegmentEntry:
        """Wait for the disk and describe the segment."""
        durable.sync_tree(self.folder)
        durable.sync_folder(self.folder.parent)
        durable.sync_folder(self.root)
        names = [*map(tier_file, tier_names), CATALOG]
        return SegmentEntry(
            self.name,
            content.rows,
            content.accessions,
            0,
            0,
            content.row_checksum,
            file_entries(self.root, (f"segments/{self.name}/{name}" for name in names)),
        )


def file_entries(root: Path, paths: Iterable[str]) -> tuple[FileEntry, ...]:
    """Describe files that were just written."""
    return tuple(FileEntry.of(root, path) for path in paths)
