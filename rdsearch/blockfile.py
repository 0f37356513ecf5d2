"""Arrays that are filled block by block, each block durable before it is marked done."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from rdsearch.errors import StoreError
from rdsearch.manifest import sync_folder

__all__ = ["BlockFiles", "locked", "replace_durably"]


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other writers out of a folder; the system lets go when the process dies.

    Raises
    ------
    StoreError
        Another process is writing.
    """
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StoreError(
                f"{folder}: another process is writing this store. Wait for it, or choose another "
                "folder",
                path=folder,
            ) from error
        yield
    finally:
        os.close(handle)


def replace_durably(path: Path, content: bytes) -> None:
    """Write a small file in one atomic step."""
    temporary = path.with_name(f".{path.name}.new")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    sync_folder(path.parent)


class BlockFiles:
    """The arrays of one member and the record of its finished blocks.

    The arrays are ``.npy`` files of their final size from the beginning: room on the disk is
    taken before the work and not missed in the middle of it. They are written with `pwrite`: on a
    full disk that is an error, where a store through a memory map would kill the process.

    Parameters
    ----------
    folder : Path
        The store.
    name : str
        The member.
    targets : sequence of (str, int)
        Subfolder and columns of each array.
    rows, block_rows : int
        Rows of the arrays, and of a block.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        targets: Sequence[tuple[str, int]],
        *,
        rows: int,
        block_rows: int,
    ) -> None:
        self._rows, self._block_rows = rows, block_rows
        self._columns = [columns for _, columns in targets]
        blocks = -(-rows // block_rows)
        self._handles: list[int] = []
        self._headers: list[int] = []
        try:
            for kind, columns in targets:
                path = folder / kind / f"{name}.npy"
                handle, header = _array_file(path, (rows, columns))
                self._handles.append(handle)
                self._headers.append(header)
            done = folder / "done" / name
            done.parent.mkdir(exist_ok=True)
            self._done = _open_sized(done, blocks)
            self._handles.append(self._done)
            sync_folder(done.parent)
            sync_folder(folder)
        except BaseException:
            self._close()
            raise

    def __enter__(self) -> BlockFiles:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._close()

    def pending(self) -> list[int]:
        """Blocks that are not done."""
        marks = os.pread(self._done, os.fstat(self._done).st_size, 0)
        return [block for block, mark in enumerate(marks) if mark != 1]

    def rows_of(self, block: int) -> tuple[int, int]:
        """First row of a block, and the row after its last."""
        start = block * self._block_rows
        return start, min(start + self._block_rows, self._rows)

    def rows_in(self, blocks: Iterable[int]) -> int:
        """Rows of these blocks together."""
        return sum(stop - start for start, stop in map(self.rows_of, blocks))

    def finish(self, block: int, contents: Sequence[NDArray[np.float32]]) -> None:
        """Write the rows of a block in each array, wait for the disk, then mark it done."""
        start, _ = self.rows_of(block)
        arrays = zip(self._handles, self._headers, self._columns, contents, strict=False)
        for handle, header, columns, content in arrays:
            data = np.ascontiguousarray(content, dtype="<f4")
            _write_all(handle, data.tobytes(), header + start * columns * 4)
            os.fdatasync(handle)
        _write_all(self._done, b"\1", block)
        os.fdatasync(self._done)

    def _close(self) -> None:
        for handle in self._handles:
            os.close(handle)
        self._handles = []


def _array_file(path: Path, shape: tuple[int, int]) -> tuple[int, int]:
    """Handle of a float32 .npy file of this shape, and the size of its header."""
    path.parent.mkdir(exist_ok=True)
    temporary = path.with_name(f".{path.name}.new")
    if not path.exists():
        with temporary.open("wb") as file:
            np.lib.format.write_array_header_1_0(
                file, {"descr": "<f4", "fortran_order": False, "shape": shape}
            )
            header = file.tell()
            if size := shape[0] * shape[1] * 4:
                os.posix_fallocate(file.fileno(), 0, header + size)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    with path.open("rb") as file:
        np.lib.format.read_magic(file)
        np.lib.format.read_array_header_1_0(file)
        header = file.tell()
    sync_folder(path.parent)
    return os.open(path, os.O_RDWR), header


def _open_sized(path: Path, size: int) -> int:
    """Handle of a file of this many bytes, zero where it is new."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        if os.fstat(handle).st_size != size:
            os.ftruncate(handle, size)
            os.fsync(handle)
    except BaseException:
        os.close(handle)
        raise
    return handle


def _write_all(handle: int, data: bytes, offset: int) -> None:
    """`pwrite` may write less than it was given."""
    view = memoryview(data)
    while view:
        written = os.pwrite(handle, view, offset)
        view, offset = view[written:], offset + written
