"""Queries: read, and embedded as an index's own proteins were."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rdsearch import family, fasta
from rdsearch.catalogs import Catalogs
from rdsearch.chain import Chain
from rdsearch.errors import ChainMismatchError, InputError, WeightsError
from rdsearch.fasta import Record
from rdsearch.funnel import Funnel
from rdsearch.manifest import Manifest
from rdsearch.store import Store

if TYPE_CHECKING:
    from rdsearch.embed import Embedder
    from rdsearch.progress import Progress

__all__ = ["DEFAULT_HITS", "Queries", "QueryEmbedder", "hits_wanted", "own_rows"]

DEFAULT_HITS = 10

# Queries that are embedded together: each member is loaded once for so many.
_AT_ONCE = 4096

#: What can be searched for: a FASTA path (``"-"`` is standard input), a store of embedded
#: proteins or its path, one record, or records.
Queries = str | Path | Store | Record | Iterable[Record]

_Batches = Iterator[tuple[list[Record], NDArray[np.float32]]]


class QueryEmbedder:
    """Loads members as far as they are needed, and keeps them.

    Parameters
    ----------
    path : Path
        The index, named in errors.
    manifest : Manifest
        Its windows and its weights' fingerprints are the queries' too.
    chain : Chain
    **embedding
        Other options of `rdsearch.embed.Embedder`.
    """

    def __init__(self, path: Path, manifest: Manifest, chain: Chain, **embedding: Any) -> None:
        self.path = path
        self.manifest = manifest
        self.chain = chain
        self._embedding = embedding
        self._embedders: dict[str, Embedder] = {}

    def batches(self, queries: Queries, tier: str, progress: Progress | None = None) -> _Batches:
        """Queries together with their rd embeddings.

        Parameters
        ----------
        queries : str, Path, Store, Record or iterable of Record
        tier : str
            Where the embeddings end.
        progress : Progress, optional

        Yields
        ------
        records : list of Record
        vectors : ndarray, shape (records, dims of the tier), float32

        Raises
        ------
        ChainMismatchError
            A store of another chain.
        FastaError, StoreError, WeightsError
        """
        if isinstance(queries, str | Path) and Path(queries).is_dir():
            queries = Store.open(Path(queries))
        if isinstance(queries, Store):
            return self._stored(queries, tier)
        if isinstance(queries, Record):
            queries = [queries]
        records = fasta.read(queries, unique=False) if isinstance(queries, str | Path) else queries
        return self._embedded(iter(records), tier, progress)

    def _embedded(
        self, records: Iterator[Record], tier: str, progress: Progress | None
    ) -> _Batches:
        while batch := list(islice(records, _AT_ONCE)):
            yield batch, self.embed([record.sequence for record in batch], tier, progress)

    def _stored(self, store: Store, tier: str) -> _Batches:
        if store.chain_hash != self.chain.hash:
            raise ChainMismatchError(
                f"{store.path}: its vectors were made with chain "
                f"{(store.chain_hash or 'none')[:12]}, the index with chain "
                f"{self.chain.hash[:12]}. Embed the queries with the index's chain, or give FASTA",
                expected=self.chain.hash,
                found=store.chain_hash,
            )
        return _read_store(store, tier)

    def embed(
        self, sequences: Sequence[str], tier: str, progress: Progress | None = None
    ) -> NDArray[np.float32]:
        """rd embeddings of sequences.

        Parameters
        ----------
        sequences : sequence of str
        tier : str
            Only its members are loaded and run.
        progress : Progress, optional

        Returns
        -------
        ndarray, shape (n, dims of the tier), float32

        Raises
        ------
        WeightsError
            A member's weights are not there, or not those that the index was built with.
        """
        chain = self.chain.upto(tier)
        embedder = self.embedder(tier)

        def pooled() -> Iterator[NDArray[np.float32]]:
            for member in chain.members:
                report = None if progress is None else progress.stage(member.name, len(sequences))
                yield embedder.pool(member, sequences, progress=report)

        return np.concatenate(list(chain.parts(pooled())), axis=1)

    def embedder(self, tier: str | None = None) -> Embedder:
        """The models up to a tier, made to embed as the index's proteins were.

        Parameters
        ----------
        tier : str, optional
            The chain's last where it is not given.

        Raises
        ------
        WeightsError
            A member's weights are not there, or not those that the index was built with.
        """
        from rdsearch.embed import Embedder

        chain = self.chain if tier is None else self.chain.upto(tier)
        tier = chain.tiers[-1]
        for wider in self.chain.tiers[self.chain.tiers.index(tier) :]:
            if wider in self._embedders:
                return self._embedders[wider]
        if tier not in self._embedders:
            made = self.manifest.embedding
            embedder = Embedder(
                family.get(chain.family),
                chain.tiers,
                window=made["window"],
                overlap=made["overlap"],
                **self._embedding,
            )
            for name, value in embedder.signature.items():
                if name.startswith("weights ") and made.get(name, value) != value:
                    raise WeightsError(
                        f"index {self.path} was built with other {name}: expected fingerprint "
                        f"{made[name]}, found {value}. Give the folder of the weights it was "
                        "built with (--weights)",
                        expected=made[name],
                        found=value,
                    )
            self._embedders[tier] = embedder
        return self._embedders[tier]


def hits_wanted(k: int | None, n_rows: int, funnel: Funnel | None) -> int:
    """How many hits a query is to get.

    Parameters
    ----------
    k : int or None
        What was asked for; None for the default, or all rows of a smaller index.
    n_rows : int
        Rows of the index.
    funnel : Funnel or None
        The funnel, if its shortlists were asked for: those of a default are widened to k.

    Raises
    ------
    InputError
        k below 1, larger than the index, or larger than a shortlist that was asked for.
    """
    if k is None:
        return min(DEFAULT_HITS, n_rows)
    if not 1 <= k <= n_rows:
        raise InputError(f"k must be from 1 to {n_rows}, the rows of the index; found {k}")
    if funnel is not None and min(funnel.shortlists, default=k) < k:
        raise InputError(
            f"a shortlist must hold the {k} hits that are wanted (k); found {funnel}. Lengthen it "
            "or ask for fewer"
        )
    return k


def own_rows(catalog: Catalogs, queries: Sequence[Record]) -> list[int]:
    """The row that is each query itself.

    Parameters
    ----------
    catalog : Catalogs
    queries : sequence of Record

    Returns
    -------
    list of int
        The row of the query's accession, else of its sequence; -1 where neither is there.
    """
    named = catalog.rows_of(query.accession for query in queries)
    others = {query.sequence for query in queries if query.accession not in named}
    alike = catalog.rows_of_sequences(others)
    return [named.get(query.accession, alike.get(query.sequence, -1)) for query in queries]


def _read_store(store: Store, tier: str) -> _Batches:
    """Records and vectors of a store; several records may share a row."""
    records, start = store.records(), 0
    while batch := list(islice(records, _AT_ONCE)):
        rows = store.accession_rows[start : start + len(batch)]
        yield batch, store.rd(rows, tier)
        start += len(batch)
