"""The API in a real process: its answers are the command line's, its errors have one shape."""

from __future__ import annotations

import csv
import io
import json
import urllib.request
from types import SimpleNamespace

import numpy as np
import pytest
from click.testing import CliRunner

import rdsearch
from rdsearch import fasta, samples
from rdsearch.cli import main
from rdsearch.fasta import Record
from rdsearch.finding import full_note
from rdsearch.server import rendering

QUERIES = samples.PROTEINS.parent / "queries.fasta"


def local(server, *options: str) -> bytes:
    command = ["search", str(server.index), str(QUERIES), "--dtype", "float32", "--quiet", *options]
    done = CliRunner().invoke(main, command, catch_exceptions=False)
    assert done.exit_code == 0
    return done.stdout_bytes


def raw(server, body, **headers):
    """Headers and bytes of an answer."""
    request = urllib.request.Request(
        server.url + "/v1/search",
        json.dumps({"fasta": QUERIES.read_text(), **body}).encode(),
        {"Content-Type": "application/json", **headers},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return answer.headers, answer.read()


def asked(server, **body):
    status, answer = server.post("/v1/search", {"fasta": QUERIES.read_text(), **body})
    assert status == 200, answer
    return answer


def refused(server, path="/v1/search", *, fasta=">a\nMKVLA\n", status=422, **body):
    got, problem = server.post(path, {"fasta": fasta, **body})
    assert got == problem["status"] == status, problem
    assert problem.keys() >= {"type", "title", "detail"}
    return problem


@pytest.fixture(scope="module")
def index(served):
    with rdsearch.open(served.index, dtype="float32") as opened:
        yield opened


@pytest.mark.parametrize(
    ("options", "body"),
    [
        ([], {}),
        (["-k", "3", "--to-tier", "0.5M"], {"k": 3, "to_tier": "0.5M"}),
        (["--align", "--trace", "-k", "4"], {"align": True, "trace": True, "k": 4}),
        (["--where", "length < 300", "-k", "2"], {"where": "length < 300", "k": 2}),
        (["--rerank", "align", "-k", "2"], {"rerank": "align", "k": 2}),
        (["--columns", "accession,score"], {"columns": ["accession", "score"]}),
        (["--shortlist", "0.1M:20", "-k", "2"], {"shortlist": {"0.1M": 20}, "k": 2}),
    ],
)
def test_a_hit_is_the_command_lines(served, options, body):
    lines = local(served, *options, "--format", "jsonl").splitlines()
    answer = asked(served, **body)
    hits = [hit for result in answer["results"] for hit in result["hits"]]
    assert hits == [json.loads(line) for line in lines]
    assert len(hits) > 5
    assert [one["query"]["id"] for one in answer["results"]] == [
        record.id for record in fasta.read(QUERIES)
    ]


@pytest.mark.parametrize("format_", ["table", "tsv", "csv", "jsonl", "m8", "fasta"])
def test_every_format_is_the_command_lines_bytes(served, format_):
    headers, body = raw(served, {"format": format_, "k": 3})
    assert body == local(served, "--format", format_, "-k", "3")
    assert headers["Content-Disposition"].startswith('attachment; filename="rdsearch-hits.')


def test_binary_formats_and_reports(served):
    parquet = pytest.importorskip("pyarrow.parquet")
    _, body = raw(served, {"k": 3, "format": "parquet"})
    table = parquet.read_table(io.BytesIO(body))
    lines = [
        json.loads(line) for line in local(served, "--format", "jsonl", "-k", "3").splitlines()
    ]
    assert table["accession"].to_pylist() == [line["accession"] for line in lines]
    headers, body = raw(served, {"k": 3, "format": "html"})
    assert b"<!DOCTYPE html>" in body[:200]
    assert str(served.index).encode() not in body
    assert headers["Content-Security-Policy"].startswith("sandbox")


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("text/csv", "text/csv"),
        ("text/tab-separated-values;q=0.2, text/csv;q=0.1", "text/tab-separated-values"),
        ("text/html;q=0, text/*;q=0.5", "text/tab-separated-values"),
        ("*/*", "application/json"),
        ("application/*", "application/json"),
        ("image/png, */*;q=0.1", "application/json"),
    ],
)
def test_accept_chooses(served, accept, kind):
    headers, _ = raw(served, {"k": 1}, Accept=accept)
    assert headers["Content-Type"].partition(";")[0] == kind


def test_the_bodys_format_goes_before_the_addresss_and_that_before_accept(served):
    text = {"fasta": ">a\nMKVLA\n", "k": 1}
    path = "/v1/search?format=csv"
    assert b",rank," in served.post(path, text, Accept="application/json")[1]
    assert b"\trank\t" in served.post(path, {**text, "format": "tsv"})[1]
    assert served.post("/v1/search", text, Accept="image/png")[0] == 406


