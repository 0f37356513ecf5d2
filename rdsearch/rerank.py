"""Reranking for others: candidates of any tool, scored at one tier of an index."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rdsearch import fasta
from rdsearch.candidates import Candidates, CandidateSource, gather
from rdsearch.errors import InputError, few
from rdsearch.fasta import Record
from rdsearch.hits import ATTRIBUTES, Hit, QueryHits
from rdsearch.hits import columns as hit_columns
from rdsearch.space import unit

if TYPE_CHECKING:
    from rdsearch.index import Index
    from rdsearch.progress import Progress
    from rdsearch.queries import Queries

__all__ = ["RANK_COLUMN", "RerankReport", "Reranking", "columns", "rerank"]

#: Column of a hit with its place among the candidates of its query, 1 the first.
RANK_COLUMN = "candidate_rank"

_LOGGER = logging.getLogger(__name__)
# Catalog columns that a hit takes as they are.
_SHOWN = ("length", "protein_name", "organism")
# Sequences that are embedded together.
_AT_ONCE = 4096


@dataclass(slots=True)
class RerankReport:
    """What became of the candidates.

    Attributes
    ----------
    candidates : int
        Pairs of a query and a candidate.
    scored : int
        Of these, pairs that were scored; `k` does not count.
    embedded : int
        Candidates that the index lacks and that were embedded.
    missing : dict of str to tuple of str
        Query id to those of its candidates that could not be scored; no entry where there is none.
    unknown_queries : tuple of str
        Queries that the candidates name and that were not given.
    without_candidates : tuple of str
        Ids of queries for which there is no candidate.
    repeated : int
        Pairs that were named more than once.
    """

    candidates: int = 0
    scored: int = 0
    embedded: int = 0
    missing: dict[str, tuple[str, ...]] = field(default_factory=dict)
    unknown_queries: tuple[str, ...] = ()
    without_candidates: tuple[str, ...] = ()
    repeated: int = 0

    @property
    def n_missing(self) -> int:
        """Pairs that could not be scored."""
        return sum(map(len, self.missing.values()))

    def __str__(self) -> str:
        text = f"{self.scored:,} of {self.candidates:,} candidates scored"
        return text + (f", {self.embedded:,} of them embedded" if self.embedded else "")


class Reranking(NamedTuple):
    """Results as a search gives them, in the order of the queries, and a report."""

    results: list[QueryHits]
    report: RerankReport


@dataclass(slots=True)
class _Asked:
    """A query, its candidates, and the scores of those that have one."""

    query: Record
    names: tuple[str, ...]
    scores: dict[str, float]
    # In the tier's space, of length one; kept while candidates without a score may be embedded.
    vector: NDArray[np.float32] | None

    @property
    def missing(self) -> tuple[str, ...]:
        return tuple(name for name in self.names if name not in self.scores)


def rerank(
    index: Index,
    queries: Queries,
    candidates: CandidateSource,
    tier: str | None = None,
    *,
    sequences: str | Path | Iterable[Record] | None = None,
    k: int | None = None,
    kind: str | None = None,
    progress: Progress | None = None,
) -> Reranking:
    """Score the candidates of each query and put them in order.

    Parameters
    ----------
    index : Index
    queries : str, Path, Store, Record or iterable of Record
        As for a search.
    candidates : str, Path, iterable of str, mapping of str to iterable of str, or Candidates
        See `rdsearch.candidates.gather`.
    tier : str, optional
        Where to score; the last tier of the index's funnel where it is not given.
    sequences : str, Path or iterable of Record, optional
        FASTA with candidates that the index lacks; those are embedded, and no others.
    k : int, optional
        Hits for each query at most; all where it is not given.
    kind : str, optional
        Kind of a candidates file.
    progress : Progress, optional

    Returns
    -------
    Reranking
        ``(results, report)``. A candidate is a hit of its own, under the accession that was asked
        for, also where several share a row. Hits are ordered by falling score, then by row, then
        as the candidates were; their column ``candidate_rank`` says where they stood. A candidate
        that was embedded has row -1, None in the catalog's columns, and a score that no codec has
        rounded; with equal scores it comes after the index's own.

    Raises
    ------
    InputError
        Unknown tier, k below 1, candidates that cannot be read, none of the queries has
        candidates, or no candidate can be scored.
    FastaError, ChainMismatchError, WeightsError
    """
    if k is not None and k < 1:
        raise InputError(f"k must be at least 1; found {k}")
    tier = tier or index.default_funnel.tiers[-1]
    index.entry(tier)
    gathered = gather(candidates, kind)
    rows = index.catalog.rows_of(gathered.names)
    asked = list(_score(index, queries, tier, gathered, rows, sequences is not None, progress))
    embedded = {} if sequences is None else _embed(index, asked, tier, sequences, progress)
    report = _report(gathered, asked, len(embedded))
    ranked = [_order(one, rows, index.n_rows)[:k] for one in asked]
    found = sorted({rows[name] for names in ranked for name in names if name in rows})
    proteins = index.catalog.proteins(found)
    results = []
    for one, names in zip(asked, ranked, strict=True):
        places = {name: place for place, name in enumerate(one.names, start=1)}
        hits = []
        for rank, name in enumerate(names, start=1):
            known = (
                _from_record(embedded[name], index.columns)
                if name in embedded
                else _from_catalog(name, proteins[rows[name]])
            )
            known["columns"][RANK_COLUMN] = places[name]
            score = one.scores[name]
            hits.append(
                Hit(
                    query=one.query.id,
                    rank=rank,
                    accession=name,
                    score=score,
                    scores={tier: score},
                    row=rows.get(name, -1),
                    **known,
                )
            )
        results.append(QueryHits(one.query, hits))
    return Reranking(results, report)


def columns(index: Index, tier: str) -> list[str]:
    """Column names of the hits, for `rdsearch.outputs.write`."""
    names = [name for name in hit_columns((tier,), index.catalog.columns) if name != RANK_COLUMN]
    return [*names, RANK_COLUMN]


def _score(
    index: Index,
    queries: Queries,
    tier: str,
    gathered: Candidates,
    rows: Mapping[str, int],
    keep: bool,
    progress: Progress | None,
) -> Iterator[_Asked]:
    """Score the candidates that are in the index."""
    dims = index.entry(tier).dims
    for records, vectors in index.batches(queries, tier, progress):
        asked = [gathered.of(record) for record in records]
        own = [[name for name in names if name in rows] for names in asked]
        numbers = [np.array([rows[name] for name in names], dtype=np.int64) for names in own]
        scores = index.score_rows(vectors, numbers, tier)
        mapped = unit(index.space.transform(vectors[:, :dims])) if keep else [None] * len(records)
        for record, names, known, values, vector in zip(
            records, asked, own, scores, mapped, strict=True
        ):
            scored = dict(zip(known, map(float, values), strict=True))
            yield _Asked(record, names, scored, vector if len(scored) < len(names) else None)


def _embed(
    index: Index,
    asked: Sequence[_Asked],
    tier: str,
    sequences: str | Path | Iterable[Record],
    progress: Progress | None,
) -> dict[str, Record]:
    """Score candidates that have a sequence and no row; their records by accession."""
    wanted = {name for one in asked for name in one.missing}
    given = fasta.read(sequences, unique=False) if isinstance(sequences, str | Path) else sequences
    found: dict[str, Record] = {}
    for record in given if wanted else ():
        name = record.accession
        if name in wanted and found.setdefault(name, record).sequence != record.sequence:
            raise InputError(f"candidate {name} comes with two sequences: expected one")
    names, vectors = list(found), np.empty((len(found), index.entry(tier).dims), dtype=np.float32)
    for start in range(0, len(names), _AT_ONCE):
        block = slice(start, start + _AT_ONCE)
        rd = index.embed([found[name].sequence for name in names[block]], tier, progress)
        vectors[block] = unit(index.space.transform(rd))
    places = {name: place for place, name in enumerate(names)}
    for one in asked:
        if one.vector is None:
            continue
        for name in one.missing:
            if name in places:
                # Summed one by one, so that equal vectors get equal scores.
                product = vectors[places[name]] * one.vector
                one.scores[name] = float(product.sum(dtype=np.float32))
        one.vector = None
    return found


def _order(one: _Asked, rows: Mapping[str, int], n_rows: int) -> list[str]:
    """Names by falling score, then by row with the embedded last, then as they came."""
    scored = (name for name in one.names if name in one.scores)
    return sorted(scored, key=lambda name: (-one.scores[name], rows.get(name, n_rows)))


def _from_catalog(name: str, behind: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    entry = next(entry for entry in behind if entry["accession"] == name)
    return {
        **{column: entry[column] for column in _SHOWN},
        "accessions": tuple(entry["accession"] for entry in behind),
        "columns": {c: value for c, value in entry.items() if c not in ATTRIBUTES},
    }


def _from_record(record: Record, columns: Iterable[str]) -> dict[str, Any]:
    return {
        "length": len(record.sequence),
        "protein_name": record.protein_name,
        "organism": record.organism,
        "accessions": (record.accession,),
        "columns": {column: None for column in columns if column not in ATTRIBUTES},
    }


def _report(gathered: Candidates, asked: Sequence[_Asked], embedded: int) -> RerankReport:
    """Count, and say what did not fit together."""
    known = {name for one in asked for name in (one.query.accession, one.query.id)}
    report = RerankReport(
        candidates=sum(len(one.names) for one in asked),
        scored=sum(len(one.scores) for one in asked),
        embedded=embedded,
        missing={one.query.id: one.missing for one in asked if one.missing},
        unknown_queries=tuple(name for name in gathered.named if name not in known),
        without_candidates=tuple(one.query.id for one in asked if not one.names),
        repeated=gathered.repeated,
    )
    if not report.candidates:
        raise InputError(
            f"none of {len(asked):,} queries has candidates: those are for "
            f"{few(report.unknown_queries) or 'nobody'}, the queries are "
            f"{few([one.query.accession for one in asked]) or 'none'}. Expected the accessions of "
            "the queries"
        )
    lost = list(dict.fromkeys(name for names in report.missing.values() for name in names))
    if not report.scored:
        raise InputError(
            f"none of {len(lost):,} candidates is in the index ({few(lost)}). Expected accessions "
            "as the index has them; sequences that it lacks can be given as FASTA (--sequences)"
        )
    for what, names in (
        ("candidates are not in the index and were left out", lost),
        ("queries of the candidates were not given", report.unknown_queries),
        ("queries have no candidates", report.without_candidates),
    ):
        if names:
            _LOGGER.warning("%s %s (%s)", f"{len(names):,}", what, few(names))
    return report
