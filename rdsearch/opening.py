"""Open one generation of an index and keep it while others change the index."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rdsearch import damage, verification
from rdsearch.catalogs import Catalogs
from rdsearch.errors import IndexDamagedError
from rdsearch.holding import ATTEMPTS, check_quickly, published
from rdsearch.layout import load_tombstones, open_catalog
from rdsearch.locks import Hold
from rdsearch.manifest import Manifest
from rdsearch.rowmap import RowMap
from rdsearch.tombstones import Tombstones

__all__ = ["FULL", "QUICK", "Opened", "open_generation"]

#: How much of an index is checked when it is opened: headers, sizes and row checksums, or all.
QUICK, FULL = "quick", "full"


@dataclass(frozen=True, slots=True)
class Opened:
    """A generation that was checked and is held.

    Attributes
    ----------
    path : Path
    manifest : Manifest
    tombstones : Tombstones
    hold : Hold or None
        Tells `rdsearch gc` to leave its files alone; None where there is nothing to hold.
    """

    path: Path
    manifest: Manifest
    tombstones: Tombstones
    hold: Hold | None

    def rowmap(self) -> RowMap:
        """Its rows."""
        return RowMap(
            [segment.rows for segment in self.manifest.segments],
            [self.tombstones.hidden_in(segment.name) for segment in self.manifest.segments],
        )

    def catalogs(self) -> Catalogs:
        """Its catalogs, opened."""
        opened = []
        try:
            for segment in self.manifest.segments:
                removed = self.tombstones.removed_in(segment.name)
                opened.append(open_catalog(self.path, segment, removed))
        except BaseException:
            for catalog in opened:
                catalog.close()
            raise
        names = [segment.name for segment in self.manifest.segments]
        return Catalogs(opened, names, self.rowmap(), self.tombstones)


def open_generation(path: Path, *, full: bool = False) -> Opened:
    """Check and hold the published generation.

    A reader waits for nobody: where a writer publishes, or removes old files, in the middle of
    this, the next generation is opened.

    Parameters
    ----------
    path : Path
    full : bool, optional
        Verify it before; see `rdsearch.verification.verify`.

    Raises
    ------
    IndexMissingError
        There is no index.
    IndexDamagedError
        A file is missing, has another size, or does not belong to this index; or
        `rdsearch.verify` found damage before.
    ChainMismatchError
        The chain file is another chain.
    """
    for attempt in range(ATTEMPTS):
        manifest, held = published(path)
        try:
            return Opened(path, manifest, _checked(path, manifest, full=full), held)
        except IndexDamagedError:
            if held is not None:
                held.close()
            if attempt == ATTEMPTS - 1 or Manifest.read(path) == manifest:
                raise
        except BaseException:
            if held is not None:
                held.close()
            raise
    raise IndexDamagedError(f"{path}: it changes faster than it can be opened", path=path)


def _checked(path: Path, manifest: Manifest, *, full: bool) -> Tombstones:
    if full:
        verification.verify_generation(path, manifest)
    damage.refuse(path)
    check_quickly(path, manifest)
    return load_tombstones(path, manifest)
