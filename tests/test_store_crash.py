"""SIGKILL a real writer at random moments: nothing finished is lost or done twice."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rdsearch.store import Store
from tests.stored import BLOCK_ROWS, FAMILY, records

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


def same_files(folder: Path, whole: Path) -> None:
    def contents(root: Path) -> dict[Path, bytes]:
        files = (path for path in root.rglob("*") if path.is_file())
        return {path.relative_to(root): path.read_bytes() for path in files}

    assert contents(folder) == contents(whole)
