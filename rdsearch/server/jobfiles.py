"""Where the results of jobs lie: a private folder that goes when its server does."""

from __future__ import annotations

import contextlib
import logging
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from rdsearch import durable, locks
from rdsearch.errors import InputError

__all__ = ["PREFIX", "JobFolder"]

#: How the folder of a server is called.
PREFIX = "rdsearch-jobs-"

# Locked as long as the server lives, so that the next one knows what a crash left behind.
_LIVES = ".lives"

_LOGGER = logging.getLogger("rdsearch.server")


class JobFolder:
    """A folder of one server, which nobody else may read (mode 0700).

    Parameters
    ----------
    parent : Path or None
        Made where it is not there. Folders of servers that died are removed from it. The system's
        folder for temporary files where it is None.

    Attributes
    ----------
    path : Path

    Raises
    ------
    InputError
        No folder can be made there.
    """

    def __init__(self, parent: Path | None = None) -> None:
        try:
            if parent is not None:
                parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                _remove_the_dead(parent)
            self.path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent)).absolute()
            lives = self.path / _LIVES
            lives.touch(mode=0o600)
            self._hold = locks.hold(lives)
        except OSError as error:
            where = "the system's folder for temporary files" if parent is None else parent
            raise InputError(
                f"results of jobs cannot be kept in {where}: {error.strerror or error}. Name a "
                "folder that can be written",
                path=parent,
            ) from error

    def place(self, name: str) -> Path:
        """Where the file of this name is when it is complete."""
        return self.path / name

    @contextlib.contextmanager
    def writing(self, name: str) -> Iterator[IO[bytes]]:
        """A new file that gets its name when it is complete, and is removed otherwise.

        Raises
        ------
        OSError
            It cannot be written, as on a full disk.
        """
        path = self.place(name)
        temporary = durable.temporary_file(path)
        try:
            with temporary.open("xb") as file:
                yield file
            # Some file systems say only now that they are full.
            durable.sync_file(temporary)
            durable.publish(temporary, path)
        except BaseException:
            for one in (temporary, path):
                with contextlib.suppress(OSError):
                    one.unlink(missing_ok=True)
            raise

    def remove(self, name: str) -> None:
        """Remove a file; where that fails the log says why, and it goes with the folder."""
        try:
            self.place(name).unlink(missing_ok=True)
        except OSError as error:
            _LOGGER.warning("the results of a job cannot be removed: %s", error)

    def close(self) -> None:
        """Remove the folder with all that is in it."""
        shutil.rmtree(self.path, ignore_errors=True)
        if self.path.exists():
            _LOGGER.warning("the folder of jobs %s cannot be removed", self.path)
        self._hold.close()


def _remove_the_dead(parent: Path) -> None:
    """Remove what servers left behind that could not do it themselves."""
    for folder in sorted(parent.glob(f"{PREFIX}*")):
        try:
            # A folder without the file is one that another server is just making.
            claimed = locks.claim(folder / _LIVES)
        except OSError:
            continue
        if claimed is not None:
            with claimed:
                _LOGGER.warning("removing results of jobs of a server that died: %s", folder)
                shutil.rmtree(folder, ignore_errors=True)
