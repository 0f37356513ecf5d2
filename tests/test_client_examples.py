"""The examples that ask a server run, against one of the tests and (slow) one of their own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow


EXAMPLES = Path(__file__).parents[1] / "examples"


def run(folder, name, *arguments):
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name), *arguments],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def check_client(printed, index, rows):
    assert f"index {index}: {rows} proteins" in printed
    assert printed.count("\n  1 ") == 8
    assert "refused: the filter 'no_such_column > 3' cannot be used" in printed
    assert "8 vectors of" in printed
    assert "job: done, 8 queries done" in printed
    assert printed.count(",", printed.index("at once:")) == 7


def test_client(tmp_path, served):
    printed = run(tmp_path, "04_client.py", served.url)
    check_client(printed, "mini", 120)
    assert "800 hits in hits.tsv" in printed


def test_plot(tmp_path, served):
    pytest.importorskip("pandas")
    pytest.importorskip("matplotlib")
    printed = run(tmp_path, "05_plot_hits.py", served.url, "-o", "one.png")
    assert "plotted 30 hits: one.png" in printed
    assert (tmp_path / "one.png").read_bytes().startswith(b"\x89PNG")
    text = (EXAMPLES / "05_plot_hits.py").read_text()
    assert text.count("\n# %% ") >= 4


@pytest.mark.slow
def test_servers_of_their_own(tmp_path):
    pytest.importorskip("fastapi", reason="needs rdsearch[server]")
    check_client(run(tmp_path, "04_client.py"), "proteins", 1965)
