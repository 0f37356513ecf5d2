"""The edge of the server: who may ask, how much, and what every answer carries.

Plain ASGI, one class a concern, in this order from the outside:

`_Envelope` (request id, log line, headers of every answer), `_Hosts`, CORS, `_Failures` (no stack
trace reaches a client), `_Origins`, `_Authentication`, `rdsearch.server.bodies.Bodies` (sizes and
patience).
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable
from typing import Any

from fastapi import FastAPI
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rdsearch.server import problems
from rdsearch.server.bodies import Bodies, refuse
from rdsearch.server.keys import Keys
from rdsearch.server.logs import REQUEST_ID
from rdsearch.server.problems import Problem
from rdsearch.server.settings import Settings

__all__ = ["HEADERS", "OPEN", "document", "install", "is_open"]

_LOGGER = logging.getLogger("rdsearch.access")

#: Of every answer that does not say otherwise itself.
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "img-src 'self' data: blob:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}

#: Paths that need no key: the page, and what tells whether and how the server can be used.
OPEN = frozenset({"/", "/healthz", "/readyz", "/openapi.json", "/v1/limits"})
_PAGE = "/page/"
# Asked every few seconds by machines, under the server's address and not its name.
_PROBES = frozenset({"/healthz", "/readyz"})
_UNREMARKABLE = _PROBES | {"/metrics"}
_BODY_METHODS = frozenset({"POST", "PUT", "PATCH"})
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})

_SEGMENT = 32


def install(app: FastAPI, settings: Settings) -> None:
    """Put an application behind its guard.

    It sets ``app.state.keys`` (`Keys`, or None where everybody may ask) for `Keys.reload`, and
    for each request ``request.state.request_id``, ``.key_name`` (None without keys) and ``.log``:
    a dictionary of numbers and short texts that a route adds to the request's line in the log.

    Parameters
    ----------
    app : FastAPI
    settings : Settings

    Raises
    ------
    InputError
        The file of keys cannot be used.
    """
    keys = None if settings.api_keys is None else Keys.read(settings.api_keys)
    app.state.keys = keys
    # The last to be added is the first that a request meets.
    app.add_middleware(Bodies, settings=settings)
    if keys is not None:
        app.add_middleware(_Authentication, keys=keys)
    app.add_middleware(_Origins, origins=settings.cors_origins)
    app.add_middleware(_Failures)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=("GET", "POST", "DELETE"),
            allow_headers=("Authorization", "X-API-Key", "Content-Type", "Accept"),
            expose_headers=("X-Request-Id", "Content-Disposition", "Location", "Retry-After"),
        )
    if settings.hosts:
        app.add_middleware(_Hosts, hosts=settings.hosts)
    app.add_middleware(_Envelope)
    made: Callable[[], dict[str, Any]] = app.openapi

    def openapi() -> dict[str, Any]:
        schema = made()
        document(schema, settings)
        return schema

    app.openapi = openapi  # type: ignore[method-assign]


def is_open(path: str) -> bool:
    """Whether a path needs no key."""
    return path in OPEN or path.startswith(_PAGE)


def document(schema: dict[str, Any], settings: Settings) -> None:
    """Add to an OpenAPI document what the guard may answer, and the keys; twice is as once."""
    parts = schema.setdefault("components", {})
    parts.setdefault("schemas", {})["Problem"] = {
        "title": "Problem",
        "description": "RFC 9457; further members are facts of the kind of problem.",
        "type": "object",
        "required": ["type", "title", "status", "detail"],
        "properties": {
            "type": {"type": "string", "pattern": "^urn:rdsearch:problem:"},
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "detail": {"type": "string"},
        },
    }
    content = {problems.MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    if settings.api_keys is not None:
        parts["securitySchemes"] = {
            "bearer": {"type": "http", "scheme": "bearer"},
            "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
        }
    for path, operations in schema.get("paths", {}).items():
        for method, operation in operations.items():
            if not isinstance(operation, dict):
                continue
            answers = {"500": "The server failed."}
            if settings.hosts and path not in _PROBES:
                answers["421"] = "The request is for another host."
            if settings.api_keys is not None and not is_open(path):
                operation["security"] = [{"bearer": []}, {"header": []}]
                answers["401"] = "A key is missing or wrong."
            if method.upper() not in _SAFE_METHODS:
                answers["403"] = "A web page of another origin asked."
            if method.upper() in _BODY_METHODS:
                answers["400"] = "The body is not text."
                answers["408"] = "The body came too slowly."
                answers["413"] = "The body is too large."
                answers["503"] = "Too many large requests at once, or the server is not ready."
            for status, text in answers.items():
                operation.setdefault("responses", {}).setdefault(
                    status, {"description": text, "content": content}
                )


class _Envelope:
    """What every request and answer has, whatever becomes of it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        # Made here: what a client sends could be anything, and the same twice.
        request_id = secrets.token_hex(8)
        token = REQUEST_ID.set(request_id)
        state = scope.setdefault("state", {})
        state.update(request_id=request_id, key_name=None, log={})
        status, length = 0, 0

        async def sending(message: Message) -> None:
            nonlocal status, length
            if message["type"] == "http.response.start":
                status = message["status"]
                _complete(MutableHeaders(scope=message), scope["path"], request_id)
            elif message["type"] == "http.response.body":
                length += len(message.get("body", b""))
            await send(message)

        try:
            await self._app(scope, receive, sending)
        finally:
            _log(scope, status, length, time.perf_counter() - began)
            REQUEST_ID.reset(token)


