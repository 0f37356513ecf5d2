"""An embedder for store tests: exact, cheap, and it notes what it was asked.

    python -m tests.stored FOLDER LOG SECONDS

writes the store that the crash tests kill.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from rdsearch.chain import Chain
from rdsearch.family import Family, Member
from rdsearch.fasta import Record
from rdsearch.moments import Moments
from rdsearch.storewriter import write_store

FAMILY = Family(
    "fake",
    tuple(
        Member(name, f"fake_{name}", 1, width, 1)
        for name, width in zip("abc", (4, 6, 9), strict=True)
    ),
)
BLOCK_ROWS = 8


def vector(member: Member, sequence: str) -> np.ndarray:
    """A fixed random vector for each member and sequence."""
    seed = hashlib.sha256(f"{member.name} {sequence}".encode()).digest()
    rng = np.random.default_rng(list(seed))
    return rng.standard_normal(member.width).astype(np.float32)


class FakeEmbedder:
    """Appends a line "member first-sequence rows" to `log` before it computes a block."""

    def __init__(self, log: Path | None = None, seconds: float = 0.0, **signature: str) -> None:
        self.family, self.members = FAMILY, FAMILY.members
        self.signature = {"dtype": "float32", "window": 1022, "overlap": 255, **signature}
        self.calls: list[tuple[str, tuple[str, ...]]] = []
        self.fail_at: int | None = None
        self._log, self._seconds = log, seconds

    def pool(self, member, sequences, *, progress=None):
        if self.fail_at is not None and len(self.calls) >= self.fail_at:
            raise KeyboardInterrupt
        self.calls.append((member.name, tuple(sequences)))
        if self._log is not None:
            with self._log.open("a") as file:
                file.write(f"{member.name} {sequences[0]}\n")
                file.flush()
                os.fsync(file.fileno())
        time.sleep(self._seconds)
        if progress is not None:
            progress(len(sequences), sum(map(len, sequences)))
        return np.stack([vector(member, sequence) for sequence in sequences])


def records(n: int = 60, seed: int = 0) -> list[Record]:
    """Proteins; every tenth has the sequence of the one before."""
    rng = np.random.default_rng(seed)
    made: list[Record] = []
    for i in range(n):
        length = int(rng.integers(5, 60))
        sequence = "".join(rng.choice(list("ACDEFGHIKLMNPQRSTVWY"), length))
        if i % 10 == 9:
            sequence = made[-1].sequence
        header = f"sp|P{i:05}|X{i}_HUMAN"
        description = f"Protein {i} OS=Homo sapiens (a = b) OX=9606 GN=g{i} PE=1 SV=2"
        fields = (f"X{i}_HUMAN", f"Protein {i}", "Homo sapiens (a = b)", 9606, f"g{i}", 1, 2)
        made.append(Record(header, f"P{i:05}", sequence, description, *fields))
    return made


def chain(seed: int = 0) -> Chain:
    """A chain of the fake family, fitted on random vectors."""
    rows = np.random.default_rng(seed).standard_normal((400, 19))
    moments = Moments([member.width for member in FAMILY.members])
    moments.update(rows)
    return Chain.fit(moments, FAMILY.name, FAMILY.members)


@contextlib.contextmanager
def tmpfs(folder: Path, size: str) -> Iterator[Path]:
    """A file system of a few KB; skips the test where that is not permitted."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip("needs mount")
    if done.returncode:
        pytest.skip("needs the permission to mount a tmpfs")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def main() -> None:
    folder, log, seconds = Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3])
    embedder = FakeEmbedder(log, seconds)
    write_store(folder, records(), embedder, chain(), keep_members=True, block_rows=BLOCK_ROWS)


if __name__ == "__main__":
    main()


def open_to_all(folder: Path) -> None:
    """Let every user into a temporary folder."""
    while not folder.stat().st_mode & 0o001:
        folder.chmod(0o755)
        folder = folder.parent
