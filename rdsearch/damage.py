"""What `rdsearch verify` found wrong, as a note in the index folder.

Opening reads too little to see every damage. A note that lies in the folder is seen, and nothing
is searched until the index was restored and `verify` has passed.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path

import rdsearch
from rdsearch import durable
from rdsearch.errors import IndexDamagedError, RdsearchError, few
from rdsearch.fileentry import open_file

__all__ = ["DAMAGED", "clear", "note", "refuse"]

#: The note's name.
DAMAGED = "damaged.json"

_LOGGER = logging.getLogger(__name__)
_LARGEST = 1 << 20
_UNREADABLE = (OSError, ValueError, LookupError, TypeError, RecursionError, IndexDamagedError)
_ATTEMPTS = 5


def note(path: Path, generation: int, errors: Mapping[str, RdsearchError]) -> None:
    """Leave a note; where the folder cannot be written there is none, and a warning.

    Parameters
    ----------
    path : Path
        The index.
    generation : int
        Which was checked.
    errors : mapping of str to RdsearchError
        By file, relative to the index.
    """
    table = {
        "format": "rdsearch damage 1",
        "rdsearch": rdsearch.__version__,
        "found": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "generation": generation,
        "files": {file: str(error) for file, error in errors.items()},
    }
    content = (json.dumps(table, indent=1, ensure_ascii=False) + "\n").encode()
    _LOGGER.debug("%s: noting damage in %s", path, DAMAGED)
    try:
        _replace(path / DAMAGED, content)
    except OSError as error:
        _LOGGER.warning(
            "%s: the damage cannot be noted in %s (%s): others will still open this index",
            path,
            DAMAGED,
            error.strerror or error,
        )


def clear(path: Path) -> None:
    """Take the note away; a warning where that is not permitted.

    Parameters
    ----------
    path : Path
        The index.
    """
    try:
        if durable.remove(path / DAMAGED):
            _LOGGER.info("%s: nothing is wrong any more, %s is removed", path, DAMAGED)
    except OSError as error:
        _LOGGER.warning(
            "%s: nothing is wrong, and %s cannot be removed (%s). Remove it",
            path,
            DAMAGED,
            error.strerror or error,
        )


def refuse(path: Path) -> None:
    """Do nothing where there is no note.

    Parameters
    ----------
    path : Path
        The index.

    Raises
    ------
    IndexDamagedError
        There is one; the message has the files.
    """
    if not os.path.lexists(path / DAMAGED):
        return
    files = _files(path)
    raise IndexDamagedError(
        f"{path}: rdsearch verify found damage in {few(files) or 'it'} (see {DAMAGED}). Restore "
        "these files, or go back to a generation without them (rdsearch history), then run: "
        f"rdsearch verify {path}",
        path=path,
        files=files,
    )


def _files(path: Path) -> list[str]:
    """The files that a note names; none where it cannot be read."""
    try:
        with open_file(path, DAMAGED) as file:
            table = json.loads(file.read(_LARGEST))
        return sorted(map(str, table["files"]))
    except _UNREADABLE as error:
        _LOGGER.warning("%s: it cannot be read (%s)", path / DAMAGED, error)
        return []


def _replace(file: Path, content: bytes) -> None:
    """Write the note, whoever else writes it or clears the folder of temporary files."""
    for attempt in range(_ATTEMPTS):
        try:
            durable.replace(file, content)
        except FileNotFoundError:
            if attempt == _ATTEMPTS - 1 or not file.parent.is_dir():
                raise
        else:
            return
