"""Who writes a folder, and who still reads what is in it.

Both are `flock` locks: the system lets go when the process dies, however it dies. A writer locks
a file of its own, ``.lock``, and not the folder itself: over NFS only what is open for writing
can be locked for one alone. A reader locks a file that it reads.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import logging
import os
import platform
import time
import weakref
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from types import TracebackType

from rdsearch.errors import IndexLockedError, IndexWriteError, RdsearchError

__all__ = ["LOCK", "Hold", "Owner", "claim", "held", "hold", "writing"]

LOCK = ".lock"
_LOGGER = logging.getLogger(__name__)
_OWNER_BYTES = 2000
_SHOWN = 80

# What file systems answer that have no locks.
_NO_LOCKS = frozenset({errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL})
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})

# A reader waits this long for one that asks whether the file is read, which takes microseconds.
_PATIENCE = 5.0
_PAUSE = 0.002

# Handles of this process's writer locks. A forked child has copies that would keep the folder
# locked when its parent dies, and must not remove the parent's lock file.
_writers: set[int] = set()


@dataclass(frozen=True, slots=True)
class Owner:
    """Who writes.

    Attributes
    ----------
    process : int
        Its id.
    host : str
        The machine it runs on.
    since : str
        When it took the lock; UTC, ISO 8601.
    operation : str
        What it does.
    """

    process: int
    host: str
    since: str
    operation: str

    @classmethod
    def now(cls, operation: str) -> Owner:
        """The process that asks, from this moment on."""
        since = datetime.now(timezone.utc).isoformat(timespec="seconds")
        return cls(os.getpid(), platform.node(), since, operation)

    @classmethod
    def at(cls, path: Path) -> Owner | None:
        """The owner whom a lock file names; None where it names nobody, or is gone."""
        try:
            with path.open("rb") as file:
                return cls._parse(file.read(_OWNER_BYTES))
        except OSError:
            return None

    @classmethod
    def _parse(cls, content: bytes) -> Owner | None:
        try:
            table = json.loads(content)
            process = int(table["process"])
            host, since, operation = (
                str(table[name])[:_SHOWN] for name in ("host", "since", "operation")
            )
        except (ValueError, KeyError, TypeError, RecursionError):
            return None
        return cls(process, host, since, operation)

    def write(self, handle: int) -> None:
        """Name this owner in a lock file."""
        os.ftruncate(handle, 0)
        try:
            os.pwrite(handle, json.dumps(asdict(self)).encode(), 0)
        except OSError as error:
            # The lock holds without it, and who wants to make room must be able to write.
            if error.errno not in _FULL:
                raise
            _LOGGER.debug("the lock file has no room for its owner's name: the disk is full")

    def __str__(self) -> str:
        return f"process {self.process} on {self.host}, {self.operation}, since {self.since}"


@contextlib.contextmanager
def writing(
    folder: Path,
    what: str = "index",
    *,
    operation: str = "write",
    error: type[RdsearchError] = IndexLockedError,
    unwritable: type[RdsearchError] = IndexWriteError,
) -> Iterator[None]:
    """Keep other writers out of a folder.

    The lock of a process that died is free; where it left its name, a warning is logged with it.

    Parameters
    ----------
    folder : Path
    what : str, optional
        What the folder is, for messages.
    operation : str, optional
        What is done, for the messages of those who are kept out.
    error, unwritable : type, optional
        Raised where another process writes, and where nobody can.

    Raises
    ------
    IndexLockedError
        Another process or thread is writing (attributes ``path``, ``owner``).
    IndexWriteError
        The folder is read-only, the permission is missing, or its file system has no locks.
    """
    path = folder / LOCK
    try:
        handle = _lock(path)
    except BlockingIOError:
        owner = Owner.at(path)
        raise error(
            f"{folder}: another process is writing this {what} "
            f"({owner or 'it has not given its name'}). Wait until it ends and run the same "
            "command again, or end that process: its lock goes with it",
            path=folder,
            owner=owner,
        ) from None
    except OSError as reason:
        raise unwritable(
            f"{folder}: the {what} cannot be written ({reason.strerror or reason}; its lock file "
            f"is {LOCK}). Mend that, then run the same command again",
            path=folder,
        ) from reason
    _writers.add(handle)
    try:
        owner = Owner.at(path)
        if owner is not None:
            _LOGGER.warning("%s: taking over the lock of a writer that died (%s)", folder, owner)
        Owner.now(operation).write(handle)
        yield
    finally:
        if handle in _writers:
            _writers.discard(handle)
            with contextlib.suppress(OSError):  # an empty lock file is in nobody's way
                path.unlink()
            os.close(handle)


def _lock(path: Path) -> int:
    """Handle of the lock file, locked; BlockingIOError where another has it."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The owner before may have removed the file between the two lines above.
            if _is_at(handle, path):
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


def _is_at(handle: int, path: Path) -> bool:
    """Whether an open file still has this name."""
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def _forget_writers() -> None:
    """In a forked child: the locks are the parent's."""
    for handle in _writers:
        os.close(handle)
    _writers.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_writers)


class Hold:
    """A lock on a file, given back by `close`, at the end of a ``with`` block, or by dying.

    A forked child shares it: it ends when the last of them closes it.
    """

    def __init__(self, handle: int) -> None:
        self._release = weakref.finalize(self, os.close, handle)

    def __enter__(self) -> Hold:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the lock back; nothing the second time."""
        self._release()


def hold(path: Path) -> Hold:
    """Say that what a file names is in use; any number of readers can.

    It works on read-only file systems. Where the file system has no locks, nobody is told.

    Parameters
    ----------
    path : Path
        An existing file.

    Raises
    ------
    FileNotFoundError
        The file is not there, or was removed just now: what it named may be gone.
    """
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _share(handle, path)
        if not _is_at(handle, path):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
    except BaseException:
        os.close(handle)
        raise
    return Hold(handle)


def _share(handle: int, path: Path) -> None:
    """Take a shared lock, or log why not."""
    end = time.monotonic() + _PATIENCE
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > end:
                # A reader never waits for a process that is stopped.
                _LOGGER.warning("%s: it stays claimed for removal; read without a lock", path)
                return
            time.sleep(_PAUSE)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            _LOGGER.debug("%s: read without a lock (%s)", path, error.strerror)
            return


def claim(path: Path) -> Hold | None:
    """Take a file that nobody holds, to remove what it names.

    Remove the file itself before the claim ends: then who comes too late learns it from `hold`.

    Returns
    -------
    Hold or None
        None where somebody holds it, or the file system has no locks to tell.

    Raises
    ------
    FileNotFoundError
        The file is not there.
    """
    try:
        handle = os.open(path, os.O_RDWR | os.O_CLOEXEC)  # NFS locks for one alone need it
    except PermissionError:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(handle)
        if not isinstance(error, BlockingIOError) and error.errno not in _NO_LOCKS | {errno.EBADF}:
            raise
        return None
    return Hold(handle)


def held(path: Path) -> bool:
    """Whether somebody holds a file, as far as the file system can tell; see `claim`."""
    claimed = claim(path)
    if claimed is None:
        return True
    claimed.close()
    return False
