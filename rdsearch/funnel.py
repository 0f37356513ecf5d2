"""The funnel: a coarse-to-fine search composed of tier files as one FAISS object.

Each step is ``IndexRefine(IndexPreTransform(prefix cut, all before), next tier)``: the tiers so
far make a shortlist, the next, wider tier reranks it. FAISS runs the whole of it in one call.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rdsearch import _faiss
from rdsearch.errors import InputError
from rdsearch.tiers import Tier

__all__ = ["Funnel", "FunnelIndex", "Ranking", "plan"]

# Candidates beyond k that are scored too, so that ties across rank k seldom need a second search.
_SPARE = 8
# Scores of equal vectors differ by float32 rounding between a batched and a single product.
_TIE = 1e-6


@dataclass(frozen=True, slots=True)
class Funnel:
    """A search plan.

    Attributes
    ----------
    tiers : tuple of str
        The tiers a query passes, coarse to fine.
    shortlists : tuple of int
        Rows that each tier but the last passes on; they do not grow.
    """

    tiers: tuple[str, ...]
    shortlists: tuple[int, ...]

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

    def __str__(self) -> str:
        steps = [f"{tier}:{size}" for tier, size in zip(self.tiers, self.shortlists, strict=False)]
        return " > ".join([*steps, self.tiers[-1]])

    def upto(self, tier: str) -> Funnel:
        """The funnel that ends at `tier` (or at the last of its tiers before the cut).

        Raises
        ------
        InputError
            When `tier` is not one of the funnel's.
        """
        if tier not in self.tiers:
            raise InputError(f"the funnel has no tier {tier!r}; it has {', '.join(self.tiers)}")
        n = self.tiers.index(tier) + 1
        return Funnel(self.tiers[:n], self.shortlists[: n - 1])


def plan(
    default: Funnel,
    tiers: Sequence[str],
    to_tier: str | None = None,
    shortlists: dict[str, int] | int | None = None,
) -> Funnel:
    """A funnel from what a user says.

    Parameters
    ----------
    default : Funnel
        The index's own.
    tiers : sequence of str
        All tiers of the index, coarse to fine.
    to_tier : str, optional
        Where to stop; the last tier of `default` where it is not given.
    shortlists : dict of str to int, or int, optional
        Named tiers with their shortlists (`{}`: the last tier alone), or one shortlist for every
        tier before the last.

    Returns
    -------
    Funnel

    Raises
    ------
    InputError
        Unknown tier, shortlists that grow or name the last tier.
    """
    last = to_tier or default.tiers[-1]
    for name in (last, *(shortlists if isinstance(shortlists, dict) else ())):
        if name not in tiers:
            raise InputError(f"the index has no tier {name!r}; it has {', '.join(tiers)}")
    if isinstance(shortlists, dict):
        named = sorted(shortlists, key=tiers.index)
        if any(tiers.index(name) >= tiers.index(last) for name in named):
            raise InputError(
                f"shortlists belong to tiers before the last one, {last}; found {', '.join(named)}"
            )
        return Funnel((*named, last), tuple(shortlists[name] for name in named))
    funnel = default.upto(last)
    if shortlists is None:
        return funnel
    return Funnel(funnel.tiers, (shortlists,) * (len(funnel.tiers) - 1))


@dataclass(frozen=True, slots=True)
class Ranking:
    """The rows that one query found, best first.

    Attributes
    ----------
    rows : ndarray, shape (hits,), int64
        Sorted by score at the funnel's last tier, then by row.
    scores : ndarray, shape (hits, tiers), float32
        Cosine in each of the funnel's tiers, coarse to fine.
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
        index = self.tiers[0].index
        for before, tier in itertools.pairwise(self.tiers):
            cut = faiss.RemapDimensionsTransform(tier.dims, before.dims, False)
            narrow = faiss.IndexPreTransform(cut, index)
            index = faiss.IndexRefine(narrow, tier.index)
            self._parts += [cut, narrow, index]
        self._index = index

    def _parameters(self, sizes: Sequence[int]) -> Any:
        """Nested search parameters for these result sizes, coarse to fine (the last is k)."""
        faiss = _faiss.load()
        parameters = None
        for wide, narrow in itertools.pairwise(sizes):
            # Nested objects go in through the constructor: only there FAISS keeps them alive.
            inner: dict[str, Any] = {}
            if parameters is not None:
                cut = faiss.SearchParametersPreTransform(index_params=parameters)
                inner["base_index_params"] = cut
            factor = _factor(wide, narrow)
            parameters = faiss.IndexRefineSearchParameters(k_factor=factor, **inner)
        return parameters

    def search(
        self, queries: NDArray[np.float32], k: int, shortlists: Sequence[int] = ()
    ) -> list[Ranking]:
        """Find the best rows for each query.

        Parameters
        ----------
        queries : ndarray, shape (q, dims), float32
            rd embeddings at the width of the last tier. Not changed.
        k : int
            Hits wanted for each query; fewer come back when the index has fewer rows.
        shortlists : sequence of int
            One for each tier but the last; raised to k, lowered to the number of rows.

        Returns
        -------
        list of Ranking
            In the order of the queries.

        Raises
        ------
        InputError
            Wrong width, a value that is not finite, k below 1, or a wrong number of shortlists.
        """
        queries = np.ascontiguousarray(queries, dtype=np.float32)
        if queries.ndim != 2 or queries.shape[1] != self.dims:
            raise InputError(
                f"queries must have shape (n, {self.dims}), the width of tier "
                f"{self.tiers[-1].name}; found {queries.shape}"
            )
        if not np.isfinite(queries).all():
            raise InputError("a query vector has values that are not finite")
        if k < 1:
            raise InputError(f"k must be at least 1; found {k}")
        Funnel(tuple(tier.name for tier in self.tiers), tuple(shortlists))

        rankings: dict[int, Ranking] = {}
        pending = list(range(len(queries)))
        wanted = min(k + _SPARE, self.n_rows)
        while pending:
            sizes = [min(max(size, wanted), self.n_rows) for size in shortlists]
            # A last shortlist that holds wanted rows has no more to give, unless it is everything.
            reach = self.n_rows if not sizes or sizes[-1] == self.n_rows else sizes[-1]
            found = self._candidates(queries[pending], [*sizes, wanted])
            undecided = []
            for position, ranking in zip(pending, found, strict=True):
                last = ranking.scores[:, -1]
                complete = len(last) <= k or wanted >= reach
                if complete or last[k - 1] > last[-1] + _TIE:
                    rankings[position] = Ranking(ranking.rows[:k], ranking.scores[:k])
                else:
                    undecided.append(position)
            pending = undecided
            wanted = min(wanted * 4, reach)
        return [rankings[i] for i in range(len(queries))]

    def _candidates(self, queries: NDArray[np.float32], sizes: Sequence[int]) -> list[Ranking]:
        """One FAISS call, then every candidate scored at every tier and put in order."""
        found = self._index.search(queries, sizes[-1], params=self._parameters(sizes))[1]
        rows = [labels[labels >= 0] for labels in found]
        by_tier = [tier.scores(queries, rows) for tier in self.tiers]
        rankings = []
        for i, labels in enumerate(rows):
            scores = np.stack([scored[i] for scored in by_tier], axis=1)
            order = np.lexsort((labels, -scores[:, -1]))
            rankings.append(Ranking(labels[order], scores[order]))
        return rankings


def _factor(wide: int, narrow: int) -> float:
    """The smallest float32 ratio that gives at least `wide` when FAISS multiplies it back."""
    factor = np.float32(wide / narrow)
    while int(np.float32(narrow) * factor) < wide:
        factor = np.nextafter(factor, np.float32(np.inf))
    return float(factor)
