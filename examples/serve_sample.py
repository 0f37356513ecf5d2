"""A server for the examples that need one: of a small index of the packaged proteins."""

from __future__ import annotations

import contextlib
import itertools
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import rdsearch
from rdsearch import family, fasta, samples
from rdsearch.client import Client
from rdsearch.embed import Embedder
from rdsearch.fitting import fit_chain


@contextlib.contextmanager
def served(url: str | None = None) -> Iterator[str]:
    """The URL of a server: the one given, or of one that ends with the block."""
    if url is not None:
        yield url
        return
    with tempfile.TemporaryDirectory(prefix="rdsearch-") as folder:
        index, log = Path(folder, "proteins"), Path(folder, "server.log")
        # Two members of the mini family: enough to show the way, and quick.
        sample = itertools.islice(fasta.read(samples.CHAIN_SAMPLE), 100)
        chain = fit_chain(sample, Embedder(family.get("mini"), ["0.1M", "0.5M"]))
        rdsearch.build(samples.PROTEINS, chain, index, metadata=[samples.METADATA])
        command = [sys.executable, "-m", "rdsearch", "serve", str(index), "--port", "0"]
        with log.open("w") as file:
            server = subprocess.Popen(command, stderr=file)
        try:
            yield _ready(server, log)
        finally:
            server.terminate()
            server.wait()


def _ready(server: subprocess.Popen[bytes], log: Path) -> str:
    """What the server says of itself, once it takes requests."""
    while server.poll() is None:
        _, found, url = log.read_text().partition(" at http://")
        if found and "\n" in url:
            with Client(f"http://{url.split()[0]}") as client:
                if client.ready():
                    return client.url
        time.sleep(0.1)
    raise SystemExit(f"the server ended:\n{log.read_text()}")
