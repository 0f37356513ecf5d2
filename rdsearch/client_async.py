"""The client for asyncio, and with it everything that a client does.

`rdsearch.client.Client` runs the same coroutines over a connection that blocks, so that both are
one piece of code.
"""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import urlencode

from rdsearch import __version__, outfiles
from rdsearch import client_answers as answers
from rdsearch import client_requests as requests
from rdsearch.client_answers import SearchAnswer, ServerError, Written
from rdsearch.client_connections import Awaited, is_here, load_httpx
from rdsearch.client_jobs import AsyncJob
from rdsearch.client_requests import Queries
from rdsearch.errors import InputError, RdsearchError
from rdsearch.fasta import Record

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from rdsearch.progress import Progress

__all__ = ["AsyncClient"]

# Beyond the time that the server is asked to answer in, so that its own answer arrives.
_MARGIN = 5.0
_CONNECT = 10.0
# Who leaves does not wait for long until the server has heard of it.
_PARTING = 5.0


class AsyncClient:
    """A client of ``rdsearch serve`` for asyncio; methods and parameters are those of `Client`.

    Parameters
    ----------
    url, api_key, timeout, retries, transport
        As of `rdsearch.client.Client`.

    Examples
    --------
    >>> async with AsyncClient("http://127.0.0.1:8000") as client:  # doctest: +SKIP
    ...     answer = await client.search("query.fasta", k=5)
    """

    _connection: Any = Awaited

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        timeout: float = 60.0,
        retries: int = 3,
        transport: Any = None,
    ) -> None:
        if not timeout > 0:
            raise InputError(f"timeout must be a number of seconds above 0; found {timeout}")
        if retries < 0:
            raise InputError(f"retries must be 0 or more; found {retries}")
        self.url, self.timeout, self.retries = requests.url_of(url), timeout, retries
        self._httpx = load_httpx()
        key = requests.key_of(api_key)
        headers = {"User-Agent": f"rdsearch/{__version__}", "Accept": "application/json"}
        if key is not None:
            headers["Authorization"] = f"Bearer {key}"
        self._http = self._connection(
            headers=headers,
            transport=transport,
            timeout=self._times(timeout + _MARGIN),
            # A proxy would look for this machine's servers on its own machine.
            trust_env=not is_here(self.url),
            limits=self._httpx.Limits(max_connections=None, max_keepalive_connections=100),
        )
        self._limits: dict[str, Any] | None = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r})"

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections."""
        await self._http.close()

    async def search(
        self,
        queries: Queries,
        index: str | None = None,
        k: int | None = None,
        *,
        progress: Progress | None = None,
        **options: Any,
    ) -> SearchAnswer:
        """Search; see `Client.search`."""
        records, plan = requests.records_of(queries), requests.checked(options)
        body = requests.search_body(records, index, k, "json", plan, self.timeout)
        if await self._fits(records, body):
            try:
                return SearchAnswer.read(await self._object("POST", "/v1/search", body))
            except ServerError as error:
                if error.status != 413:
                    raise
        async with self._own_job(records, index, k, "json", plan) as job:
            await job.wait(progress)
            return await job.answer()

    async def search_to(
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
        """Search and write the hits in a format; see `Client.search_to`."""
        records, plan = requests.records_of(queries), requests.checked(options)
        body = requests.search_body(records, index, k, format, plan, self.timeout)
        if await self._fits(records, body):
            try:
                response = await self._open("POST", "/v1/search", body)
            except ServerError as error:
                if error.status != 413:
                    raise
            else:
                notes = answers.notes_of(response.headers)
                return Written(await self._into(file, response), notes)
        async with self._own_job(records, index, k, format, plan) as job:
            told = await job.wait(progress)
            return Written(await job.result_to(file), tuple(told.get("notes") or ()))

    async def embed(
        self, queries: Queries, index: str | None = None, tier: str | None = None
    ) -> tuple[list[str], NDArray[np.float32]]:
        """Vectors; see `Client.embed`."""
        import numpy as np

        records, blocks = requests.records_of(queries), []
        for group in requests.parts(records, await self._known_limits()):
            body = requests.search_body(group, index, None, "npy", {"tier": tier}, self.timeout)
            block = _array(await self._body("POST", "/v1/embed", body))
            if block.ndim != 2 or len(block) != len(group) or block.dtype != np.float32:
                raise ServerError(
                    f"expected {len(group)} vectors of float32, found an array of shape "
                    f"{block.shape} and type {block.dtype}: is the server of this version?",
                    kind="not-rdsearch",
                )
            blocks.append(block)
        return [record.id for record in records], np.concatenate(blocks)

    async def indexes(self) -> list[dict[str, Any]]:
        """Indexes that are served; see `Client.indexes`."""
        return list((await self._object("GET", "/v1/indexes"))["indexes"])

    async def index(self, name: str) -> dict[str, Any]:
        """Facts of an index; see `Client.index`."""
        return await self._object("GET", f"/v1/indexes/{requests.part(name)}")

    async def protein(self, index: str, accession: str) -> dict[str, Any]:
        """A protein of an index; see `Client.protein`."""
        return await self._object("GET", _protein(index, accession))

    async def neighbours(
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
        """Proteins that are like one of the index; see `Client.neighbours`."""
        given = {"k": k, "to_tier": to_tier, "where": where, "evalue": evalue}
        query = {name: value for name, value in given.items() if value is not None}
        if trace:
            query["trace"] = "true"
        path = f"{_protein(index, accession)}/neighbours?{urlencode({**query, 'format': 'json'})}"
        return SearchAnswer.read(await self._object("GET", path))

    async def limits(self) -> dict[str, Any]:
        """What may be asked for; see `Client.limits`."""
        self._limits = await self._object("GET", "/v1/limits")
        return self._limits

    async def ready(self) -> bool:
        """Whether a server is there and ready; see `Client.ready`."""
        try:
            await self._body("GET", "/readyz", retries=0)
        except ServerError as error:
            if error.status is None or error.kind in ("starting", "stopping"):
                return False
            raise
        return True

    async def submit(
        self,
        queries: Queries,
        format: str = "jsonl",
        index: str | None = None,
        k: int | None = None,
        **options: Any,
    ) -> AsyncJob:
        """Begin a job; see `Client.submit`."""
        records, plan = requests.records_of(queries), requests.checked(options)
        return await self._submit(records, index, k, format, plan)

    def job(self, id: str) -> AsyncJob:
        """A job that was begun before, by its id."""
        return AsyncJob(self, id)

    async def _submit(
        self,
        records: list[Record],
        index: str | None,
        k: int | None,
        format: str,
        plan: Mapping[str, Any],
    ) -> AsyncJob:
        body = requests.search_body(records, index, k, format, plan)
        # Sent twice it would be two jobs.
        told = await self._object("POST", "/v1/jobs", body, repeatable=False)
        return AsyncJob(self, str(told.get("id")))

    @contextlib.asynccontextmanager
    async def _own_job(self, *search: Any) -> AsyncIterator[AsyncJob]:
        """A job that nobody else knows of: it ends with the block, whatever happens there."""
        job = await self._submit(*search)
        try:
            yield job
        finally:
            # What happened in the block counts, not whether the server is still there to hear.
            with contextlib.suppress(RdsearchError):
                await self._body("DELETE", job.path, retries=0, silence=_PARTING)

    async def _known_limits(self) -> dict[str, Any]:
        """The limits, asked for once."""
        return await self.limits() if self._limits is None else self._limits

    async def _fits(self, records: list[Record], body: bytes) -> bool:
        """Whether a search can be answered at once; of the last limits only the server knows."""
        limits = await self._known_limits()
        try:
            return (
                len(records) <= limits["sequences"]
                and sum(len(record.sequence) for record in records) <= limits["residues"]
                and len(body) <= limits["body_bytes"]
            )
        except (KeyError, TypeError) as error:
            raise ServerError(
                f"{self.url} tells no limits of rdsearch serve ({error}): is this its URL?",
                kind="not-rdsearch",
            ) from error

    async def _object(self, method: str, path: str, body: bytes | None = None, **how: Any) -> Any:
        return answers.as_object(await self._body(method, path, body, **how))

    async def _body(self, method: str, path: str, body: bytes | None = None, **how: Any) -> bytes:
        response = await self._open(method, path, body, **how)
        try:
            with self._breaks():
                return bytes(await self._http.read(response))
        finally:
            await self._http.end(response)

    async def _open(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        *,
        repeatable: bool = True,
        retries: int | None = None,
        silence: float | None = None,
    ) -> Any:
        """Send a request, again where that may help; an answer whose body is still to be read.

        Raises
        ------
        RdsearchError
            What the server answers, or that it does not.
        """
        request: dict[str, Any] = {"method": method, "url": self.url + path}
        if body is not None:
            request |= {"content": body, "headers": {"Content-Type": "application/json"}}
        if silence is not None:
            request["timeout"] = self._times(silence)
        attempts = self.retries if retries is None else retries
        for attempt in range(attempts + 1):
            arrived = True
            try:
                response = await self._http.send(**request)
                if response.is_success:
                    return response
                try:
                    content = await self._http.read(response)
                finally:
                    await self._http.end(response)
                error = answers.error_of(response.status_code, response.headers, content)
            except self._httpx.TransportError as lost:
                error = self._lost(lost)
                arrived = not isinstance(
                    lost, self._httpx.ConnectError | self._httpx.ConnectTimeout
                )
            seconds = answers.pause(error, attempt)
            unsure = getattr(error, "status", None) is None and arrived and not repeatable
            if seconds is None or unsure or attempt == attempts:
                raise error
            await self._http.sleep(seconds)
        raise RuntimeError("a request without an attempt")

    async def _into(self, file: str | os.PathLike[str] | IO[bytes], response: Any) -> int:
        """Write a body; a path names the file when it is complete. How many bytes."""
        total = 0
        with contextlib.ExitStack() as stack:
            if isinstance(file, str | os.PathLike):
                file = stack.enter_context(outfiles.new_file(Path(file), binary=True))
            try:
                with self._breaks():
                    async for chunk in self._http.chunks(response):
                        file.write(chunk)
                        total += len(chunk)
            finally:
                await self._http.end(response)
        return total

    @contextlib.contextmanager
    def _breaks(self) -> Iterator[None]:
        """A connection that breaks off inside is a named error."""
        try:
            yield
        except self._httpx.TransportError as lost:
            raise self._lost(lost) from lost

    def _lost(self, lost: Exception) -> ServerError:
        connecting = isinstance(lost, self._httpx.ConnectTimeout)
        if isinstance(lost, self._httpx.TimeoutException) and not connecting:
            return ServerError(
                f"{self.url} did not answer in time. Wait longer (timeout), or submit a job",
                kind="timeout",
            )
        return answers.no_answer(self.url, lost)

    def _times(self, seconds: float) -> Any:
        return self._httpx.Timeout(seconds, connect=min(seconds, _CONNECT))


def _protein(index: str, accession: str) -> str:
    return f"/v1/indexes/{requests.part(index)}/proteins/{requests.part(accession)}"


def _array(content: bytes) -> NDArray[Any]:
    """NumPy's format, without pickle."""
    import numpy as np

    try:
        array: NDArray[Any] = np.load(io.BytesIO(content), allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise ServerError(
            f"expected vectors in NumPy's format, found something else ({error})",
            kind="not-rdsearch",
        ) from error
    return array
