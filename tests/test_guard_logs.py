"""Failures and logs: what happened can be found, and nothing of what was asked."""

from __future__ import annotations

import json
import logging
import re
import warnings

import pytest

from rdsearch.errors import IndexDamagedError, InputError
from rdsearch.server import logs
from tests.guarded import KEY, SEQUENCE, WHERE, application, ask, keys, logged, problem, raw

__all__ = ["keys", "logged"]


@pytest.mark.parametrize(
    ("how", "status", "types"),
    [
        ("value", 500, ["ValueError"]),
        ("chain", 500, ["RuntimeError", "KeyError"]),
        ("damaged", 503, ["IndexDamagedError"]),
    ],
)
def test_a_failure_is_a_problem_and_its_place_is_logged(logged, how, status, types):
    kind = "internal" if status == 500 else "unavailable"
    answer = ask(application(), "POST", f"/v1/fails/{how}", json={"fasta": SEQUENCE})
    problem(answer, status, kind)
    assert "Traceback" not in answer.text
    assert SEQUENCE not in answer.text
    failed, request = logged()[-2:]
    assert failed["request_id"] == request["request_id"] == answer.headers["x-request-id"]
    assert [one["type"] for one in failed["error"]] == types
    assert re.search(r"guarded\.py:\d+ fails$", failed["error"][0]["trace"][-1])
    assert ("12 bytes" in str(failed["error"][0].get("message"))) == (how == "damaged")
    assert (request["status"], request["level"]) == (status, "warning")
    assert SEQUENCE.lower() not in logged.text().lower()


def test_an_answer_that_breaks_is_left_incomplete(logged):
    sent = raw(application(), {"path": "/v1/breaks", "method": "GET"}, [])
    assert sent[0]["status"] == 200
    assert dict(sent[0]["headers"])[b"cache-control"] == b"max-age=5"
    assert sent[-1].get("more_body") is True
    assert "ValueError" in logged.text()
    assert SEQUENCE not in logged.text()


def test_the_line_of_a_request(logged, keys):
    app = application(api_keys=keys)
    answer = ask(
        app,
        "POST",
        "/v1/search",
        params={"where": WHERE},
        json={"fasta": SEQUENCE},
        headers={"X-API-Key": KEY, "User-Agent": "agent"},
    )
    ask(app, "GET", "/v1/indexes/mini", headers={"X-API-Key": KEY})
    ask(app, "GET", f"/v1/{SEQUENCE}/x")
    ask(app, "GET", "/healthz")
    search, index, wrong, health = (one for one in logged() if one["event"] == "request")
    assert list(search)[:3] == ["time", "level", "event"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", search["time"])
    assert search["ms"] > 0
    picked = ("level", "method", "path", "status", "bytes", "key_name", "sequences", "residues")
    assert [search[name] for name in picked] == [
        *("info", "POST", "/v1/search", 200, len(answer.content), "lab", 1, len(SEQUENCE)),
    ]
    assert search["request_id"] == answer.headers["x-request-id"]
    assert (index["path"], index["index"]) == ("/v1/indexes/{name}", "mini")
    assert (wrong["path"], wrong["status"], wrong["key_name"]) == ("/v1/…/x", 401, None)
    assert health["level"] == "debug"
    for secret in (SEQUENCE, WHERE, "Secret", KEY, "where"):
        assert secret not in logged.text()


def test_what_libraries_say_is_in_the_same_form(logged):
    logging.getLogger("rdsearch.filters").warning("%d of %s (%s)", 1, "2", SEQUENCE)
    logging.getLogger("uvicorn.error").info("Started\nserver \x1b[1m")
    logging.getLogger("uvicorn.access").info("GET /v1/search?where=secret")
    logging.getLogger("asyncio").error("Task exception\nfuture: <Task exception='secret'>")
    logging.getLogger("rdsearch.server").info("odd", extra={"facts": {"a": float("nan"), "b": 1}})
    warnings.warn("from a library", stacklevel=1)
    records = logged()
    assert [one["event"] for one in records[:3]] == [
        "1 of 2 ([left out])",
        "Started server  [1m",
        "Task exception",
    ]
    assert [one["logger"] for one in records[:3]] == [
        *("rdsearch.filters", "uvicorn.error", "asyncio")
    ]
    assert (records[3]["a"], records[3]["b"]) == ("nan", 1)
    assert "from a library" in records[4]["event"]
    assert "secret" not in logged.text()


def test_a_message_that_its_arguments_do_not_fit_is_logged_as_it_is():
    record = logging.LogRecord("rdsearch.x", logging.INFO, "", 0, "%d", ("no number",), None)
    assert json.loads(logs.JsonFormatter().format(record))["event"] == "%d"


def test_the_text_form_is_for_people():
    formatter = logs.TextFormatter()
    record = logging.LogRecord("rdsearch.access", logging.INFO, "", 0, "request", (), None)
    record.facts = {"status": 200, "key_name": None, "path": "/v1/search"}
    assert re.fullmatch(
        r"\d\d:\d\d:\d\d request status=200 path=/v1/search", formatter.format(record)
    )
    try:
        raise OSError(28, "No space left on device")
    except OSError as error:
        record = logging.LogRecord(
            "rdsearch.server", logging.ERROR, "", 0, "failed", (), (OSError, error, None)
        )
    assert re.fullmatch(
        r"\d\d:\d\d:\d\d error: failed\n    OSError: .*No space left on device.*\n      .+",
        formatter.format(record),
    )


@pytest.mark.parametrize(
    ("error", "shown"),
    [
        (ValueError("said"), False),
        (KeyError("said"), False),
        (InputError("said"), False),
        (Exception("said"), False),
        (IndexDamagedError("said"), True),
        (OSError(28, "said"), True),
    ],
)
def test_only_messages_about_the_server_are_logged(logged, error, shown):
    logging.getLogger("rdsearch.server").error("failed", exc_info=error)
    assert ("said" in logged.text()) == shown
    assert logged()[0]["error"][0]["type"] == type(error).__name__


def test_a_group_of_exceptions_shows_its_members(logged):
    group = type("Group", (Exception,), {"exceptions": (ValueError(SEQUENCE), KeyError("x"))})()
    logging.getLogger("rdsearch.server").error("failed", exc_info=group)
    assert {one["type"] for one in logged()[0]["error"]} == {"Group", "ValueError", "KeyError"}
