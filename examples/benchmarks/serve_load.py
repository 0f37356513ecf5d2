"""Load on a server, from a process of its own: `serve.py` starts it.

    python serve_load.py '{"url": "http://127.0.0.1:8000", "clients": 64, "seconds": 10, …}'

Every client keeps a connection and has one request in flight. HTTP is spoken over asyncio's
streams: the server shares the cores with the load, and httpx takes about 2.5 ms of a core for a
request where this takes 0.05 (`client_cpu` says what all took). The last line it prints is the
result as JSON.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import urlsplit

from rdsearch import fasta

# Shorter pieces are not cut from a protein.
_SHORTEST = 30
# Seconds that a client waits after an error, so that errors do not pass for speed.
_AFTER_ERROR = 0.1
_PATIENCE = 120.0
# One answer in so many is read in full.
_LOOKED_AT = 20


def distinct(sequences: Sequence[str], longest: int) -> Iterator[str]:
    """Sequences of at most so many residues, all different as long as there are any left.

    The first round takes the beginning of each, the next begins a residue later, and so on.

    Parameters
    ----------
    sequences : sequence of str
    longest : int
        Residues.
    """
    shuffled = sorted(set(sequences))
    random.Random(0).shuffle(shuffled)
    seen: set[int] = set()
    for start in range(max(map(len, shuffled), default=0) - _SHORTEST + 1):
        for sequence in shuffled:
            piece = sequence[start : start + longest]
            if len(piece) >= _SHORTEST and hash(piece) not in seen:
                seen.add(hash(piece))
                yield piece


class Connection:
    """One connection to a server, kept."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "", parts.port or 80
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def post(self, path: str, content: bytes) -> tuple[int, bytes]:
        """Status and body of an answer."""
        if self._streams is None:
            self._streams = await asyncio.open_connection(self._host, self._port)
        reader, writer = self._streams
        writer.write(
            f"POST {path} HTTP/1.1\r\nHost: {self._host}:{self._port}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n".encode()
        )
        writer.write(content)
        await writer.drain()
        head = await reader.readuntil(b"\r\n\r\n")
        status, *lines = head.decode("latin-1").split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines if line)
        if headers.get("transfer-encoding") == "chunked":
            parts = []
            while size := int(await reader.readline(), 16):
                parts.append((await reader.readexactly(size + 2))[:-2])
            await reader.readline()
            body = b"".join(parts)
        else:
            body = await reader.readexactly(int(headers["content-length"]))
        if headers.get("connection") == "close":
            self.close()
        return int(status.split()[1]), body

    def close(self) -> None:
        """Close it; the next request opens another."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


class Load:
    """Clients that ask as fast as they are answered.

    Parameters
    ----------
    job : dict
        ``url``, ``index``, ``proteins`` (FASTA), ``skip`` (sequences that were used before),
        ``longest``, ``clients``, ``warm`` and ``seconds`` (before and while it is measured),
        ``repeat`` (all ask for one sequence), ``plan`` (further fields of a search).
    """

    def __init__(self, job: dict[str, Any]) -> None:
        self.job = job
        sequences = [record.sequence for record in fasta.read(job["proteins"])]
        self.pieces = itertools.islice(distinct(sequences, job["longest"]), job["skip"], None)
        if job["repeat"]:
            self.pieces = itertools.repeat(next(self.pieces))
        self.used = self.looked_at = 0
        self.seconds: list[float] = []
        self.residues = 0
        self.errors: Counter[str] = Counter()
        self.first = self.last = 0.0

    async def run(self) -> dict[str, Any]:
        """Ask until time is up; what is in flight then is waited for, and counted."""
        self.first = time.perf_counter() + self.job["warm"]
        self.last = self.first
        processor = 0.0

        async def at_first() -> None:
            nonlocal processor
            await asyncio.sleep(self.job["warm"])
            processor = time.process_time()

        await asyncio.gather(at_first(), *(self._client() for _ in range(self.job["clients"])))
        span = max(self.last - self.first, 1e-9)
        ordered = sorted(self.seconds)
        return {
            "clients": self.job["clients"],
            "requests": len(ordered),
            "span_seconds": span,
            "per_second": len(ordered) / span,
            "residues_per_second": self.residues / span,
            "p50_ms": 1e3 * quantile(ordered, 0.5),
            "p99_ms": 1e3 * quantile(ordered, 0.99),
            "longest_ms": 1e3 * quantile(ordered, 1),
            "errors": dict(self.errors),
            "answers_read": self.looked_at,
            "client_cpu": (time.process_time() - processor) / span,
            "used": self.used,
        }

    async def _client(self) -> None:
        connection = Connection(self.job["url"])
        end = self.first + self.job["seconds"]
        while (began := time.perf_counter()) < end:
            piece = next(self.pieces, None)
            if piece is None:
                self.errors["no sequences left: give more, or a larger --longest"] += 1
                break
            self.used += 1
            number = self.used
            asked = {"sequences": [piece], "index": self.job["index"], **self.job["plan"]}
            try:
                answer = connection.post("/v1/search", json.dumps(asked).encode())
                status, body = await asyncio.wait_for(answer, _PATIENCE)
                wrong = None if status == 200 else f"{status} {body[:200]!r}"
                if wrong is None and number % _LOOKED_AT == 0:
                    wrong = self._wrong(body)
            except (OSError, EOFError, asyncio.TimeoutError) as error:
                connection.close()
                wrong = type(error).__name__
            now = time.perf_counter()
            if wrong is not None:
                self.errors[wrong] += 1
                await asyncio.sleep(_AFTER_ERROR)
            elif now >= self.first:
                self.seconds.append(now - began)
                self.residues += len(piece)
                self.last = max(self.last, now)
        connection.close()

    def _wrong(self, body: bytes) -> str | None:
        """What is wrong with an answer."""
        self.looked_at += 1
        results = json.loads(body).get("results", [])
        wanted = self.job["plan"].get("k", 10)
        if len(results) != 1 or len(results[0]["hits"]) != wanted:
            return f"an answer without {wanted} hits"
        return None


def quantile(ordered: Sequence[float], share: float) -> float:
    """The smallest value that this share of all is not above; NaN of none."""
    if not ordered:
        return float("nan")
    return ordered[min(len(ordered) - 1, max(0, -int(-share * len(ordered) // 1) - 1))]


def main() -> None:
    """Do one job."""
    print(json.dumps(asyncio.run(Load(json.loads(sys.argv[1])).run())))


if __name__ == "__main__":
    main()
