"""What a server logs: one line an event, and nothing of what clients ask about.

A line has no sequence, FASTA, filter expression, query string or key. Those who log see to it;
two measures here are for what they overlook. Of an exception its type and place are logged, and
its message only where it cannot repeat a request; and what reads like a sequence is left out.
"""

from __future__ import annotations

import contextvars
import json as _json
import logging
import re
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, TextIO

from rdsearch.errors import InputError, RdsearchError

__all__ = ["REQUEST_ID", "JsonFormatter", "TextFormatter", "install", "redacted"]

#: Id of the request that is answered; threads that Starlette starts for it inherit it.
REQUEST_ID: contextvars.ContextVar[str | None] = contextvars.ContextVar("request_id", default=None)

# Whose records are shown. uvicorn.access is not among them: it has query strings.
_LOGGERS = ("rdsearch", "uvicorn", "asyncio", "py.warnings")
_SILENT = ("uvicorn.access",)

# Letters without a break, longer than words and names of constants are; case as in FASTA.
_SEQUENCE = re.compile(r"[A-Z*-]{20,}|[a-z]{40,}")
_LEFT_OUT = "[left out]"
_CUT = 1_000
_FRAMES = 30


def redacted(text: str) -> str:
    """A text for the log: one line, not long, without what reads like a sequence."""
    line = _SEQUENCE.sub(_LEFT_OUT, text)
    line = "".join(one if one.isprintable() else " " for one in line)
    return line if len(line) <= _CUT else line[:_CUT] + "…"


class _Formatter(logging.Formatter):
    """One line a record."""

    def format(self, record: logging.LogRecord) -> str:
        try:
            message = record.getMessage()
        except (TypeError, ValueError, KeyError):  # its arguments do not fit it
            message = str(record.msg)
        if record.name == "asyncio":  # further lines show a task with its exception
            message = message.partition("\n")[0]
        facts: dict[str, Any] = {"event": redacted(message)}
        request = getattr(record, "request_id", None) or REQUEST_ID.get()
        if request is not None:
            facts["request_id"] = request
        facts.update(_plain(getattr(record, "facts", {})))
        if record.exc_info and record.exc_info[1] is not None:
            facts["error"] = [_of_exception(one) for one in _chained(record.exc_info[1])]
        if record.name not in ("rdsearch.server", "rdsearch.access"):
            facts["logger"] = record.name
        return self.line(datetime.fromtimestamp(record.created, timezone.utc), record, facts)

    def line(self, time: datetime, record: logging.LogRecord, facts: dict[str, Any]) -> str:
        raise NotImplementedError


class JsonFormatter(_Formatter):
    """A JSON object a line: time (ISO 8601, UTC), level, event, and the event's facts."""

    def line(self, time: datetime, record: logging.LogRecord, facts: dict[str, Any]) -> str:
        written = time.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        table = {"time": written, "level": record.levelname.lower(), **facts}
        return _json.dumps(table, ensure_ascii=True, allow_nan=False)


class TextFormatter(_Formatter):
    """For a terminal: local time, level where it is a warning or more, event, facts."""

    def line(self, time: datetime, record: logging.LogRecord, facts: dict[str, Any]) -> str:
        errors = facts.pop("error", [])
        level = f"{record.levelname.lower()}: " if record.levelno > logging.INFO else ""
        parts = [f"{time.astimezone():%H:%M:%S} {level}{facts.pop('event')}"]
        parts += [f"{name}={value}" for name, value in facts.items() if value is not None]
        lines = [" ".join(parts)]
        for error in errors:
            lines.append(f"    {error['type']}: {error.get('message', '')}".rstrip(": "))
            lines += [f"      {place}" for place in error["trace"]]
        return "\n".join(lines)


def install(stream: TextIO, json: bool, level: int = logging.INFO) -> None:
    """Write what rdsearch, uvicorn, asyncio and Python's warnings have to say to a stream.

    For a server alone: it takes these loggers from whoever had them. uvicorn must be run with
    ``log_config=None`` and ``access_log=False``; requests are logged by `rdsearch.server.guard`.

    Parameters
    ----------
    stream : text file
        Standard error.
    json : bool
        One JSON object a line, for programs; else text for a terminal.
    level : int, optional
        Of `logging`. At ``logging.DEBUG`` health checks and metrics are logged too.
    """
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter() if json else TextFormatter())
    for name in _LOGGERS:
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.propagate = False
        logger.setLevel(level if name == "rdsearch" else max(level, logging.INFO))
    for name in _SILENT:
        logging.getLogger(name).handlers = [logging.NullHandler()]
        logging.getLogger(name).propagate = False
    for name in ("uvicorn.error", "uvicorn.asgi"):  # they hand their records to "uvicorn"
        logging.getLogger(name).handlers = []
        logging.getLogger(name).propagate = True
    logging.captureWarnings(True)


def _plain(facts: dict[str, Any]) -> dict[str, Any]:
    """Facts as JSON has them; texts without what reads like a sequence."""
    plain: dict[str, Any] = {}
    for name, value in facts.items():
        if isinstance(value, float):
            plain[name] = value if value - value == 0 else str(value)  # not inf, not nan
        elif value is None or isinstance(value, bool | int):
            plain[name] = value
        else:
            plain[name] = redacted(str(value))
    return plain


def _chained(error: BaseException) -> Iterator[BaseException]:
    """An exception, and those that it came from or that it is a group of."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        one = waiting.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        waiting.append(one.__cause__ or (None if one.__suppress_context__ else one.__context__))
        waiting += getattr(one, "exceptions", ())


def _of_exception(error: BaseException) -> dict[str, Any]:
    """Its type and where it was raised; its message where that is about the server."""
    told: dict[str, Any] = {"type": type(error).__name__}
    # Errors of the input quote it; of all others only rdsearch's own and the system's are known.
    if isinstance(error, RdsearchError | OSError) and not isinstance(error, InputError):
        told["message"] = redacted(str(error))
    frames = []
    step = error.__traceback__
    while step is not None:
        code = step.tb_frame.f_code
        frames.append(f"{_short(code.co_filename)}:{step.tb_lineno} {code.co_name}")
        step = step.tb_next
    told["trace"] = frames[-_FRAMES:]
    return told


def _short(file: str) -> str:
    """The end of a path that says which module it is."""
    return "/".join(Path(file).parts[-3:])
