"""Bodies of requests: their size, how long they may take, and what is kept of them."""

from __future__ import annotations

import json

import pytest
from fastapi import FastAPI

from rdsearch.server import bodies
from rdsearch.server.settings import Limits
from tests.guarded import application, ask, logged, problem, raw

__all__ = ["logged"]

CHUNKED = [(b"host", b"here"), (b"transfer-encoding", b"chunked")]


def part(body: bytes, more: bool = True) -> dict:
    return {"type": "http.request", "body": body, "more_body": more}


def small(**more) -> FastAPI:
    return application(limits=Limits(body_bytes=1_000, job_body_bytes=5_000), **more)


@pytest.mark.parametrize(
    ("path", "size", "limit"),
    [
        ("/v1/raw", 1_000, None),
        ("/v1/raw", 1_001, 1_000),
        ("/v1/jobs", 5_000, None),
        ("/v1/jobs", 5_001, 5_000),
        ("/v1/jobs/x", 1_001, 1_000),
        ("/v1/raw", 0, None),
    ],
)
@pytest.mark.parametrize("chunked", [False, True])
def test_the_size_of_a_body(path, size, limit, chunked):
    async def parts():
        for start in range(0, size, 300):
            yield b"x" * min(300, size - start)

    content = parts() if chunked else b"x" * size
    answer = ask(small(), "POST", path, content=content)
    if limit is None:
        assert answer.json()["length"] == size
    else:
        found = problem(answer, 413, "too-large")
        assert (found["limit"], found["found"]) == (limit, found["found"])
        assert limit < found["found"] <= size
        assert answer.headers["connection"] == "close"


def test_a_body_that_says_it_is_too_large_is_not_read_before_the_answer():
    headers = [(b"host", b"here"), (b"content-length", b"1001"), (b"expect", b"100-continue")]
    # With no message to receive, reading would never end.
    sent = raw(small(), {"headers": headers}, [])
    assert sent[0]["status"] == 413
    assert len(sent) == 2  # nothing is waited for: such a client sends no body after an answer


def test_a_body_is_dropped_while_it_comes(monkeypatch):
    monkeypatch.setattr(bodies, "_LINGER", 0.2)
    kept = []
    real = bodies.deque

    class Watched(real):
        def append(self, one):
            kept.append(len(one))
            super().append(one)

    monkeypatch.setattr(bodies, "deque", Watched)
    sent = raw(small(), {"headers": CHUNKED}, [part(b"x" * 400)] * 50)
    assert sent[0]["status"] == 413
    assert sum(kept) <= 1_000


def test_a_slow_body_is_given_up(monkeypatch):
    monkeypatch.setattr(bodies, "PATIENCE", (0.05, 1e9))
    monkeypatch.setattr(bodies, "_LINGER", 0.05)
    sent = raw(small(), {"headers": CHUNKED}, [part(b"x")])
    assert sent[0]["status"] == 408
    assert json.loads(sent[1]["body"])["type"] == "urn:rdsearch:problem:slow-body"


def test_a_body_that_keeps_up_has_more_time(monkeypatch):
    monkeypatch.setattr(bodies, "PATIENCE", (0.2, 10.0))  # and 100 bytes are worth 10 s
    messages = [part(b"x" * 100), part(b"x" * 100), part(b"x" * 100, more=False)]
    sent = raw(small(), {"headers": CHUNKED}, messages, delay=0.15)
    assert sent[0]["status"] == 200


def test_a_client_that_leaves_in_the_middle_reaches_no_route(logged):
    assert not raw(small(), {"headers": CHUNKED}, [part(b"x"), {"type": "http.disconnect"}])
    assert [one["status"] for one in logged() if one["event"] == "request"] == [499]


def test_bodies_of_all_requests_together_are_bounded(monkeypatch):
    monkeypatch.setattr(bodies, "_BODIES", 0.1)  # of 5,000 bytes
    app = small()
    for _ in range(3):  # what was held is given back
        assert ask(app, "POST", "/v1/raw", content=b"x" * 400).status_code == 200
        answer = ask(app, "POST", "/v1/raw", content=b"x" * 600)
        problem(answer, 503, "unavailable")
        assert answer.headers["retry-after"] == "5"


def test_what_a_refused_body_held_is_given_back(monkeypatch):
    monkeypatch.setattr(bodies, "_BODIES", 0.3)
    app = small()
    for _ in range(5):
        sent = raw(app, {"headers": CHUNKED}, [part(b"x" * 900), part(b"x" * 900, more=False)])
        assert sent[0]["status"] == 413
    assert ask(app, "POST", "/v1/raw", content=b"x" * 900).status_code == 200


def test_a_route_still_learns_that_its_client_left():
    messages = [part(b"ab"), part(b"c", more=False), {"type": "http.disconnect"}]
    sent = raw(small(), {"headers": CHUNKED}, messages)
    assert json.loads(sent[1]["body"]) == {"length": 3, "left": True}
