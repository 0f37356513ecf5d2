"""Jobs over HTTP, with real servers: results, progress, cancellation, the end of a server."""

from __future__ import annotations

import contextlib
import csv
import io
import itertools
import json
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest

pytest.importorskip("fastapi", reason="needs rdsearch[server]")

import pyarrow.parquet

from rdsearch import fasta
from tests.serving import serving

pytestmark = pytest.mark.slow

NEVER = "A" * 22
FINAL = ("done", "failed", "cancelled")


@pytest.fixture(scope="module")
def queries(proteins_file) -> str:
    """FASTA of 60 proteins: more than one part."""
    records = list(fasta.read(proteins_file))[20:80]
    return "".join(f">{r.id} {r.description}\n{r.sequence}\n" for r in records)


def fetch(server, path, method="GET", **headers):
    """Status, headers and bytes."""
    request = urllib.request.Request(server.url + path, method=method, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read()


def finished(server, job):
    """The job when it is at its end."""
    end = time.monotonic() + 120
    while job["state"] not in FINAL:
        assert time.monotonic() < end, job
        time.sleep(0.05)
        status, job = server.get(job["links"]["self"])
        assert status == 200
    return job


def made(server, body):
    status, job = server.post("/v1/jobs", body)
    assert status == 202, job
    return job


def events(lines):
    """The jobs that a stream of events tells."""
    for line in lines:
        if line.startswith(b"data: "):
            yield json.loads(line[6:])
        else:
            assert line in (b"event: job\n", b"\n", b": keep-alive\n"), line


@contextlib.contextmanager
def following(server, job):
    with urllib.request.urlopen(server.url + job["links"]["events"], timeout=120) as answer:
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["X-Accel-Buffering"] == "no"
        yield events(answer)


def command(index, queries, format, *options):
    """What `rdsearch search` answers."""
    done = subprocess.run(
        [sys.executable, "-m", "rdsearch", "search", str(index), "-", "--format", format,
         "--dtype", "float32", "--quiet", *options],
        input=queries.encode(), capture_output=True, check=True,
    )  # fmt: skip
    return done.stdout


def test_the_result_is_that_of_the_command_byte_for_byte(served, queries):
    """One part, of sequences that the server has not met, is embedded as the command does it."""
    parts = [part.partition("\n") for part in queries.split(">")[1:10]]
    unknown = "".join(f">{head}\n{body.strip()[99::-1]}\n" for head, _, body in parts)
    body = {"fasta": unknown, "k": 5, "align": True, "where": "length < 300"}
    job = made(served, body)
    assert re.fullmatch(r"[A-Za-z0-9_-]{22}", job["id"])
    job = finished(served, job)
    status, headers, content = fetch(served, job["links"]["result"])
    assert status == 200
    assert headers["Content-Type"] == "application/x-ndjson"
    assert headers["Content-Disposition"] == 'attachment; filename="rdsearch-hits.jsonl"'
    assert headers["Cache-Control"] == "no-store"
    assert int(headers["Content-Length"]) == len(content)
    options = ["-k", "5", "--align", "--where", "length < 300"]
    assert content == command(served.index, unknown, "jsonl", *options)


def test_the_result_of_several_parts(served, queries):
    """How sequences are put together in batches moves the last digit of a score, and no more."""
    job = finished(served, made(served, {"fasta": queries, "k": 5}))
    assert (job["state"], job["error"], job["format"]) == ("done", None, "jsonl")
    assert job["sequences"] == {"total": 60, "done": 60}
    assert job["hits"] == 60 * 5
    content = fetch(served, job["links"]["result"])[2]
    expected = command(served.index, queries, "jsonl", "-k", "5")
    for line, other in zip(content.splitlines(), expected.splitlines(), strict=True):
        one, two = json.loads(line), json.loads(other)
        scores = [name for name in one if name.startswith("score")]
        assert scores
        assert [one.pop(name) for name in scores] == pytest.approx(
            [two.pop(name) for name in scores], abs=3e-6
        )
        # Three digits.
        assert one.pop("evalue", 1) == pytest.approx(two.pop("evalue", 1), rel=0.02)
        assert one == two


def test_formats(served, queries):
    """JSON, TSV and Parquet have the same hits, and each is what its type says."""
    found = {}
    jobs = {
        format: made(served, {"fasta": queries, "k": 2, "format": format})
        for format in ("json", "tsv", "parquet", "html")
    }
    kinds = {}
    for format, job in jobs.items():
        assert finished(served, job)["state"] == "done"
        status, headers, found[format] = fetch(served, job["links"]["result"])
        assert status == 200
        kinds[format] = headers["Content-Type"], headers["Content-Disposition"]
    assert kinds == {
        "json": ("application/json", None),
        "tsv": ("text/tab-separated-values; charset=utf-8",
                'attachment; filename="rdsearch-hits.tsv"'),
        "parquet": ("application/vnd.apache.parquet",
                    'attachment; filename="rdsearch-hits.parquet"'),
        "html": ("text/html; charset=utf-8", 'attachment; filename="rdsearch-hits.html"'),
    }  # fmt: skip
    whole = json.loads(found["json"])
    ids = [line[1:].split()[0] for line in queries.splitlines() if line.startswith(">")]
    assert [one["query"]["id"] for one in whole["results"]] == ids
    told = [(hit["query"], hit["accession"]) for one in whole["results"] for hit in one["hits"]]
    assert len(told) == 120
    lines = csv.DictReader(io.StringIO(found["tsv"].decode()), delimiter="\t")
    assert [(line["query"], line["accession"]) for line in lines] == told
    table = pyarrow.parquet.read_table(io.BytesIO(found["parquet"])).to_pylist()
    assert [(line["query"], line["accession"]) for line in table] == told
    assert b"<html" in found["html"][:200]
    # A search that is answered at once has the same envelope.
    few = "".join(f">{part}" for part in queries.split(">")[1:4])
    status, at_once = served.post("/v1/search", {"fasta": few, "k": 2})
    assert status == 200
    assert {**whole, "results": whole["results"][:3]} == at_once


def test_events_rise_and_end_with_the_job(served, queries):
    job = made(served, {"fasta": queries * 3, "align": True})
    with following(served, job) as told:
        seen = list(told)  # ends by itself
    done = [one["sequences"]["done"] for one in seen]
    assert done == sorted(done)
    states = [one["state"] for one in seen]
    assert states[-1] == "done"
    assert states == sorted(states, key=["waiting", "running", "done"].index)
    assert all(one != other for one, other in itertools.pairwise(seen))
    assert seen[-1]["sequences"] == {"total": 180, "done": 180}
    assert seen[-1] == served.get(job["links"]["self"])[1]
    # Of a job that is at its end there is one event.
    with following(served, job) as told:
        assert list(told) == seen[-1:]


def test_a_job_goes_on_when_nobody_follows_it(served, queries):
    job = made(served, {"fasta": queries * 2})
    with following(served, job) as told:
        next(told)
    job = finished(served, job)
    assert (job["state"], job["sequences"]["done"]) == ("done", 120)


def test_cancelling(served, queries):
    """One that runs, one that waits, and one that is done."""
    runs = made(served, {"fasta": queries * 60, "align": True, "k": 50})
    waits = made(served, {"fasta": queries})
    with following(served, runs) as told:
        next(one for one in told if one["state"] == "running" and one["sequences"]["done"])
        status, object_ = served.ask("DELETE", waits["links"]["self"], None)
        assert (status, object_["state"]) == (202, "cancelled")
        status, problem = served.get(runs["links"]["result"])
        assert (status, problem["type"]) == (409, "urn:rdsearch:problem:job-not-done")
        status, object_ = served.ask("DELETE", runs["links"]["self"], None)
        assert status == 202
        assert list(told)[-1]["state"] == "cancelled"
    job = served.get(runs["links"]["self"])[1]
    assert 0 < job["sequences"]["done"] < job["sequences"]["total"] == 3600
    assert served.get(runs["links"]["result"])[0] == 409
    for one in (runs, waits):
        assert fetch(served, one["links"]["self"], "DELETE")[::2] == (204, b"")
        status, problem = served.get(one["links"]["self"])
        assert (status, problem["type"]) == (404, "urn:rdsearch:problem:no-such-job")


def test_parts_of_a_result(served, queries):
    """A download that broke off goes on; a part that is not there is a problem."""
    job = finished(served, made(served, {"fasta": queries[: queries.index(">", 1)], "k": 5}))
    path = job["links"]["result"]
    whole = fetch(served, path)[2]
    status, headers, part = fetch(served, path, Range="bytes=10-")
    assert (status, part) == (206, whole[10:])
    assert headers["Content-Range"] == f"bytes 10-{len(whole) - 1}/{len(whole)}"
    for wrong, expected in (("bytes=99999999-", 416), ("bytes=x", 400)):
        status, headers, text = fetch(served, path, Range=wrong)
        assert status == expected
        assert headers["Content-Type"] == "application/problem+json"
        assert json.loads(text)["status"] == expected


@pytest.mark.parametrize(
    ("body", "status", "kind"),
    [
        ({}, 422, "invalid-request"),
        ({"fasta": "no FASTA"}, 422, "input"),
        ({"sequences": ["MK"], "index": "other"}, 404, "no-such-index"),
        ({"sequences": ["MK"], "where": "nothing = 1"}, 422, "input"),
        ({"sequences": ["MK"], "k": 10**6}, 413, "too-large"),
        ({"sequences": ["MK"], "format": "json", "timeout": 0}, 422, "invalid-request"),
    ],
)
def test_what_is_wrong_is_said_at_once(served, body, status, kind):
    found, problem = served.post("/v1/jobs", body)
    assert (found, problem["type"]) == (status, f"urn:rdsearch:problem:{kind}")
    # As a search says it.
    assert served.post("/v1/search", body) == (found, problem)


@pytest.mark.parametrize("route", ["", "/events", "/result"])
def test_odd_ids(served, route):
    for odd in (NEVER, "x", "%00", "..%2F..%2Fetc%2Fpasswd", "a" * 5_000, "%F0%9F%A7%AC", "%ff"):
        status, problem = served.get(f"/v1/jobs/{odd}{route}")
        assert status in (404, 422)
        assert problem["type"].startswith("urn:rdsearch:problem:")
    assert served.ask("DELETE", f"/v1/jobs/{NEVER}", None)[0] == 404


def test_the_document_describes_jobs(served):
    document = served.get("/openapi.json")[1]
    paths = {path: set(one) for path, one in document["paths"].items() if "/jobs" in path}
    assert paths == {
        "/v1/jobs": {"post"},
        "/v1/jobs/{id}": {"get", "delete"},
        "/v1/jobs/{id}/events": {"get"},
        "/v1/jobs/{id}/result": {"get"},
    }
    posted = document["paths"]["/v1/jobs"]["post"]
    assert {"202", "404", "413", "422", "429", "503"} <= set(posted["responses"])
    assert posted["responses"]["202"]["content"]["application/json"]["schema"] == {
        "$ref": "#/components/schemas/JobFacts"
    }
    job = finished(served, made(served, {"sequences": ["MKV"]}))
    schema = document["components"]["schemas"]["JobFacts"]
    assert set(schema["properties"]) == set(schema["required"]) == set(job)
    assert "409" in document["paths"]["/v1/jobs/{id}/result"]["get"]["responses"]


def test_a_server_that_stops_finishes_a_short_job(mini_index, queries, tmp_path):
    """Who follows it sees its end; the one that waits is cancelled; nothing is left on the disk."""
    folder = tmp_path / "jobs"
    with serving(mini_index, options=("--job-folder", str(folder), "--grace", "100")) as server:
        runs = made(server, {"fasta": queries})
        waits = made(server, {"fasta": queries})
        assert len(list(folder.iterdir())) == 1
        with following(server, runs) as told, following(server, waits) as others:
            next(one for one in told if one["state"] == "running")
            server.process.terminate()
            last, other = list(told)[-1], list(others)[-1]
        assert server.process.wait(timeout=120) in (0, -signal.SIGTERM)
    assert (last["state"], last["sequences"]["done"]) == ("done", 60)
    assert (other["state"], other["error"]["status"]) == ("cancelled", 503)
    assert other["error"]["type"] == "urn:rdsearch:problem:stopping"
    assert list(folder.iterdir()) == []
