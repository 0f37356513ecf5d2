"""Rows that stand for the unrelated proteins of an index, and how a query scores them.

The background of an index is a fixed draw of its rows: those whose sequences have the lowest
SHA-256. It depends on nothing but which sequences the index shows, so that neither segments nor
their merging nor the order of rows change it.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rdsearch.funnel import Funnel
from rdsearch.space import unit

if TYPE_CHECKING:
    from rdsearch.catalogs import Catalogs
    from rdsearch.searcher import Searcher

__all__ = ["BACKGROUND_ROWS", "Background", "background_rows"]

#: Rows that a query is compared with to learn what chance gives.
BACKGROUND_ROWS = 10_000

# Queries whose scores with the background are held together.
_QUERIES_AT_ONCE = 256


def background_rows(catalogs: Catalogs, count: int = BACKGROUND_ROWS) -> NDArray[np.int64]:
    """Draw the background.

    Parameters
    ----------
    catalogs : Catalogs
    count : int, optional

    Returns
    -------
    ndarray, shape (min(count, rows of the index),), int64
        By rising key of their sequences.
    """
    rowmap = catalogs.rowmap
    drawn = []
    for segment, catalog in enumerate(catalogs.catalogs):
        rows, keys = catalog.lowest_keys(count + len(rowmap.hidden[segment]))
        shown = rowmap.join(segment, rows)
        drawn.append((shown[shown >= 0], keys[shown >= 0]))
    rows, keys = map(np.concatenate, zip(*drawn, strict=True))
    lowest: NDArray[np.int64] = rows[np.argsort(keys, kind="stable")[:count]]
    return lowest


class Background:
    """The scores of queries with the background, at any tier.

    The vectors of a tier stay in memory once they were needed: 51 MB for 10,000 rows of 1,280
    dimensions.

    Parameters
    ----------
    searcher : Searcher
    catalogs : Catalogs
        Of the same generation.
    """

    def __init__(self, searcher: Searcher, catalogs: Catalogs) -> None:
        self._searcher, self._catalogs = searcher, catalogs
        self._vectors: dict[str, NDArray[np.float32]] = {}

    @cached_property
    def rows(self) -> NDArray[np.int64]:
        """See `background_rows`."""
        return background_rows(self._catalogs)

    def close(self) -> None:
        """Let the vectors and the files of the tiers go."""
        self._vectors = {}
        self._searcher.close()

    def scores(self, queries: NDArray[np.float32], tier: str) -> NDArray[np.float64]:
        """Score the background.

        Parameters
        ----------
        queries : ndarray, shape (q, at least dims of the tier), float32
            In the index's space.
        tier : str

        Returns
        -------
        ndarray, shape (q, n), float64
            Cosines, each line rising.
        """
        opened = self._searcher.tier(tier)
        if opened.linear:
            return _rising(unit(queries[:, : opened.dims]) @ self._decoded(tier).T)
        rows = np.sort(self.rows)
        found = self._searcher.rank_in_space(queries, len(rows), Funnel((tier,), ()), rows=rows)
        return _rising(np.stack([one.scores[:, -1] for one in found]))

    def scores_of_rows(self, count: int, tier: str) -> Iterator[NDArray[np.float64]]:
        """Scores of rows of the background with the others.

        Parameters
        ----------
        count : int
            The first so many of `rows` are the queries.
        tier : str

        Yields
        ------
        ndarray, shape (q, n - 1), float64
            Cosines of a block of queries, each line rising.
        """
        linear = self._searcher.tier(tier).linear
        for start in range(0, min(count, len(self.rows)), _QUERIES_AT_ONCE):
            stop = min(start + _QUERIES_AT_ONCE, count, len(self.rows))
            if linear:
                vectors = self._decoded(tier)
                products = vectors[start:stop] @ vectors.T
                others = np.ones(products.shape, dtype=bool)
                others[np.arange(stop - start), np.arange(start, stop)] = False
                yield _rising(products[others].reshape(stop - start, -1))
                continue
            rows, funnel = np.sort(self.rows), Funnel((tier,), ())
            queries = self.rows[start:stop].tolist()
            found = self._searcher.rank_rows(queries, len(rows) - 1, funnel, rows=rows)
            yield _rising(np.stack([one.scores[:, -1] for one in found]))

    def _decoded(self, tier: str) -> NDArray[np.float32]:
        """The tier's own vectors of `rows`, in that order."""
        if tier not in self._vectors:
            self._vectors[tier] = self._searcher.tier(tier).vectors(self.rows)
        return self._vectors[tier]


def _rising(scores: NDArray[np.float32]) -> NDArray[np.float64]:
    return np.sort(scores, axis=1).astype(np.float64)
