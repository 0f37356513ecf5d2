"""The benchmark of changes runs and says what it measured. Its timings are not looked at."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "examples" / "benchmarks" / "adding.py"


@pytest.mark.slow
def test_adding(tmp_path):
    scratch, output = tmp_path / "scratch", tmp_path / "adding.json"
    scratch.mkdir()
    command = ["--sizes", "40,90", "--add", "20", "--searched", "60", "--segments", "1,3"]
    command += ["--rounds", "2", "--folder", str(scratch), "-o", str(output)]
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *command],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        cwd=SCRIPT.parents[2],
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(output.read_text())
    assert [line["rows before"] for line in found["changes"]] == [40, 90]
    assert [line["segments"] for line in found["segments"]] == [1, 3]
    assert all(value > 0 for line in found["changes"] for value in line.values())
    assert "balanced" in done.stdout
    assert not any(scratch.iterdir())
