"""What a server answers a client: results, errors and events read. Nothing here sends anything."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from rdsearch.client_requests import KEY_VARIABLE
from rdsearch.errors import CalibrationError, InputError, RdsearchError

__all__ = [
    "FINAL",
    "Events",
    "Result",
    "SearchAnswer",
    "ServerError",
    "Written",
    "as_object",
    "error_of",
    "no_answer",
    "notes_of",
    "pause",
    "problem_of",
]

#: States that a job ends in.
FINAL = frozenset({"done", "failed", "cancelled"})

NOTES_HEADER = "rdsearch-notes"

# The server's problems with what was asked for; they stay InputError, as they are locally.
_OF_INPUT = frozenset({"input", "invalid-request"})
_OF_KEYS = frozenset({"key-missing", "key-wrong"})
# Problems that pass by themselves.
_PASSING = frozenset({"queue-full", "jobs-full", "starting"})
# The longest that a server may make a client wait by itself, seconds.
_LONGEST_PAUSE = 60.0
_FIRST_PAUSE = 0.2


class ServerError(RdsearchError):
    """A server did not do what it was asked for.

    Attributes
    ----------
    status : int or None
        Of HTTP; None where nothing answered.
    kind : str
        The server's word for the problem, for example ``"queue-full"``; ``"no-answer"``,
        ``"timeout"`` and ``"not-rdsearch"`` are the client's own.
    detail : str
        The server's sentence.
    facts : dict
        More that the server tells, for example ``{"limit": 100, "found": 120}``.
    retry_after : float or None
        Seconds after which the server would like to be asked again.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        kind: str = "no-answer",
        detail: str | None = None,
        facts: Mapping[str, Any] | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.kind, self.detail = status, kind, message if detail is None else detail
        # Names come from the server: they become no attributes.
        self.facts = dict(facts or {})
        self.retry_after = retry_after


@dataclass(frozen=True, slots=True)
class Result:
    """A query and its hits; ``query, hits = result`` works too.

    Attributes
    ----------
    query : dict
        ``id``, ``description`` and ``length``.
    hits : list of dict
        Best first, each as a line of ``rdsearch search --format jsonl``.
    full : bool
        Whether a cut decides (e-value, false discovery rate) and k kept hits out that may pass it.
    map : dict or None
        Where the search was told ``map=True``: places of ``query``, ``hits`` and ``others``.
    """

    query: dict[str, Any]
    hits: list[dict[str, Any]]
    full: bool = False
    map: dict[str, Any] | None = None

    def __iter__(self) -> Iterator[Any]:
        return iter((self.query, self.hits))


