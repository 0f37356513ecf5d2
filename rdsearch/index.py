"""An opened index: search it, ask what it is.

See ``indexes/README.md`` for the folder on disk, `rdsearch.builder` for how it is made and
`rdsearch.verification` for how it is checked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rdsearch.candidates import CandidateSource
from rdsearch.chain import Chain
from rdsearch.description import describe
from rdsearch.details import Details, wanted
from rdsearch.errors import InputError
from rdsearch.fasta import Record
from rdsearch.filters import allowed_rows
from rdsearch.finding import find
from rdsearch.funnel import Funnel, plan
from rdsearch.hits import QueryHits
from rdsearch.layout import load_chain
from rdsearch.opening import QUICK
from rdsearch.queries import Queries, QueryEmbedder
from rdsearch.reader import Reader
from rdsearch.rerank import Reranking, rerank
from rdsearch.searcher import Step

if TYPE_CHECKING:
    from rdsearch.progress import Progress

__all__ = ["Index", "Queries", "open"]

# The arguments of `Index.plan`.
_PLAN = ("from_tier", "to_tier", "shortlists", "probes")


class Index(Reader):
    """An index that was opened for search; made by `rdsearch.open`.

    Besides proteins it takes vectors: `rank`, `rank_rows`, `score_rows`, `cost` and `explain` of
    `rdsearch.searcher.Searcher`.

    Attributes
    ----------
    path : Path
        Its folder.
    manifest : Manifest
        As it was when the index was opened; it does not change under a reader.
    catalog : Catalogs
        Its proteins.
    generation : int
        Which one was opened; `refresh` moves on to the latest.

    Examples
    --------
    >>> import rdsearch
    >>> index = rdsearch.open("indexes/demo")          # doctest: +SKIP
    >>> for query, hits in index.search("query.fasta", k=10):  # doctest: +SKIP
    ...     print(query.id, hits[0].accession, hits[0].score)
    """

    def __init__(self, path: Path, *, device: str = "auto", **options: Any) -> None:
        opening = {name: options.pop(name) for name in ("verify", "in_memory") if name in options}
        self._embedding = {**options, "device": device}
        super().__init__(path, device=device, **opening)

    @cached_property
    def chain(self) -> Chain:
        """The chain that its vectors were made with, read when it is first needed."""
        return load_chain(self.path, self.manifest)

    def forget(self) -> None:
        """The chain and the models made for it are another index's."""
        super().forget()
        for learnt in ("chain", "_queries"):
            self.__dict__.pop(learnt, None)

    @cached_property
    def _queries(self) -> QueryEmbedder:
        return QueryEmbedder(self.path, self.manifest, self.chain, **self._embedding)

    def __repr__(self) -> str:
        return f"<rdsearch.Index {self.path}: {self.n_rows} rows, tiers {', '.join(self.tiers)}>"

    @property
    def default_funnel(self) -> Funnel:
        """The funnel of a search that says nothing else."""
        return self.manifest.funnel

    def hit_columns(
        self, funnel: Funnel | None = None, details: Details | None = None
    ) -> list[str]:
        """Column names of this index's hits, as ``Hit.as_dict()`` orders them."""
        return (details or Details()).columns(self, funnel or self.default_funnel)

    def info(self) -> dict[str, Any]:
        """What the index is, for people and programs; see `rdsearch.description.describe`."""
        return describe(self)

    def plan(
        self,
        from_tier: str | None = None,
        to_tier: str | None = None,
        shortlists: dict[str, int] | int | None = None,
        probes: int | None = None,
    ) -> Funnel:
        """The funnel that a search takes.

        Parameters
        ----------
        from_tier, to_tier : str, optional
            Where to begin and where to stop; members after `to_tier` are neither loaded nor run.
            The ends of the default funnel where they are not given.
        shortlists : dict of str to int, or int, optional
            Rows that each named tier passes on, in place of the default funnel's: the search
            goes through the named tiers and `to_tier`; with `{}` it scans `to_tier` alone. One
            number is the shortlist of every tier before the last.
        probes : int, optional
            Cells of the first tier that are scanned, where it has cells.

        Returns
        -------
        Funnel

        Raises
        ------
        InputError
            Unknown tier, tiers out of order, shortlists that grow or name the last tier.
        """
        return plan(self.default_funnel, self.tiers, from_tier, to_tier, shortlists, probes)

    def search(
        self,
        queries: Queries,
        k: int | None = None,
        *,
        funnel: Funnel | None = None,
        where: str | None = None,
        ids: Iterable[str] | None = None,
        taxon: int | None = None,
        exclude_self: bool = False,
        details: Details | None = None,
        explain: Callable[[Record, list[Step]], None] | None = None,
        progress: Progress | None = None,
        **options: Any,
    ) -> Iterator[QueryHits]:
        """Find homologs of proteins.

        Parameters
        ----------
        queries : str, Path, Store, Record or iterable of Record
            A FASTA file (``"-"``: standard input), a store of proteins that are embedded
            already, or records.
        k : int, optional
            Hits for each query at most; 10, or 500 where `evalue`, `fdr` or `fnr` is to cut, or
            the rows of a smaller index.
        funnel : Funnel, optional
            The whole plan; or say what differs from the default with the arguments of `plan`:
            `from_tier`, `to_tier`, `shortlists`, `probes`.
        where : str, optional
            A SQL expression over the catalog's columns: only proteins for which it is true.
        ids : iterable of str, optional
            Only these accessions.
        taxon : int, optional
            Only proteins of this NCBI taxon.
        exclude_self : bool, optional
            Leave the query out of its own hits: the protein with its accession, else the one
            with its sequence.
        details : Details, optional
            What the hits are to carry and which pass; or the arguments of
            `rdsearch.details.wanted`: `evalues`, `evalue`, `dbsize`, `fdr`, `fnr`, `trace`,
            `align`, `realign`, `sequences`.
        explain : callable, optional
            Called with each query and what each tier did for it.
        progress : Progress, optional
            Told of every batch that is embedded.

        Yields
        ------
        QueryHits
            ``(query, hits)`` in the order of the queries; hits by falling score, then by row.

        Raises
        ------
        FastaError, InputError
            Bad queries or options; options are checked before the first query is read.
        CalibrationError
            The index is not calibrated to the `fdr` or `fnr`.
        ChainMismatchError
            The store of queries was made with another chain.
        WeightsError
            A member's weights are not there.
        """
        planned = {name: options.pop(name) for name in _PLAN if name in options}
        if funnel is not None and planned:
            raise InputError(f"give a funnel, or {', '.join(planned)}, not both")
        if details is not None and options:
            raise InputError(f"give details, or {', '.join(options)}, not both")
        details = details or wanted(**options)
        asked = funnel is not None or planned.get("shortlists") is not None
        funnel = funnel or self.plan(**planned)
        details.check(self, funnel.tiers[-1])
        k = details.hits(k, self.n_rows, funnel if asked else None)
        rows = allowed_rows(self.catalog, where=where, ids=ids, taxon=taxon)
        batches = self.batches(queries, funnel.tiers[-1], progress)
        now = self.snapshot()
        return chain.from_iterable(
            find(now, records, vectors, k, funnel, rows, exclude_self, details, explain)
            for records, vectors in batches
        )

    def rerank(
        self,
        queries: Queries,
        candidates: CandidateSource,
        tier: str | None = None,
        **options: Any,
    ) -> Reranking:
        """Score candidates that another tool found.

        Parameters
        ----------
        queries : str, Path, Store, Record or iterable of Record
        candidates : path, iterable of accessions, or mapping of query to accessions
        tier : str, optional
            Where to score; the last tier of the default funnel where it is not given.
        **options
            `sequences`, `k`, `kind` and `progress` of `rdsearch.rerank.rerank`.

        Returns
        -------
        Reranking
            ``(results, report)``; the report names the candidates that the index lacks.
        """
        return rerank(self, queries, candidates, tier, **options)

    def batches(
        self, queries: Queries, tier: str, progress: Progress | None = None
    ) -> Iterator[tuple[list[Record], NDArray[np.float32]]]:
        """Queries with their vectors; see `rdsearch.queries.QueryEmbedder.batches`."""
        return self._queries.batches(queries, tier, progress)

    def embed(
        self, sequences: Sequence[str], tier: str, progress: Progress | None = None
    ) -> NDArray[np.float32]:
        """rd embeddings; see `rdsearch.queries.QueryEmbedder.embed`."""
        return self._queries.embed(sequences, tier, progress)

    def search_vectors(
        self,
        queries: Sequence[Record],
        vectors: NDArray[np.float32],
        k: int | None = None,
        funnel: Funnel | None = None,
        *,
        rows: NDArray[np.int64] | None = None,
        exclude_self: bool = False,
        details: Details | None = None,
        explain: Callable[[Record, list[Step]], None] | None = None,
    ) -> list[QueryHits]:
        """Find homologs of rd embeddings that are at hand already.

        Parameters
        ----------
        queries : sequence of Record
            One for each vector.
        vectors : ndarray, shape (n, at least dims of the funnel's last tier), float32
        k : int, optional
            As in `search`.
        funnel : Funnel, optional
            The index's default where not given.
        rows : ndarray of int64, sorted, optional
            The rows that may be found.
        exclude_self, explain : optional
            As in `search`.
        details : Details, optional
            What the hits are to carry; e-values where it is not given.

        Returns
        -------
        list of QueryHits
        """
        details = details or Details()
        k = details.hits(k, self.n_rows, funnel)
        funnel = funnel or self.default_funnel
        details.check(self, funnel.tiers[-1])
        return find(self, queries, vectors, k, funnel, rows, exclude_self, details, explain)


