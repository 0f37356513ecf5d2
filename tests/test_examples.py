"""Every example runs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


def run(name: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name), *arguments],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_fit_and_transform():
    printed = run("01_fit_and_transform.py")
    assert printed.count(": True") == 4
    assert "False" not in printed


@pytest.mark.slow
def test_build_and_search(tmp_path):
    printed = run("02_build_and_search.py", str(tmp_path))
    assert "funnel: 0.1M:2000 > 1.2M" in printed
    assert printed.count("\n  1 ") >= 5


@pytest.mark.slow
def test_tiers_and_recall(tmp_path):
    printed = run("03_tiers_and_recall.py", str(tmp_path))
    recalls = [float(line.rpartition(" ")[2]) for line in printed.splitlines()[1:]]
    assert len(recalls) == 12
    exact, balanced = recalls[:6], recalls[6:]
    assert exact[2] == 1  # the exact last tier alone is the truth
    assert balanced[2] > 0.97
    assert exact[:3] == sorted(exact[:3])  # wider tiers keep more
    assert exact[3:] == sorted(exact[3:])  # longer shortlists keep more
