"""A member larger than memory runs in the memory of a few layers; a long protein in that of one.

Memory is the peak of the process's resident set, file pages included, in a process of its own.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from rdsearch import family
from tests import fairesm

MEMBER = family.ESM2.member("150M")
MEMORY = Path("/proc/self/clear_refs")
pytestmark = pytest.mark.skipif(not MEMORY.exists(), reason="needs Linux's /proc")

# Reads the peak after writing 5 to clear_refs, which sets it back to what is resident now.
CHILD = """
import ctypes, json, random, sys
import numpy as np, torch
from rdsearch import family
from rdsearch.embed import Embedder

def memory(field):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith(field))

family_name, member_name, weights, streamed, count, length, output = sys.argv[1:]
torch.set_num_threads(1)
draw = random.Random(0)
letters = "ACDEFGHIKLMNPQRSTVWY"
sequences = ["".join(draw.choices(letters, k=int(length))) for _ in range(int(count))]
# The libraries' own buffers are not what is measured.
Embedder(family.MINI, device="cpu", dtype="float32").pool(family.MINI.members[0], ["MKTAYIAK"])

f = family.get(family_name)
embedder = Embedder(f, [member_name], weights=weights or None, device="cpu", dtype="float32",
                    tokens_per_batch=128, stream_layers=streamed == "yes")
# Memory that is free and still resident would be filled unseen.
ctypes.CDLL(None).malloc_trim(0)
open("/proc/self/clear_refs", "w").write("5")
baseline = memory("VmRSS")
np.save(output, embedder.pool(f.member(member_name), sequences))
print(json.dumps({"baseline": baseline, "peak": memory("VmHWM") - baseline}))
"""


def measure(output: Path, *arguments: object) -> dict[str, int]:
    """Bytes resident before, and at most above that while embedding."""
    done = subprocess.run(
        [sys.executable, "-c", CHILD, *map(str, arguments), str(output)],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[1],
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
def test_memory_of_streamed_layers(tmp_path):
    path = fairesm.save(fairesm.random(MEMBER), tmp_path / "150M.pt")
    count, length = 8, 126
    shape = ("esm2", MEMBER.name, path)
    streamed = measure(tmp_path / "streamed.npy", *shape, "yes", count, length)
    ordinary = measure(tmp_path / "ordinary.npy", *shape, "no", count, length)

    number = 4  # bytes
    layer = 12 * MEMBER.width**2 * number
    block = count * (length + 2) * MEMBER.width * number
    # All tokens before and after the last norm; in one batch (one sequence) the feed-forward holds
    # the widest arrays: 1 + 4 + 4 + 1 widths.
    activations = 2 * block + 10 * block / count
    assert streamed["peak"] < 3 * layer + activations
    # The measure sees what is there: all layers.
    assert ordinary["peak"] > MEMBER.layers * layer
    assert np.array_equal(np.load(tmp_path / "streamed.npy"), np.load(tmp_path / "ordinary.npy"))


@pytest.mark.slow
def test_memory_of_a_protein_of_35000_residues(tmp_path):
    """Windows come one after the other: a longer protein takes next to nothing more."""
    member = family.MINI.members[1]
    shape = ("mini", member.name, "", "no", 1)
    short = measure(tmp_path / "short.npy", *shape, 2_000)
    long = measure(tmp_path / "long.npy", *shape, 35_000)
    assert np.isfinite(np.load(tmp_path / "long.npy")).all()
    residue_embeddings = 33_000 * member.width * 4
    assert long["peak"] - short["peak"] < residue_embeddings / 2
