"""The tiers of several segments as one.

One segment with nothing hidden is searched by FAISS alone (`rdsearch.funnelindex`). Otherwise the
funnel goes tier by tier here: what all segments found is put together after each, so that the
shortlists are those of the whole index and the result is that of one index over the same rows.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from rdsearch.funnelindex import SPARE, Allowed, Found, FunnelIndex, allow, cells_to_scan, checked
from rdsearch.ordering import best_first
from rdsearch.rowmap import RowMap
from rdsearch.space import unit
from rdsearch.tiers import Tier

__all__ = ["JoinedFunnel", "JoinedTier"]

_Rows = NDArray[np.int64]
_Scores = NDArray[np.float32]


class JoinedTier:
    """One tier of all segments; its rows are the index's.

    Parameters
    ----------
    parts : sequence of Tier
        One for each segment, all with one learnt codec.
    rowmap : RowMap

    Attributes
    ----------
    name : str
    dims, row_bytes : int
    cells : int or None
        Of each segment.
    """

    def __init__(self, parts: Sequence[Tier], rowmap: RowMap) -> None:
        self.parts, self.rowmap = tuple(parts), rowmap
        first = self.parts[0]
        self.name, self.dims, self.row_bytes = first.name, first.dims, first.row_bytes
        self.cells = first.cells

    @property
    def n_rows(self) -> int:
        """Rows that the index shows."""
        return self.rowmap.n_rows

    @property
    def linear(self) -> bool:
        """See `rdsearch.tiers.Tier.linear`."""
        return self.parts[0].linear

    def scores(self, queries: _Scores, rows: Sequence[_Rows]) -> list[_Scores]:
        """Score chosen rows; see `rdsearch.tiers.Tier.scores`."""
        found = [np.empty(len(chosen), dtype=np.float32) for chosen in rows]
        split = [list(self.rowmap.split(chosen)) for chosen in rows]
        for segment, tier in enumerate(self.parts):
            asked = [
                (query, part)
                for query, parts in enumerate(split)
                for part in parts
                if part.segment == segment
            ]
            scored = tier.scores(
                queries[[query for query, _ in asked]], [part.rows for _, part in asked]
            )
            for (query, part), values in zip(asked, scored, strict=True):
                found[query][part.places] = values
        return found

    def vectors(self, rows: _Rows) -> NDArray[np.float32]:
        """The tier's own vectors of rows; see `rdsearch.tiers.Tier.vectors`."""
        found = np.empty((len(rows), self.dims), dtype=np.float32)
        for part in self.rowmap.split(rows):
            found[part.places] = self.parts[part.segment].vectors(part.rows)
        return found

    def scanned(self, query: _Scores, probes: int) -> int:
        """Rows in the cells that a query scans."""
        return sum(tier.scanned(query, probes) for tier in self.parts)


