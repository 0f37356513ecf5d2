"""A server's life: it starts, follows its indexes, has limits, and ends when all is answered."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest

import rdsearch
from rdsearch import family
from tests.serving import serving

pytest.importorskip("fastapi", reason="needs rdsearch[server]")

pytestmark = pytest.mark.slow

LONG = {"sequences": ["MKVLATWCHG" * 300] * 6, "k": 1, "timeout": 60}


@pytest.fixture
def path(tmp_path, mini_index):
    copy = tmp_path / "mini"
    shutil.copytree(mini_index, copy)
    return copy


def test_a_new_generation_comes_without_a_lost_request(path):
    with serving(path, options=["--refresh", "0.2"]) as server:
        answers, stop = [], threading.Event()

        def ask() -> None:
            while not stop.is_set():
                answers.append(server.post("/v1/search", {"sequences": ["MKVLATWCHG"], "k": 1}))

        threads = [threading.Thread(target=ask) for _ in range(3)]
        for thread in threads:
            thread.start()
        before = server.get("/v1/indexes/mini")[1]
        gone = rdsearch.open(path)
        with gone:
            accession = gone.catalog.proteins([3])[3][0]["accession"]
        rdsearch.remove(path, [accession])
        end = time.monotonic() + 30
        while server.get("/v1/indexes/mini")[1]["generation"] == before["generation"]:
            assert time.monotonic() < end
            time.sleep(0.1)
        stop.set()
        for thread in threads:
            thread.join()
        assert {status for status, _ in answers} == {200}
        assert {answer["generation"] for _, answer in answers} >= {before["generation"]}
        assert server.get(f"/v1/indexes/mini/proteins/{accession}")[0] == 404


def test_a_damaged_generation_leaves_the_one_before(path):
    with serving(path, options=["--refresh", "0.2"]) as server:
        manifest = path / "manifest.json"
        text = manifest.read_text()
        manifest.write_text(text[: len(text) // 2])
        end = time.monotonic() + 30
        while not any("stays at generation" in line for line in server.lines):
            assert time.monotonic() < end
            time.sleep(0.1)
        assert server.post("/v1/search", {"sequences": ["MKVLA"], "k": 1})[0] == 200
        metrics = server.get("/metrics")[1].decode()
        assert 'rdsearch_refresh_errors_total{index="mini"}' in metrics
        manifest.write_text(text)


def test_hangup_looks_at_once(path):
    with serving(path, options=["--refresh", "3000"]) as server:
        with rdsearch.open(path) as opened:
            accession = opened.catalog.proteins([3])[3][0]["accession"]
        rdsearch.remove(path, [accession])
        server.process.send_signal(signal.SIGHUP)
        end = time.monotonic() + 30
        while server.get("/v1/indexes/mini")[1]["generation"] == 1:
            assert time.monotonic() < end
            time.sleep(0.1)


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
def test_what_runs_is_answered_before_the_end(path, sign):
    with serving(path, options=["--batch-sequences", "1"]) as server:
        answers = []
        asking = threading.Thread(target=lambda: answers.append(server.post("/v1/search", LONG)))
        asking.start()
        end = time.monotonic() + 30
        while "rdsearch_waiting_sequences 0.0" in server.get("/metrics")[1].decode():
            assert time.monotonic() < end
            time.sleep(0.01)
        server.process.send_signal(sign)
        assert asking.is_alive()
        asking.join(60)
        assert server.process.wait(60) == 0
        assert answers[0][0] == 200


def test_a_deadline(path):
    with serving(path, options=["--deadline", "0.3"]) as server:
        status, problem = server.post("/v1/search", LONG)
        assert (status, problem["type"]) == (504, "urn:rdsearch:problem:deadline")
        end = time.monotonic() + 30
        while server.post("/v1/search", {"sequences": ["MKV"], "k": 1})[0] != 200:
            assert time.monotonic() < end


def test_limits_of_the_command_line(path):
    options = ["--limit", "sequences=2", "--limit", "hits=3", "--limit", "read_bytes=60000"]
    with serving(f"lab={path}", f"other={path}", options=options) as server:
        assert [one["name"] for one in server.get("/v1/indexes")[1]["indexes"]] == ["lab", "other"]
        body = {"sequences": ["MKV"] * 3, "index": "other"}
        assert server.post("/v1/search", body)[1]["limit"] == {"sequences": 2}
        assert server.post("/v1/search", {"sequences": ["MKV"], "k": 4})[0] == 413
        # 120 rows of 64, 96, 128 and 256 numbers in four bytes: the last tier reads 122,880.
        wide = {"sequences": ["MKV"], "k": 1, "shortlist": {}}
        assert server.post("/v1/search", wide)[1]["found"] == 122_880
        assert server.post("/v1/search", {**wide, "to_tier": "0.5M"})[0] == 200
        assert server.post("/v1/search", {**wide, "to_tier": "0.5M", "trace": True})[0] == 413
        narrow = {"sequences": ["MKV"], "k": 3, "to_tier": "0.1M"}
        assert server.post("/v1/search", narrow)[1]["index"] == "lab"


def run(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "rdsearch", "serve", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_wrong_commands(path, tmp_path):
    done = run(str(tmp_path / "nothing"))
    assert done.returncode == 1
    assert "there is no index" in done.stderr
    done = run(str(path), str(path))
    assert done.returncode == 1
    assert "two indexes are called mini" in done.stderr
    done = run(str(path), "--limit", "sequenses=3")
    assert done.returncode == 2
    assert "there is no limit 'sequenses'" in done.stderr
    with serving(path) as server:
        port = server.url.rpartition(":")[2]
        done = run(str(path), "--port", port)
        assert done.returncode == 1
        assert "already in use" in done.stderr.lower()
        assert "--port" in done.stderr


def test_weights_that_cannot_be_read_end_it(tmp_path, path):
    folder = tmp_path / "weights"
    folder.mkdir()
    member = family.get("mini").members[0]
    (folder / f"{member.checkpoint}.safetensors").write_bytes(b"nothing")
    done = run(str(path), "--port", "0", "--weights", str(folder))
    assert done.returncode == 1
    assert "the models cannot be loaded" in done.stderr
    assert member.checkpoint in done.stderr
