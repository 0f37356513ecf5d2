"""What every side of the search benchmark sees: vectors in a folder, and their exact answers.

The folder holds rd vectors as they are. Full-width peers get them centred and normalised, so that
an inner product is the cosine that the last tier of an index scores by.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

_Floats = NDArray[np.float32]

# Scores nearer to each other than this are a tie: float32 sums differ by their order.
TIE = 1e-6
_BLOCK = 4096


class Vectors:
    """A folder of rd vectors, queries and exact answers.

    Attributes
    ----------
    tiers : dict of str to int
        Prefix boundaries by name, narrow to wide.
    mean : ndarray, shape (dims,), float64
        What centring takes off.
    queries, warm : ndarray, shape (q, dims), float32
        Queries that are timed, and others that are run before.
    truth : ndarray, shape (q, k), float64
        The k best scores of each query, best first; there after `answer`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        about = json.loads((folder / "about.json").read_text(encoding="utf-8"))
        self.name: str = about["name"]
        self.tiers: dict[str, int] = about["tiers"]
        self._rows = np.load(folder / "rows.npy", mmap_mode="r")
        self.n_rows, self.dims = self._rows.shape
        self.mean = np.load(folder / "mean.npy")
        self.queries = np.load(folder / "queries.npy")
        self.warm = np.load(folder / "warm.npy")
        if (folder / "truth.npy").exists():
            self.truth = np.load(folder / "truth.npy")

    @classmethod
    def write(
        cls,
        folder: Path,
        name: str,
        tiers: dict[str, int],
        n_rows: int,
        blocks: Iterable[_Floats],
        mean: NDArray[Any],
        queries: _Floats,
        warm: _Floats,
    ) -> Vectors:
        """Write a folder, block by block."""
        folder.mkdir(parents=True)
        rows = open_memmap(
            folder / "rows.npy",
            mode="w+",
            dtype=np.float32,
            shape=(n_rows, list(tiers.values())[-1]),
        )
        start = 0
        for block in blocks:
            rows[start : start + len(block)] = block
            start += len(block)
        rows.flush()
        for file, array in (("mean", mean.astype(np.float64)), ("queries", queries)):
            np.save(folder / f"{file}.npy", array)
        np.save(folder / "warm.npy", warm)
        about = {"name": name, "tiers": tiers}
        (folder / "about.json").write_text(json.dumps(about), encoding="utf-8")
        return cls(folder)

    def blocks(self, dims: int | None = None) -> Iterator[_Floats]:
        """rd prefixes of all rows in order."""
        for start in range(0, self.n_rows, _BLOCK):
            yield np.array(self._rows[start : start + _BLOCK, :dims])

    def sample(self, n: int, dims: int | None = None, seed: int = 0) -> _Floats:
        """rd prefixes of at most `n` random rows."""
        if n >= self.n_rows:
            return np.array(self._rows[:, :dims])
        chosen = np.random.default_rng(seed).choice(self.n_rows, n, replace=False)
        return np.array(self._rows[np.sort(chosen), :dims])

    def unit(self, vectors: NDArray[Any]) -> _Floats:
        """Centred and normalised, float32."""
        centred = vectors - self.mean.astype(np.float32)
        norms = np.linalg.norm(centred, axis=1, keepdims=True)
        return np.divide(centred, norms, out=centred, where=norms > 0).astype(
            np.float32, copy=False
        )

    def unit_blocks(self) -> Iterator[_Floats]:
        """All rows in order, centred and normalised."""
        return map(self.unit, self.blocks())

    def answer(self, k: int) -> None:
        """Find the `k` best scores of every query by one exact scan, and keep them."""
        queries = self.unit(self.queries)
        n = len(queries)
        scores = np.empty((n, 0), np.float32)
        rows = np.empty((n, 0), np.int64)
        start = 0
        for block in self.unit_blocks():
            scores = np.hstack([scores, queries @ block.T])
            labels = np.arange(start, start + len(block))
            rows = np.hstack([rows, np.broadcast_to(labels, (n, len(block)))])
            best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
            scores = np.take_along_axis(scores, best, axis=1)
            rows = np.take_along_axis(rows, best, axis=1)
            start += len(block)
        self.truth = np.stack([self._scores(i, found) for i, found in enumerate(rows)])
        self.truth[:, ::-1].sort(axis=1)
        np.save(self.folder / "truth.npy", self.truth)

    def recall(self, found: NDArray[np.int64], first: int = 0) -> float:
        """Share of the k best that was found, a row that ties with the k-th counted as one of them.

        Parameters
        ----------
        found : ndarray, shape (q, k), int64
            Rows for the queries from `first` on; -1 where there is none.
        """
        k = self.truth.shape[1]
        hits = 0
        for i, rows in enumerate(found, first):
            real = np.unique(rows[rows >= 0])[: len(rows)]
            hits += min(k, int((self._scores(i, real) >= self.truth[i, -1] - TIE).sum()))
        return hits / (k * len(found))

    def _scores(self, query: int, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """Cosines in float64."""
        order = np.sort(rows)
        centred = self._rows[order].astype(np.float64) - self.mean
        q = self.queries[query].astype(np.float64) - self.mean
        norms = np.linalg.norm(centred, axis=1) * np.linalg.norm(q)
        return np.divide(centred @ q, norms, out=np.zeros(len(rows)), where=norms > 0)