def _complete(headers: MutableHeaders, path: str, request_id: str) -> None:
    """Add what an answer's headers lack."""
    headers["X-Request-Id"] = request_id
    for name, value in HEADERS.items():
        headers.setdefault(name, value)
    if path != "/" and not path.startswith(_PAGE):
        headers.setdefault("Cache-Control", "no-store")


def _log(scope: Scope, status: int, length: int, seconds: float) -> None:
    """The line of a request; 499 stands for a client that left before its answer began."""
    state = scope["state"]
    template = getattr(scope.get("route"), "path", None)
    told = state.get("log")
    facts: dict[str, Any] = {
        "request_id": state["request_id"],
        "method": scope["method"][:_SEGMENT],
        "path": template if isinstance(template, str) and template else _shown(scope["path"]),
        "status": status or 499,
        "ms": round(seconds * 1000, 1),
        "bytes": length,
        "key_name": state.get("key_name"),
        **(told if isinstance(told, dict) else {}),
    }
    level = logging.INFO
    if status >= 500:
        level = logging.WARNING
    elif status == 200 and scope["path"] in _UNREMARKABLE:
        level = logging.DEBUG
    _LOGGER.log(level, "request", extra={"facts": facts})


def _shown(path: str) -> str:
    """A path that no route has: whatever somebody typed, so its long parts are left out."""
    parts = ["…" if len(part) > _SEGMENT else part for part in path.split("/")[:6]]
    return "/".join(parts)


class _Hosts:
    """Requests for other names are refused.

    A web page elsewhere can let its own name stand for this server's address (DNS rebinding), and
    would be asking as a page of this server does.
    """

    def __init__(self, app: ASGIApp, hosts: tuple[str, ...]) -> None:
        self._app = app
        self._hosts = frozenset(_host(name) for name in hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] not in _PROBES:
            named = Headers(scope=scope).getlist("host")
            if len(named) != 1 or _host(named[0]) not in self._hosts:
                problem = Problem(
                    421,
                    "wrong-host",
                    "this server does not answer to the host that the request names; who runs "
                    "it can let it: rdsearch serve --host-name NAME",
                )
                await refuse(scope, receive, send, problem)
                return
        await self._app(scope, receive, send)


def _host(value: str) -> str:
    """A host without its port, brackets, and the dot that may end it."""
    value = value.strip().lower()
    if value.startswith("["):
        return value[1:].partition("]")[0]
    if value.count(":") == 1:  # more of them: an IPv6 address without brackets
        value = value.partition(":")[0]
    return value.removesuffix(".")


class _Origins:
    """Web pages of other origins cannot make this server work.

    They could not read its answers without CORS, but a browser may send what they ask all the
    same. It says so itself: https://www.w3.org/TR/fetch-metadata/.
    """

    def __init__(self, app: ASGIApp, origins: tuple[str, ...]) -> None:
        self._app = app
        self._origins = frozenset(origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] not in _SAFE_METHODS:
            headers = Headers(scope=scope)
            own = headers.get("sec-fetch-site", "none") in ("same-origin", "none")
            if not own and not self._origins & {"*", headers.get("origin", "")}:
                problem = Problem(
                    403,
                    "other-origin",
                    "a web page of another origin asked this; who runs the server can let it: "
                    "rdsearch serve --cors-origin ORIGIN",
                )
                await refuse(scope, receive, send, problem)
                return
        await self._app(scope, receive, send)


class _Failures:
    """An exception that nothing expected becomes a problem; its traceback is in the log."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def sending(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, sending)
        except Exception as error:  # noqa: BLE001 - whatever it is, it must not reach uvicorn
            problem = problems.of_error(error)  # logs it
            # An answer that has begun is left incomplete: the server then closes the connection,
            # so that the client does not take it for whole.
            if not started:
                await problems.answer(problem)(scope, receive, send)


class _Authentication:
    """Requests need a key, but for what is open."""

    def __init__(self, app: ASGIApp, keys: Keys) -> None:
        self._app = app
        self._keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            key = _given(Headers(scope=scope))
            name = None if key is None else self._keys.name_of(key)
            if name is None and not is_open(scope["path"]):
                await refuse(scope, receive, send, _unauthorized(key))
                return
            scope["state"]["key_name"] = name
        await self._app(scope, receive, send)


def _given(headers: Headers) -> str | None:
    """The key of a request; None where it has none."""
    scheme, _, value = headers.get("authorization", "").strip().partition(" ")
    if scheme.lower() == "bearer":
        return value.strip()
    return headers.get("x-api-key")  # beside a password, say, that a proxy asks for


def _unauthorized(key: str | None) -> Problem:
    challenge = 'Bearer realm="rdsearch"'
    if key is None:
        return Problem(
            401,
            "key-missing",
            "this server asks for a key: send the header `Authorization: Bearer KEY`",
            headers={"WWW-Authenticate": challenge},
        )
    return Problem(
        401,
        "key-wrong",
        "the key is not one of this server's; ask who runs it for one",
        headers={"WWW-Authenticate": challenge + ', error="invalid_token"'},
    )
