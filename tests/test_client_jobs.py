"""Large inputs, jobs and bodies that are streamed; the server is a function here."""

# ruff: noqa: F811 - fixtures that are imported

from __future__ import annotations

import io
import json

import httpx
import numpy as np
import pytest

from rdsearch.client import Client, ServerError
from rdsearch.client_answers import Events
from rdsearch.errors import InputError
from rdsearch.fasta import Record
from tests.mocked import (  # noqa: F401 - fixtures
    ANSWER,
    HIT,
    JOB,
    LIMITS,
    Mocked,
    ask,
    event,
    kind,
    problem,
    waits,
    with_job,
)

FOUND = httpx.Response(200, json=ANSWER)


@pytest.mark.parametrize("large", [["MKV"] * 4, ["A" * 101], [Record("a", "a", "A", "x" * 21_000)]])
def test_what_is_too_large_goes_through_a_job(kind, large):
    server = with_job(result=json.dumps(ANSWER).encode())
    answer = ask(kind, server, lambda client: client.search(large, k=2))
    assert answer.results[0].hits == [HIT]
    assert server.paths() == [
        "POST /v1/jobs",
        f"GET {JOB}/events",
        f"GET {JOB}/result",
        f"DELETE {JOB}",
    ]
    body = server.body(1)
    assert (body["k"], body["format"]) == (2, "json")
    assert "timeout" not in body


def test_limits_that_only_the_server_knows(kind):
    server = with_job(result=json.dumps(ANSWER).encode())
    server["/v1/search"] = problem(413, "too-large", limit=5)
    assert ask(kind, server, lambda client: client.search(["MKV"], align=True)).index == "mini"
    server["POST /v1/jobs"] = problem(413, "too-large", "too many ids", limit=5)
    with pytest.raises(ServerError, match="too many ids") as caught:
        ask(kind, server, lambda client: client.search(["MKV"], align=True))
    assert caught.value.facts == {"limit": 5}


def test_at_the_limits(kind):
    server = Mocked(**{"/v1/search": FOUND})
    ask(kind, server, lambda client: client.search(["A" * 40, "A" * 40, "A" * 20]))
    assert server.paths() == ["POST /v1/search"]


@pytest.mark.parametrize("large", [False, True])
def test_search_to(kind, tmp_path, large):
    server = with_job(result=b"1\t2\n")
    told = {"Rdsearch-Notes": '["a note"]'}
    server["/v1/search"] = httpx.Response(200, content=b"1\t2\n", headers=told)
    queries, path, file = ["MKV"] * (4 if large else 1), tmp_path / "hits", io.BytesIO()

    async def work(client):
        return [await client.search_to(to, queries, "tsv", "mini", 4) for to in (path, file)]

    written = ask(kind, server, work)
    assert [(one.bytes, one.notes) for one in written] == [(4, ("a note",))] * 2
    assert path.read_bytes() == file.getvalue() == b"1\t2\n"
    assert [one.name for one in tmp_path.iterdir()] == ["hits"]
    asked = next(one for one in server.asked if one.method == "POST")
    assert (json.loads(asked.content)["format"], json.loads(asked.content)["k"]) == ("tsv", 4)


