"""The guard of a real `rdsearch serve`: keys, names, headers, and a log without what was asked."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import time
import urllib.error
import urllib.request

import pytest
from click.testing import CliRunner

from rdsearch.cli_key import key
from tests.serving import serving

pytestmark = pytest.mark.slow

SEQUENCES = [
    "MVLSPADKTNVKAAWGKVGAHAGEYGAEALERMFLSFPTTKTYFPHFDLSHGSAQVKGHGKKVADALTNAVAHVDDMPN",
    "MPEPTIDEK",
]
WHERE = "length < 3870038700"  # a number that no id and no time has


class Guarded:
    """A server with a key, and its index and log."""

    def __init__(self, folder) -> None:
        self.keys, self.path = folder / "keys", folder / "mini"
        self.key = self.new("lab")
        self.before = self.files()

    def new(self, name: str) -> str:
        return CliRunner().invoke(key, ["new", name, "--file", str(self.keys)]).stdout.strip()

    def files(self) -> dict[str, tuple[int, int]]:
        """Size and time of everything in the index."""
        found = sorted([self.path, *self.path.rglob("*")])
        return {str(one): (one.stat().st_size, one.stat().st_mtime_ns) for one in found}

    def ask(self, method: str, path: str, body=None, **headers: str):
        headers = {"X-API-Key": self.key, **headers}
        return self.server.ask(method, path, body, headers)

    def log(self) -> list[dict]:
        return [json.loads(line) for line in self.server.lines[1:]]

    def until(self, holds) -> None:
        for _ in range(600):
            if holds():
                return
            time.sleep(0.05)
        raise AssertionError("".join(self.server.lines))


@pytest.fixture(scope="module")
def guarded(tmp_path_factory, mini_index):
    folder = tmp_path_factory.mktemp("guarded")
    shutil.copytree(mini_index, folder / "mini")
    made = Guarded(folder)
    with serving(made.path, options=("--api-key-file", str(made.keys))) as made.server:
        yield made


def test_nothing_that_was_asked_is_in_the_log(guarded):
    ask, accession = guarded.ask, None
    for body in (
        {"sequences": SEQUENCES, "k": 2},
        {"sequences": SEQUENCES, "where": WHERE, "align": True, "map": True, "format": "json"},
        {"fasta": "".join(f">{one}\n{one}\n" for one in SEQUENCES), "ids": [SEQUENCES[0]]},
        {"fasta": SEQUENCES[0]},
        {"sequences": SEQUENCES, "where": f"nonsense = '{SEQUENCES[1]}'"},
        {"sequences": SEQUENCES, "to_tier": SEQUENCES[1]},
        {"sequences": SEQUENCES, "index": SEQUENCES[0]},
        {SEQUENCES[0]: SEQUENCES[1]},
        SEQUENCES,
    ):
        status, found = ask("POST", "/v1/search", body)
        assert status in (200, 404, 422)
        if status == 200:
            accession = found["results"][0]["hits"][0]["accession"]
    assert ask("POST", "/v1/embed", {"sequences": SEQUENCES})[0] == 200
    near = f"/v1/indexes/mini/proteins/{accession}/neighbours"
    assert ask("GET", near + "?where=length%20%3C%203870038700")[0] == 200
    for path in (f"/v1/indexes/mini/proteins/{SEQUENCES[0]}", f"/v1/{SEQUENCES[0]}"):
        assert ask("GET", path)[0] == 404
    status, job = ask(
        "POST", "/v1/jobs", {"sequences": SEQUENCES, "where": WHERE, "format": "json"}
    )
    assert status == 202
    guarded.until(lambda: ask("GET", f"/v1/jobs/{job['id']}")[1]["state"] == "done")
    assert ask("GET", f"/v1/jobs/{job['id']}/result")[0] == 200
    assert ask("GET", "/v1/limits?last=1")[0] == 200
    guarded.until(lambda: any(one.get("path") == "/v1/limits" for one in guarded.log()))

    text = "".join(guarded.server.lines)
    for secret in (*SEQUENCES, WHERE, "3870038700", "nonsense", guarded.key, "last=1", "Traceback"):
        assert secret not in text
    requests = [one for one in guarded.log() if one["event"] == "request"]
    requests = [one for one in requests if one["path"] != "/readyz"]  # asked without a key
    assert {one["key_name"] for one in requests} == {"lab"}
    found = [one for one in requests if one["path"] == "/v1/search" and one["status"] == 200]
    residues = sum(map(len, SEQUENCES))
    assert {(one["index"], one["sequences"], one["residues"]) for one in found} == {
        ("mini", len(SEQUENCES), residues)
    }
    assert found[0]["hits"] == 4


def test_the_index_is_only_read(guarded):
    """So that it may be mounted read-only."""
    assert guarded.ask("POST", "/v1/search", {"sequences": SEQUENCES})[0] == 200
    guarded.server.process.send_signal(signal.SIGHUP)
    guarded.until(lambda: any("keys were read" in line for line in guarded.server.lines))
    assert guarded.files() == guarded.before


def test_keys_come_and_go_while_the_server_runs(guarded):
    def answered(text: str) -> int:
        return guarded.server.ask("GET", "/v1/indexes", None, {"Authorization": f"Bearer {text}"})[
            0
        ]

    def read_again() -> None:
        before = sum("keys were read" in line for line in guarded.server.lines)
        guarded.server.process.send_signal(signal.SIGHUP)
        guarded.until(
            lambda: sum("keys were read" in line for line in guarded.server.lines) > before
        )

    other = guarded.new("guest")
    assert (answered(guarded.key), answered(other)) == (200, 401)
    read_again()
    assert (answered(guarded.key), answered(other)) == (200, 200)
    CliRunner().invoke(key, ["remove", "guest", "--file", str(guarded.keys)])
    read_again()
    assert (answered(guarded.key), answered(other)) == (200, 401)


def test_other_names_are_not_answered_by_a_server_of_this_machine_alone(guarded):
    status, found = guarded.ask("GET", "/v1/limits", Host="evil.example.org")
    assert (status, found["type"]) == (421, "urn:rdsearch:problem:wrong-host")
    assert guarded.ask("GET", "/v1/limits", Host="localhost:1")[0] == 200


@pytest.mark.parametrize(
    "path", ["/", "/healthz", "/openapi.json", "/metrics", "/v1/indexes", "/v1/none", "/page/none"]
)
def test_every_answer_has_the_headers(guarded, path):
    request = urllib.request.Request(guarded.server.url + path, headers={"X-API-Key": guarded.key})
    try:
        answer = urllib.request.urlopen(request, timeout=30)
    except urllib.error.HTTPError as error:
        answer = error
    with answer:
        headers = answer.headers
    policy = headers["Content-Security-Policy"]
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["X-Request-Id"]
    assert headers["Server"] is None


def test_headers_without_end_are_not_kept(guarded):
    port = int(guarded.server.url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Long: ")
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            connection.sendall(b"x" * 50_000_000)
