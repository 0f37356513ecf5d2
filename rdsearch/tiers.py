"""Tier files: one plain FAISS index over rd prefixes at every prefix boundary.

A tier file can be used without rdsearch::

    index = faiss.read_index("650M.faiss")
    scores, rows = index.search(rd[:, :1280], k)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rdsearch import _faiss
from rdsearch.codeccheck import check_codec
from rdsearch.codecs import read_faiss, save_faiss, unwrapped
from rdsearch.errors import IndexDamagedError
from rdsearch.space import Space

__all__ = ["Tier", "read", "write"]

# Bits that RaBitQ rounds the query to; its unrounded scan is a hundred times slower.
_QUERY_BITS = 4


def write(
    path: Path,
    space: Space,
    learnt: Any,
    blocks: Iterable[NDArray[np.float32]],
    *,
    in_space: bool = False,
) -> int:
    """Write the FAISS index of one tier.

    Parameters
    ----------
    path : Path
        The file to write.
    space : Space
        Of the tier's dimensions.
    learnt : faiss.Index
        An empty codec, from `rdsearch.codecs`; it is used up.
    blocks : iterable of ndarray, shape (block, dims), float32
        All rows in order: rd prefixes.
    in_space : bool, optional
        They are unit vectors in the space already, as another tier file keeps them.

    Returns
    -------
    int
        Rows written.
    """
    index = space.wrap(learnt)
    takes = learnt if in_space else index
    for block in blocks:
        takes.add(np.ascontiguousarray(block, dtype=np.float32))
    index.ntotal = learnt.ntotal
    save_faiss(index, path)
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
    codec : faiss.Index
        What the file has behind the transforms: takes unit vectors in the tier's space.
    owner : faiss.Index
        What keeps the codec alive.
    """

    name: str
    dims: int
    codec: Any
    owner: Any = field(default=None, repr=False)

    @property
    def n_rows(self) -> int:
        """Rows in the index."""
        return int(self.codec.ntotal)

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
    def linear(self) -> bool:
        """Whether a score is the product of the query with the row's decoded vector.

        Not so for RaBitQ, which rounds the query and corrects for the rounding.
        """
        return isinstance(self.codec, _faiss.load().IndexScalarQuantizer) or self.rescored

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

    def scanned(self, query: NDArray[np.float32], probes: int) -> int:
        """Rows in the cells that a query scans.

        Parameters
        ----------
        query : ndarray, shape (dims,), float32
            Unit vector in the tier's space.
        probes : int
        """
        if self.cells is None:
            return self.n_rows
        vector = np.ascontiguousarray(query[None])
        near = self.codec.quantizer.search(vector, min(probes, self.cells))[1][0]
        return sum(self.codec.invlists.list_size(int(cell)) for cell in near)

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

    The transforms are let go: queries are mapped into the space once for all tiers, and a
    whitening matrix would stay in memory for each.

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
    index = read_faiss(path, dims, faiss.IO_FLAG_MMAP_IFC if mapped else 0)
    if (index.d, index.ntotal) != (dims, n_rows) or not isinstance(index, faiss.IndexPreTransform):
        raise IndexDamagedError(
            f"{path}: expected {n_rows} rows of {dims} dimensions behind their transforms, found "
            f"{index.ntotal} of {index.d} in {type(index).__name__}. Restore the file or build "
            "again",
            path=path,
        )
    codec = unwrapped(index)
    check_codec(path, codec, dims, n_rows)
    return Tier(name, dims, codec, index)
