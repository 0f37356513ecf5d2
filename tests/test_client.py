"""What a client asks, and what it does with answers and errors; the server is a function here."""

# ruff: noqa: F811 - fixtures that are imported

from __future__ import annotations

import json

import httpx
import pytest

from rdsearch.client import ServerError
from rdsearch.errors import CalibrationError, FastaError, InputError
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


def test_search(kind):
    server = Mocked(**{"/v1/search": FOUND})
    answer = ask(
        kind,
        server,
        lambda client: client.search(
            ">q one\nMK-v*\n>r\nAAA",
            "mini",
            5,
            where="length < 9",
            shortlist={"a": 2},
            align=True,
            ids=("P1", "P2"),
            evalue=None,
        ),
        api_key="secret",
        timeout=7,
    )
    assert server.body() == {
        "fasta": ">q one\nMKV\n>r\nAAA\n",
        "index": "mini",
        "k": 5,
        "format": "json",
        "where": "length < 9",
        "shortlist": {"a": 2},
        "align": True,
        "ids": ["P1", "P2"],
        "timeout": 7,
    }
    assert server.asked[-1].headers["authorization"] == "Bearer secret"
    assert (answer.index, answer.generation, answer.funnel) == ("mini", 3, "a:2 > b")
    assert answer.notes == ANSWER["notes"]
    assert [query["id"] for query, _ in answer] == ["q", "r"]
    assert answer.results[0].hits == [HIT]
    assert [one.full for one in answer.results] == [True, False]
    assert [one.map for one in answer.results] == [None, {"query": [0, 1]}]
    assert len(answer) == 2


def test_limits_are_asked_for_once(kind):
    server = Mocked(**{"/v1/search": FOUND})

    async def work(client):
        await client.search(["MKV"])
        await client.search(["MKV"])

    ask(kind, server, work)
    assert [one.url.path for one in server.asked] == ["/v1/limits", "/v1/search", "/v1/search"]


@pytest.mark.parametrize(
    ("options", "message"),
    [({"nprobes": 3}, "no option 'nprobes'"), ({"columns": "score"}, "columns is a list of names")],
)
def test_options_that_there_are_not(kind, options, message):
    server = Mocked()
    with pytest.raises(InputError, match=message):
        ask(kind, server, lambda client: client.search(["MKV"], **options))
    assert server.asked == []


def test_a_bad_file_is_named_before_anything_is_sent(kind, tmp_path):
    path = tmp_path / "q.fasta"
    path.write_text(">q\nMKV\n>r\nMK*V\n")
    server = Mocked()
    with pytest.raises(FastaError, match="line 4") as caught:
        ask(kind, server, lambda client: client.search(path))
    assert (caught.value.path, caught.value.line) == (str(path), 4)
    assert server.asked == []


@pytest.mark.parametrize(
    ("answer", "error", "message"),
    [
        (problem(422, "input", "k must be"), InputError, "k must be"),
        (problem(422, "invalid-request", "k: wrong", errors=[]), InputError, "k: wrong"),
        (problem(422, "not-calibrated", "not calibrated"), CalibrationError, "not calibrated"),
        (problem(404, "no-such-index", "none called x"), ServerError, "none called x"),
        (problem(401, "key-missing", "a key"), ServerError, "a key .*RDSEARCH_API_KEY"),
        (problem(503, "unavailable", "its log"), ServerError, "its log"),
        (problem(504, "deadline", "too long"), ServerError, "too long"),
    ],
)
def test_problems(kind, waits, answer, error, message):
    server = Mocked(**{"/v1/search": answer})
    with pytest.raises(error, match=message) as caught:
        ask(kind, server, lambda client: client.search(["MKV"]))
    told = json.loads(answer.content)
    assert type(caught.value) is error
    assert caught.value.status == answer.status_code
    assert caught.value.kind == told["type"].rpartition(":")[2]
    assert caught.value.detail == told["detail"]
    assert (server.paths(), waits) == (["POST /v1/search"], [])


