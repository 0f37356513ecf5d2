"""The published generation: read its manifest, and keep its files while they are read."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from rdsearch.errors import IndexDamagedError, RdsearchError
from rdsearch.fileentry import locate
from rdsearch.generations import generation_file
from rdsearch.layout import check_chain, check_files
from rdsearch.locks import Hold, hold
from rdsearch.manifest import MANIFEST, Manifest

__all__ = ["ATTEMPTS", "check_quickly", "published", "swapped"]

#: Generations that come while one is being opened, before that is given up.
ATTEMPTS = 100

_LOGGER = logging.getLogger(__name__)


def published(path: Path) -> tuple[Manifest, Hold | None]:
    """The manifest of the published generation, held.

    Parameters
    ----------
    path : Path
        The index.

    Returns
    -------
    Manifest
    Hold or None
        Tells `rdsearch gc` to leave its files alone; None where there is nothing to hold.

    Raises
    ------
    IndexMissingError
        There is no index.
    IndexDamagedError
        There is no sound manifest.
    """
    for _ in range(ATTEMPTS):
        manifest = Manifest.read(path)
        copy = generation_file(path, manifest.generation)
        try:
            if os.path.lexists(copy):
                locate(path, str(copy.relative_to(path)))
            return manifest, hold(copy)
        except FileNotFoundError:
            if Manifest.read(path) == manifest:
                _LOGGER.debug("%s: generation %d has no copy to hold", path, manifest.generation)
                return manifest, None
        except IndexDamagedError:
            if Manifest.read(path) == manifest:
                raise
    raise IndexDamagedError(f"{path}: it changes faster than it can be opened", path=path)


def check_quickly(path: Path, manifest: Manifest) -> None:
    """Compare a manifest with the files, as far as that takes next to no time.

    Parameters
    ----------
    path : Path
        The index.
    manifest : Manifest
        The published one.

    Raises
    ------
    IndexDamagedError
        A file does not fit; or the manifest, where it is another index's.
    ChainError, ChainMismatchError
        The chain file is none, or another's.
    """
    check_files(path, manifest)
    try:
        for file in manifest.all_files():
            locate(path, file.path)
        check_chain(path, manifest)
        for file in manifest.all_files():
            file.check(path)
    except RdsearchError as error:
        if not swapped(path, manifest):
            raise
        raise IndexDamagedError(
            f"{path / MANIFEST}: it does not fit the other files, and is not the manifest that "
            f"generations/ has of generation {manifest.generation}. Restore it ({error})",
            path=path / MANIFEST,
        ) from error


def swapped(path: Path, manifest: Manifest) -> bool:
    """Whether the copy of the published manifest is whole, and says something else.

    Parameters
    ----------
    path : Path
        The index.
    manifest : Manifest
        The published one.
    """
    copy = generation_file(path, manifest.generation)
    try:
        return Manifest.read(path, str(copy.relative_to(path))) != manifest
    except IndexDamagedError:
        return False
