"""Bodies of requests: how large they may be, how slowly they may come, and who reads the rest."""

from __future__ import annotations

import asyncio
import time
from collections import deque

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rdsearch.server import problems
from rdsearch.server.problems import Problem
from rdsearch.server.settings import Settings

__all__ = ["PATIENCE", "Bodies", "refuse"]

#: Seconds in which a body must begin to come, and bytes a second that it must keep up after them.
PATIENCE = (20.0, 32 << 10)
# Seconds for which the rest of a refused body is read and dropped: a connection that is closed
# before takes the answer with it.
_LINGER = 2.0
# Bodies of this many jobs of the largest size may be in memory at once.
_BODIES = 4
_JOBS = "/v1/jobs"


async def refuse(
    scope: Scope, receive: Receive, send: Send, problem: Problem, *, unread: bool = True
) -> None:
    """Answer a request with a problem; `unread`: before its body, if it has one, was read."""
    headers = Headers(scope=scope)
    unread = unread and (
        "transfer-encoding" in headers or headers.get("content-length", "0") != "0"
    )
    if unread:
        problem.headers["Connection"] = "close"

    async def sending(message: Message) -> None:
        last = message["type"] == "http.response.body" and not message.get("more_body", False)
        # A client that waits for "100 Continue" sends no body after an answer.
        if unread and last and "expect" not in headers:
            await send({**message, "more_body": True})
            await _drop(receive)
            message = {"type": "http.response.body", "body": b"", "more_body": False}
        await send(message)

    await problems.answer(problem)(scope, receive, sending)


async def _drop(receive: Receive) -> None:
    """Read what still comes of a body, for a short time, and keep none of it."""
    end = time.monotonic() + _LINGER
    more = True
    while more:
        try:
            message = await asyncio.wait_for(receive(), end - time.monotonic())
        except asyncio.TimeoutError:
            return
        more = message["type"] == "http.request" and message.get("more_body", False)


class Bodies:
    """Bodies are read here, within their limits, and given on when they are whole.

    The routes have them in memory anyway; so a route never waits for a slow client.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._limits = settings.limits
        self._room = _BODIES * max(self._limits.job_body_bytes, self._limits.body_bytes)
        self._held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        parts: deque[bytes] = deque()
        more = True

        async def receiving() -> Message:
            nonlocal more
            message = await receive()
            more = message.get("more_body", False)
            return message

        try:
            whole = await self._read(scope, receiving, parts)
        except Problem as problem:
            self._held -= sum(map(len, parts))
            parts.clear()
            await refuse(scope, receive, send, problem, unread=more)
            return
        size = sum(map(len, parts))
        try:
            if whole:  # else the client has left
                await self._app(scope, _replaying(parts, receive), send)
        finally:
            self._held -= size

    async def _read(self, scope: Scope, receive: Receive, parts: deque[bytes]) -> bool:
        """Collect a body; False where the client left in the middle of it."""
        headers = Headers(scope=scope)
        job = scope["method"] == "POST" and scope["path"].rstrip("/") == _JOBS
        limit = self._limits.job_body_bytes if job else self._limits.body_bytes
        length = headers.get("content-length", "")
        expected = int(length) if length.isascii() and length.isdigit() else None
        if expected is None and "transfer-encoding" not in headers:
            return True
        if expected is not None and expected > limit:
            raise _too_large(limit, expected)
        found, more, began = 0, True, time.monotonic()
        while more:
            end = began + PATIENCE[0] + found / PATIENCE[1]
            try:
                message = await asyncio.wait_for(receive(), end - time.monotonic())
            except asyncio.TimeoutError:
                raise Problem(
                    408,
                    "slow-body",
                    f"the body came too slowly: {found:,} bytes in "
                    f"{time.monotonic() - began:.0f} s. Send it again over a faster connection, "
                    "or in parts",
                ) from None
            if message["type"] == "http.disconnect":
                return False
            part = message.get("body", b"")
            found += len(part)
            if found > limit:
                raise _too_large(limit, found)
            if self._held + len(part) > self._room:
                raise Problem(
                    503,
                    "unavailable",
                    "too many large requests are in memory; send it again a little later",
                    headers={"Retry-After": "5"},
                )
            self._held += len(part)
            parts.append(part)
            more = message.get("more_body", False)
        return True


def _too_large(limit: int, found: int) -> Problem:
    return Problem(
        413,
        "too-large",
        f"the request's body may have {limit:,} bytes; found {found:,} or more. Send fewer "
        "sequences at a time, or a job (POST /v1/jobs), which may have more",
        limit=limit,
        found=found,
    )


def _replaying(parts: deque[bytes], receive: Receive) -> Receive:
    """Receive a body that was read before, then what the server has to say."""

    async def receiving() -> Message:
        if parts:
            part = parts.popleft()
            return {"type": "http.request", "body": part, "more_body": bool(parts)}
        return await receive()

    return receiving
