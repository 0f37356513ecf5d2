"""The client against a real server: what it brings is what the index answers here."""

from __future__ import annotations

import asyncio
import io
import itertools
import json
import socket
import threading

import numpy as np
import pytest

import rdsearch
from rdsearch.client import AsyncClient, Client, ServerError
from rdsearch.errors import CalibrationError, InputError
from rdsearch.fasta import read
from rdsearch.formats import FORMATS
from tests.mocked import run
from tests.serving import serving

pytestmark = pytest.mark.slow


@pytest.fixture(params=["sync", "async"])
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def index(served):
    with rdsearch.open(served.index, dtype="float32") as opened:
        yield opened


@pytest.fixture(scope="module")
def records(proteins_file):
    return list(itertools.islice(read(proteins_file), 3, 6))


def test_hits_are_the_indexs(kind, served, index, records):
    answer = run(kind, lambda client: client.search(records, "mini", 4), served.url)
    expected = list(index.search(records, 4))
    assert answer.index == "mini"
    assert answer.funnel == str(index.plan())
    assert answer.tiers == list(index.plan().tiers)
    assert len(answer) == 3
    for (query, hits), (record, local) in zip(answer, expected, strict=True):
        assert query == {
            "id": record.id,
            "description": record.description,
            "length": len(record.sequence),
        }
        assert [hit["accession"] for hit in hits] == [hit.accession for hit in local]
        np.testing.assert_allclose(
            [hit["score"] for hit in hits], [hit.score for hit in local], atol=2e-6
        )
        assert set(hits[0]) <= set(answer.columns)


@pytest.mark.parametrize("format", ["json", *FORMATS])
def test_formats(kind, served, records, format):
    one = records[:1]

    async def work(client):
        file = io.BytesIO()
        written = await client.search_to(file, one, format, k=3)
        return written, file.getvalue(), await client.search(one, k=3)

    written, content, answer = run(kind, work, served.url)
    accessions = [hit["accession"] for hit in answer.results[0].hits]
    assert written.bytes == len(content) > 0
    if format == "json":
        assert json.loads(content)["results"][0]["hits"] == answer.results[0].hits
    elif format == "jsonl":
        lines = [json.loads(line) for line in content.splitlines()]
        assert [line["accession"] for line in lines] == accessions
    elif format == "parquet":
        pandas = pytest.importorskip("pandas")
        assert list(pandas.read_parquet(io.BytesIO(content))["accession"]) == accessions
    else:
        assert all(accession.encode() in content for accession in accessions)
        assert content.decode()
    assert any("no e-values" in note for note in answer.notes)
    assert list(written.notes) == (answer.notes if format != "json" else list(written.notes))


def test_vectors_are_the_indexs(kind, served, index, records):
    tier = index.tiers[0]
    ids, vectors = run(kind, lambda client: client.embed(records, "mini", tier), served.url)
    expected = index.embed([record.sequence for record in records], tier)
    assert ids == [record.id for record in records]
    assert (vectors.dtype, vectors.shape) == (np.float32, expected.shape)
    np.testing.assert_allclose(vectors, expected, atol=1e-5)


def test_facts(kind, served, index, records):
    async def work(client):
        assert await client.ready() is True
        (facts,) = await client.indexes()
        assert facts == await client.index("mini")
        assert (facts["name"], facts["default"], facts["rows"]) == ("mini", True, 120)
        assert (await client.limits())["formats"].keys() == {"json", *FORMATS}
        accession = records[0].accession
        protein = await client.protein("mini", accession)
        assert protein["sequence"] == records[0].sequence
        near = await client.neighbours("mini", accession, 3)
        return near

    (near,) = run(kind, work, served.url).results
    ((_, local),) = index.search(records[:1], 3, exclude_self=True)
    assert [hit["accession"] for hit in near.hits] == [hit.accession for hit in local]


@pytest.mark.parametrize(
    ("options", "error", "of_kind", "status"),
    [
        ({"k": 0}, InputError, "invalid-request", 422),
        ({"where": "none > 1"}, InputError, "input", 422),
        ({"columns": ["none"]}, InputError, "input", 422),
        ({"fdr": 0.1}, CalibrationError, "not-calibrated", 422),
        ({"index": "none"}, ServerError, "no-such-index", 404),
        ({"ids": ["x"] * 20_000}, ServerError, "too-large", 413),
    ],
)
def test_refusals(kind, served, records, options, error, of_kind, status):
    with pytest.raises(error) as caught:
        run(kind, lambda client: client.search(records, **options), served.url)
    assert (caught.value.kind, caught.value.status) == (of_kind, status)
    if status == 413:
        assert caught.value.facts == {"limit": {"ids": 10_000}, "found": 20_000}


