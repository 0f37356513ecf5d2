"""The published generation: read its manifest, and keep its files while they are read."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from rdsearch.errors import IndexDamagedError
from rdsearch.fileentry import locate
from rdsearch.generations import generation_file
from rdsearch.locks import Hold, hold
from rdsearch.manifest import Manifest

__all__ = ["ATTEMPTS", "published", "swapped"]

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
