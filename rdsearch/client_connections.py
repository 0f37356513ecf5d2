"""Connections of a client: one that an event loop serves, and one that blocks.

What a client does is written once, as coroutines. Over `Blocking` they end without ever waiting
for an event loop, so that `done` and `each` can run them from ordinary code.
"""

from __future__ import annotations

import contextlib
import ipaddress
import time
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Iterator
from typing import Any, TypeVar
from urllib.parse import urlsplit

from rdsearch.errors import DependencyError

__all__ = ["Awaited", "Blocking", "done", "each", "is_here", "load_httpx"]

_T = TypeVar("_T")


def load_httpx() -> Any:
    """The library that speaks HTTP.

    Raises
    ------
    DependencyError
        It is not installed.
    """
    try:
        import httpx
    except ImportError as error:
        raise DependencyError(
            "talking to a server needs httpx, which is not installed: "
            "pip install 'rdsearch[server]'"
        ) from error
    return httpx


class Awaited:
    """A connection that an event loop serves."""

    def __init__(self, **settings: Any) -> None:
        self._http = load_httpx().AsyncClient(**settings)

    async def send(self, **request: Any) -> Any:
        """Send a request; the answer's body is still to be read."""
        return await self._http.send(self._http.build_request(**request), stream=True)

    async def read(self, response: Any) -> bytes:
        """The whole body."""
        return bytes(await response.aread())

    def chunks(self, response: Any) -> AsyncIterator[bytes]:
        """The body as it comes."""
        chunks: AsyncIterator[bytes] = response.aiter_bytes()
        return chunks

    async def end(self, response: Any) -> None:
        """Done with an answer."""
        await response.aclose()

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        import asyncio

        await asyncio.sleep(seconds)

    async def close(self) -> None:
        """Close all connections."""
        await self._http.aclose()


class Blocking:
    """A connection that blocks: its coroutines end without ever waiting for an event loop."""

    def __init__(self, **settings: Any) -> None:
        self._http = load_httpx().Client(**settings)

    async def send(self, **request: Any) -> Any:
        return self._http.send(self._http.build_request(**request), stream=True)

    async def read(self, response: Any) -> bytes:
        return bytes(response.read())

    async def chunks(self, response: Any) -> AsyncIterator[bytes]:
        for chunk in response.iter_bytes():
            yield chunk

    async def end(self, response: Any) -> None:
        response.close()

    async def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    async def close(self) -> None:
        self._http.close()


def done(work: Coroutine[Any, Any, _T]) -> _T:
    """Run a coroutine over `Blocking` from its first step to its end, which is one step."""
    try:
        work.send(None)
    except StopIteration as end:
        result: _T = end.value
        return result
    work.close()
    raise RuntimeError("a blocking client waited for an event loop")


def each(source: AsyncGenerator[_T, None]) -> Iterator[_T]:
    """The same for what yields."""
    try:
        while True:
            try:
                one = done(source.__anext__())
            except StopAsyncIteration:
                return
            yield one
    finally:
        done(source.aclose())


def is_here(url: str) -> bool:
    """Whether a server is on this machine."""
    host = urlsplit(url).hostname or ""
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost" or host.endswith(".localhost")