def test_facts_of_a_problem_become_no_attributes(kind):
    answer = problem(404, "no-such-index", indexes=["mini"], args="x", with_traceback=1)
    with pytest.raises(ServerError) as caught:
        ask(kind, Mocked(**{"/v1/search": answer}), lambda client: client.search(["MKV"]))
    assert caught.value.facts == {"indexes": ["mini"], "args": "x", "with_traceback": 1}
    assert callable(caught.value.with_traceback)


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(502, text="<h1>Bad gateway</h1>", headers={"Content-Type": "text/html"}),
        httpx.Response(404, json={"detail": "Not Found"}),
        httpx.Response(302, headers={"Location": "http://example.org/"}),
        httpx.Response(200, text="hello"),
        httpx.Response(200, json=[1]),
        httpx.Response(200, json={"results": 3}),
    ],
)
def test_another_program_answers(kind, answer):
    server = Mocked(**{"/v1/search": answer})
    with pytest.raises(ServerError, match="expected an answer of rdsearch serve") as caught:
        ask(kind, server, lambda client: client.search(["MKV"]))
    assert caught.value.kind == "not-rdsearch"
    with pytest.raises(ServerError, match="is this its URL"):
        ask(kind, Mocked(**{"/v1/limits": answer}), lambda client: client.search(["MKV"]))


@pytest.mark.parametrize("status_kind", [(429, "queue-full"), (503, "starting")])
def test_a_server_that_is_busy_is_asked_again(kind, waits, status_kind):
    busy = problem(*status_kind, headers={"Retry-After": "2"})
    server = Mocked(**{"/v1/search": [busy, problem(*status_kind), FOUND]})
    answer = ask(kind, server, lambda client: client.search(["MKV"]))
    assert answer.index == "mini"
    assert len(server.paths()) == 3
    assert waits[0] == 2
    assert 0.2 <= waits[1] <= 0.6
    server = Mocked(**{"/v1/search": busy})
    with pytest.raises(ServerError) as caught:
        ask(kind, server, lambda client: client.search(["MKV"]), retries=1)
    assert (caught.value.status, caught.value.retry_after) == (status_kind[0], 2)
    assert len(server.paths()) == 2


def test_a_server_that_is_busy_for_long_is_not(kind, waits):
    server = Mocked(**{"/v1/search": problem(429, "queue-full", headers={"Retry-After": "3600"})})
    with pytest.raises(ServerError):
        ask(kind, server, lambda client: client.search(["MKV"]))
    assert (len(server.paths()), waits) == (1, [])


@pytest.mark.parametrize(
    ("lost", "search", "submit"),
    [
        (httpx.ConnectError("refused"), 4, 4),
        (httpx.ReadError("reset"), 4, 1),
        (httpx.RemoteProtocolError("disconnected"), 4, 1),
        (httpx.ReadTimeout("slow"), 1, 1),
    ],
)
def test_lost_connections(kind, waits, lost, search, submit):
    """What may have arrived is sent again only where twice does no harm."""
    server = Mocked(**{"/v1/search": lost, "/v1/jobs": lost})
    message = "in time" if isinstance(lost, httpx.TimeoutException) else "nothing answers at http"
    for call, count in (("search", search), ("submit", submit)):
        server.asked.clear()
        with pytest.raises(ServerError, match=message) as caught:
            ask(kind, server, lambda client, call=call: getattr(client, call)(["MKV"]))
        assert len(server.paths()) == count
        assert caught.value.status is None
    assert len(waits) == search - 1 + submit - 1


def test_a_connection_that_comes_back(kind, waits):
    server = Mocked(**{"/v1/search": [httpx.ReadError("reset"), FOUND]})
    assert ask(kind, server, lambda client: client.search(["MKV"])).index == "mini"
    assert len(waits) == 1


def test_paths(kind):
    one = {"accession": "a/b?"}
    protein = "/v1/indexes/mini/proteins/a%2Fb%3F"

    def answer(request):
        path = request.url.raw_path.decode()
        found = {
            "/v1/indexes": {"indexes": [one]},
            "/v1/indexes/my%20index": one,
            protein: one,
            f"{protein}/neighbours?k=3&where=length+%3C+9&trace=true&format=json": ANSWER,
        }[path]
        return httpx.Response(200, json=found)

    async def work(client):
        assert await client.indexes() == [one]
        assert await client.index("my index") == one
        assert await client.protein("mini", "a/b?") == one
        found = await client.neighbours("mini", "a/b?", 3, where="length < 9", trace=True)
        assert found.results[0].hits == [HIT]

    ask(kind, answer, work)


def test_limits_and_readiness(kind, waits):
    server = Mocked(**{"/readyz": httpx.Response(200, json={"status": "ready"})})

    async def work(client):
        assert await client.limits() == LIMITS
        return await client.ready()

    assert ask(kind, server, work) is True
    for answer in (problem(503, "starting"), problem(503, "stopping"), httpx.ConnectError("no")):
        server["/readyz"] = answer
        assert ask(kind, server, work) is False
    server["/readyz"] = httpx.Response(404, text="nothing")
    with pytest.raises(ServerError, match="is this its URL"):
        ask(kind, server, work)
    assert waits == []
