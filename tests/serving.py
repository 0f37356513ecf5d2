"""Real servers for tests: `rdsearch serve` in a process of its own."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

_START = 60.0


@dataclass
class Server:
    """A server that runs.

    Attributes
    ----------
    url : str
    process : Popen
    index : Path
        The first index that it serves.
    lines : list of str
        What it wrote on standard error.
    """

    url: str
    process: subprocess.Popen
    index: Path
    lines: list[str] = field(default_factory=list)

    def get(self, path: str, **headers: str) -> tuple[int, Any]:
        """Status and body, JSON read."""
        return self.ask("GET", path, None, headers)

    def post(self, path: str, body: Any, **headers: str) -> tuple[int, Any]:
        """Status and body, JSON read."""
        return self.ask("POST", path, body, headers)

    def ask(
        self, method: str, path: str, body: Any, headers: Mapping[str, str] | None = None
    ) -> tuple[int, Any]:
        """Ask with the standard library, which shares nothing with the package."""
        request = urllib.request.Request(
            self.url + path,
            None if body is None else json.dumps(body).encode(),
            {"Content-Type": "application/json", **(headers or {})},
            method=method,
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                status, kind, text = answer.status, answer.headers["Content-Type"], answer.read()
        except urllib.error.HTTPError as error:
            status, kind, text = error.code, error.headers["Content-Type"], error.read()
        return status, json.loads(text) if "json" in (kind or "") and text else text

    def stop(self) -> int:
        """Ask it to stop, and wait."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=60)


@contextlib.contextmanager
def serving(
    *indexes: Path | str,
    options: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
    ready: bool = True,
) -> Iterator[Server]:
    """A server of these indexes on a free port, ended at the end."""
    command = [sys.executable, "-m", "rdsearch", "serve", *map(str, indexes), "--port", "0"]
    process = subprocess.Popen(
        [*command, "--dtype", "float32", *options],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **(env or {})},
    )
    server = Server("", process, Path(str(indexes[0]).rpartition("=")[2]))

    def read() -> None:
        for line in process.stderr or ():
            server.lines.append(line)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        _until(server, lambda: any("serving" in line for line in server.lines))
        line = next(line for line in server.lines if "serving" in line)
        server.url = re.search(r"http://\S+", line).group()
        if ready:
            _until(server, lambda: server.get("/readyz")[0] == 200)
        yield server
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(timeout=45)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        reader.join(timeout=10)


def _until(server: Server, holds: Any) -> None:
    began = time.monotonic()
    while not holds():
        if server.process.poll() is not None or time.monotonic() - began > _START:
            raise RuntimeError(f"the server did not start: {''.join(server.lines)}")
        time.sleep(0.1)


@pytest.fixture(scope="session")
def served(tmp_path_factory, mini_index) -> Iterator[Server]:
    """A server of 120 proteins, called mini, for tests that only ask."""
    pytest.importorskip("fastapi", reason="needs rdsearch[server]")
    path = tmp_path_factory.mktemp("served") / "mini"
    shutil.copytree(mini_index, path)
    with serving(path) as server:
        yield server