def test_sequences_one_by_one(served):
    records = list(fasta.read(QUERIES))[:2]
    body = {
        "sequences": [records[0].sequence, {"id": "b c", "sequence": records[1].sequence.lower()}]
    }
    status, answer = served.post("/v1/search", {**body, "k": 2})
    assert status == 200
    assert [one["query"]["id"] for one in answer["results"]] == ["query_1", "b"]
    accessions = [[hit["accession"] for hit in one["hits"]] for one in answer["results"]]
    of_fasta = asked(served, k=2)["results"][:2]
    assert accessions == [[hit["accession"] for hit in one["hits"]] for one in of_fasta]


def test_a_cut_that_k_cuts_short_says_so(served):
    headers, _ = raw(served, {"format": "tsv"})
    assert json.loads(headers["Rdsearch-Notes"]) == asked(served)["notes"]
    assert "no e-values: the index has 120 rows" in headers["Rdsearch-Notes"]
    plan = SimpleNamespace(
        details=SimpleNamespace(cuts=True), k=1, index=SimpleNamespace(n_rows=9), notes=["one"]
    )
    hits = [
        SimpleNamespace(query=Record(name, name, "M"), hits=[0] * n)
        for name, n in (("a", 1), ("b", 0))
    ]
    full = [one.query.id for one in hits if rendering.full(plan, one)]
    assert rendering.notes(plan, full) == ["one", full_note(["a"], 1)]


def test_embeddings_are_the_indexs(served, index):
    records = list(fasta.read(QUERIES))[:3]
    expected = index.embed([record.sequence for record in records], "1.2M")
    body = {"fasta": QUERIES.read_text(), "tier": "1.2M"}
    status, answer = served.post("/v1/embed", {**body, "format": "json"})
    assert status == 200
    assert answer["dims"] == expected.shape[1]
    assert answer["chain"] == index.chain.hash
    found = np.array([one["vector"] for one in answer["vectors"]], dtype=np.float32)
    # Other sequences of a batch change a vector in its last bits.
    np.testing.assert_allclose(found[:3], expected, rtol=1e-4, atol=1e-5)
    _, data = served.post("/v1/embed", {**body, "format": "npy"})
    np.testing.assert_array_equal(np.load(io.BytesIO(data), allow_pickle=False), found)


def test_an_index_says_what_it_is(served, index):
    status, answer = served.get("/v1/indexes/mini")
    assert status == 200
    facts = index.info()
    del facts["path"]
    assert {name: answer[name] for name in facts} == facts
    assert [one["dims"] for one in answer["plans"]] == [one["dims"] for one in facts["tiers"]]
    assert answer["plans"][-1]["members"] == list(index.tiers)
    assert answer["default"]
    assert served.get("/v1/indexes")[1] == {"indexes": [answer]}
    assert str(served.index) not in json.dumps(answer)


def test_a_protein_and_its_neighbours(served, index):
    row = 7
    protein = index.catalog.proteins([row])[row][0]
    status, answer = served.get(f"/v1/indexes/mini/proteins/{protein['accession']}")
    assert status == 200
    assert answer["sequence"] == index.catalog.sequences([row])[0]
    assert {name: answer[name] for name in protein} == protein
    assert served.get(f"/v1/indexes/mini/proteins/{protein['id']}")[1] == answer
    path = f"/v1/indexes/mini/proteins/{protein['accession']}/neighbours"
    status, found = served.get(f"{path}?k=6")
    assert status == 200
    vectors = index.tier(index.tiers[-1]).vectors(np.arange(index.n_rows)).astype(np.float64)
    cosines = (
        vectors @ vectors[row] / np.linalg.norm(vectors, axis=1) / np.linalg.norm(vectors[row])
    )
    order = [one for one in np.argsort(-cosines).tolist() if one != row][:6]
    hits = found["results"][0]["hits"]
    assert [hit["score"] for hit in hits] == pytest.approx(cosines[order], abs=2e-6)
    assert [index.catalog.rows_of([hit["accession"]]) for hit in hits] == [
        {hit["accession"]: one} for hit, one in zip(hits, order, strict=True)
    ]
    text = served.get(f"{path}?k=2&format=tsv")[1].decode()
    assert [line["rank"] for line in csv.DictReader(io.StringIO(text), delimiter="\t")] == [
        "1",
        "2",
    ]
    few = served.get(f"{path}?k=6&where=length%20%3C%20200")[1]["results"][0]["hits"]
    assert few
    assert all(hit["length"] < 200 for hit in few)


