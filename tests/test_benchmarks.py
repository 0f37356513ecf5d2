"""The embedding benchmark runs and both sides agree. Its timings are not looked at."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "examples" / "benchmarks" / "embed.py"


@pytest.mark.slow
def test_embed(tmp_path):
    draw = random.Random(2)
    fasta = tmp_path / "few.fasta"
    fasta.write_text(
        "".join(
            f">p{length}\n{''.join(draw.choices('ACDEFGHIKLMNPQRSTVWY', k=length))}\n"
            for length in (20, 21, 1023, 40, 75)
        )
    )
    command = [str(SCRIPT), str(fasta), "--members", "8M", "--rounds", "2", "--threads", "1"]
    done = subprocess.run(
        [sys.executable, *command, "--dtypes", "float32,bfloat16"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        cwd=SCRIPT.parents[2],
    )
    assert done.returncode == 0, done.stderr
    lines = {line[10:28].strip(): line.split() for line in done.stdout.splitlines() if "8M" in line}
    assert lines.keys() == {"fair-esm", "rdsearch float32", "rdsearch bfloat16"}
    for name, least in (
        ("fair-esm", 1),
        ("rdsearch float32", 0.99999),
        ("rdsearch bfloat16", 0.99),
    ):
        assert float(lines[name][-1]) >= least
    assert "1 threads, torch" in done.stdout
    assert "4 sequences, 156 residues, 2 rounds" in done.stdout
    assert "left out: 1 of more than 1,022 residues" in done.stdout
