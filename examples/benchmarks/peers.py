"""The sides of the search benchmark that search full-width vectors: one class each.

All of them get centred, normalised vectors and search by inner product, so that each scores by the
cosine of an index's last tier. A library is imported when its side is used.
"""

from __future__ import annotations

import json
import time
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.format import open_memmap
from side import Effort, Floats, Rows, Side
from vectors import Vectors

# Graphs: neighbours of a node, and candidates while it is added.
_NEIGHBOURS, _CANDIDATES = 32, 80
# Cells: a multiple of the square root of the rows; training rows for each, rounds of k-means.
_CELLS_PER_SQRT_ROW = 4.0
_TRAINING_ROWS_A_CELL, _TRAINING_ROUNDS = 40, 10
_BREADTHS = (16, 32, 64, 128, 256, 512, 1024, 2048)
_PROBES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
_REFINED = (2, 4, 8, 16, 32, 64, 128, 256)
_STREAMED = 65_536


class FlatIP(Side):
    """The exact scan: in memory, or streamed from its file where that is half of the memory."""

    name = "FAISS IndexFlatIP"

    def build(self, vectors: Vectors) -> float:
        shape = (vectors.n_rows, vectors.dims)
        stored = open_memmap(self.folder / "unit.npy", mode="w+", dtype=np.float32, shape=shape)
        start = 0
        for block in vectors.unit_blocks():
            stored[start : start + len(block)] = block
            start += len(block)
        stored.flush()
        return 0.0

    def open(self) -> None:
        self._stored = np.load(self.folder / "unit.npy", mmap_mode="r")
        self._index = None
        if self._stored.nbytes <= self.memory / 2:
            self._index = self.module.IndexFlatIP(self._stored.shape[1])
            self._index.add(self._stored)
            self._size = self._stored.nbytes
            del self._stored

    def ladders(self) -> Sequence[Sequence[Effort]]:
        return [[{}]]

    def search(self, queries: Floats, k: int, effort: Effort) -> Rows:
        if self._index is not None:
            return self._index.search(queries, k)[1]
        scores = np.empty((len(queries), 0), np.float32)
        rows = np.empty((len(queries), 0), np.int64)
        for start in range(0, len(self._stored), _STREAMED):
            block = self._stored[start : start + _STREAMED]
            best = self.module.knn(queries, block, k, metric=self.module.METRIC_INNER_PRODUCT)
            scores, rows = np.hstack([scores, best[0]]), np.hstack([rows, best[1] + start])
            order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
            scores = np.take_along_axis(scores, order, axis=1)
            rows = np.take_along_axis(rows, order, axis=1)
        return rows

    def touched(self, queries: Floats, k: int, effort: Effort) -> float | None:
        return float(self._stored.nbytes if self._index is None else self._size)


class FaissFile(Side):
    """A FAISS index of one file, in memory when it is opened."""

    def open(self) -> None:
        self._index = self.module.read_index(str(self.folder / "index.faiss"))

    def _write(self, index: Any) -> None:
        self.module.write_index(index, str(self.folder / "index.faiss"))

    def search(self, queries: Floats, k: int, effort: Effort) -> Rows:
        return self._index.search(queries, k, params=self._parameters(effort))[1]

    @abstractmethod
    def _parameters(self, effort: Effort) -> Any:
        """FAISS's search parameters of an effort."""


class HNSWFlat(FaissFile):
    name = "FAISS IndexHNSWFlat"
    graph = True

    def build(self, vectors: Vectors) -> float:
        inner = self.module.METRIC_INNER_PRODUCT
        index = self.module.IndexHNSWFlat(vectors.dims, _NEIGHBOURS, inner)
        index.hnsw.efConstruction = _CANDIDATES
        for block in vectors.unit_blocks():
            index.add(block)
        self._write(index)
        return 0.0

    def ladders(self) -> Sequence[Sequence[Effort]]:
        return [[{"efSearch": breadth} for breadth in _BREADTHS]]

    def _parameters(self, effort: Effort) -> Any:
        return self.module.SearchParametersHNSW(**effort)

    def touched(self, queries: Floats, k: int, effort: Effort) -> float | None:
        statistics = self.module.cvar.hnsw_stats
        statistics.reset()
        self.search(queries, k, effort)
        return statistics.ndis * 4.0 * self._index.d / len(queries)


