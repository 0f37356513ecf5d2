"""What README.md says is true: its commands run, its tree and its modules exist."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest

from rdsearch.cli import main
from rdsearch.hits import RESULT_COLUMNS

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
ALL_CORES = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_every_module_is_in_the_table_of_stages():
    table = README[README.index("| stage |") :]
    named = set(re.findall(r"`(\w+)`", table))
    modules = {path.stem for path in (ROOT / "rdsearch").glob("*.py")}
    unnamed = {"__init__", "__main__", "_faiss", "errors", "progress", "samples"}
    assert modules - unnamed == named & modules
    assert unnamed <= modules


def test_the_page_on_scores_names_what_there_is():
    page = (ROOT / "docs" / "meaning-of-scores.md").read_text()
    table = page[page.index("| column |") : page.index("**If you do")]
    named = set(re.findall(r"`(\w+)`", table.replace("`rdsearch calibrate`", "")))
    assert named <= {"score", *RESULT_COLUMNS}
    options = set(re.findall(r"--[a-z][a-z-]+", page))
    known: set[str] = set()
    pending: list[click.Command] = [main]
    while pending:
        command = pending.pop()
        for parameter in command.params:
            known.update(parameter.opts, parameter.secondary_opts)
        pending += getattr(command, "commands", {}).values()
    assert options <= known


def test_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text()
    targets = re.findall(r"^    make (\w+)", README, flags=re.MULTILINE)
    assert targets == ["demo", "test"]
    assert all(re.search(rf"^{target}:", makefile, flags=re.MULTILINE) for target in targets)


@pytest.mark.slow
def test_commands_and_python_run(tmp_path):
    for name in ("rdsearch", "examples"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "indexes").mkdir()
    environment = {**ALL_CORES, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}

    def run(*command: str) -> str:
        done = subprocess.run(
            command,
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=1200,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    shell = blocks("sh")
    assert shell
    for block in shell:
        run("bash", "-euo", "pipefail", "-c", block)
    (tmp_path / "indexes" / "demo").symlink_to(tmp_path / "indexes" / "mine")
    (python,) = blocks("python")
    assert len(run(sys.executable, "-c", python).splitlines()) == 8


@pytest.mark.slow
@pytest.mark.skipif(
    not (ROOT / ".venv" / "installed").exists() or shutil.which("make") is None,
    reason="needs make and the environment that `make test` sets up",
)
def test_make_demo():
    done = subprocess.run(
        ["make", "demo"],
        cwd=ROOT,
        env=ALL_CORES,
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "G8F4P7" in done.stdout
    assert (ROOT / "indexes" / "demo" / "manifest.json").is_file()
