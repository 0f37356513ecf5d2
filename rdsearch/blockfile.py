"""Arrays that are filled block by block, each block durable before it is marked done."""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from rdsearch import durable
from rdsearch.errors import StoreError

__all__ = ["BlockFiles"]


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

    Raises
    ------
    StoreError
        An array that is there is damaged.
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
        self._marks = done = folder / "done" / name
        try:
            done.parent.mkdir(exist_ok=True)
            self._paths = [folder / kind / f"{name}.npy" for kind, _ in targets]
            if not all(path.exists() for path in self._paths):
                # Marks whose vectors are gone would pass zeros off as results.
                durable.remove(done)
            for path, columns in zip(self._paths, self._columns, strict=True):
                handle, header = _array_file(path, (rows, columns))
                self._handles.append(handle)
                self._headers.append(header)
            self._done = _open_sized(done, blocks)
            self._handles.append(self._done)
            durable.sync_folder(done.parent)
            durable.sync_folder(folder)
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
        start, stop = self.rows_of(block)
        arrays = zip(
            self._paths, self._handles, self._headers, self._columns, contents, strict=False
        )
        for path, handle, header, columns, content in arrays:
            data = np.ascontiguousarray(content, dtype="<f4")
            if data.shape != (stop - start, columns):
                # It would be written over the block beside it.
                raise ValueError(f"a block of {stop - start} rows of {columns}: {data.shape}")
            _write_all(handle, data.tobytes(), header + start * columns * 4)
            durable.sync_handle(handle, path)
        _write_all(self._done, b"\1", block)
        durable.sync_handle(self._done, self._marks)

    def _close(self) -> None:
        for handle in self._handles:
            os.close(handle)
        self._handles = []


def _array_file(path: Path, shape: tuple[int, int]) -> tuple[int, int]:
    """Handle of a float32 .npy file of this shape, and the size of its header."""
    written = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        written, {"descr": "<f4", "fortran_order": False, "shape": shape}
    )
    header = written.getvalue()
    size = len(header) + shape[0] * shape[1] * 4
    path.parent.mkdir(exist_ok=True)
    if not path.exists():
        temporary = durable.temporary_file(path)
        try:
            with temporary.open("wb") as file:
                file.write(header)
                file.flush()
                _take_room(file.fileno(), size)
            durable.sync_file(temporary)
            durable.publish(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    else:
        durable.sync_folder(path.parent)
    handle = os.open(path, os.O_RDWR)
    found = os.fstat(handle).st_size
    if found != size or os.pread(handle, len(header), 0) != header:
        os.close(handle)
        raise StoreError(
            f"{path}: expected an array of shape {shape} in {size} bytes, found {found} bytes of "
            "something else. Remove this file: its blocks are then computed again",
            path=path,
        )
    return handle, len(header)


def _take_room(handle: int, size: int) -> None:
    """Make a file this long, with its blocks on the disk where the file system can do that."""
    allocate = getattr(os, "posix_fallocate", None)
    if allocate is not None:
        try:
            allocate(handle, 0, size)
            return
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
                raise
    os.ftruncate(handle, size)


def _open_sized(path: Path, size: int) -> int:
    """Handle of a file of this many bytes, zero where it is new.

    It takes its room, too: a mark that does not fit on the disk costs the block.
    """
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        if os.fstat(handle).st_size != size:
            os.ftruncate(handle, min(size, os.fstat(handle).st_size))
            _take_room(handle, size)
            durable.sync_handle(handle, path)
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