class Broken(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A body whose connection breaks off."""

    def __iter__(self):
        yield b"half"
        raise httpx.ReadError("reset")

    async def __aiter__(self):
        for one in self:
            yield one


def test_a_body_that_breaks_off_leaves_no_file(kind, tmp_path, waits):
    server = Mocked(**{"/v1/search": lambda _: httpx.Response(200, stream=Broken())})
    path = tmp_path / "hits"
    for content in (None, "old"):
        if content is not None:
            path.write_text(content)
        with pytest.raises(ServerError, match="nothing answers"):
            ask(kind, server, lambda client: client.search_to(path, ["MKV"]))
        assert [one.read_text() for one in tmp_path.iterdir()] == ([content] if content else [])


def test_a_job(kind, tmp_path):
    server = with_job(
        b": keep-alive\n\n"
        + event(id="j1", state="running", sequences={"total": 9, "done": 0})
        + event(id="j1", state="running", sequences={"total": 9, "done": 4})
        + event(id="j1", state="done", hits=7, sequences={"total": 9, "done": 9})
    )
    server[f"GET {JOB}"] = httpx.Response(200, json={"id": "j1", "state": "running"})
    advanced = []

    class Progress:
        def stage(self, name, total, done=0):
            advanced.append(total)
            return lambda sequences, _: advanced.append(sequences)

    async def work(client):
        job = await client.submit(["MKV"] * 9, "tsv", k=3)
        assert job.id == "j1"
        assert (await job.status())["state"] == "running"
        assert [one["state"] async for one in job.events()] == ["running", "running", "done"]
        told = await job.wait(Progress())
        assert await job.result_to(tmp_path / "hits") == 4
        await job.cancel()
        return told

    assert ask(kind, server, work)["hits"] == 7
    assert advanced == [9, 0, 4, 5]
    assert (tmp_path / "hits").read_bytes() == b"hits"
    assert server.paths()[-1] == f"DELETE {JOB}"


def test_events_connect_again(kind, waits):
    first, last = event(id="j1", state="running"), event(id="j1", state="done")
    server = with_job(first + b"event: jo", b"", first, last)

    async def states(client):
        job = await client.submit(["MKV"])
        return [one["state"] async for one in job.events()]

    assert ask(kind, server, states) == ["running", "running", "done"]
    assert len(waits) == 3
    # What told something counts as no failure.
    server = with_job(first, first, first, last)
    assert ask(kind, server, states, retries=1)[-1] == "done"
    server = with_job(b"")
    with pytest.raises(ServerError, match="the stream of events ended"):
        ask(kind, server, states, retries=2)
    assert server.paths().count(f"GET {JOB}/events") == 3


def test_events_that_are_left(kind):
    """A reader that has enough closes its connection."""
    server = with_job(event(state="waiting") + event(state="running") + event(state="done"))

    async def work(client):
        job = await client.submit(["MKV"])
        async for one in job.events():
            return one["state"]

    assert ask(kind, server, work) == "waiting"


def test_events_in_any_chunks():
    text = b": hello\n\n" + event(state="a", text="é\\n") + b"event: other\ndata: {}\n\n"
    text += b'event: job\r\ndata: {"state":\r\ndata: "b"}\r\n\r\n' + b"data: {}\n\nevent: job\n\n"
    for size in range(1, len(text) + 1):
        reader = Events()
        chunks = [text[i : i + size] for i in range(0, len(text), size)]
        told = [one["state"] for chunk in chunks for one in reader.feed(chunk)]
        assert told == ["a", "b"]


@pytest.mark.parametrize(
    ("last", "error", "kind_of"),
    [
        ({"state": "cancelled"}, ServerError, "job-cancelled"),
        (
            {"state": "failed", "error": json.loads(problem(422, "input", "no column").content)},
            InputError,
            "input",
        ),
        (
            {"state": "failed", "error": json.loads(problem(500, "internal").content)},
            ServerError,
            "internal",
        ),
    ],
)
def test_jobs_that_end_otherwise(kind, last, error, kind_of):
    server = with_job(event(id="j1", **last))
    with pytest.raises(error) as caught:
        ask(kind, server, lambda client: client.search(["MKV"] * 4))
    assert type(caught.value) is error
    assert caught.value.kind == kind_of
    assert server.paths()[-1] == f"DELETE {JOB}"


def test_an_interrupt_cancels_the_clients_own_job(tmp_path):
    class Progress:
        def stage(self, *_):
            raise KeyboardInterrupt

    server, path = with_job(), tmp_path / "hits"
    with (
        Client("http://127.0.0.1:9", transport=httpx.MockTransport(server)) as client,
        pytest.raises(KeyboardInterrupt),
    ):
        client.search_to(path, ["MKV"] * 4, progress=Progress())
    assert server.paths()[-1] == f"DELETE {JOB}"
    assert not list(tmp_path.iterdir())


def test_embed_in_parts(kind):
    rng = np.random.default_rng(0)
    given = rng.normal(size=(7, 5)).astype(np.float32)
    done = 0

    def embed(request):
        nonlocal done
        count = json.loads(request.content)["fasta"].count(">")
        file = io.BytesIO()
        np.save(file, given[done : done + count])
        done += count
        return httpx.Response(200, content=file.getvalue())

    server = Mocked(**{"/v1/embed": embed})
    records = [Record(f"p{i}", f"p{i}", "MKV" * 10) for i in range(6)] + [Record("x", "x", "MK")]
    ids, vectors = ask(kind, server, lambda client: client.embed(records, "mini", "a"))
    assert ids == [record.id for record in records]
    assert vectors.dtype == np.float32
    np.testing.assert_array_equal(vectors, given)
    bodies = [json.loads(one.content) for one in server.asked if one.url.path == "/v1/embed"]
    assert [body["fasta"].count(">") for body in bodies] == [3, 3, 1]
    assert {(b["index"], b["tier"], b["format"]) for b in bodies} == {("mini", "a", "npy")}


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((2, 3), np.float32), "expected 1 vectors"),
        (np.zeros((1, 3)), "float64"),
        (np.array([[None]], dtype=object), "allow_pickle=False"),
        (0, "shape"),
    ],
)
def test_vectors_that_are_none(kind, array, message):
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    server = Mocked(**{"/v1/embed": httpx.Response(200, content=file.getvalue())})
    with pytest.raises(ServerError, match=message) as caught:
        ask(kind, server, lambda client: client.embed(["MKV"]))
    assert caught.value.kind == "not-rdsearch"