def open(
    path: str | Path,
    *,
    weights: str | Path | None = None,
    device: str = "auto",
    dtype: str = "auto",
    in_memory: bool = False,
    verify: str = QUICK,
    **embedding: Any,
) -> Index:
    """Open an index for search, as it is now; later changes do not reach it before `refresh`.

    The manifest, the size and both ends of every file, the chain's hash and the row checksums
    are checked; ``verify="full"`` and `rdsearch.verify` read everything.

    Parameters
    ----------
    path : str or Path
        The index folder.
    weights : str or Path, optional
        Folder with the family's checkpoints; else torch hub's cache, then a download.
    device, dtype : str
        How queries are embedded; see `rdsearch.embed.Embedder`. On ``"cuda"`` the first tier of
        the funnel is searched there too, if FAISS was built for it.
    in_memory : bool, optional
        Read the tiers into memory when they are first used. Otherwise all but the first stay on
        the disk, mapped into memory, and a search reads the rows it scores.
    verify : str, optional
        ``"full"``: check every byte of every file first.
    **embedding
        `tokens_per_batch` and `stream_layers`, as the embedder takes them.

    Returns
    -------
    Index

    Raises
    ------
    IndexMissingError
        There is no index.
    IndexDamagedError
        A file is missing, has another size, or does not belong to this index.
    ChainMismatchError
        The chain file is another chain.
    """
    embedding.update(weights=None if weights is None else Path(weights), dtype=dtype)
    return Index(Path(path), verify=verify, in_memory=in_memory, device=device, **embedding)
