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


def test_fit_and_transform():
    printed = run("01_fit_and_transform.py")
    assert printed.count(": True") == 4
    assert "False" not in printed


@pytest.mark.slow
def test_build_and_search(tmp_path):
    printed = run("02_build_and_search.py", str(tmp_path))
    assert "funnel: 0.1M:2000 > 0.5M:632 > 1.2M:200 > 4.8M" in printed
    assert printed.count("\n  1 ") >= 5


@pytest.mark.slow
def test_tiers_and_recall(tmp_path):
    printed = run("03_tiers_and_recall.py", str(tmp_path))
    recalls = [float(line.rpartition(" ")[2]) for line in printed.splitlines()[1:]]
    assert len(recalls) == 14
    exact, balanced = recalls[:7], recalls[7:]
    assert exact[3] == 1  # the exact last tier alone is the truth
    assert balanced[3] > 0.97
    assert exact[:4] == sorted(exact[:4])  # wider tiers keep more
    assert exact[4:] == sorted(exact[4:])  # longer shortlists keep more
