"""A server that is a function, for tests of the client; both clients asked in the same words."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from rdsearch.client import AsyncClient, Client, Job
from rdsearch.client_connections import Awaited, Blocking

JOB = "/v1/jobs/j1"
URL = "http://127.0.0.1:9"
LIMITS = {"sequences": 3, "residues": 100, "body_bytes": 20_000}
HIT = {"query": "q", "rank": 1, "accession": "P1", "score": 0.5}
ANSWER: dict[str, Any] = {
    "index": "mini",
    "generation": 3,
    "funnel": "a:2 > b",
    "tiers": ["a", "b"],
    "columns": ["query", "rank", "accession", "score"],
    "notes": ["no e-values: too few rows"],
    "results": [
        {"query": {"id": "q", "description": "", "length": 4}, "hits": [HIT], "full": True},
        {
            "query": {"id": "r", "description": "", "length": 3},
            "hits": [],
            "full": False,
            "map": {"query": [0, 1]},
        },
    ],
}


def problem(status: int, kind: str, detail: str = "no", headers: Any = None, **facts: Any) -> Any:
    told = {"type": f"urn:rdsearch:problem:{kind}", "status": status, "detail": detail, **facts}
    return httpx.Response(
        status,
        content=json.dumps(told).encode(),
        headers={"Content-Type": "application/problem+json", **(headers or {})},
    )


def event(**told: Any) -> bytes:
    return b"event: job\ndata: " + json.dumps(told).encode() + b"\n\n"


class Mocked:
    """Answers by path, and what was asked.

    A value is an answer, or several, one a request, the last again; an exception is raised, a
    function is called with the request.
    """

    def __init__(self, **answers: Any) -> None:
        self.answers = {"/v1/limits": httpx.Response(200, json=LIMITS)}
        self.answers |= {name.replace("__", "/"): value for name, value in answers.items()}
        self.asked: list[httpx.Request] = []

    def __setitem__(self, path: str, value: Any) -> None:
        self.answers[path] = value

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        found = self.answers.get(f"{request.method} {request.url.path}")
        if found is None:
            found = self.answers[request.url.path]
        if isinstance(found, list):
            found = found.pop(0) if len(found) > 1 else found[0]
        if isinstance(found, Exception):
            raise found
        if callable(found):
            return found(request)
        # An answer is read once.
        return httpx.Response(found.status_code, content=found.content, headers=found.headers)

    def paths(self) -> list[str]:
        return [
            f"{one.method} {one.url.path}" for one in self.asked if one.url.path != "/v1/limits"
        ]

    def body(self, at: int = -1) -> dict[str, Any]:
        told: dict[str, Any] = json.loads(self.asked[at].content)
        return told


class _Awaitable:
    """A blocking client whose methods are coroutines, so that a test says all once."""

    def __init__(self, thing: Any) -> None:
        self._thing = thing

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._thing, name)
        if not callable(value):
            return value
        if name == "job":  # makes a handle and asks nothing, in both clients
            return lambda id: _Awaitable(value(id))
        if name == "events":
            return lambda: _listed(value())

        async def call(*given: Any, **named: Any) -> Any:
            result = value(*given, **named)
            return _Awaitable(result) if isinstance(result, Job) else result

        return call


async def _listed(source: Any) -> Any:
    for one in source:
        yield one


def run(
    kind: str, work: Callable[[Any], Any], url: str = "http://127.0.0.1:9", **given: Any
) -> Any:
    """Let a client of a kind, "sync" or "async", do the work, a coroutine function."""

    async def scenario() -> Any:
        if kind == "async":
            async with AsyncClient(url, **given) as client:
                return await work(client)
        with Client(url, **given) as blocking:
            return await work(_Awaitable(blocking))

    return asyncio.run(scenario())


@pytest.fixture(params=["sync", "async"])
def kind(request):
    return request.param


@pytest.fixture
def waits(monkeypatch):
    """Seconds that were waited; nobody does wait."""
    waited = []

    async def sleep(_, seconds):
        waited.append(seconds)

    monkeypatch.setattr(Blocking, "sleep", sleep)
    monkeypatch.setattr(Awaited, "sleep", sleep)
    return waited


def ask(kind: str, server: Any, work: Callable[[Any], Any], **given: Any) -> Any:
    """What a client of a kind makes of a server's answers."""
    return run(kind, work, transport=httpx.MockTransport(server), **given)


def with_job(*streams, result=b"hits"):
    """A server that takes jobs only."""
    streams = streams or (event(id="j1", state="done", notes=["a note"]),)
    return Mocked(
        **{
            "POST /v1/jobs": httpx.Response(202, json={"id": "j1", "state": "waiting"}),
            f"{JOB}/events": [httpx.Response(200, content=one) for one in streams],
            f"{JOB}/result": httpx.Response(200, content=result),
            f"DELETE {JOB}": httpx.Response(204),
        }
    )