def test_values_of_a_column(served, index):
    every = [one for row in range(index.n_rows) for one in index.catalog.proteins([row])[row]]
    for name in ("genus", "length", "reviewed"):
        status, answer = served.get(f"/v1/indexes/mini/columns/{name.upper()}")
        assert status == 200
        given = [one[name] for one in every if one[name] is not None]
        assert answer["missing"] == len(every) - len(given)
        assert (answer["min"], answer["max"]) == (min(given), max(given))
        assert answer["type"] == index.columns[name]
        assert len(answer["values"]) == min(50, len(set(given)))
        assert all(given.count(value) == number for value, number in answer["values"])
        numbers = [number for _, number in answer["values"]]
        assert numbers == sorted((given.count(one) for one in set(given)), reverse=True)[:50]


def test_a_map(served):
    place = asked(served, k=20, map=True)["results"][0]["map"]
    assert place["query"] == [0, 0]
    assert len(place["hits"]) == 20
    assert len(place["others"]) > 50
    assert 0 < place["explained"] < 1
    again = asked(served, k=20, map=True)["results"][0]["map"]
    np.testing.assert_allclose(again["hits"], place["hits"], atol=1e-3)
    near = np.linalg.norm(place["hits"], axis=1).mean()
    assert near < np.linalg.norm(place["others"], axis=1).mean()


def test_bad_input_says_what_is_wrong(served):
    assert refused(served, fasta=">a\nMKV\nMK1V\n")["line"] == 3
    assert "letters A to Z" in refused(served, fasta=">a\nMK1V\n")["detail"]
    assert "begins with '>'" in refused(served, fasta="MKVLA")["detail"]
    problem = refused(served, where="lenght < 300")
    assert "the nearest is length" in problem["detail"]
    assert "not calibrated" in refused(served, fdr=0.1)["detail"]
    assert str(served.index) not in refused(served, fdr=0.1)["detail"]
    assert "lineage" in refused(served, taxon=562)["detail"]
    assert "no tier" in refused(served, to_tier="7B")["detail"]
    assert refused(served, index="other", status=404)["indexes"] == ["mini"]
    assert "k must be" in refused(served, k=500)["detail"]
    assert refused(served, k=0)["errors"][0]["field"] == "k"
    assert "extra" in refused(served, sequence="M")["errors"][0]["message"].lower()
    assert "no column" in refused(served, columns=["nothing"])["detail"]
    assert "need align" in refused(served, gap_open=11)["detail"]
    assert "one query" in refused(served, fasta=">a\nMKV\n>b\nMKV\n", format="a3m")["detail"]
    both = {"fasta": ">a\nMKV", "sequences": ["MKV"]}
    assert served.post("/v1/search", both)[0] == 422
    assert served.post("/v1/search", {"sequences": []})[0] == 422
    assert refused(served, "/v1/embed", tier="7B")["detail"]


def test_limits_are_named(served):
    problem = refused(served, fasta=">a\nMKV\n" * 101, status=413)
    assert problem["limit"] == {"sequences": 100}
    assert "job" in problem["detail"]
    assert refused(served, fasta=">a\n" + "M" * 40_001, status=413)["limit"] == {
        "sequence_residues": 40_000
    }
    assert refused(served, fasta=f">a\n{'M' * 30_000}\n" * 2, status=413)["limit"] == {
        "residues": 50_000
    }
    assert refused(served, k=1001, status=413)["found"] == 1001
    assert refused(served, ids=["A"] * 10_001, status=413)["limit"] == {"ids": 10_000}
    where = "length < 300 OR " * 200 + "true"
    assert refused(served, where=where, status=413)["limit"] == {"where_characters": 2_000}
    limits = served.get("/v1/limits")[1]
    assert limits["sequences"] == 100
    assert limits["formats"].keys() >= {"json", "tsv", "parquet"}
    assert limits["keys"] is False


def test_ways_that_are_not_there(served):
    assert served.get("/v1/nothing")[1]["type"].endswith("no-such-path")
    status, problem = served.ask("PUT", "/v1/search", {})
    assert (status, problem["type"]) == (405, "urn:rdsearch:problem:method-not-allowed")
    assert served.get("/v1/indexes/mini/proteins/NOBODY")[0] == 404
    assert served.get("/v1/indexes/mini/columns/nothing")[0] == 404
    assert served.get("/docs")[0] == 404


def test_health_and_figures(served):
    assert served.get("/healthz") == (200, {"status": "ok"})
    assert served.get("/readyz") == (200, {"status": "ready", "indexes": ["mini"]})
    served.post("/v1/search", {"sequences": ["MKVLA"]})
    text = served.get("/metrics")[1].decode()
    assert 'rdsearch_requests_total{route="/v1/search",status="200"}' in text
    assert 'rdsearch_rows{index="mini"} 120.0' in text


def test_the_log_has_no_sequences(served):
    sequence = "MWCHWCHWCHWC"
    served.post("/v1/search", {"sequences": [sequence], "where": "length < 123456"})
    served.get("/v1/indexes/mini/proteins/NOBODY?secret=1")
    text = "".join(served.lines)
    assert '"sequences": 1' in text
    assert sequence not in text
    assert "123456" not in text
    assert "secret" not in text
