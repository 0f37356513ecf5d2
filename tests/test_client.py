"""What a client asks and how it reads answers; the server is a function here."""

from __future__ import annotations

import io
import json
import subprocess
import sys

import httpx
import numpy as np
import pytest

from rdsearch import client_requests as requests
from rdsearch.client import Client, ServerError
from rdsearch.client_answers import Events
from rdsearch.client_connections import Awaited, Blocking
from rdsearch.errors import CalibrationError, DependencyError, FastaError, InputError
from rdsearch.fasta import Record
from tests.mocked import ANSWER, HIT, LIMITS, Mocked, event, problem, run

FOUND = httpx.Response(200, json=ANSWER)
JOB = "/v1/jobs/j1"


@pytest.fixture(params=["sync", "async"])
def kind(request):
    return request.param


@pytest.fixture
def waits(monkeypatch):
    """Seconds that were waited; nobody does wait."""
    waited = []

    async def sleep(_, seconds):
        waited.append(seconds)

    monkeypatch.setattr(Blocking, "sleep", sleep)
    monkeypatch.setattr(Awaited, "sleep", sleep)
    return waited


def ask(kind, server, work, **given):
    return run(kind, work, transport=httpx.MockTransport(server), **given)


def with_job(*streams, result=b"hits"):
    """A server that takes jobs only."""
    streams = streams or (event(id="j1", state="done", notes=["a note"]),)
    return Mocked(
        **{
            "POST /v1/jobs": httpx.Response(202, json={"id": "j1", "state": "waiting"}),
            f"{JOB}/events": [httpx.Response(200, content=one) for one in streams],
            f"{JOB}/result": httpx.Response(200, content=result),
            f"DELETE {JOB}": httpx.Response(204),
        }
    )


def test_search(kind):
    server = Mocked(**{"/v1/search": FOUND})
    answer = ask(
        kind,
        server,
        lambda client: client.search(
            ">q one\nMK-v*\n>r\nAA A".replace(" A", "A"),
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


def test_options_are_those_of_the_server():
    schemas = pytest.importorskip("rdsearch.server.schemas")
    assert requests.OPTIONS | {"k", "format"} == set(schemas.Plan.model_fields)
    assert {"index", "fasta", "timeout"} < set(schemas.Sequences.model_fields)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"nprobes": 3}, "no option 'nprobes'"), ({"columns": "score"}, "columns is a list of names")],
)
def test_options_that_there_are_not(kind, options, message):
    server = Mocked()
    with pytest.raises(InputError, match=message):
        ask(kind, server, lambda client: client.search(["MKV"], **options))
    assert server.asked == []


def test_queries(tmp_path):
    path = tmp_path / "q.fasta"
    path.write_text(">sp|P1|A_B name OS=x OX=9\nmkv\n>b\nAAA\n>b\nAAA\n")
    records = requests.records_of(path)
    assert records == requests.records_of(str(path)) == requests.records_of(path.read_text())
    assert [one.sequence for one in records] == ["MKV", "AAA", "AAA"]
    assert (records[0].accession, records[0].taxon_id) == ("P1", 9)
    assert requests.records_of(records) == records
    assert requests.records_of(records[0]) == records[:1]
    assert requests.records_of(one for one in ["MKV", records[1], "a-c\n"]) == [
        Record("query1", "query1", "MKV"),
        records[1],
        Record("query3", "query3", "AC"),
    ]
    # What is sent is read as the same records.
    assert requests.records_of(requests.text_of(records)) == records


@pytest.mark.parametrize(
    ("queries", "message"),
    [
        ([], "there is no query"),
        (5, "found int"),
        (b">q\nMKV\n", "found bytes"),
        (["MKV", ">q\nMKV"], "query 2 of the list: expected a sequence"),
        (["MKV", " "], "query 2 of the list"),
        (["MKV", "M2V"], "query 2 of the list, line 2: .*'2'"),
        ([7], "query 1 of the list: expected a Record or a sequence, found int"),
        ([Record("a b", "a", "MKV")], "an id of one word"),
        ([Record("a", "a", "MKV", "x\n>b")], "a description of one line"),
        ([Record("a", "a", "M\n>b\nK")], "a sequence of letters"),
        (">q\nMKV\n>r\n\n", "the FASTA text, line 3: the sequence of 'r' is empty"),
        ("MKVLAT", "MKVLAT: cannot be read: No such file"),
    ],
)
def test_queries_that_cannot_be_read(queries, message):
    with pytest.raises(InputError, match=message):
        requests.records_of(queries)


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


def test_parts_fit_and_keep_the_order():
    rng = np.random.default_rng(1)
    for _ in range(50):
        records = [
            Record(f"p{i}", f"p{i}", "A" * int(size), "é" * 39 * int(size))
            for i, size in enumerate(rng.integers(1, 60, size=12))
        ]
        limits = {"sequences": 4, "residues": 90, "body_bytes": 5_000}
        groups = list(requests.parts(records, limits))
        assert [one for group in groups for one in group] == records
        for group in groups:
            assert len(group) <= 4
            assert sum(len(one.sequence) for one in group) <= 90
            assert len(requests.search_body(group, "mini", None, "npy", {})) <= 5_000


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


@pytest.mark.parametrize(
    "url",
    ["", "127.0.0.1:8000", "ftp://x", "http://", "http://x:y", "http://x?q=1", "http://[x", "//x"],
)
def test_urls_that_are_none(url):
    with pytest.raises(InputError, match="expected the URL of a server"):
        Client(url)


def test_urls():
    with pytest.raises(InputError, match="RDSEARCH_API_KEY") as caught:
        Client("http://me:secret@host")
    assert "secret" not in str(caught.value)
    server = Mocked(**{"/lab/v1/indexes": httpx.Response(200, json={"indexes": []})})
    with Client("https://host/lab/", transport=httpx.MockTransport(server)) as client:
        assert client.url == "https://host/lab"
        assert client.indexes() == []
    with pytest.raises(InputError, match="timeout"):
        Client("http://host", timeout=0)
    with pytest.raises(InputError, match="retries"):
        Client("http://host", retries=-1)


def test_keys(kind, monkeypatch):
    server = Mocked(**{"/v1/indexes": httpx.Response(200, json={"indexes": []})})
    for given, environment, sent in (
        (None, None, None),
        (None, "", None),
        (None, " fromenv\n", "Bearer fromenv"),
        ("given", "fromenv", "Bearer given"),
    ):
        monkeypatch.delenv("RDSEARCH_API_KEY", raising=False)
        if environment is not None:
            monkeypatch.setenv("RDSEARCH_API_KEY", environment)
        ask(kind, server, lambda client: client.indexes(), api_key=given)
        assert server.asked[-1].headers.get("authorization") == sent
    assert "given" not in repr(Client("http://host", api_key="given"))
    for bad in ("two words", "é", "line\nbreak", ""):
        with pytest.raises(InputError, match="an API key is one word") as caught:
            Client("http://host", api_key=bad)
        assert not bad or bad not in str(caught.value)


def test_httpx_is_loaded_late_and_named_where_it_is_missing(monkeypatch):
    code = (
        "import sys, rdsearch.client; "
        "print([m for m in ('httpx', 'fastapi', 'torch', 'duckdb', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.stdout.strip() == "[]", done.stderr
    monkeypatch.setitem(sys.modules, "httpx", None)
    with pytest.raises(DependencyError, match=r"pip install 'rdsearch\[server\]'"):
        Client("http://host")
