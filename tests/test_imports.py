"""Importing rdsearch is cheap, and a missing FAISS has a clear error."""

from __future__ import annotations

import subprocess
import sys

HEAVY = ("torch", "faiss", "duckdb", "fastapi", "esm", "h5py", "pyarrow", "scipy")


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )


def test_import_loads_no_heavy_library():
    done = run(f"import sys, rdsearch; print([m for m in {HEAVY} if m in sys.modules])")
    assert done.stdout.strip() == "[]", done.stderr


def test_help_loads_no_heavy_library():
    done = run(
        "import sys\nfrom rdsearch.cli import main\n"
        "try: main(['search', '--help'])\n"
        f"except SystemExit: print([m for m in {HEAVY} if m in sys.modules])"
    )
    assert done.stdout.strip().endswith("[]"), done.stdout + done.stderr


def test_every_public_name_resolves():
    done = run("import rdsearch; print([getattr(rdsearch, n) for n in rdsearch.__all__] and 'ok')")
    assert done.stdout.strip() == "ok", done.stderr


def test_unknown_names_are_attribute_errors():
    done = run("import rdsearch; rdsearch.nonsense")
    assert "module 'rdsearch' has no attribute 'nonsense'" in done.stderr


def test_missing_faiss_names_both_commands():
    done = run(
        "import sys; sys.modules['faiss'] = None\nfrom rdsearch import _faiss\n_faiss.load()"
    )
    assert "DependencyError" in done.stderr
    assert "pip install 'rdsearch[cpu]'" in done.stderr
    assert "pip install 'rdsearch[gpu]'" in done.stderr
