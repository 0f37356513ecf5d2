"""Routes of jobs, with an engine that the test answers for: keys, and what can go wrong."""

from __future__ import annotations

import itertools
import json
import threading

import pytest

pytest.importorskip("fastapi", reason="needs rdsearch[server]")

from fastapi import FastAPI, Request
from fastapi.testclient import TestClient

from rdsearch.server import problems, routes_jobs
from tests.jobbing import until, world


@pytest.fixture(params=[True, False], ids=["quick", "slow"])
def made(request, monkeypatch, tmp_path):
    with world(monkeypatch, tmp_path, at_once=request.param, jobs=2) as one:
        yield one


quick = pytest.mark.parametrize("made", [True], indirect=True, ids=["quick"])
slow = pytest.mark.parametrize("made", [False], indirect=True, ids=["slow"])


@pytest.fixture
def client(made):
    """A client whose key is named by the header Key; without it there are no keys."""
    app = FastAPI()
    app.state.service = made
    problems.install(app)
    app.include_router(routes_jobs.router)

    @app.middleware("http")
    async def keys(request: Request, following):
        request.state.key_name = request.headers.get("key")
        request.state.log = {}
        return await following(request)

    with TestClient(app, raise_server_exceptions=False) as one:
        yield one


def post(client, *sequences, **headers):
    answer = client.post("/v1/jobs", json={"sequences": sequences or ["MA"]}, headers=headers)
    assert answer.status_code == 202, answer.text
    assert answer.headers["Location"] == answer.json()["links"]["self"]
    return answer.json()


def kind(answer) -> str:
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json()["status"] == answer.status_code
    return answer.json()["type"].rpartition(":")[2]


def done(made, client, job, **headers):
    until(lambda: client.get(job["links"]["self"], headers=headers).json()["state"] == "done")


@quick
def test_a_job_is_for_the_key_that_made_it(made, client):
    job = post(client, key="one")
    done(made, client, job, key="one")
    for other in ({"key": "two"}, {}):
        for path in job["links"].values():
            answer = client.get(path, headers=other)
            assert (answer.status_code, kind(answer)) == (404, "no-such-job")
        assert client.delete(job["links"]["self"], headers=other).status_code == 404
    assert client.get(job["links"]["result"], headers={"key": "one"}).status_code == 200
    assert client.delete(job["links"]["self"], headers={"key": "one"}).status_code == 204


@slow
def test_too_many_jobs(made, client):
    for _ in range(2):
        post(client)
    answer = client.post("/v1/jobs", json={"sequences": ["MA"]})
    assert (answer.status_code, kind(answer)) == (429, "jobs-full")
    assert int(answer.headers["Retry-After"]) > 0


@quick
def test_the_result_of_a_job_that_failed_is_its_problem(made, client):
    made.engine.error = RuntimeError("secret")
    job = post(client)
    until(lambda: client.get(job["links"]["self"]).json()["state"] == "failed")
    for _ in range(2):
        answer = client.get(job["links"]["result"])
        assert (answer.status_code, kind(answer)) == (500, "internal")
        assert "secret" not in answer.text
    assert client.get(job["links"]["self"]).json()["error"] == answer.json()


@quick
def test_a_job_that_goes_as_its_result_is_asked_for(made, client, monkeypatch):
    job = post(client)
    done(made, client, job)

    def filename(format):
        made.jobs.remove(job["id"])
        return "hits"

    monkeypatch.setattr(routes_jobs.rendering, "filename", filename)
    answer = client.get(job["links"]["result"])
    assert (answer.status_code, kind(answer)) == (404, "no-such-job")
    assert made.files == []


@slow
def test_events_live_as_long_as_nothing_changes(made, client, monkeypatch):
    """Comments keep the connection open; no event is told twice."""
    monkeypatch.setattr(routes_jobs, "_LOOK", 0.01)
    monkeypatch.setattr(routes_jobs, "_KEEP_ALIVE", 0.02)
    job = post(client)
    threading.Timer(0.5, made.engine.answer).start()
    lines = client.get(job["links"]["events"]).text.splitlines()
    assert lines.count(": keep-alive") > 2
    told = [json.loads(line[6:]) for line in lines if line.startswith("data: ")]
    assert all(one != other for one, other in itertools.pairwise(told))
    states = [state for state, _ in itertools.groupby(one["state"] for one in told)]
    assert states in (["running", "done"], ["waiting", "running", "done"])
    assert set(lines) - {": keep-alive", "event: job", ""} == {
        line for line in lines if line.startswith("data: {")
    }


@slow
def test_a_server_that_stops_takes_no_jobs_and_ends_events(made, client):
    job = post(client)
    until(lambda: made.engine.asked)
    answers = []
    reader = threading.Thread(
        target=lambda: answers.append(client.get(job["links"]["events"]).text)
    )
    reader.start()
    made.stopping = True
    answer = client.post("/v1/jobs", json={"sequences": ["MA"]})
    assert (answer.status_code, kind(answer)) == (503, "stopping")
    made.close(0.0)
    reader.join(20)
    assert '"state": "cancelled"' in answers[0].splitlines()[-2]


@slow
def test_events_end_with_the_server_whatever_the_job_does(made, client):
    job = post(client)
    made.jobs.closed = True
    assert '"state": "done"' not in client.get(job["links"]["events"]).text
