"""A small application behind the server's guard, and ways to ask it."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import logging

import httpx
import pytest
from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, StreamingResponse
from pydantic import BaseModel

from rdsearch.errors import IndexDamagedError, InputError
from rdsearch.server import guard, logs, problems
from rdsearch.server.settings import Settings

SEQUENCE = "MVLSPADKTNVKAAWGKVGAHAGEYGAEALERMFLSFPTTKTYFPHFDLSHGSAQVKGHG"
WHERE = "organism = 'Secret species'"
KEY = "rds_correct"


class Body(BaseModel):
    fasta: str


def application(**settings) -> FastAPI:
    """An application with a route for every way that a request can end."""
    app = FastAPI()
    problems.install(app)
    guard.install(app, Settings(**settings))

    @app.get("/")
    def page() -> HTMLResponse:
        return HTMLResponse(
            "<p>page</p>", headers={"Content-Security-Policy": "default-src 'self'"}
        )

    @app.get("/healthz")
    def healthz() -> dict:
        return {"status": "ok"}

    @app.get("/v1/limits")
    def limits() -> dict:
        return {}

    @app.get("/v1/indexes/{name}")
    def index(name: str, request: Request) -> dict:
        request.state.log["index"] = name
        return {"key": request.state.key_name, "id": request.state.request_id}

    @app.post("/v1/search")
    async def search(body: Body, request: Request) -> dict:
        request.state.log = {"sequences": 1, "residues": len(body.fasta), "oops": body.fasta}
        return {"length": len(body.fasta)}

    @app.post("/v1/raw")
    async def raw(request: Request) -> dict:
        return {"length": len(await request.body()), "left": await request.is_disconnected()}

    @app.post("/v1/jobs")
    async def job(request: Request) -> dict:
        return {"length": len(await request.body())}

    @app.post("/v1/fails/{how}")
    def fails(how: str, body: Body) -> dict:
        if how == "value":
            raise ValueError(f"cannot do {body.fasta}")
        if how == "chain":
            try:
                raise KeyError(body.fasta)
            except KeyError as error:
                raise RuntimeError(body.fasta.lower()) from error
        if how == "input":
            raise InputError(f"no such thing: {body.fasta}")
        raise IndexDamagedError("vectors.bin: 12 bytes are missing")

    @app.get("/v1/breaks")
    def breaks() -> StreamingResponse:
        def parts():
            yield b"some"
            raise ValueError(SEQUENCE)

        return StreamingResponse(parts(), headers={"Cache-Control": "max-age=5"})

    return app


@pytest.fixture
def keys(tmp_path):
    path = tmp_path / "keys"
    path.write_text(f"lab:{hashlib.sha256(KEY.encode()).hexdigest()}\n")
    path.chmod(0o600)
    return path


@pytest.fixture
def logged():
    """The log as JSON lines; `logged()` gives the records, `logged.text()` all of it."""
    stream = io.StringIO()
    names = ("rdsearch", "uvicorn", "asyncio", "py.warnings", "uvicorn.access")
    loggers = [logging.getLogger(name) for name in names]
    before = [(one.handlers, one.propagate, one.level) for one in loggers]
    logs.install(stream, json=True, level=logging.DEBUG)
    lines = lambda: [json.loads(line) for line in stream.getvalue().splitlines()]  # noqa: E731
    lines.text = stream.getvalue
    yield lines
    logging.captureWarnings(False)
    for one, (handlers, propagate, level) in zip(loggers, before, strict=True):
        one.handlers, one.propagate = handlers, propagate
        one.setLevel(level)


def ask(app, method: str, path: str, **options):
    """One request to an application in this process."""

    async def asking():
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://here:1") as client:
            return await client.request(method, path, **options)

    return asyncio.run(asking())


def problem(answer, status: int, kind: str) -> dict:
    """The problem that an answer is; checked."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    found = answer.json()
    assert (found["type"], found["status"]) == (f"urn:rdsearch:problem:{kind}", status)
    assert found["title"]
    assert found["detail"]
    return found


def raw(app, scope: dict, messages: list, delay: float = 0.0):
    """What an application sends for ASGI messages; after the last none comes any more."""
    sent, waiting = [], list(messages)

    async def receive():
        if waiting:
            if delay:
                await asyncio.sleep(delay)
            return waiting.pop(0)
        await asyncio.Event().wait()

    async def send(message):
        sent.append(message)

    base = {"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "scheme": "http"}
    base |= {"path": "/v1/raw", "raw_path": b"/v1/raw", "query_string": b"", "root_path": ""}
    base |= {"method": "POST", "headers": [(b"host", b"here")], "client": ("x", 1)}
    base |= {"server": ("here", 1)}
    asyncio.run(asyncio.wait_for(app({**base, **scope}, receive, send), 20))
    return sent
