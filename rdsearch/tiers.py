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

__all__ = ["CODECS", "LEAST_ROWS", "WITH_CELLS", "Codec", "Tier", "read", "write"]

#: Codec name to bits a dimension; the constants that RaBitQ keeps beside its bits not counted.
CODECS = {"flat": 32, "sqfp16": 16, "sq8": 8, "rabitq4": 4, "pq4": 2, "rabitq": 1}

#: Codecs that can be split into cells.
WITH_CELLS = ("pq4", "rabitq")

#: Fewest rows that a codec can be learnt from.
LEAST_ROWS = {"pq4": 1000}

# Rows that a codec sees when it learns its ranges, and for each cell when cells are learnt.
_TRAINING_ROWS = 20_000
_TRAINING_ROWS_A_CELL = 64

# Bits that RaBitQ rounds the query to; its unrounded scan is a hundred times slower.
_QUERY_BITS = 4


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


def write(
    path: Path,
    space: Space,
    codec: Codec,
    training: NDArray[np.float32],
    blocks: Iterable[NDArray[np.float32]],
) -> int:
    """Write the FAISS index of one tier.

    Parameters
    ----------
    path : Path
        The file to write.
    space : Space
        Of the tier's dimensions.
    codec : Codec
    training : ndarray, shape (n, dims), float32
        Rows that the codec learns its ranges and cells from.
    blocks : iterable of ndarray, shape (block, dims), float32
        All rows in order.

    Returns
    -------
    int
        Rows written.
    """
    faiss = _faiss.load()
    index = space.wrap(codec.make(space.dims))
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
    index : faiss.IndexPreTransform
        Takes rd prefixes, scores inner products in the tier's space: the file as it is.
    codec : faiss.Index
        The part behind the transforms: takes unit vectors in the tier's space.
    """

    name: str
    dims: int
    index: Any
    codec: Any

    @property
    def n_rows(self) -> int:
        """Rows in the index."""
        return int(self.index.ntotal)

    @property
    def cells(self) -> int | None:
        """Cells of its inverted file, if it has several."""
        cells = int(getattr(self.codec, "nlist", 1))
        return cells if cells > 1 else None

    @property
    def row_bytes(self) -> int:
        """Bytes of one row's code."""
        return int(self.codec.code_size)

    @property
    def exact(self) -> bool:
        """Whether it keeps float32 values, which FAISS scans by matrix products in batches."""
        return isinstance(self.codec, _faiss.load().IndexFlat)

    @property
    def decoded(self) -> bool:
        """Whether chosen rows are scored by their decoded vectors.

        FAISS's fast scan of a product quantizer has no scores of single rows, and rounds those of
        its scan to 8 bits a part.
        """
        return isinstance(self.codec, _faiss.load().IndexIVFPQFastScan)

    @property
    def rescored(self) -> bool:
        """Whether what a scan finds is scored again: its own scores are not those of `scores`."""
        return self.exact or self.decoded

    def parameters(self, selector: Any = None, probes: int | None = None) -> Any:
        """Search parameters of the codec.

        Parameters
        ----------
        selector : faiss.IDSelector, optional
            Rows that may be found. The caller keeps it alive.
        probes : int, optional
            Cells to scan, where there are cells; all where it is not given.
        """
        faiss = _faiss.load()
        if hasattr(self.codec, "getDevice"):
            return None  # on a GPU there are none
        chosen = {} if selector is None else {"sel": selector}
        every = self.cells or 1
        probes = every if probes is None else min(probes, every)
        if self.decoded:
            return faiss.SearchParametersIVF(nprobe=probes, **chosen)
        if self.cells is not None:
            return faiss.IVFRaBitQSearchParameters(nprobe=probes, qb=_QUERY_BITS, **chosen)
        if isinstance(self.codec, faiss.IndexRaBitQ):
            return faiss.RaBitQSearchParameters(qb=_QUERY_BITS, **chosen)
        return faiss.SearchParameters(**chosen)

    def scores(
        self, queries: NDArray[np.float32], rows: Sequence[NDArray[np.int64]]
    ) -> list[NDArray[np.float32]]:
        """Score chosen rows.

        FAISS sums in another order in batches than one by one, so that equal vectors can get
        scores that differ in the last bit. Here they are equal, which a deterministic order
        needs.

        Parameters
        ----------
        queries : ndarray, shape (q, dims), float32
            Unit vectors in the tier's space.
        rows : sequence of ndarray of int64
            For each query the rows to score.

        Returns
        -------
        list of ndarray of float32
            Scores, shaped as `rows`.
        """
        if self.exact:
            return [self._inner_products(*pair) for pair in zip(queries, rows, strict=True)]
        if self.decoded:
            # einsum adds up every row in the same order, which a matrix product does not.
            return [
                np.einsum("ij,j->i", self.vectors(chosen), query)
                for query, chosen in zip(queries, rows, strict=True)
            ]
        faiss = _faiss.load()
        self._number_rows()
        computer = self.codec.get_distance_computer()
        scored = []
        for query, chosen in zip(queries, rows, strict=True):
            vector = np.ascontiguousarray(query, dtype=np.float32)
            computer.set_query(faiss.swig_ptr(vector))
            scored.append(np.array([computer(row) for row in chosen.tolist()], dtype=np.float32))
        return scored

    def _number_rows(self) -> None:
        """Let FAISS find rows in cells: 8 bytes a row, not in the file, seldom needed."""
        if hasattr(self.codec, "direct_map") and self.codec.direct_map.no():
            self.codec.make_direct_map()

    def _inner_products(
        self, query: NDArray[np.float32], rows: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        faiss = _faiss.load()
        vector = np.ascontiguousarray(query, dtype=np.float32)
        chosen = np.ascontiguousarray(rows, dtype=np.int64)
        scores = np.empty(len(chosen), dtype=np.float32)
        faiss.fvec_inner_products_by_idx(
            faiss.swig_ptr(scores),
            faiss.swig_ptr(vector),
            self.codec.get_xb(),
            faiss.swig_ptr(chosen),
            self.dims,
            1,
            len(chosen),
        )
        return scores

    def vectors(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """The tier's own vectors of rows, as its codec keeps them.

        Parameters
        ----------
        rows : ndarray, shape (n,), int64

        Returns
        -------
        ndarray, shape (n, dims), float32
            In the tier's space; of unit length but for the codec's rounding.
        """
        self._number_rows()
        chosen = np.ascontiguousarray(rows, dtype=np.int64)
        found: NDArray[np.float32] = self.codec.reconstruct_batch(chosen)
        return found


def read(path: Path, name: str, dims: int, n_rows: int, *, mapped: bool = False) -> Tier:
    """Open a tier file.

    Parameters
    ----------
    path : Path
    name : str
    dims, n_rows : int
        What the file must have.
    mapped : bool, optional
        Leave the vectors on the disk and map them into memory: opening reads next to nothing,
        and a search reads the rows it scores.

    Raises
    ------
    IndexDamagedError
        When FAISS cannot read it, or it has other dimensions or rows than the manifest says.
    """
    faiss = _faiss.load()
    try:
        index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC if mapped else 0)
    except (RuntimeError, MemoryError) as error:
        raise IndexDamagedError(
            f"{path}: FAISS cannot read it ({_reason(error)}). Restore the file or build again",
            path=path,
        ) from error
    if (index.d, index.ntotal) != (dims, n_rows) or not isinstance(index, faiss.IndexPreTransform):
        raise IndexDamagedError(
            f"{path}: expected {n_rows} rows of {dims} dimensions behind their transforms, found "
            f"{index.ntotal} of {index.d} in {type(index).__name__}. Restore the file or build "
            "again",
            path=path,
        )
    codec = faiss.downcast_index(index.index)
    if isinstance(codec, faiss.IndexIVFPQFastScan):
        # FAISS 1.15 does not set this pointer when it reads, and decoding would go through it.
        codec.fine_quantizer = codec.pq
    return Tier(name, dims, index, codec)


def _reason(error: BaseException) -> str:
    """The last line of a FAISS message, without its C++ location."""
    text = str(error).strip()
    return text.splitlines()[-1].rpartition("Error: ")[2] if text else type(error).__name__
