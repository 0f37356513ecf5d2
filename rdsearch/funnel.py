"""The funnel: a coarse-to-fine search composed of tier files as one FAISS object.

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
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rdsearch import _faiss
from rdsearch.errors import InputError
from rdsearch.ordering import best_first
from rdsearch.space import unit
from rdsearch.tiers import Tier

__all__ = ["Found", "Funnel", "FunnelIndex", "plan", "position", "selector"]

# Candidates beyond k that are scored too, so that ties across rank k seldom need a second search.
_SPARE = 8
# Scores of equal vectors differ by float32 rounding between a batched and a single product.
_TIE = 1e-6
# Shortlist of a tier that is put before the only tier of a default funnel.
_WITHOUT = 2000
# Search parameters are kept: FAISS's Python side takes longer to make them than a scan of cells.
_PARAMETERS_KEPT = 64


@dataclass(frozen=True, slots=True)
class Funnel:
    """A search plan.

    Attributes
    ----------
    tiers : tuple of str
        The tiers a query passes, coarse to fine.
    shortlists : tuple of int
        Rows that each tier but the last passes on; they do not grow.
    probes : int or None
        Cells of the first tier that are scanned, where that tier has cells; None: all.
    """

    tiers: tuple[str, ...]
    shortlists: tuple[int, ...]
    probes: int | None = None

    def __post_init__(self) -> None:
        if not self.tiers or len(self.shortlists) != len(self.tiers) - 1:
            raise InputError(
                "a funnel needs at least one tier, and one shortlist for each tier but the last; "
                f"found tiers {self.tiers} and shortlists {self.shortlists}"
            )
        if any(wide < narrow for wide, narrow in itertools.pairwise((*self.shortlists, 1))):
            raise InputError(
                f"shortlists must be positive and must not grow; found {self.shortlists}"
            )
        if self.probes is not None and self.probes < 1:
            raise InputError(f"a query scans at least 1 cell; found {self.probes} probes")

    def __str__(self) -> str:
        steps = [f"{tier}:{size}" for tier, size in zip(self.tiers, self.shortlists, strict=False)]
        text = " > ".join([*steps, self.tiers[-1]])
        return text if self.probes is None else f"{text} (probes {self.probes})"


def plan(
    default: Funnel,
    tiers: Sequence[str],
    from_tier: str | None = None,
    to_tier: str | None = None,
    shortlists: dict[str, int] | int | None = None,
    probes: int | None = None,
) -> Funnel:
    """A funnel from what a user says.

    Parameters
    ----------
    default : Funnel
        The index's own.
    tiers : sequence of str
        All tiers of the index, coarse to fine.
    from_tier, to_tier : str, optional
        Where to begin and where to stop; the ends of `default` where they are not given.
    shortlists : dict of str to int, or int, optional
        Named tiers with their shortlists (`{}`: the last tier alone, all of its rows), or one
        shortlist for every tier before the last.
    probes : int, optional
        Cells of the first tier to scan; what `default` says where it is not given.

    Returns
    -------
    Funnel

    Raises
    ------
    InputError
        Unknown tier, tiers out of order, shortlists that grow or name the last tier.
    """
    order = partial(position, tiers)
    named = sorted(shortlists, key=order) if isinstance(shortlists, dict) else []
    last = to_tier or default.tiers[-1]
    first = from_tier or (named[0] if named else default.tiers[0])
    if any(order(name) >= order(last) for name in named):
        raise InputError(
            f"shortlists belong to tiers before the last one, {last}; found {', '.join(named)}"
        )
    if order(first) > order(last):
        if from_tier is None and not named:
            first = last
        else:
            raise InputError(
                f"a funnel goes from narrow to wide tiers ({', '.join(tiers)}); found {first} "
                f"before {last}"
            )
    if isinstance(shortlists, dict):
        if (named and named[0] != first) or (not named and from_tier not in (None, last)):
            raise InputError(
                f"the funnel is to begin at {first}: give its shortlist; found "
                f"{', '.join(named) or 'none'}"
            )
        if probes is None and named:
            probes = default.probes
        return Funnel((*named, last), tuple(shortlists[name] for name in named), probes)
    inside = [name for name in default.tiers if order(first) < order(name) < order(last)]
    through = (*dict.fromkeys((first, *inside, last)),)
    if isinstance(shortlists, int):
        sizes = [shortlists] * (len(through) - 1)
    else:
        known = dict(zip(default.tiers, default.shortlists, strict=False))
        sizes = [known.get(name, max(default.shortlists, default=_WITHOUT)) for name in through]
        sizes = list(itertools.accumulate(sizes[:-1], min))
    return Funnel(through, tuple(sizes), default.probes if probes is None else probes)


def position(tiers: Sequence[str], name: str) -> int:
    """Where a tier stands in an index.

    Raises
    ------
    InputError
        No such tier.
    """
    if name not in tiers:
        raise InputError(f"the index has no tier {name!r}; it has {', '.join(tiers)}")
    return tiers.index(name)


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
        self._parts: list[Any] = [tier.index for tier in self.tiers]
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
        rows: NDArray[np.int64] | None = None,
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
        rows : ndarray of int64, sorted, optional
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
        queries = self._checked(queries, k, shortlists)
        reach = self.n_rows if rows is None else len(rows)
        nothing = Found(np.empty(0, np.int64), np.empty(0, np.float32))
        results = [nothing] * len(queries)
        allowed = None if rows is None else selector(rows, self.n_rows)
        probes = self._probes(probes, shortlists, reach)
        left_out = np.full(len(queries), -1) if exclude is None else np.asarray(exclude)
        extra = _SPARE + (exclude is not None)
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

    def seconds(
        self, query: NDArray[np.float32], sizes: Sequence[int], probes: int | None, allowed: Any
    ) -> float:
        """Wall time of the FAISS call for one query alone.

        Parameters
        ----------
        query : ndarray, shape (at least dims,), float32
        sizes : sequence of int
            Rows that each tier passes on, the last included.
        probes : int or None
        allowed : faiss.IDSelector or None
        """
        vector = np.ascontiguousarray(query[None, : self.dims], dtype=np.float32)
        parameters = self._parameters(sizes, probes, allowed)
        start = time.perf_counter()
        self._index.search(vector, sizes[-1], params=parameters)
        return time.perf_counter() - start

    def _checked(
        self, queries: NDArray[np.float32], k: int, shortlists: Sequence[int]
    ) -> NDArray[np.float32]:
        queries = np.asarray(queries, dtype=np.float32)
        if queries.ndim != 2 or queries.shape[1] < self.dims:
            raise InputError(
                f"queries must have shape (n, {self.dims}) or be wider; found {queries.shape}"
            )
        queries = np.ascontiguousarray(queries[:, : self.dims])
        if not np.isfinite(queries).all():
            raise InputError("queries hold values that are not finite")
        if k < 1:
            raise InputError(f"k must be at least 1; found {k}")
        Funnel(tuple(tier.name for tier in self.tiers), tuple(shortlists))
        return queries

    def _probes(self, probes: int | None, shortlists: Sequence[int], reach: int) -> int | None:
        """Cells to scan; None for all."""
        cells = self.tiers[0].cells
        if probes is None or cells is None or (shortlists and shortlists[0] >= self.n_rows):
            return None
        scanned = math.ceil(probes * self.n_rows / max(reach, 1))
        return scanned if scanned < cells else None

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
        rows = [line[kept] for line, kept in zip(labels, keep, strict=True)]
        if last.rescored:
            by_query = last.scores(unit(queries), rows)
        else:
            by_query = [line[kept] for line, kept in zip(scores, keep, strict=True)]
        return [Found(*best_first(*pair)) for pair in zip(rows, by_query, strict=True)]


def selector(rows: NDArray[np.int64], n_rows: int) -> Any:
    """FAISS's selector of rows: one bit for each of the index's `n_rows`."""
    allowed = np.zeros(n_rows, dtype=bool)
    allowed[rows] = True
    return _faiss.load().IDSelectorBitmap(np.packbits(allowed, bitorder="little"))


def _factor(wide: int, narrow: int) -> float:
    """The smallest float32 ratio that gives at least `wide` when FAISS multiplies it back."""
    factor = np.float32(wide / narrow)
    while int(np.float32(narrow) * factor) < wide:
        factor = np.nextafter(factor, np.float32(np.inf))
    return float(factor)