@dataclass(frozen=True, slots=True)
class SearchAnswer:
    """What a server found.

    Attributes
    ----------
    index : str
    generation : int or str
        Of the index, as it was searched.
    funnel : str
        ``"8M:2000 > 650M"``.
    tiers, columns : list of str
        Tiers of the funnel; keys that hits can have.
    notes : list of str
        What a reader of the results has to know.
    results : list of Result
        In the order of the queries.
    """

    index: str
    generation: Any
    funnel: str
    tiers: list[str]
    columns: list[str]
    notes: list[str]
    results: list[Result]

    @classmethod
    def read(cls, told: Mapping[str, Any]) -> SearchAnswer:
        """From the server's JSON."""
        try:
            return cls(
                index=told["index"],
                generation=told["generation"],
                funnel=told["funnel"],
                tiers=list(told["tiers"]),
                columns=list(told["columns"]),
                notes=list(told["notes"]),
                results=[
                    Result(one["query"], one["hits"], one.get("full", False), one.get("map"))
                    for one in told["results"]
                ],
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise _not_rdsearch(f"a search's answer without {error}") from error

    def __iter__(self) -> Iterator[Result]:
        return iter(self.results)

    def __len__(self) -> int:
        return len(self.results)


@dataclass(frozen=True, slots=True)
class Written:
    """What `search_to` wrote: how many bytes, and what the server noted besides."""

    bytes: int
    notes: tuple[str, ...] = ()


def as_object(body: bytes) -> dict[str, Any]:
    """An answer's JSON object."""
    try:
        told = json.loads(body)
    except ValueError as error:
        raise _not_rdsearch("something that is no JSON") from error
    if not isinstance(told, dict):
        raise _not_rdsearch("JSON that is no object")
    return told


def notes_of(headers: Mapping[str, str]) -> tuple[str, ...]:
    """What a server noted beside a body that has no place for it."""
    try:
        told = json.loads(headers.get(NOTES_HEADER, "[]"))
    except ValueError:
        return ()
    return tuple(str(note) for note in told) if isinstance(told, list) else ()


def error_of(status: int, headers: Mapping[str, str], body: bytes) -> RdsearchError:
    """The error that an answer is."""
    try:
        told = json.loads(body)
    except ValueError:
        told = None
    if not isinstance(told, dict) or not str(told.get("type", "")).startswith("urn:rdsearch:"):
        kind = headers.get("content-type", "nothing that is named").partition(";")[0]
        return _not_rdsearch(f"status {status} and {kind}", status)
    return problem_of(told, _seconds(headers.get("retry-after")))


def problem_of(told: Mapping[str, Any], retry_after: float | None = None) -> RdsearchError:
    """The error that a problem object is (RFC 9457)."""
    kind = str(told.get("type", "")).rpartition(":")[2]
    detail, status = str(told.get("detail", kind)), told.get("status")
    if kind in _OF_INPUT:
        return InputError(detail, status=status, kind=kind, detail=detail)
    if kind == "not-calibrated":
        return CalibrationError(detail, status=status, kind=kind, detail=detail)
    message = detail
    if kind in _OF_KEYS:
        message = f"{detail} (a client sends the key in api_key, or in {KEY_VARIABLE})"
    return ServerError(
        message,
        status=status if isinstance(status, int) else None,
        kind=kind,
        detail=detail,
        facts={
            name: value
            for name, value in told.items()
            if name not in ("type", "title", "status", "detail")
        },
        retry_after=retry_after,
    )


def no_answer(url: str, error: Exception) -> ServerError:
    """Nothing answered."""
    return ServerError(
        f"nothing answers at {url} ({str(error) or type(error).__name__}). Start a server there "
        "(rdsearch serve INDEX), or give the URL of one that runs"
    )


def _not_rdsearch(found: str, status: int | None = None) -> ServerError:
    return ServerError(
        f"expected an answer of rdsearch serve, found {found}: is this its URL, and of this "
        "version?",
        status=status,
        kind="not-rdsearch",
    )


def _seconds(text: str | None) -> float | None:
    """``Retry-After`` in seconds; its other form, a date, is not used by rdsearch."""
    try:
        seconds = float(text) if text is not None else -1
    except ValueError:
        return None
    return seconds if 0 <= seconds < float("inf") else None


def pause(error: RdsearchError, attempt: int) -> float | None:
    """Seconds to wait before a request is sent again; None where that would not help.

    Parameters
    ----------
    error : RdsearchError
    attempt : int
        0 for the first.
    """
    usual = _FIRST_PAUSE * 2**attempt
    # Clients that were turned away together shall not come back together.
    usual *= 0.5 + random.random()
    if not isinstance(error, ServerError):
        return None
    if error.status is None:
        return usual if error.kind == "no-answer" else None
    if error.kind not in _PASSING:
        return None
    if error.retry_after is None:
        return usual
    return None if error.retry_after > _LONGEST_PAUSE else max(error.retry_after, usual / 2)


class Events:
    """Reads the stream of a job's events (text/event-stream)."""

    def __init__(self) -> None:
        self._rest = b""
        self._name = ""
        self._data: list[bytes] = []

    def feed(self, chunk: bytes) -> Iterator[dict[str, Any]]:
        """Jobs that are told of by the lines which end in this chunk."""
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        for line in lines:
            line = line.rstrip(b"\r")
            if not line:
                name, data = self._name, b"\n".join(self._data)
                self._name, self._data = "", []
                if name == "job" and data:
                    yield as_object(data)
            key, _, value = line.partition(b":")
            if key == b"event":
                self._name = value.strip().decode("utf-8", "replace")
            elif key == b"data":
                self._data.append(value)