class IVFFlat(FaissFile):
    name = "FAISS IVF-Flat"

    def build(self, vectors: Vectors) -> float:
        centres, seconds = _centres(self.module, vectors, self.folder.parent)
        self._write(self._filled(centres, vectors))
        return seconds

    def _filled(self, centres: Any, vectors: Vectors) -> Any:
        inner = self.module.METRIC_INNER_PRODUCT
        index = self.module.IndexIVFFlat(centres, vectors.dims, centres.ntotal, inner)
        index.train(vectors.unit(vectors.sample(1000)))  # the centres are there already
        for block in vectors.unit_blocks():
            index.add(block)
        return index

    def ladders(self) -> Sequence[Sequence[Effort]]:
        return [[{"nprobe": n} for n in _PROBES if n <= self._cells().nlist]]

    def _cells(self) -> Any:
        return self._index

    def _parameters(self, effort: Effort) -> Any:
        return self.module.SearchParametersIVF(nprobe=effort["nprobe"])

    def touched(self, queries: Floats, k: int, effort: Effort) -> float | None:
        cells = self._cells()
        near = cells.quantizer.search(queries, effort["nprobe"])[1]
        sizes = np.array([cells.invlists.list_size(i) for i in range(cells.nlist)])
        scanned = sizes[near].sum() / len(queries)
        return float(cells.nlist * 4 * cells.d + scanned * cells.code_size)


class IVFPQRefined(IVFFlat):
    """4-bit product codes of 16 dimensions, scanned in registers, and float32 vectors to refine.

    FAISS's fastest codes on a CPU.
    """

    name = "FAISS IVF-PQ + refine"

    def _filled(self, centres: Any, vectors: Vectors) -> Any:
        self._codes = self._empty(centres, vectors.dims)  # the refining index does not own it
        index = self.module.IndexRefineFlat(self._codes)
        index.train(vectors.unit(vectors.sample(20_000)))
        for block in vectors.unit_blocks():
            index.add(block)
        return index

    def _empty(self, centres: Any, dims: int) -> Any:
        inner = self.module.METRIC_INNER_PRODUCT
        n_cells, parts = centres.ntotal, _parts(dims)
        return self.module.IndexIVFPQFastScan(centres, dims, n_cells, parts, 4, inner)

    def ladders(self) -> Sequence[Sequence[Effort]]:
        probes = [n for n in _PROBES if n <= self._cells().nlist]
        return [[{"nprobe": n, "k_factor": factor} for factor in _REFINED] for n in probes]

    def _cells(self) -> Any:
        return self.module.downcast_index(self._index.base_index)

    def _parameters(self, effort: Effort) -> Any:
        return self.module.IndexRefineSearchParameters(
            k_factor=effort["k_factor"], base_index_params=super()._parameters(effort)
        )

    def touched(self, queries: Floats, k: int, effort: Effort) -> float | None:
        before = super().touched(queries, k, effort)
        return None if before is None else before + effort["k_factor"] * k * 4 * queries.shape[1]


class IVFRaBitQRefined(IVFPQRefined):
    """1 bit a dimension in cells at full width, and float32 vectors to refine: the funnel's first
    tier without its prefix.
    """

    name = "FAISS IVF-RaBitQ + refine"

    def _empty(self, centres: Any, dims: int) -> Any:
        inner = self.module.METRIC_INNER_PRODUCT
        return self.module.IndexIVFRaBitQ(centres, dims, centres.ntotal, inner)

    def _parameters(self, effort: Effort) -> Any:
        cells = self.module.IVFRaBitQSearchParameters(nprobe=effort["nprobe"], qb=4)
        return self.module.IndexRefineSearchParameters(
            k_factor=effort["k_factor"], base_index_params=cells
        )


