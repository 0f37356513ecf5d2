"""Every step that makes something durable: bytes to the disk, names into folders.

A file is durable when its content is on the disk *and* the folder that names it is. A rename is
atomic: whoever opens a name finds the old file or the new one, whole.

The order of these steps is what a crash test checks. It sets `on_step` and ends the process in
the middle of its work::

    durable.on_step = lambda step: os.kill(os.getpid(), signal.SIGKILL)
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

__all__ = [
    "exchange",
    "on_step",
    "publish",
    "remove",
    "remove_tree",
    "replace",
    "sync_file",
    "sync_folder",
    "sync_handle",
    "sync_tree",
    "temporary_file",
]

#: Called before and after each step with what it does: "write", "sync", "replace" or "remove",
#: and the path. For tests, which stop the process there; None otherwise.
on_step: Callable[[str], None] | None = None

# What systems answer that cannot sync a folder; there is nothing more to do on them.
_FOLDERS_NOT_SYNCED = frozenset({errno.EINVAL, errno.EBADF, errno.EOPNOTSUPP})

# What file systems answer that cannot exchange two names.
_NO_EXCHANGE = frozenset({errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP})

# Not every system has it: macOS has not.
_sync_data = getattr(os, "fdatasync", os.fsync)


def sync_file(path: Path) -> None:
    """Wait until the content of a file is on the disk; its name is `sync_folder`'s matter.

    Raises
    ------
    OSError
        What was written is not on the disk.
    """
    with _step("sync", path):
        _fsync(path)


def sync_handle(handle: int, path: Path) -> None:
    """Wait until the content and size of an open file are on the disk, not its times.

    Parameters
    ----------
    handle : int
        File descriptor.
    path : Path
        Its name, for `on_step`.
    """
    with _step("sync", path):
        _sync_data(handle)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable, as `sync_file` does for a file's content."""
    with _step("sync", folder):
        try:
            _fsync(folder)
        except OSError as error:
            if error.errno not in _FOLDERS_NOT_SYNCED:
                raise


def sync_tree(folder: Path) -> None:
    """Make a folder durable with all files and folders below it."""
    for parent, _, names in os.walk(folder, topdown=False, onerror=_raise):
        for name in sorted(names):
            sync_file(Path(parent, name))
        sync_folder(Path(parent))


def replace(path: Path, content: bytes) -> None:
    """Write a small file in one atomic step: afterwards `path` is the old or the new file.

    Two processes must not write the same path at once; see `rdsearch.locks`.

    Raises
    ------
    OSError
        It cannot be written: what was at `path` is still there, the temporary file is not.
    """
    temporary = temporary_file(path)
    try:
        with _step("write", temporary), temporary.open("wb") as file:
            file.write(content)
        sync_file(temporary)
        publish(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def temporary_file(path: Path) -> Path:
    """Where `replace` writes before the file gets its name; a crash may leave it behind."""
    return path.with_name(f".{path.name}.new")


def publish(temporary: Path, path: Path) -> None:
    """Give a file or folder its name, durably; its content was made durable before.

    Parameters
    ----------
    temporary : Path
        On the same file system.
    path : Path
        Replaced where it is a file; a folder there must be empty.
    """
    with _step("replace", path):
        temporary.replace(path)
    sync_folder(path.parent)
    if temporary.parent != path.parent:
        sync_folder(temporary.parent)


def exchange(one: Path, other: Path) -> bool:
    """Let two files or folders have each other's name, durably and in one atomic step.

    Parameters
    ----------
    one, other : Path
        Both there, on the same file system.

    Returns
    -------
    bool
        False where the system or the file system cannot do it; nothing has happened then.
    """
    swap = _swap()
    if swap is None:
        return False
    with _step("replace", other):
        number = swap(os.fsencode(one), os.fsencode(other))
    if number in _NO_EXCHANGE:
        return False
    if number:
        raise OSError(number, os.strerror(number), str(one), None, str(other))
    sync_folder(other.parent)
    if one.parent != other.parent:
        sync_folder(one.parent)
    return True


def remove(path: Path) -> bool:
    """Remove a file, durably.

    Returns
    -------
    bool
        Whether it was there.
    """
    with _step("remove", path):
        try:
            path.unlink()
        except FileNotFoundError:
            return False
    sync_folder(path.parent)
    return True


def remove_tree(path: Path) -> bool:
    """Remove a folder with everything below it, durably; links are removed, not followed.

    It takes many steps: whoever may still read the folder must not be able to name it any more.

    Returns
    -------
    bool
        Whether it was there.
    """
    if path.is_symlink() or path.is_file():
        return remove(path)
    if not path.exists():
        return False
    for parent, folders, names in os.walk(path, topdown=False, onerror=_raise):
        links = [name for name in folders if Path(parent, name).is_symlink()]
        for name in sorted([*names, *links]):
            with _step("remove", Path(parent, name)):
                Path(parent, name).unlink(missing_ok=True)
        with _step("remove", Path(parent)):
            Path(parent).rmdir()
    sync_folder(path.parent)
    return True


def _swap() -> Callable[[bytes, bytes], int] | None:
    """The system's call for `exchange`, which gives the number of its error; Python has none."""
    library = ctypes.CDLL(None, use_errno=True)
    if hasattr(library, "renameat2"):  # Linux
        here, flag, call = ctypes.c_int(-100), ctypes.c_uint(2), library.renameat2

        def swap(one: bytes, other: bytes) -> int:
            return ctypes.get_errno() if call(here, one, here, other, flag) else 0

        return swap
    if hasattr(library, "renamex_np"):  # macOS
        return lambda one, other: (
            ctypes.get_errno() if library.renamex_np(one, other, ctypes.c_uint(2)) else 0
        )
    return None


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _raise(error: OSError) -> None:
    """`os.walk` would leave out in silence what it cannot list."""
    raise error


@contextlib.contextmanager
def _step(verb: str, path: Path) -> Iterator[None]:
    """Tell `on_step` before and, where it succeeded, after a step."""
    if on_step is not None:
        on_step(f"{verb} {path}")
    yield
    if on_step is not None:
        on_step(f"{verb} {path}")
