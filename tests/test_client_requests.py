"""What a client is given: queries, options, URLs, keys. Nothing is sent."""

# ruff: noqa: F811 - fixtures that are imported

from __future__ import annotations

import subprocess
import sys

import httpx
import numpy as np
import pytest

from rdsearch import client_requests as requests
from rdsearch.client import Client
from rdsearch.errors import DependencyError, InputError
from rdsearch.fasta import Record
from tests.mocked import (
    Mocked,
    ask,
    kind,  # noqa: F401 - fixtures
)


def test_options_are_those_of_the_server():
    schemas = pytest.importorskip("rdsearch.server.schemas")
    assert requests.OPTIONS | {"k", "format"} == set(schemas.Plan.model_fields)
    assert {"index", "fasta", "timeout"} < set(schemas.Sequences.model_fields)


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