class USearch(Side):
    name = "usearch"
    library, package = "usearch.index", "usearch"
    graph = True

    def build(self, vectors: Vectors) -> float:
        index = self.module.Index(
            ndim=vectors.dims,
            metric="ip",
            dtype="f32",
            connectivity=_NEIGHBOURS,
            expansion_add=_CANDIDATES,
        )
        start = 0
        for block in vectors.unit_blocks():
            index.add(np.arange(start, start + len(block)), block, threads=self.threads)
            start += len(block)
        index.save(str(self.folder / "index.usearch"))
        return 0.0

    def open(self) -> None:
        self._index = self.module.Index.restore(str(self.folder / "index.usearch"))

    def ladders(self) -> Sequence[Sequence[Effort]]:
        return [[{"expansion": breadth} for breadth in _BREADTHS]]

    def _found(self, queries: Floats, k: int, effort: Effort) -> Any:
        self._index.expansion_search = effort["expansion"]
        return self._index.search(queries, k, threads=self.threads)

    def search(self, queries: Floats, k: int, effort: Effort) -> Rows:
        found = self._found(queries, k, effort)
        return np.asarray(found.keys, dtype=np.int64).reshape(len(queries), k)

    def touched(self, queries: Floats, k: int, effort: Effort) -> float | None:
        found = self._found(queries, k, effort)
        return found.computed_distances * 4.0 * queries.shape[1] / len(queries)


class HNSWLib(Side):
    name = "hnswlib"
    library = package = "hnswlib"
    graph = True

    def build(self, vectors: Vectors) -> float:
        index = self.module.Index(space="ip", dim=vectors.dims)
        index.init_index(vectors.n_rows, M=_NEIGHBOURS, ef_construction=_CANDIDATES)
        for block in vectors.unit_blocks():
            index.add_items(block, num_threads=self.threads)
        index.save_index(str(self.folder / "index.hnsw"))
        (self.folder / "dims.json").write_text(json.dumps(vectors.dims), encoding="utf-8")
        return 0.0

    def open(self) -> None:
        dims = json.loads((self.folder / "dims.json").read_text(encoding="utf-8"))
        self._index = self.module.Index(space="ip", dim=dims)
        self._index.load_index(str(self.folder / "index.hnsw"))

    def ladders(self) -> Sequence[Sequence[Effort]]:
        return [[{"ef": breadth} for breadth in _BREADTHS]]

    def search(self, queries: Floats, k: int, effort: Effort) -> Rows:
        self._index.set_ef(max(k, effort["ef"]))
        found = self._index.knn_query(queries, k, num_threads=self.threads)[0]
        return found.astype(np.int64)

    def touched(self, queries: Floats, k: int, effort: Effort) -> float | None:
        return None  # its Python side does not count


