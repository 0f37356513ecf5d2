"""Jobs: searches that run on a server by themselves."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncGenerator, Iterator
from typing import IO, TYPE_CHECKING, Any

from rdsearch import client_answers as answers
from rdsearch.client_answers import SearchAnswer, ServerError
from rdsearch.client_connections import done, each
from rdsearch.client_requests import part

if TYPE_CHECKING:
    from rdsearch.client_async import AsyncClient
    from rdsearch.progress import Progress

__all__ = ["AsyncJob", "Job"]

# Seconds; longer than the 15 between two signs of life in a stream of events.
_SILENCE = 45.0


class AsyncJob:
    """A search that runs on the server by itself; see `Job`.

    Attributes
    ----------
    id : str
    path : str
        On the server.
    """

    def __init__(self, client: AsyncClient, id: str) -> None:
        self._client, self.id = client, id
        self.path = f"/v1/jobs/{part(id)}"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.id!r})"

    async def status(self) -> dict[str, Any]:
        """How it stands; see `Job.status`."""
        told: dict[str, Any] = await self._client._object("GET", self.path)
        return told

    async def events(self) -> AsyncGenerator[dict[str, Any], None]:
        """How it stands, whenever that changes; see `Job.events`."""
        client, failures = self._client, 0
        while True:
            response = await client._open("GET", f"{self.path}/events", silence=_SILENCE)
            try:
                reader = answers.Events()
                async for chunk in client._http.chunks(response):
                    for told in reader.feed(chunk):
                        failures = 0
                        yield told
                        if told.get("state") in answers.FINAL:
                            return
            except client._httpx.TransportError as lost:
                error = client._lost(lost)
            else:
                error = answers.no_answer(client.url, EOFError("the stream of events ended"))
            finally:
                await client._http.end(response)
            if failures >= client.retries:
                raise error
            await client._http.sleep(0.2 * 2**failures)
            failures += 1

    async def wait(self, progress: Progress | None = None) -> dict[str, Any]:
        """Wait until it is done; see `Job.wait`."""
        advance, seen, told = None, 0, {}
        async with contextlib.aclosing(self.events()) as events:
            async for told in events:
                counts = told.get("sequences") or {}
                if progress is not None:
                    if advance is None:
                        advance = progress.stage("search", counts.get("total", 0))
                    advance(counts.get("done", 0) - seen, 0)
                    seen = counts.get("done", 0)
        if told.get("state") == "failed":
            raise answers.problem_of(told.get("error") or {"detail": "the job failed"})
        if told.get("state") == "cancelled":
            raise ServerError(f"job {self.id} was cancelled", kind="job-cancelled")
        return told

    async def result_to(self, file: str | os.PathLike[str] | IO[bytes]) -> int:
        """Write its results; see `Job.result_to`."""
        return await self._client._into(
            file, await self._client._open("GET", f"{self.path}/result")
        )

    async def answer(self) -> SearchAnswer:
        """Its results, where its format is json; see `Job.answer`."""
        return SearchAnswer.read(await self._client._object("GET", f"{self.path}/result"))

    async def cancel(self) -> None:
        """Stop it, or remove its results; see `Job.cancel`."""
        await self._client._body("DELETE", self.path)


class Job:
    """A search that runs on the server by itself.

    Attributes
    ----------
    id : str

    Examples
    --------
    >>> job = client.submit("proteome.fasta", "parquet", evalue=1e-3)  # doctest: +SKIP
    >>> job.wait()["hits"]  # doctest: +SKIP
    12071
    >>> job.result_to("hits.parquet")  # doctest: +SKIP
    """

    def __init__(self, job: AsyncJob) -> None:
        self._job, self.id = job, job.id

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.id!r})"

    def status(self) -> dict[str, Any]:
        """How it stands: ``state``, ``sequences`` (total, done), ``hits``, times, ``error``."""
        return done(self._job.status())

    def events(self) -> Iterator[dict[str, Any]]:
        """`status` at once and whenever it changes, until the job ends; it connects again."""
        return each(self._job.events())

    def wait(self, progress: Progress | None = None) -> dict[str, Any]:
        """Wait until the job is done.

        Parameters
        ----------
        progress : Progress, optional
            For example `rdsearch.progress.TerminalProgress`.

        Returns
        -------
        dict
            Its last `status`.

        Raises
        ------
        RdsearchError
            Why it failed; a `ServerError` of kind ``"job-cancelled"`` where it was cancelled.
        """
        return done(self._job.wait(progress))

    def result_to(self, file: str | os.PathLike[str] | IO[bytes]) -> int:
        """Write the results of a job that is done, in its format.

        Parameters
        ----------
        file : path or binary file
            As of `Client.search_to`.

        Returns
        -------
        int
            Bytes.
        """
        return done(self._job.result_to(file))

    def answer(self) -> SearchAnswer:
        """The results of a job that is done and whose format is json."""
        return done(self._job.answer())

    def cancel(self) -> None:
        """Stop the job; one that has ended is removed, with its results."""
        done(self._job.cancel())