class JoinedFunnel:
    """A funnel through joined tiers, with the interface of `rdsearch.funnelindex.FunnelIndex`.

    Parameters
    ----------
    tiers : sequence of JoinedTier
        Coarse to fine, over the same rows.
    """

    def __init__(self, tiers: Sequence[JoinedTier]) -> None:
        self.tiers = tuple(tiers)
        self.rowmap = self.tiers[0].rowmap
        self.n_rows, self.dims = self.rowmap.n_rows, self.tiers[-1].dims
        self._scans = [FunnelIndex([part]) for part in self.tiers[0].parts]

    def search(
        self,
        queries: NDArray[np.float32],
        k: int,
        shortlists: Sequence[int] = (),
        probes: int | None = None,
        *,
        rows: _Rows | None = None,
        exclude: Sequence[int] | None = None,
    ) -> list[Found]:
        """Find the best rows for each query; see `rdsearch.funnelindex.FunnelIndex.search`."""
        queries = checked(queries, k, [tier.name for tier in self.tiers], shortlists, self.dims)
        reach = self.n_rows if rows is None else len(rows)
        allowed = self._shown if rows is None else self._allowed(rows)
        wanted = min(k + SPARE + (exclude is not None), reach)
        sizes = [*(min(max(size, wanted), self.n_rows) for size in shortlists), wanted]
        cells = self.tiers[0].cells
        if shortlists and shortlists[0] >= self.n_rows:
            probes = None
        # As many in every segment as in one index over the same rows.
        probes = cells_to_scan(probes, cells, self.n_rows, reach)
        needed = min(k + (exclude is not None), reach)
        found = self._first(queries, sizes[0], needed, probes, allowed)
        while probes is not None and any(len(one.rows) < needed for one in found):
            probes = cells_to_scan(probes * 4, cells, self.n_rows, self.n_rows)
            found = self._first(queries, sizes[0], needed, probes, allowed)
        left_out = [-1] * len(queries) if exclude is None else exclude
        for tier, size in zip(self.tiers[1:], sizes[1:], strict=True):
            vectors = unit(queries[:, : tier.dims])
            scored = tier.scores(vectors, [one.rows for one in found])
            found = [
                _best(one.rows, scores, size) for one, scores in zip(found, scored, strict=True)
            ]
        return [_without(one, row, k) for one, row in zip(found, left_out, strict=True)]

    def seconds(
        self,
        query: NDArray[np.float32],
        sizes: Sequence[int],
        probes: int | None,
        rows: _Rows | None,
    ) -> float:
        """Wall time of one query alone; see `rdsearch.funnelindex.FunnelIndex.seconds`."""
        start = time.perf_counter()
        self.search(query[None], sizes[-1], sizes[:-1], probes, rows=rows)
        return time.perf_counter() - start

    def _first(
        self,
        queries: NDArray[np.float32],
        size: int,
        needed: int,
        probes: int | None,
        allowed: Sequence[Allowed | None],
    ) -> list[Found]:
        """What the first tier finds in all segments together."""
        nothing = Found(np.empty(0, np.int64), np.empty(0, np.float32))
        results = [[nothing] for _ in queries]
        for segment, (scan, rows) in enumerate(zip(self._scans, allowed, strict=True)):
            if rows is not None and rows.n_rows == 0:
                continue
            if len(self.tiers) == 1:
                # Final scores, and every row that ties for the last place.
                some = scan.search(queries, max(needed, 1), (), probes, rows=rows)
            else:
                some = scan.scan(queries, size, probes, rows=rows)
            for result, one in zip(results, some, strict=True):
                result.append(Found(self.rowmap.join(segment, one.rows), one.scores))
        joined = (Found(*map(np.concatenate, zip(*parts, strict=True))) for parts in results)
        return [_best(one.rows, one.scores, size) for one in joined]

    @cached_property
    def _shown(self) -> list[Allowed | None]:
        """For each segment what it shows; None where it hides nothing."""
        shown = []
        for size, hidden in zip(self.rowmap.sizes, self.rowmap.hidden, strict=True):
            marks = np.ones(size, dtype=bool)
            marks[hidden] = False
            shown.append(allow(np.flatnonzero(marks), size) if len(hidden) else None)
        return shown

    def _allowed(self, rows: _Rows) -> list[Allowed | None]:
        """For each segment those of these rows that lie in it."""
        inside = {part.segment: part.rows for part in self.rowmap.split(rows)}
        nothing = np.empty(0, np.int64)
        return [
            allow(inside.get(segment, nothing), size)
            for segment, size in enumerate(self.rowmap.sizes)
        ]


def _best(rows: _Rows, scores: _Scores, size: int) -> Found:
    ordered, sorted_scores = best_first(rows, scores)
    return Found(ordered[:size], sorted_scores[:size])


def _without(found: Found, row: int, k: int) -> Found:
    """The first k without one row."""
    keep = found.rows != row
    return Found(found.rows[keep][:k], found.scores[keep][:k])