class LanceDB(Side):
    """IVF-PQ with refinement on the disk. It sets its threads from the environment."""

    name = "LanceDB IVF-PQ + refine"
    library = package = "lancedb"

    def build(self, vectors: Vectors) -> float:
        import pyarrow as pa
        from lancedb.index import IvfPq

        dims = vectors.dims
        schema = pa.schema([("row", pa.int64()), ("vector", pa.list_(pa.float32(), dims))])

        def batches() -> Any:
            start = 0
            for block in vectors.unit_blocks():
                rows = pa.array(np.arange(start, start + len(block)))
                column = pa.FixedSizeListArray.from_arrays(pa.array(block.ravel()), dims)
                yield pa.record_batch([rows, column], schema=schema)
                start += len(block)

        reader = pa.RecordBatchReader.from_batches(schema, batches())
        table = self._database().create_table("vectors", data=reader, schema=schema)
        # It trains no more cells than one for 256 rows.
        cells = max(1, min(round(np.sqrt(vectors.n_rows)), vectors.n_rows // 256))
        parts = _parts(dims)
        table.create_index(
            "vector",
            config=IvfPq(
                distance_type="dot",
                num_partitions=cells,
                num_sub_vectors=parts,
                max_iterations=_TRAINING_ROUNDS,
            ),
        )
        about = {"cells": cells, "code": parts, "rows": vectors.n_rows}
        (self.folder / "about.json").write_text(json.dumps(about), encoding="utf-8")
        return 0.0

    def _database(self) -> Any:
        return self.module.connect(str(self.folder / "lance"))

    def open(self) -> None:
        self._about = json.loads((self.folder / "about.json").read_text(encoding="utf-8"))
        self._table = self._database().open_table("vectors")

    def ladders(self) -> Sequence[Sequence[Effort]]:
        probes = [n for n in (8, 16, 32, 64, 128, 256) if n <= self._about["cells"]]
        return [
            [{"nprobes": n, "refine": factor} for factor in _REFINED]
            for n in probes or [self._about["cells"]]
        ]

    def search(self, queries: Floats, k: int, effort: Effort) -> Rows:
        # One query as one vector: several go another way and come back with their number.
        several = len(queries) > 1
        plan = self._table.search(list(queries) if several else queries[0])
        plan = plan.distance_type("dot").nprobes(effort["nprobes"]).refine_factor(effort["refine"])
        table = plan.limit(k).select(["row", "_distance"]).to_arrow()
        found = np.full((len(queries), k), -1, np.int64)
        rows = table["row"].to_numpy()
        of_query = table["query_index"].to_numpy() if several else np.zeros(len(rows), np.int64)
        for query in range(len(queries)):
            mine = rows[of_query == query][:k]
            found[query, : len(mine)] = mine
        return found

    def touched(self, queries: Floats, k: int, effort: Effort) -> float | None:
        cells, code = self._about["cells"], self._about["code"]
        scanned = self._about["rows"] * effort["nprobes"] / cells
        vectors = cells + effort["refine"] * k
        return scanned * code + vectors * 4.0 * queries.shape[1]


PEERS: tuple[type[Side], ...] = (
    FlatIP,
    HNSWFlat,
    IVFFlat,
    IVFPQRefined,
    IVFRaBitQRefined,
    USearch,
    HNSWLib,
    LanceDB,
)


def _parts(dims: int) -> int:
    """Product codes: parts of about 16 dimensions; an even number of them where there is one."""
    fitting = [n for n in range(1, dims // 8 + 1) if dims % n == 0]
    return min(fitting, key=lambda n: (abs(dims / n - 16), n % 2))


def _centres(faiss: Any, vectors: Vectors, folder: Path) -> tuple[Any, float]:
    """Cell centres, learnt once and shared by all sides with cells; seconds if learnt before."""
    path, spent = folder / "centres.npy", 0.0
    n_cells = max(1, round(_CELLS_PER_SQRT_ROW * np.sqrt(vectors.n_rows)))
    n_cells = min(n_cells, vectors.n_rows // 8)
    if path.exists():
        spent = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        learnt = np.load(path)
    else:
        start = time.perf_counter()
        sample = vectors.unit(vectors.sample(n_cells * _TRAINING_ROWS_A_CELL))
        means = faiss.Kmeans(
            vectors.dims,
            n_cells,
            niter=_TRAINING_ROUNDS,
            spherical=True,
            seed=1,
            min_points_per_centroid=1,
            max_points_per_centroid=_TRAINING_ROWS_A_CELL,
        )
        means.train(sample)
        learnt = means.centroids
        np.save(path, learnt)
        seconds = time.perf_counter() - start
        path.with_suffix(".json").write_text(json.dumps(seconds), encoding="utf-8")
    centres = faiss.IndexFlatIP(vectors.dims)
    centres.add(learnt)
    return centres, spent
