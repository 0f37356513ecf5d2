"""A search, from the vectors of its queries to hits that say what they mean."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rdsearch.details import ALIGNED_HITS, Details, Judged, completed, cut, traced
from rdsearch.errors import InputError, few
from rdsearch.fasta import Record
from rdsearch.funnel import Funnel
from rdsearch.hits import Hit, QueryHits, TierScore, assemble
from rdsearch.queries import own_rows
from rdsearch.rankings import Step

if TYPE_CHECKING:
    from rdsearch.index import Index

__all__ = ["find", "find_in_space", "full_note", "is_full", "noting_full"]


def find(
    index: Index,
    queries: Sequence[Record],
    vectors: NDArray[np.float32],
    k: int,
    funnel: Funnel,
    rows: NDArray[np.int64] | None,
    exclude_self: bool,
    details: Details,
    explain: Callable[[Record, list[Step]], None] | None,
) -> list[QueryHits]:
    """Search an index; the arguments are those of `rdsearch.index.Index.search_vectors`.

    Parameters
    ----------
    index : Index
    queries : sequence of Record
    vectors : ndarray, shape (n, at least dims of the funnel's last tier), float32
    k : int
    funnel : Funnel
    rows : ndarray of int64, sorted, or None
    exclude_self : bool
    details : Details
    explain : callable or None

    Returns
    -------
    list of QueryHits
        In the order of the queries.
    """
    if len(queries) != len(vectors):
        raise InputError(f"{len(queries)} queries need as many vectors; found {len(vectors)}")
    exclude = own_rows(index.catalog, queries) if exclude_self else None
    mapped = index.in_space(vectors, funnel.tiers[-1])
    if explain is not None:
        for query, steps in zip(queries, index.explain(vectors, k, funnel, rows), strict=True):
            explain(query, steps)
    return find_in_space(index, queries, mapped, k, funnel, rows, exclude, details)


def find_in_space(
    index: Index,
    queries: Sequence[Record],
    mapped: NDArray[np.float32],
    k: int,
    funnel: Funnel,
    rows: NDArray[np.int64] | None,
    exclude: Sequence[int] | None,
    details: Details,
) -> list[QueryHits]:
    """Search an index with queries that are in its space.

    Parameters
    ----------
    index : Index
    queries : sequence of Record
    mapped : ndarray, shape (n, at least dims of the funnel's last tier), float32
        As `rdsearch.searcher.Searcher.in_space` gives them.
    k, funnel, rows, details
        As in `find`.
    exclude : sequence of int or None
        For each query a row to leave out; -1 for none.

    Returns
    -------
    list of QueryHits
        In the order of the queries.
    """
    wanted = min(max(k, ALIGNED_HITS), index.n_rows) if details.realign else k
    last, searched = funnel.tiers[-1], index.n_rows if rows is None else len(rows)
    rankings = index.rank_in_space(mapped, wanted, funnel, rows=rows, exclude=exclude, trace=True)
    judged = cut(index, mapped, rankings, last, details, max(searched, 1))
    stands: Sequence[list[tuple[TierScore, ...]] | None] = [None] * len(judged)
    if details.trace:
        kept = [one.ranking for one in judged]
        stands = traced(index, mapped, kept, last, rows=rows, exclude=exclude)
    results = _described(index, queries, judged, stands, funnel.tiers)
    return [QueryHits(query, hits[:k]) for query, hits in completed(index, results, details)]


def is_full(details: Details, k: int, n_rows: int, hits: Sequence[Hit]) -> bool:
    """Whether a query has as many hits as are given at most, so that others may pass a cut too."""
    return details.cuts and len(hits) >= k < n_rows


def noting_full(
    found: Iterable[QueryHits], details: Details, k: int, n_rows: int, full: list[str]
) -> Iterator[QueryHits]:
    """The same results; the ids of queries that are full are added to `full`; see `is_full`."""
    for result in found:
        if is_full(details, k, n_rows, result.hits):
            full.append(result.query.id)
        yield result


def full_note(full: Sequence[str], limit: int) -> str:
    """What a reader has to know of queries that have as many hits as are given at most."""
    return (
        f"{len(full):,} queries have {limit:,} hits, the most that are given: others may pass too. "
        f"Raise -k ({few(full)})"
    )


def _described(
    index: Index,
    queries: Sequence[Record],
    judged: Sequence[Judged],
    stands: Sequence[list[tuple[TierScore, ...]] | None],
    tiers: Sequence[str],
) -> list[QueryHits]:
    """Rankings with their catalog entries."""
    found = {int(row) for one in judged for row in one.ranking.rows}
    proteins = index.catalog.proteins(sorted(found))
    results = []
    for query, one, places in zip(queries, judged, stands, strict=True):
        scores = (
            {tier: float(score) for tier, score in zip(tiers, line, strict=True)}
            for line in one.ranking.scores
        )
        hits = assemble(
            query,
            one.ranking.rows.tolist(),
            scores,
            proteins,
            evalues=None if one.evalues is None else one.evalues.tolist(),
            probabilities=None if one.probabilities is None else one.probabilities.tolist(),
            tiers=places,
        )
        results.append(QueryHits(query, list(hits)))
    return results
