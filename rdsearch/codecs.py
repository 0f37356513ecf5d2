"""Codecs: how a tier keeps its vectors, and what is learnt for that.

What a codec learnt (ranges, centroids, cells) is kept as an empty FAISS index, so that rows that
are added later are kept and scored as the first ones are.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rdsearch import _faiss
from rdsearch.errors import IndexDamagedError, InputError
from rdsearch.faissfile import arrays
from rdsearch.space import Space, unit

__all__ = [
    "CODECS",
    "LEAST_ROWS",
    "WITH_CELLS",
    "Codec",
    "completed",
    "learn",
    "learn_in_space",
    "load_learnt",
    "read_faiss",
    "reason",
    "save_faiss",
    "unwrapped",
]

_LOGGER = logging.getLogger(__name__)

#: Codec name to bits a dimension; the constants that RaBitQ keeps beside its bits not counted.
CODECS = {"flat": 32, "sqfp16": 16, "sq8": 8, "rabitq4": 4, "pq4": 2, "rabitq": 1}

#: Codecs that can be split into cells.
WITH_CELLS = ("pq4", "rabitq")

#: Fewest rows that a codec can be learnt from.
LEAST_ROWS = {"pq4": 1000}

# Rows that a codec sees when it learns its ranges, and for each cell when cells are learnt.
_TRAINING_ROWS = 20_000
_TRAINING_ROWS_A_CELL = 64

# FAISS counts tables that it might compute: of cells and a product quantizer up to so many times
# the centres. They are not computed, and a file of many rows is longer.
_TABLES = 16
_MOST_TABLE_BYTES = 1 << 30

# The limits on what FAISS reads are the process's, not the thread's.
_READING = threading.Lock()


@dataclass(frozen=True, slots=True)
class Codec:
    """How a tier keeps its vectors.

    Attributes
    ----------
    name : str
        A key of `CODECS`.
    cells : int or None
        Cells of an inverted file; a search scans the rows of the nearest ones. None: all rows
        are scanned. Only ``pq4`` and ``rabitq`` come with cells.
    """

    name: str
    cells: int | None = None

    def __post_init__(self) -> None:
        if self.name not in CODECS:
            raise InputError(f"there is no codec {self.name!r}; choose from {', '.join(CODECS)}")
        if self.cells is not None and (self.name not in WITH_CELLS or self.cells < 1):
            raise InputError(
                f"cells belong to the codecs {' and '.join(WITH_CELLS)} and must be positive; "
                f"found {self.cells} cells of {self.name}"
            )

    def __str__(self) -> str:
        return self.name if self.cells is None else f"{self.name}, {self.cells} cells"

    def training_rows(self, n_rows: int) -> int:
        """Rows of `n_rows` that it learns from."""
        return min(n_rows, max(_TRAINING_ROWS, _TRAINING_ROWS_A_CELL * (self.cells or 0)))

    def make(self, dims: int) -> Any:
        """An empty FAISS index over unit vectors that scores inner products."""
        faiss = _faiss.load()
        inner = faiss.METRIC_INNER_PRODUCT
        kinds = faiss.ScalarQuantizer
        if self.name == "pq4" or self.cells is not None:
            return self._make_cells(dims)
        match self.name:
            case "flat":
                return faiss.IndexFlat(dims, inner)
            case "rabitq":
                return faiss.IndexRaBitQ(dims, inner)
            case "rabitq4":
                return faiss.IndexRaBitQ(dims, inner, 4)
            case "sq8":
                return faiss.IndexScalarQuantizer(dims, kinds.QT_8bit, inner)
            case _:
                return faiss.IndexScalarQuantizer(dims, kinds.QT_fp16, inner)

    def _make_cells(self, dims: int) -> Any:
        faiss = _faiss.load()
        inner = faiss.METRIC_INNER_PRODUCT
        cells = faiss.IndexFlatIP(dims)
        if self.name == "rabitq":
            index = faiss.IndexIVFRaBitQ(cells, dims, self.cells, inner)
        else:
            # One cell where none are wanted: unlike IndexPQFastScan this takes filters.
            if self.cells is None:
                cells.add(np.zeros((1, dims), dtype=np.float32))
            parts = dims // 2 if dims % 2 == 0 else dims
            index = faiss.IndexIVFPQFastScan(cells, dims, self.cells or 1, parts, 4, inner)
            index.by_residual = False  # several times as fast
        index.own_fields = True
        cells.this.disown()
        index.cp.spherical = True
        index.cp.min_points_per_centroid = 1  # a warning on standard output below 39
        return index


def learn(codec: Codec, space: Space, training: NDArray[np.float32]) -> Any:
    """Let a codec learn.

    Parameters
    ----------
    codec : Codec
    space : Space
        Of the tier's dimensions.
    training : ndarray, shape (n, dims), float32
        rd prefixes.

    Returns
    -------
    faiss.Index
        Empty. Takes unit vectors in the space.
    """
    return learn_in_space(codec, unit(space.transform(training)))


def learn_in_space(codec: Codec, training: NDArray[np.float32]) -> Any:
    """Let a codec learn from vectors of a tier's space.

    Parameters
    ----------
    codec : Codec
    training : ndarray, shape (n, dims), float32
        Unit vectors.

    Returns
    -------
    faiss.Index
        As `learn`.
    """
    learnt = codec.make(training.shape[1])
    learnt.train(np.ascontiguousarray(training, dtype=np.float32))
    return completed(learnt)


def unwrapped(wrapped: Any) -> Any:
    """The codec behind the transforms of an index, which still owns it; their matrices go."""
    faiss = _faiss.load()
    for i in range(wrapped.chain.size()):
        transform = faiss.downcast_VectorTransform(wrapped.chain.at(i))
        if isinstance(transform, faiss.LinearTransform):
            transform.A.swap(faiss.Float32Vector())
    return completed(faiss.downcast_index(wrapped.index))


def completed(codec: Any) -> Any:
    """Set what FAISS 1.15 leaves out when it reads a fast scan, and decodes through."""
    if isinstance(codec, _faiss.load().IndexIVFPQFastScan):
        codec.fine_quantizer = codec.pq
    return codec


def save_faiss(index: Any, path: Path) -> None:
    """Write a FAISS index.

    Raises
    ------
    OSError
        The disk is full, or the file cannot be made.
    """
    try:
        _faiss.load().write_index(index, str(path))
    except RuntimeError as error:  # how FAISS reports a full disk
        raise OSError(f"{path} cannot be written: {reason(error)}") from error


def read_faiss(path: Path, dims: int, flags: int = 0) -> Any:
    """Read a FAISS index; no part of it takes much more memory than the file is long.

    Parameters
    ----------
    path : Path
    dims : int
        FAISS counts a matrix of ``dims * dims`` for every transform, even one without.
    flags : int, optional
        FAISS's, for reading. They count where the layout of the file is known and sound: FAISS
        1.15 reads past the end of a mapped file that says that an array is longer than it is.

    Raises
    ------
    IndexDamagedError
        FAISS cannot read it.
    """
    try:
        if flags and arrays(path) is None:
            _LOGGER.info("%s: read into memory, for its layout is not known", path)
            flags = 0
        size = path.stat().st_size
        tables = min(_TABLES * size, _MOST_TABLE_BYTES)
        with _limited(max(size, 4 * dims * dims, tables), size):
            return _faiss.load().read_index(str(path), flags)
    except (RuntimeError, MemoryError, OSError) as error:
        raise IndexDamagedError(
            f"{path}: FAISS cannot read it ({reason(error)}). Restore the file or build again",
            path=path,
        ) from error


@contextmanager
def _limited(array_bytes: int, loops: int) -> Iterator[None]:
    """Limits on what FAISS makes room for while it reads."""
    faiss = _faiss.load()
    with _READING:
        before = faiss.get_deserialization_vector_byte_limit()
        before_loops = faiss.get_deserialization_loop_limit()
        faiss.set_deserialization_vector_byte_limit(array_bytes)
        faiss.set_deserialization_loop_limit(loops)
        try:
            yield
        finally:
            faiss.set_deserialization_vector_byte_limit(before)
            faiss.set_deserialization_loop_limit(before_loops)


def load_learnt(path: Path, dims: int) -> Any:
    """An empty codec, ready for rows.

    Raises
    ------
    IndexDamagedError
        Not what `learn` made and `save_faiss` wrote.
    """
    codec = read_faiss(path, dims)
    if codec.d != dims or codec.ntotal or not codec.is_trained:
        raise IndexDamagedError(
            f"{path}: expected an empty codec of {dims} dimensions, found {codec.ntotal} rows of "
            f"{codec.d}. Restore the file or build again",
            path=path,
        )
    return completed(codec)


def reason(error: BaseException) -> str:
    """The last line of a FAISS message, without its C++ location."""
    text = str(error).strip()
    return text.splitlines()[-1].rpartition("Error: ")[2] if text else type(error).__name__
