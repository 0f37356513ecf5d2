"""The guard in a real server: what arrives on a socket, and what stays in the log."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from tests.guarded import KEY, SEQUENCE, WHERE

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]

SERVER = """
import socket, sys
import uvicorn
from pathlib import Path
from rdsearch.server import bodies, logs
from rdsearch.server.settings import Limits
from tests.guarded import application

bodies.PATIENCE = (0.5, 1e9)
logs.install(sys.stderr, json=True)
app = application(
    limits=Limits(body_bytes=100_000), api_keys=Path(sys.argv[1]) if len(sys.argv) > 1 else None
)
listening = socket.create_server(("127.0.0.1", 0))
print(listening.getsockname()[1], flush=True)
config = uvicorn.Config(
    app, http="h11", ws="none", log_config=None, access_log=False, server_header=False
)
uvicorn.Server(config).run(sockets=[listening])
"""


class Server:
    """A server with the small application; its log is in a file."""

    def __init__(self, folder: Path) -> None:
        self.log = folder / "log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", SERVER],
                cwd=ROOT,
                stdout=subprocess.PIPE,
                stderr=log,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                text=True,
            )
        self.port = int(self.process.stdout.readline() or 0)
        self.url = f"http://127.0.0.1:{self.port}"

    def records(self) -> list[dict]:
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def request(self, request_id: str) -> dict:
        """The line of a request, which is written after its answer was sent."""
        for _ in range(500):
            for one in self.records():
                if one["event"] == "request" and one["request_id"] == request_id:
                    return one
            time.sleep(0.01)
        raise AssertionError(f"no line of request {request_id}: {self.log.read_text()}")

    def send(self, *parts: bytes) -> bytes:
        """What comes back for bytes until the server closes the connection."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=20) as connection:
            for one in parts:
                connection.sendall(one)
            received = b""
            while chunk := connection.recv(65_536):
                received += chunk
        return received


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """One server for this file."""
    running = Server(tmp_path_factory.mktemp("server"))
    assert running.port, running.log.read_text()
    for _ in range(500):
        try:
            httpx.get(running.url + "/healthz")
            break
        except httpx.TransportError:
            time.sleep(0.02)
    yield running
    running.process.terminate()
    assert running.process.wait(20) in (0, -15)


def test_an_answer_says_little_about_the_server(server):
    answer = httpx.get(server.url + "/v1/limits")
    assert answer.status_code == 200
    assert "server" not in answer.headers
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("chunked", [False, True])
def test_a_client_that_sends_too_much_reads_why(server, chunked):
    """A connection that is closed at once would take the answer with it."""
    size = 3_000_000
    content = (b"x" * 50_000 for _ in range(size // 50_000)) if chunked else b"x" * size
    answer = httpx.post(server.url + "/v1/raw", content=content)
    assert answer.status_code == 413
    assert answer.json()["limit"] == 100_000


def test_a_client_that_asks_first_sends_nothing(server):
    head = b"POST /v1/raw HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n"
    received = server.send(head + b"Content-Length: 1000000000\r\n\r\n")
    assert received.startswith(b"HTTP/1.1 413 ")
    assert b"100 Continue" not in received


def test_a_client_that_is_slow_is_told_and_left(server):
    head = b"POST /v1/raw HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n"
    received = server.send(head, b"only this")
    assert received.startswith(b"HTTP/1.1 408 ")
    assert b"urn:rdsearch:problem:slow-body" in received


def test_an_answer_that_breaks_is_not_whole_and_the_server_goes_on(server):
    with pytest.raises(httpx.RemoteProtocolError, match=r"incomplete|without sending complete"):
        httpx.get(server.url + "/v1/breaks")
    assert httpx.get(server.url + "/healthz").status_code == 200
    assert SEQUENCE not in server.log.read_text()


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/search", {"fasta": SEQUENCE}),
        ("/v1/search", {"fasta": [SEQUENCE]}),
        ("/v1/search", {SEQUENCE: 1}),
        ("/v1/fails/value", {"fasta": SEQUENCE}),
        ("/v1/fails/chain", {"fasta": SEQUENCE}),
        ("/v1/fails/input", {"fasta": SEQUENCE}),
        ("/v1/" + SEQUENCE, {"fasta": SEQUENCE}),
    ],
)
def test_nothing_that_was_asked_is_in_the_log(server, path, body):
    answer = httpx.post(
        server.url + path,
        json=body,
        params={"where": WHERE, "key": KEY},
        headers={"Authorization": f"Bearer {KEY}", "User-Agent": SEQUENCE, "Referer": SEQUENCE},
    )
    line = server.request(answer.headers["x-request-id"])
    assert line["status"] == answer.status_code
    text = server.log.read_text()
    for secret in (SEQUENCE, SEQUENCE.lower(), "Secret", KEY, "Traceback"):
        assert secret not in text
    if answer.status_code == 500:
        failed = [one for one in server.records() if "error" in one]
        assert answer.headers["x-request-id"] in {one["request_id"] for one in failed}
