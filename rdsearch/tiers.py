"""Tier files: one plain FAISS index over rd prefixes at every prefix boundary.

A tier file can be used without rdsearch::

    index = faiss.read_index("650M.faiss")
    scores, rows = index.search(rd[:, :1280], k)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rdsearch import _faiss
from rdsearch.errors import IndexDamagedError, InputError
from rdsearch.space import Space

__all__ = ["CODECS", "TRAINING_ROWS", "Tier", "read", "write"]

#: Rows that a codec sees at most when it learns its ranges.
TRAINING_ROWS = 100_000

#: Codec name to bits a dimension; the constants that RaBitQ keeps beside its bits not counted.
CODECS = {"flat": 32, "sqfp16": 16, "sq8": 8, "rabitq": 1}


def _codec(name: str, dims: int) -> Any:
    """An empty inner product index with this codec."""
    faiss = _faiss.load()
    inner = faiss.METRIC_INNER_PRODUCT
    if name == "flat":
        return faiss.IndexFlat(dims, inner)
    if name == "rabitq":
        return faiss.IndexRaBitQ(dims, inner)
    kinds = {
        "sqfp16": faiss.ScalarQuantizer.QT_fp16,
        "sq8": faiss.ScalarQuantizer.QT_8bit,
    }
    if name not in kinds:
        raise InputError(f"there is no codec {name!r}; choose from {', '.join(CODECS)}")
    return faiss.IndexScalarQuantizer(dims, kinds[name], inner)


def write(
    path: Path,
    space: Space,
    codec: str,
    training: NDArray[np.float32],
    blocks: Iterable[NDArray[np.float32]],
) -> int:
    """Write the FAISS index of one tier.

    Parameters
    ----------
    path : Path
        The file to write.
    space : Space
        Its mean has the tier's dimensions.
    codec : str
        A key of `CODECS`.
    training : ndarray, shape (n, dims), float32
        Rows that the codec learns its ranges from.
    blocks : iterable of ndarray, shape (block, dims), float32
        All rows in order.

    Returns
    -------
    int
        Rows written.
    """
    faiss = _faiss.load()
    index = space.wrap(_codec(codec, space.mean.shape[0]))
    index.train(np.ascontiguousarray(training, dtype=np.float32))
    for block in blocks:
        index.add(np.ascontiguousarray(block, dtype=np.float32))
    try:
        faiss.write_index(index, str(path))
    except RuntimeError as error:  # how FAISS reports a full disk
        raise OSError(f"{path} cannot be written: {_reason(error)}") from error
    return int(index.ntotal)


@dataclass(frozen=True, slots=True)
class Tier:
    """One opened tier file.

    Attributes
    ----------
    name : str
        The member that ends this tier.
    dims : int
        Length of the prefix.
    index : faiss.Index
        Takes prefixes, scores inner products in the tier's space.
    """

    name: str
    dims: int
    index: Any

    @property
    def n_rows(self) -> int:
        """Rows in the index."""
        return int(self.index.ntotal)

    def scores(
        self, queries: NDArray[np.float32], rows: Sequence[NDArray[np.int64]]
    ) -> list[NDArray[np.float32]]:
        """Score chosen rows, one by one.

        FAISS sums in another order in batches than one by one, so that equal vectors can get
        scores that differ in the last bit. One by one they are equal, which a deterministic
        order needs.

        Parameters
        ----------
        queries : ndarray, shape (q, at least dims), float32
            rd embeddings; the tier cuts its prefix.
        rows : sequence of ndarray of int64
            For each query the rows to score.

        Returns
        -------
        list of ndarray of float32
            Scores, shaped as `rows`.
        """
        faiss = _faiss.load()
        computer = self.index.get_distance_computer()
        scored = []
        for query, chosen in zip(queries, rows, strict=True):
            prefix = np.ascontiguousarray(query[: self.dims], dtype=np.float32)
            computer.set_query(faiss.swig_ptr(prefix))
            scored.append(np.array([computer(int(row)) for row in chosen], dtype=np.float32))
        return scored


def read(path: Path, name: str, dims: int, n_rows: int) -> Tier:
    """Open a tier file.

    Raises
    ------
    IndexDamagedError
        When FAISS cannot read it, or it has other dimensions or rows than the manifest says.
    """
    faiss = _faiss.load()
    try:
        index = faiss.read_index(str(path))
    except (RuntimeError, MemoryError) as error:
        raise IndexDamagedError(
            f"{path}: FAISS cannot read it ({_reason(error)}). Restore the file or build again",
            path=path,
        ) from error
    if (index.d, index.ntotal) != (dims, n_rows):
        raise IndexDamagedError(
            f"{path}: expected {n_rows} rows of {dims} dimensions, found {index.ntotal} of "
            f"{index.d}. Restore the file or build again",
            path=path,
        )
    return Tier(name, dims, index)


def _reason(error: BaseException) -> str:
    """The last line of a FAISS message, without its C++ location."""
    text = str(error).strip()
    return text.splitlines()[-1].rpartition("Error: ")[2] if text else type(error).__name__
