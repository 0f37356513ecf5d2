"""What all that write an index share: where it grows, and how the disk's refusals are told."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
from collections.abc import Iterator
from pathlib import Path

from rdsearch import durable, locks
from rdsearch.errors import CatalogError, ChainError, IndexLockedError, IndexWriteError

__all__ = ["building_folder", "named_errors", "sweep_beside"]

_LOGGER = logging.getLogger(__name__)
_NOT_WRITABLE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM}


def building_folder(output: Path) -> Path:
    """The hidden folder in which the index for `output` grows."""
    return output.parent / f".{output.name}.building"


def sweep_beside(path: Path) -> None:
    """Remove what a build or merge that was killed left beside the index it made or replaced.

    Its store of vectors stays: the same build goes on with it.
    """
    building = building_folder(path)
    if not building.is_dir():
        return
    try:
        with locks.writing(building, operation="clear"):
            for name in ("index", "replaced"):
                durable.remove_tree(building / name)
    except (IndexLockedError, IndexWriteError, OSError) as error:
        _LOGGER.debug("%s stays: %s", building, error)
    with contextlib.suppress(OSError):  # the store
        building.rmdir()


@contextlib.contextmanager
def named_errors(path: Path) -> Iterator[None]:
    """What the disk refuses, as an error of the index.

    Raises
    ------
    IndexWriteError
        Full disk, read-only folder, missing permission.
    """
    try:
        yield
    except (OSError, CatalogError, ChainError) as error:
        refused = _refused(error)
        if refused is None:
            raise
        raise IndexWriteError(
            f"{path}: the index cannot be written ({refused}); it is as it was. "
            "Make room, or mend the permissions, then run the same command again",
            path=path,
        ) from error


def _refused(error: Exception) -> str | None:
    """What the disk refused; None where the error is another."""
    if isinstance(error, OSError):
        known = error.errno is None or error.errno in _NOT_WRITABLE
        return (error.strerror or str(error)) if known else None
    # DuckDB has no numbers for its errors, but the system's words.
    words = (os.strerror(number) for number in _NOT_WRITABLE)
    return next((reason for reason in words if reason in str(error)), None)
