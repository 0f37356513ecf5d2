"""One generation of an index, open for reading, that can move on to the next."""

from __future__ import annotations

import copy
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from rdsearch.catalogs import Catalogs
from rdsearch.errors import InputError
from rdsearch.layout import CHAIN, SPACE
from rdsearch.locks import Hold
from rdsearch.manifest import Manifest
from rdsearch.opening import FULL, QUICK, open_generation
from rdsearch.searcher import Searcher
from rdsearch.significance import Significance

__all__ = ["Reader"]

_Self = TypeVar("_Self", bound="Reader")


class Reader(Searcher):
    """Vectors and proteins of the generation that was published when it was opened.

    Parameters
    ----------
    path : Path
        The index folder.
    verify : str, optional
        ``"quick"`` or ``"full"``; see `rdsearch.opening.open_generation`.
    in_memory, device : optional
        See `rdsearch.searcher.Searcher`.

    Attributes
    ----------
    catalog : Catalogs
        Its proteins.
    significance : Significance
        E-values of its scores.
    """

    catalog: Catalogs
    significance: Significance
    _hold: Hold | None

    def __init__(
        self, path: Path, *, verify: str = QUICK, in_memory: bool = False, device: str = "auto"
    ) -> None:
        if verify not in (QUICK, FULL):
            raise InputError(f"verify must be {QUICK} or {FULL}; found {verify!r}")
        self._full, self._in_memory, self._device = verify == FULL, in_memory, device
        self._open(path)

    def _open(self, path: Path) -> None:
        """Open the published generation; nothing of the object changes when that fails."""
        opened = open_generation(path, full=self._full)
        vectors = Searcher(
            path,
            opened.manifest,
            opened.tombstones,
            in_memory=self._in_memory,
            device=self._device,
        )
        # All at once: a search in another thread takes its snapshot before or after.
        catalog = opened.catalogs()
        significance = Significance(vectors, catalog)
        self.__dict__.update(
            vars(vectors), catalog=catalog, significance=significance, _hold=opened.hold
        )

    def refresh(self) -> bool:
        """Move on to the generation that is published now.

        Searches that run keep the generation they began with. Models stay loaded.

        Returns
        -------
        bool
            Whether there was another one.

        Raises
        ------
        IndexMissingError, IndexDamagedError
            The index as it is now cannot be opened; this object still has the generation before.
        """
        if Manifest.read(self.path) == self.manifest:
            return False
        kept = _learnt(self.manifest)
        self._open(self.path)
        if _learnt(self.manifest) != kept:
            self.forget()
        return True

    def forget(self) -> None:
        """Drop what was read for the chain and the space of an index that was replaced."""
        self.__dict__.pop("space", None)

    def snapshot(self: _Self) -> _Self:
        """The generation that is open now, whatever `refresh` does to this object meanwhile."""
        _ = self.space  # read once for the object and all its snapshots
        return copy.copy(self)

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
        """Release the files."""
        self.catalog.close()
        self.significance.close()
        if self._hold is not None:
            self._hold.close()
        self.forget()
        super().close()

    @property
    def generation(self) -> int:
        """The generation that is open."""
        return self.manifest.generation

    @property
    def tiers(self) -> tuple[str, ...]:
        """Tier names, coarse to fine."""
        return tuple(tier.name for tier in self.manifest.tiers)

    @property
    def n_accessions(self) -> int:
        """Accessions of all sequences."""
        return self.manifest.accessions

    @property
    def columns(self) -> dict[str, str]:
        """Catalog columns and their SQL types."""
        return dict(self.catalog.columns)


def _learnt(manifest: Manifest) -> list[str]:
    """Checksums of what all generations of an index share."""
    return [file.sha256 for file in manifest.files if file.path in (CHAIN, SPACE)]
