"""One shape for every error: ``application/problem+json`` (RFC 9457)."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException
from starlette.routing import compile_path

from rdsearch.errors import CalibrationError as _CalibrationError
from rdsearch.errors import InputError, RdsearchError

__all__ = ["MEDIA_TYPE", "Problem", "answer", "install", "of_error", "stopping"]

MEDIA_TYPE = "application/problem+json"

# Of what a client sent.
_SHOWN = 100

_LOGGER = logging.getLogger("rdsearch.server")


class Problem(Exception):  # noqa: N818 - RFC 9457's word
    """An answer that is an error.

    Parameters
    ----------
    status : int
    kind : str
        Short name of the kind of problem, for programs: ``"queue-full"``.
    detail : str
        What was found, what was expected, and the next step; no secrets, no paths of the server.
    headers : mapping, optional
        Of the answer, for example ``Retry-After``.
    **facts
        More members of the JSON object.
    """

    def __init__(
        self,
        status: int,
        kind: str,
        detail: str,
        *,
        headers: Mapping[str, str] | None = None,
        **facts: Any,
    ) -> None:
        super().__init__(detail)
        self.status, self.kind, self.detail = status, kind, detail
        self.headers = dict(headers or {})
        self.facts = facts

    def as_dict(self) -> dict[str, Any]:
        """The JSON object."""
        return {
            "type": f"urn:rdsearch:problem:{self.kind}",
            "title": _title(self.status),
            "status": self.status,
            "detail": self.detail,
            **self.facts,
        }


def stopping() -> Problem:
    """No new work is taken."""
    return Problem(
        503, "stopping", "the server is stopping; try again", headers={"Retry-After": "2"}
    )


def _title(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:  # 499, which logs know and the standard does not
        return "Client Closed Request"


def answer(problem: Problem) -> Response:
    """A problem as the answer to a request."""
    body = json.dumps(problem.as_dict(), ensure_ascii=False, allow_nan=False)
    return Response(
        body.encode("utf-8", "replace"),
        status_code=problem.status,
        media_type=MEDIA_TYPE,
        headers=problem.headers,
    )


def of_error(error: BaseException) -> Problem:
    """The problem that an exception is to a client.

    Errors of the input say what is wrong. Of all others the client learns that they are: what
    they are is in the server's log.
    """
    if isinstance(error, Problem):
        return error
    if isinstance(error, _CalibrationError):
        return Problem(422, "not-calibrated", str(error))
    if isinstance(error, InputError):
        line = error.facts.get("line")
        return Problem(422, "input", str(error), **({} if line is None else {"line": line}))
    _LOGGER.error("a request failed", exc_info=error)
    if isinstance(error, RdsearchError):
        return Problem(503, "unavailable", "the server cannot answer this; its log says why")
    return Problem(500, "internal", "the server failed on this; its log says why")


def _invalid(error: RequestValidationError) -> Problem:
    """Fields that have the wrong shape, each with what was expected; values are not repeated."""
    found = error.errors()
    if found and found[0]["type"] == "json_invalid":
        reason = found[0].get("ctx", {}).get("error", "it cannot be read")
        return Problem(422, "invalid-request", f"the body is not JSON: {reason}", errors=[])
    wrong = [
        {
            "field": ".".join(str(part) for part in one["loc"] if part != "body") or "body",
            "message": str(one["msg"]),
        }
        for one in found
    ]
    first = wrong[0] if wrong else {"field": "body", "message": "it cannot be read"}
    more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
    return Problem(
        422, "invalid-request", f"{first['field']}: {first['message']}{more}", errors=wrong[:20]
    )


def _methods(app: FastAPI, request: Request) -> list[str]:
    """Methods of a path; Starlette names those of its first route alone."""
    operations = (
        methods
        for template, methods in app.openapi()["paths"].items()
        if compile_path(template)[0].match(request.url.path)
    )
    return sorted({method.upper() for methods in operations for method in methods}) or ["GET"]


def install(app: FastAPI) -> None:
    """Let every error of an application become a problem."""

    async def invalid(_: Request, error: Exception) -> Response:
        return answer(
            _invalid(error) if isinstance(error, RequestValidationError) else of_error(error)
        )

    async def http(request: Request, error: Exception) -> Response:
        if not isinstance(error, HTTPException):
            return answer(of_error(error))
        path = request.url.path[:_SHOWN]
        if error.status_code == 404:
            reason = f"there is nothing at {path}; GET /openapi.json says what there is"
            return answer(Problem(404, "no-such-path", reason))
        if error.status_code == 405:
            allowed = ", ".join(_methods(app, request))
            reason = f"{path} does not take {request.method[:_SHOWN]}; it takes {allowed}"
            return answer(Problem(405, "method-not-allowed", reason, headers={"Allow": allowed}))
        kind = "invalid-request" if error.status_code == 400 else "http"
        return answer(Problem(error.status_code, kind, str(error.detail), headers=error.headers))

    async def other(_: Request, error: Exception) -> Response:
        return answer(of_error(error))

    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(Problem, other)
    app.add_exception_handler(RdsearchError, other)
    app.add_exception_handler(Exception, other)