@pytest.mark.parametrize(
    ("call", "of_kind"),
    [
        (lambda client: client.index("none"), "no-such-index"),
        (lambda client: client.protein("mini", "none"), "no-such-protein"),
        (lambda client: client.neighbours("mini", "none"), "no-such-protein"),
        (lambda client: client.job("A" * 22).status(), "no-such-job"),
        (lambda client: client.job("A" * 22).cancel(), "no-such-job"),
    ],
)
def test_what_is_not_there(kind, served, call, of_kind):
    with pytest.raises(ServerError) as caught:
        run(kind, call, served.url)
    assert (caught.value.kind, caught.value.status) == (of_kind, 404)


def test_a_job(kind, served, records, tmp_path):
    async def work(client):
        job = await client.submit(records, "json", k=2)
        states = [one["state"] async for one in job.events()]
        told = await job.wait()
        answer = await job.answer()
        size = await job.result_to(tmp_path / "hits.json")
        await job.cancel()
        with pytest.raises(ServerError) as caught:
            await job.status()
        assert caught.value.kind == "no-such-job"
        return states, told, answer, size, await client.search(records, k=2)

    states, told, answer, size, at_once = run(kind, work, served.url)
    assert states[-1] == "done"
    assert told["sequences"] == {"total": 3, "done": 3}
    assert told["hits"] == 6
    assert size == (tmp_path / "hits.json").stat().st_size
    assert [r.query for r in answer.results] == [r.query for r in at_once.results]
    for one, other in zip(answer.results, at_once.results, strict=True):
        assert [h["accession"] for h in one.hits] == [h["accession"] for h in other.hits]


def many(records, count):
    return [
        rdsearch.fasta.Record(
            f"q{i}", f"q{i}", records[0].sequence[i % 50 :] + "ACDEFGHIKL"[i % 10]
        )
        for i in range(count)
    ]


def test_a_job_that_is_cancelled(kind, served, records):
    async def work(client):
        job = await client.submit(many(records, 3000), "tsv", k=50, align=True)
        states = []
        async for told in job.events():
            states.append(told["state"])
            if len(states) == 1:
                await job.cancel()
        with pytest.raises(ServerError) as caught:
            await job.wait()
        return states, caught.value.kind

    states, of_kind = run(kind, work, served.url)
    assert states[-1] == "cancelled"
    assert of_kind == "job-cancelled"


@pytest.fixture(scope="module")
def small(mini_index):
    """A server that answers two sequences at once."""
    with serving(mini_index, options=("--limit", "sequences=2")) as server:
        yield server


def test_more_than_the_limits(kind, small, records, index, tmp_path):
    async def work(client):
        answer = await client.search(records, k=2)
        written = await client.search_to(tmp_path / "hits.tsv", records, "tsv", k=2)
        ids, vectors = await client.embed(records)
        return answer, written, ids, vectors

    answer, written, ids, vectors = run(kind, work, small.url)
    expected = list(index.search(records, 2))
    assert [[hit["accession"] for hit in hits] for _, hits in answer] == [
        [hit.accession for hit in hits] for _, hits in expected
    ]
    lines = (tmp_path / "hits.tsv").read_bytes()
    assert (written.bytes, lines.count(b"\n")) == (len(lines), 7)
    assert (len(ids), len(vectors)) == (3, 3)


def test_many_at_once(served, records):
    async def scenario():
        async with AsyncClient(served.url) as client:
            return await asyncio.gather(*(client.search(one, k=1) for one in many(records, 40)))

    answers = asyncio.run(scenario())
    assert [answer.results[0].query["id"] for answer in answers] == [f"q{i}" for i in range(40)]


def test_a_server_that_is_late(mini_index, records):
    """A request that finds nobody waits for a server to come to that place."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url, came, done = f"http://127.0.0.1:{port}", [], threading.Event()

    def start():
        with serving(mini_index, options=("--port", str(port))) as server:
            came.append(server.url)
            done.wait(60)

    with Client(url, retries=0) as client, pytest.raises(ServerError, match="nothing answers at"):
        client.search(records)
    thread = threading.Thread(target=start)
    thread.start()
    try:
        with Client(url, retries=9) as client:
            assert client.search(records, k=1).index == "mini"
    finally:
        done.set()
        thread.join(90)
    assert came == [url]
