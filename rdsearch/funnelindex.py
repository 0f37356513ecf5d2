"""The funnel at work: tier files composed into one FAISS object.

Each step is ``IndexRefine(IndexPreTransform(prefix cut, all before), next tier)``: the tiers so
far make a shortlist, the next, wider tier reranks it. FAISS runs the whole of it in one call.

Queries come in the index's space (`rdsearch.space.Space.transform`): its factor is applied once,
not once a tier, and every tier normalises its own prefix.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rdsearch import _faiss
from rdsearch.errors import InputError
from rdsearch.funnel import Funnel
from rdsearch.ordering import best_first
from rdsearch.space import unit
from rdsearch.tiers import Tier

__all__ = ["SPARE", "Allowed", "Found", "FunnelIndex", "allow", "cells_to_scan", "checked"]

#: Candidates beyond k that are scored too, so that ties across rank k seldom need a second search.
SPARE = 8
# Scores of equal vectors differ by float32 rounding between a batched and a single product.
_TIE = 1e-6
# Candidates of several queries are sorted together, up to so many: one by one the calls of NumPy
# take as long as a short funnel.
_SORTED_AT_ONCE = 1 << 20
# Search parameters are kept: FAISS's Python side takes longer to make them than a scan of cells.
_PARAMETERS_KEPT = 64


class Found(NamedTuple):
    """The rows that one query found, by falling score, then by row.

    Attributes
    ----------
    rows : ndarray, shape (hits,), int64
    scores : ndarray, shape (hits,), float32
        Cosine at the funnel's last tier.
    """

    rows: NDArray[np.int64]
    scores: NDArray[np.float32]


class Allowed(NamedTuple):
    """Rows that may be found, as FAISS takes them.

    Attributes
    ----------
    selector : faiss.IDSelector
    n_rows : int
        How many.
    """

    selector: Any
    n_rows: int


class FunnelIndex:
    """Tier files joined into one searchable object.

    Parameters
    ----------
    tiers : sequence of Tier
        Coarse to fine, over the same rows.
    """

    def __init__(self, tiers: Sequence[Tier]) -> None:
        faiss = _faiss.load()
        self.tiers = tuple(tiers)
        sizes = {tier.n_rows for tier in self.tiers}
        dims = [tier.dims for tier in self.tiers]
        if len(sizes) != 1 or dims != sorted(set(dims)):
            raise InputError(
                f"a funnel needs tiers over the same rows, narrow to wide; found rows {sizes} "
                f"and dimensions {dims}"
            )
        self.n_rows = sizes.pop()
        self.dims = dims[-1]
        # FAISS does not own what it is composed of: everything is kept alive here.
        self._parts: list[Any] = [tier.codec for tier in self.tiers]
        self._index = self._normalised(self.tiers[0])
        for before, tier in itertools.pairwise(self.tiers):
            cut = faiss.RemapDimensionsTransform(tier.dims, before.dims, False)
            narrow = faiss.IndexPreTransform(cut, self._index)
            self._index = faiss.IndexRefine(narrow, self._normalised(tier))
            self._parts += [cut, narrow, self._index]
        self._known_parameters: dict[tuple[int | None, ...], Any] = {}

    def _normalised(self, tier: Tier) -> Any:
        """The tier's codec behind a normalisation alone: queries are in its space already."""
        faiss = _faiss.load()
        length = faiss.NormalizationTransform(tier.dims, 2.0)
        index = faiss.IndexPreTransform(length, tier.codec)
        self._parts += [length, index]
        return index

    def _parameters(self, sizes: Sequence[int], probes: int | None, allowed: Any) -> Any:
        """Nested search parameters for these result sizes, coarse to fine (the last is k)."""
        key = (*sizes, probes)
        if allowed is None and key in self._known_parameters:
            return self._known_parameters[key]
        faiss = _faiss.load()
        # Nested objects go in through the constructor: only there FAISS keeps them alive.
        codec = self.tiers[0].parameters(allowed, probes)
        parameters = faiss.SearchParametersPreTransform(index_params=codec)
        for wide, narrow in itertools.pairwise(sizes):
            cut = faiss.SearchParametersPreTransform(index_params=parameters)
            parameters = faiss.IndexRefineSearchParameters(
                k_factor=_factor(wide, narrow), base_index_params=cut
            )
        if allowed is None:
            if len(self._known_parameters) >= _PARAMETERS_KEPT:
                self._known_parameters.clear()
            self._known_parameters[key] = parameters
        return parameters

    def search(
        self,
        queries: NDArray[np.float32],
        k: int,
        shortlists: Sequence[int] = (),
        probes: int | None = None,
        *,
        rows: NDArray[np.int64] | Allowed | None = None,
        exclude: Sequence[int] | None = None,
    ) -> list[Found]:
        """Find the best rows for each query.

        Parameters
        ----------
        queries : ndarray, shape (q, at least dims), float32
            In the index's space; the prefix of the last tier is used. Not changed.
        k : int
            Hits wanted for each query; fewer come back when there are fewer rows.
        shortlists : sequence of int
            One for each tier but the last; raised to k, lowered to the number of rows. With all
            of them at the number of rows the result is that of an exhaustive search.
        probes : int, optional
            Cells of the first tier to scan, more when `rows` leaves few rows in each or when
            fewer than k rows were found. All where it is not given, or when the first shortlist
            takes all rows.
        rows : ndarray of int64, sorted, or Allowed, optional
            The rows that may be found.
        exclude : sequence of int, optional
            For each query one row that is left out of its result; -1 for none.

        Returns
        -------
        list of Found
            In the order of the queries.

        Raises
        ------
        InputError
            Wrong shape, values that are not finite, k below 1, wrong shortlists.
        """
        queries = checked(queries, k, [tier.name for tier in self.tiers], shortlists, self.dims)
        allowed, reach = self._allowed(rows)
        nothing = Found(np.empty(0, np.int64), np.empty(0, np.float32))
        results = [nothing] * len(queries)
        probes = self._probes(probes, shortlists, reach)
        left_out = np.full(len(queries), -1) if exclude is None else np.asarray(exclude)
        extra = SPARE + (exclude is not None)
        wanted, pending = min(k + extra, reach), list(range(len(queries) if reach else 0))
        while pending:
            sizes = [min(max(size, wanted), self.n_rows) for size in shortlists] + [wanted]
            parameters = self._parameters(sizes, probes, allowed)
            found = self._candidates(queries[pending], parameters, wanted, left_out[pending])
            undecided = []
            for position, (chosen, scores) in zip(pending, found, strict=True):
                few = probes is not None and len(scores) < min(k, reach - 1)
                cut_off = wanted < reach and len(scores) >= wanted - 1 > k
                if few or (cut_off and scores[k - 1] <= scores[-1] + _TIE):
                    undecided.append((position, few))
                else:
                    results[position] = Found(chosen[:k], scores[:k])
            pending, wanted = [position for position, _ in undecided], min(wanted * 4, reach)
            if probes is not None and any(few for _, few in undecided):
                probes = self._probes(probes * 4, shortlists, self.n_rows)
        return results

    def scan(
        self,
        queries: NDArray[np.float32],
        size: int,
        probes: int | None = None,
        *,
        rows: NDArray[np.int64] | Allowed | None = None,
    ) -> list[Found]:
        """What FAISS finds, in its order and with its own scores: good for a shortlist.

        Parameters
        ----------
        queries : ndarray, shape (q, at least dims), float32
            In the index's space.
        size : int
            Rows wanted for each query.
        probes : int, optional
            Cells to scan, not more.
        rows : optional
            As in `search`.
        """
        size = min(size, self.n_rows)
        parameters = self._parameters([size], probes, self._allowed(rows)[0])
        vectors = np.ascontiguousarray(queries[:, : self.dims])
        scores, labels = self._index.search(vectors, size, params=parameters)
        return [
            Found(line[line >= 0], by_row[line >= 0])
            for line, by_row in zip(labels, scores, strict=True)
        ]

    def seconds(
        self,
        query: NDArray[np.float32],
        sizes: Sequence[int],
        probes: int | None,
        rows: NDArray[np.int64] | None,
    ) -> float:
        """Wall time of the FAISS call for one query alone.

        Parameters
        ----------
        query : ndarray, shape (at least dims,), float32
        sizes : sequence of int
            Rows that each tier passes on, the last included.
        probes : int or None
        rows : ndarray of int64, sorted, or None
        """
        vector = np.ascontiguousarray(query[None, : self.dims], dtype=np.float32)
        parameters = self._parameters(sizes, probes, self._allowed(rows)[0])
        start = time.perf_counter()
        self._index.search(vector, sizes[-1], params=parameters)
        return time.perf_counter() - start

    def _allowed(self, rows: NDArray[np.int64] | Allowed | None) -> tuple[Any, int]:
        """FAISS's selector, and how many rows it lets pass."""
        if rows is None:
            return None, self.n_rows
        return rows if isinstance(rows, Allowed) else allow(rows, self.n_rows)

    def _probes(self, probes: int | None, shortlists: Sequence[int], reach: int) -> int | None:
        """Cells to scan; None for all."""
        if shortlists and shortlists[0] >= self.n_rows:
            return None
        return cells_to_scan(probes, self.tiers[0].cells, self.n_rows, reach)

    def _candidates(
        self,
        queries: NDArray[np.float32],
        parameters: Any,
        wanted: int,
        left_out: NDArray[np.int64],
    ) -> list[Found]:
        """One FAISS call, then every candidate in order."""
        last = self.tiers[-1]
        if last.rescored and wanted >= self.n_rows:
            # Everything is asked for: nothing to choose, only to score and to put in order.
            scores = labels = np.broadcast_to(np.arange(self.n_rows), (len(queries), self.n_rows))
        else:
            scores, labels = self._index.search(queries, wanted, params=parameters)
        keep = (labels >= 0) & (labels != left_out[:, None])
        if last.rescored:
            rows = [line[kept] for line, kept in zip(labels, keep, strict=True)]
            scores = np.empty(labels.shape, dtype=np.float32)
            scores[keep] = np.concatenate(last.scores(unit(queries), rows))
        counts = keep.sum(axis=1).tolist()
        found = []
        at_once = max(1, _SORTED_AT_ONCE // wanted)
        for start in range(0, len(labels), at_once):
            part = slice(start, start + at_once)
            # What is left out goes to the end of its line.
            ordered = best_first(
                np.where(keep[part], labels[part], 0),
                np.where(keep[part], scores[part], np.float32(-np.inf)),
            )
            lines = zip(*ordered, counts[part], strict=True)
            found += [Found(chosen[:count], best[:count]) for chosen, best, count in lines]
        return found


def checked(
    queries: NDArray[np.float32], k: int, tiers: Sequence[str], shortlists: Sequence[int], dims: int
) -> NDArray[np.float32]:
    """Queries of a funnel, cut to its dimensions.

    Raises
    ------
    InputError
        Wrong shape, values that are not finite, k below 1, wrong shortlists.
    """
    queries = np.asarray(queries, dtype=np.float32)
    if queries.ndim != 2 or queries.shape[1] < dims:
        raise InputError(f"queries must have shape (n, {dims}) or be wider; found {queries.shape}")
    queries = np.ascontiguousarray(queries[:, :dims])
    if not np.isfinite(queries).all():
        raise InputError("queries hold values that are not finite")
    if k < 1:
        raise InputError(f"k must be at least 1; found {k}")
    Funnel(tuple(tiers), tuple(shortlists))
    return queries


def allow(rows: NDArray[np.int64], n_rows: int) -> Allowed:
    """Rows that may be found, of an index of `n_rows`: one bit for each of these."""
    marks = np.zeros(n_rows, dtype=bool)
    marks[rows] = True
    selector = _faiss.load().IDSelectorBitmap(np.packbits(marks, bitorder="little"))
    return Allowed(selector, len(rows))


def cells_to_scan(probes: int | None, cells: int | None, n_rows: int, reach: int) -> int | None:
    """Cells that hold about as many of the rows that may be found as `probes` hold of all.

    Parameters
    ----------
    probes, cells : int or None
        Cells that are scanned where all rows may be found, and all cells.
    n_rows, reach : int
        Rows, and those that may be found.

    Returns
    -------
    int or None
        None for all cells.
    """
    if probes is None or cells is None:
        return None
    scanned = math.ceil(probes * n_rows / max(reach, 1))
    return scanned if scanned < cells else None


def _factor(wide: int, narrow: int) -> float:
    """The smallest float32 ratio that gives at least `wide` when FAISS multiplies it back."""
    factor = np.float32(wide / narrow)
    while int(np.float32(narrow) * factor) < wide:
        factor = np.nextafter(factor, np.float32(np.inf))
    return float(factor)
