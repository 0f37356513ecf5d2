"""The load benchmark: what it sends, what it counts, the command. Its timings are not looked at."""

from __future__ import annotations

import asyncio
import itertools
import json
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "examples" / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import serve  # noqa: E402
import serve_load  # noqa: E402


def test_sequences_are_distinct_and_short():
    sequences = ["A" * 500, "CD" * 40, "W" * 29, "CD" * 40, "EFGHIKLMNP" * 10]
    pieces = list(serve_load.distinct(sequences, 60))
    assert len(pieces) == len(set(pieces))
    assert {len(piece) for piece in pieces} <= set(range(30, 61))
    assert {piece for piece in pieces if piece[0] == "A"} == {"A" * n for n in range(30, 61)}
    assert len([p for p in pieces if p[0] in "CD"]) == 2 + 30
    assert all(any(piece in sequence for sequence in sequences) for piece in pieces)
    again = list(serve_load.distinct(sequences, 60))
    assert again == pieces


def test_quantiles():
    numbers = [float(i) for i in range(1, 101)]
    assert serve_load.quantile(numbers, 0.5) == 50
    assert serve_load.quantile(numbers, 0.99) == 99
    assert serve_load.quantile(numbers, 1) == 100
    assert serve_load.quantile([3.0], 0.5) == 3
    assert serve_load.quantile([], 0.5) != serve_load.quantile([], 0.5)


@pytest.fixture
def server():
    """Answers searches: with two hits, after 10 ms, in one piece or chunks; with errors as told."""
    bodies, told = [], {"status": itertools.repeat(200), "hits": 2}

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            time.sleep(0.01)
            body = json.dumps({"results": [{"hits": [{}] * told["hits"]}]}).encode()
            self.send_response(next(told["status"]))
            if len(bodies) % 2:
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
            else:
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                for part in (body[:5], body[5:]):
                    self.wfile.write(f"{len(part):x}\r\n".encode() + part + b"\r\n")
                self.wfile.write(b"0\r\n\r\n")

        def log_message(self, *_):
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=httpd.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{httpd.server_port}", bodies, told
    httpd.shutdown()
    httpd.server_close()


def load(url, proteins, **changed):
    job = {"url": url, "index": "i", "proteins": str(proteins), "skip": 0, "longest": 60}
    job |= {"clients": 3, "warm": 0.1, "seconds": 0.5, "repeat": False, "plan": {"k": 2}}
    return asyncio.run(serve_load.Load(job | changed).run())


def test_load(server, proteins_file):
    url, bodies, _ = server
    found = load(url, proteins_file)
    assert found["errors"] == {}
    assert found["used"] == len(bodies) >= found["requests"] > 6
    assert found["answers_read"] == len(bodies) // 20
    assert all(body["index"] == "i" and body["k"] == 2 for body in bodies)
    asked = [body["sequences"][0] for body in bodies]
    assert len(set(asked)) == len(asked)
    # No request is faster than the server, and three clients wait side by side.
    assert 10 <= found["p50_ms"] <= found["p99_ms"] <= found["longest_ms"]
    assert found["per_second"] == pytest.approx(found["requests"] / found["span_seconds"])
    bodies.clear()
    load(url, proteins_file, skip=found["used"], clients=1)
    assert not {body["sequences"][0] for body in bodies} & set(asked)
    bodies.clear()
    load(url, proteins_file, repeat=True)
    assert len({body["sequences"][0] for body in bodies}) == 1


def test_errors_are_counted_and_no_requests(server, proteins_file):
    url, bodies, told = server
    told["status"] = itertools.cycle([200, 429])
    found = load(url, proteins_file, clients=1, warm=0, seconds=1)
    (name, count), *more = found["errors"].items()
    assert not more
    assert name.startswith("429 ")
    assert count + found["requests"] == len(bodies)
    told["status"], told["hits"] = itertools.repeat(200), 1
    bodies.clear()
    found = load(url, proteins_file, warm=0)
    assert found["errors"] == {"an answer without 2 hits": len(bodies) // 20}
    found = load("http://127.0.0.1:9", proteins_file, clients=1, seconds=0.2)
    assert set(found["errors"]) == {"ConnectionRefusedError"}
    assert found["requests"] == 0


def test_ratios_and_slope():
    def runs(*rates):
        return [{"per_second": rate} for rate in rates]

    found = {
        "batched, 64 clients": runs(50, 60, 90),
        "batched, 1 clients": runs(9, 9, 9),
        "one sequence a call, 1 clients": runs(10, 10, 10),
        "one sequence a call, 64 clients": runs(25, 20, 20),
    }
    assert serve.ratios(found, 64) == {
        "one sequence a call, 1 clients": 6,
        "one sequence a call, 64 clients": 3,
    }
    assert serve.slope([(0, 5e6), (60, 7e6), (120, 9e6)]) == pytest.approx(2)
    assert serve.slope([(0, 5e6)]) is None


@pytest.mark.slow
def test_command(tmp_path, mini_index, proteins_file):
    pytest.importorskip("fastapi", reason="needs rdsearch[server]")
    output, picture = tmp_path / "serve.json", tmp_path / "memory.png"
    command = [sys.executable, str(BENCHMARKS / "serve.py"), str(mini_index), str(proteins_file)]
    command += ["--to-tier", "0.1M", "-k", "3", "--clients", "1,4", "--rounds", "2"]
    command += ["--seconds", "0.5", "--warm", "0.2", "--minutes", "0.02", "--every", "0.3"]
    command += ["--threads", "1", "--json", str(output), "--plot", str(picture)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(output.read_text())
    sides = found["sides"]
    assert list(sides) == [
        "batched, 1 clients",
        "batched, 4 clients",
        "one sequence a call, 1 clients",
        "one sequence a call, 4 clients",
    ]
    for runs in sides.values():
        assert len(runs) == 2
        for run in runs:
            assert run["errors"] == {}
            assert run["requests"] > 0
            assert run["resident_bytes"] > 1e8
    assert set(found["ratios"]) == set(list(sides)[2:])
    assert len(found["soak"]["resident"]) >= 3
    assert found["soak"]["load"]["clients"] == 64
    assert found["soak"]["load"]["errors"] == {}
    assert "one request at a time:" in done.stdout
    assert "MB a minute" in done.stdout
    assert picture.read_bytes().startswith(b"\x89PNG")
