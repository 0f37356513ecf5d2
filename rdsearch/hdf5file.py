"""HDF5 in the layout of UniProt's embedding files: one dataset an accession, at the root."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rdsearch.errors import InputError

if TYPE_CHECKING:
    import h5py

__all__ = ["Hdf5Writer", "read_vectors", "twice"]

# Where a dataset's name is not the accession; bio_embeddings writes the same attribute.
_ORIGINAL = "original_id"
_SHOWN = 3


class Hdf5Writer:
    """A new HDF5 file with one dataset an accession. A context manager.

    Parameters
    ----------
    path : Path

    Raises
    ------
    OSError
        From any method: the file cannot be written.
    """

    def __init__(self, path: Path) -> None:
        import h5py

        self._disk = _Disk(path)
        try:
            self._file = h5py.File(self._disk, "w")
        except BaseException:
            self._disk.close()
            raise

    def __enter__(self) -> Hdf5Writer:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._file.close()
        finally:
            self._disk.close()
        self._disk.check()

    def add(self, accession: str, content: NDArray[np.floating]) -> None:
        """Write the dataset of an accession.

        Raises
        ------
        InputError
            An accession that is there already.
        """
        name = self._new_name(accession)
        data = self._file.create_dataset(name, data=content)
        if name != accession:
            data.attrs[_ORIGINAL] = accession
        self._disk.check()

    def link(self, accession: str, first: str) -> None:
        """Give the dataset of an accession a second name.

        Raises
        ------
        InputError
            An accession that is there already.
        """
        self._file[self._new_name(accession)] = self._file[_dataset_name(first)]
        self._disk.check()

    def _new_name(self, accession: str) -> str:
        name = _dataset_name(accession)
        if name in self._file:
            raise twice(accession)
        return name


def twice(accession: str) -> InputError:
    """The error for an accession that would need two datasets."""
    return InputError(
        f"{accession} is in the input twice: expected one protein for each accession (in HDF5 a "
        "slash counts as an underscore)",
        accession=accession,
    )


def _dataset_name(accession: str) -> str:
    # A slash would make a group of what stands before it.
    return accession.replace("/", "_")


class _Disk:
    """The file beneath an HDF5 file.

    HDF5 cannot give up: on a full disk it tries each of its open objects again, with a traceback
    for each, and fails once more when it closes. So it is told that everything was written, and
    `check` raises what really happened.
    """

    def __init__(self, path: Path) -> None:
        self._handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o666)
        self._position = 0
        self._path = path
        self._error: OSError | None = None

    def check(self) -> None:
        if self._error is not None:
            raise OSError(self._error.errno, self._error.strerror, str(self._path))

    def close(self) -> None:
        os.close(self._handle)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position}
        self._position = offset + (
            base[whence] if whence in base else os.fstat(self._handle).st_size
        )
        return self._position

    def tell(self) -> int:
        return self._position

    def write(self, data: bytes | memoryview) -> int:
        view = memoryview(data).cast("B")
        while view and self._error is None:
            with self._noting():
                written = os.pwrite(self._handle, view, self._position)
                view, self._position = view[written:], self._position + written
        self._position += len(view)
        return len(data)

    def read(self, size: int) -> bytes:
        found = os.pread(self._handle, size, self._position)
        self._position += len(found)
        return found

    def readinto(self, target: bytearray | memoryview) -> int:
        found = self.read(len(target))
        target[: len(found)] = found
        return len(found)

    def truncate(self, size: int) -> int:
        with self._noting():
            os.ftruncate(self._handle, size)
        return size

    def flush(self) -> None:
        pass

    @contextlib.contextmanager
    def _noting(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self._error = error


def read_vectors(path: Path) -> tuple[list[str], NDArray[np.float32]]:
    """Accessions and vectors of a per-protein file.

    Raises
    ------
    InputError
        A dataset that is not one vector, vectors of different length.
    OSError, ValueError
        The file is missing or damaged.
    """
    import h5py

    with h5py.File(path, "r") as file:
        names, vectors = [], []
        for name, item in file.items():
            if not _is_vector(item, h5py.Dataset):
                raise InputError(
                    f"{path}: {name} is not one vector (a 1-D dataset of floating point numbers); "
                    "expected a per-protein file"
                )
            names.append(str(item.attrs.get(_ORIGINAL, name)))
            vectors.append(np.asarray(item, dtype=np.float32))
    if not vectors:
        raise InputError(f"{path}: there is no dataset in it; expected one for each protein")
    widths = sorted({len(vector) for vector in vectors})
    if len(widths) > 1:
        raise InputError(f"{path}: its vectors differ in length: {widths[:_SHOWN]}")
    return names, np.stack(vectors)


def _is_vector(item: object, dataset: type[h5py.Dataset]) -> bool:
    return isinstance(item, dataset) and item.ndim == 1 and item.dtype.kind == "f"
