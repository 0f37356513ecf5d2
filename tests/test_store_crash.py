"""End a real writer at any moment: nothing finished is lost or done twice."""

from __future__ import annotations

import itertools
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rdsearch import durable
from rdsearch.store import Store
from rdsearch.storewriter import write_store
from tests.stored import BLOCK_ROWS, FAMILY, FakeEmbedder, chain, records

ROOT = Path(__file__).parents[1]
KILLS = 20


def writer(folder: Path, log: Path, seconds: float) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tests.stored", str(folder), str(log), str(seconds)]
    return subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE)


def finished(folder: Path) -> set[tuple[str, int]]:
    """Blocks that the store calls done."""
    return {
        (member.name, block)
        for member in FAMILY.members
        if (folder / "done" / member.name).is_file()
        for block, mark in enumerate((folder / "done" / member.name).read_bytes())
        if mark == 1
    }


@pytest.mark.slow
def test_killed_at_random_moments(tmp_path):
    sequences = list(dict.fromkeys(record.sequence for record in records()))
    block_of = {sequences[i]: i // BLOCK_ROWS for i in range(0, len(sequences), BLOCK_ROWS)}
    whole = tmp_path / "whole"
    assert writer(whole, tmp_path / "log", seconds=0).wait() == 0
    folder, log = tmp_path / "store", tmp_path / "log"
    rng = random.Random(0)
    kills = 0
    while kills < KILLS:
        before = finished(folder)
        log.write_text("")
        process = writer(folder, log, seconds=0.06)
        if kills % 2:  # at any moment of the start as well as of the work
            while process.poll() is None and not log.read_text():
                time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.3 if kills % 2 else 1.0))
        process.send_signal(signal.SIGKILL)
        _, err = process.communicate()
        assert process.returncode in (0, -signal.SIGKILL), err.decode()
        computed = [
            (name, block_of[sequence])
            for name, sequence in (line.split() for line in log.read_text().splitlines())
        ]
        assert len(computed) == len(set(computed))
        assert not before & set(computed)
        assert before <= finished(folder)
        kills += process.returncode == -signal.SIGKILL
        if process.returncode == 0:
            same_files(folder, whole)
            shutil.rmtree(folder)
    assert writer(folder, log, seconds=0).wait() == 0
    same_files(folder, whole)
    Store.open(folder).verify()


def contents(root: Path) -> dict[Path, bytes]:
    files = (path for path in root.rglob("*") if path.is_file())
    return {path.relative_to(root): path.read_bytes() for path in files}


def same_files(folder: Path, whole: Path) -> None:
    assert contents(folder) == contents(whole)


class _Crash:
    """Ends a forked process without ceremony, after so many of its steps to the disk."""

    STEPS = ("fsync", "replace", "unlink", "open", "pwrite", "posix_fallocate")

    def __init__(self, after: int) -> None:
        self.left = after
        for name in self.STEPS:
            if hasattr(os, name):
                setattr(os, name, self.counted(getattr(os, name)))
        durable._sync_data = os.fsync

    def counted(self, step):
        def call(*args, **options):
            if self.left == 0:
                os._exit(9)
            self.left -= 1
            return step(*args, **options)

        return call


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_crash_at_every_step_to_the_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda _: None)  # a killed process is no power failure
    monkeypatch.setattr(durable, "_sync_data", os.fsync)
    made, used = chain(), records(12)
    options = {"chain": made, "records": used, "keep_members": True, "block_rows": BLOCK_ROWS}
    write_store(tmp_path / "whole", embedder=FakeEmbedder(), **options)
    expected = contents(tmp_path / "whole")
    folder, log = tmp_path / "s", tmp_path / "log"
    for after in itertools.count():
        log.write_text("")
        child = os.fork()
        if not child:
            _Crash(after)
            try:
                write_store(folder, embedder=FakeEmbedder(log), **options)
                os._exit(0)
            finally:
                os._exit(1)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert code in (0, 9), after
        done = finished(folder)
        embedder = FakeEmbedder()
        write_store(folder, embedder=embedder, **options)
        assert contents(folder) == expected, after
        first = list(dict.fromkeys(record.sequence for record in used))[::BLOCK_ROWS]
        again = {(name, first.index(block[0])) for name, block in embedder.calls}
        assert not done & again, after
        if code == 0:
            break
        shutil.rmtree(folder)
    assert after > 50
