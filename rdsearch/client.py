"""A client of ``rdsearch serve``.

    with Client("http://127.0.0.1:8000") as client:
        for query, hits in client.search("query.fasta", k=5):
            print(query["id"], hits[0]["accession"])

`AsyncClient` has the same methods for asyncio. Both need httpx (``pip install
'rdsearch[server]'``), which is loaded when the first client is made.
"""

from __future__ import annotations

import os
from typing import IO, TYPE_CHECKING, Any

from rdsearch.client_answers import Result, SearchAnswer, ServerError, Written
from rdsearch.client_async import AsyncClient
from rdsearch.client_connections import Blocking, done
from rdsearch.client_jobs import AsyncJob, Job
from rdsearch.client_requests import Queries

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from rdsearch.progress import Progress

__all__ = [
    "AsyncClient",
    "AsyncJob",
    "Client",
    "Job",
    "Queries",
    "Result",
    "SearchAnswer",
    "ServerError",
    "Written",
]


class _BlockingClient(AsyncClient):
    _connection = Blocking


class Client:
    """A client of ``rdsearch serve``.

    Requests that the server cannot take now (429; 503 while it starts) and requests that a broken
    connection lost are sent again, after a growing pause or the one that the server asks for. A
    job is not submitted twice.

    Parameters
    ----------
    url : str
        ``"http://127.0.0.1:8000"``; behind a proxy with the path there.
    api_key : str, optional
        Where the server wants one; the environment variable ``RDSEARCH_API_KEY`` if left out.
        Over plain http it can be read on the way: use https, except on this machine.
    timeout : float, optional
        Seconds to wait for an answer; the server stops working on it then. A job has no such
        limit.
    retries : int, optional
        How many times a request is sent again at most.
    transport : object, optional
        A transport of httpx in place of its own.

    Attributes
    ----------
    url, timeout, retries

    Raises
    ------
    DependencyError
        httpx is not installed.
    InputError
        `url` is none, or the key is no word of ASCII.

    Notes
    -----
    Every method raises `ServerError` where the server does not do what it is asked for or does
    not answer, and `InputError` or `CalibrationError` where it refuses what it is given, as the
    local search would. All have the attributes ``status``, ``kind`` and ``detail`` then.

    Examples
    --------
    >>> from rdsearch.client import Client
    >>> with Client("http://127.0.0.1:8000") as client:  # doctest: +SKIP
    ...     answer = client.search("query.fasta", k=2, where="length < 400")
    ...     for query, hits in answer:
    ...         print(query["id"], [hit["accession"] for hit in hits])
    sp|P69905|HBA_HUMAN ['P01942', 'P02100']
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        timeout: float = 60.0,
        retries: int = 3,
        transport: Any = None,
    ) -> None:
        self._client = _BlockingClient(
            url, api_key=api_key, timeout=timeout, retries=retries, transport=transport
        )
        self.url, self.timeout, self.retries = self._client.url, timeout, retries

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r})"

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        done(self._client.close())

    def search(
        self,
        queries: Queries,
        index: str | None = None,
        k: int | None = None,
        *,
        progress: Progress | None = None,
        **options: Any,
    ) -> SearchAnswer:
        """Search an index of the server.

        More than the server answers at once (`limits`) goes through a job, which is removed
        afterwards.

        Parameters
        ----------
        queries : path, str, Record, or iterable of Record or str
            A FASTA file (``"-"`` is standard input), FASTA text (a string that begins with
            ``>``), a record, or a list of records or sequences. They are read here: errors name
            the lines of the file.
        index : str, optional
            Name of an index; the server's first if left out.
        k : int, optional
            Hits a query at most; 10, with a cut 500.
        progress : Progress, optional
            For what goes through a job.
        **options
            from_tier, to_tier, shortlist (a number, or a dict by tier), nprobe, where, ids,
            taxon, exclude_self, evalues (False leaves them out), evalue, dbsize, fdr, fnr, trace,
            align, rerank (``"align"``), matrix, gap_open, gap_extend, columns, map; as those of
            ``rdsearch search``.

        Returns
        -------
        SearchAnswer

        Raises
        ------
        FastaError
            The queries cannot be read.
        InputError, CalibrationError, ServerError
        """
        return done(self._client.search(queries, index, k, progress=progress, **options))

    def search_to(
        self,
        file: str | os.PathLike[str] | IO[bytes],
        queries: Queries,
        format: str = "tsv",
        index: str | None = None,
        k: int | None = None,
        *,
        progress: Progress | None = None,
        **options: Any,
    ) -> Written:
        """Search, and write the hits in one of the server's formats as they come.

        Parameters
        ----------
        file : path or binary file
            A path names the file when it is complete; an open file gets what comes.
        format : str, optional
            table, tsv, csv, jsonl, json, m8, parquet, fasta, a3m (of one query) or html.
        queries, index, k, progress, **options
            As of `search`.

        Returns
        -------
        Written
            Bytes, and notes of the server that are not in them.

        Raises
        ------
        FastaError, InputError, CalibrationError, ServerError
        OSError
            The file cannot be written.
        """
        return done(
            self._client.search_to(file, queries, format, index, k, progress=progress, **options)
        )

    def embed(
        self, queries: Queries, index: str | None = None, tier: str | None = None
    ) -> tuple[list[str], NDArray[np.float32]]:
        """Embed proteins with the chain of an index, in as many requests as the limits take.

        Parameters
        ----------
        queries, index
            As of `search`.
        tier : str, optional
            Where the vectors end; the widest if left out.

        Returns
        -------
        ids : list of str
        vectors : ndarray, shape (n, dims of the tier), float32
            Row i belongs to ``ids[i]``.

        Raises
        ------
        FastaError, InputError, ServerError
        """
        return done(self._client.embed(queries, index, tier))

    def indexes(self) -> list[dict[str, Any]]:
        """Facts of every index that is served; the first is the default."""
        return done(self._client.indexes())

    def index(self, name: str) -> dict[str, Any]:
        """Facts of an index: tiers, columns, plans and more."""
        return done(self._client.index(name))

    def protein(self, index: str, accession: str) -> dict[str, Any]:
        """A protein of an index: its sequence, all its accessions and columns."""
        return done(self._client.protein(index, accession))

    def neighbours(
        self,
        index: str,
        accession: str,
        k: int | None = None,
        *,
        to_tier: str | None = None,
        where: str | None = None,
        evalue: float | None = None,
        trace: bool = False,
    ) -> SearchAnswer:
        """Proteins that are like one of the index; no model runs, its vector is there.

        Parameters
        ----------
        index, accession : str
        k, to_tier, where, evalue, trace
            As of `search`.

        Returns
        -------
        SearchAnswer
            One result; the protein itself is left out.
        """
        return done(
            self._client.neighbours(
                index, accession, k, to_tier=to_tier, where=where, evalue=evalue, trace=trace
            )
        )

    def limits(self) -> dict[str, Any]:
        """What a request may ask for; the server's formats, and whether it wants a key."""
        return done(self._client.limits())

    def ready(self) -> bool:
        """Whether a server answers and has its models in memory; it asks once."""
        return done(self._client.ready())

    def submit(
        self,
        queries: Queries,
        format: str = "jsonl",
        index: str | None = None,
        k: int | None = None,
        **options: Any,
    ) -> Job:
        """Begin a search that runs on the server by itself.

        Parameters
        ----------
        queries, format, index, k, **options
            As of `search_to`.

        Returns
        -------
        Job
            It survives this client; its ``id`` finds it again (`job`).

        Raises
        ------
        FastaError, InputError, CalibrationError, ServerError
        """
        return Job(done(self._client.submit(queries, format, index, k, **options)))

    def job(self, id: str) -> Job:
        """A job that was begun before, by its id."""
        return Job(self._client.job(id))
