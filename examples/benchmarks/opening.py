"""How long an index of ESM-2's full width takes to open, and how much memory it takes.

    python examples/benchmarks/opening.py --rows 100000 --folder /somewhere/with/10/GB

Made-up vectors (made.py), a chain of all six members whose steps are random, one accession a row.
The index is built through the public functions, then opened in fresh processes, memory-mapped and
`--in-memory`, in turns. Memory is resident memory less that before opening, private and of mapped
files apart; the first search (of a vector at hand) reads the first tier and the space.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from made import ESM2, Made
from tabulate import tabulate

import rdsearch
from rdsearch import family
from rdsearch.chain import Chain
from rdsearch.steps import Step

_OPEN = """
import json, sys, time
import numpy as np, faiss, duckdb, scipy.linalg  # loaded before the clock starts
import rdsearch, rdsearch.index
def memory():
    lines = (line.split() for line in open("/proc/self/status") if line.startswith("Rss"))
    sizes = {line[0][3:-1]: int(line[1]) / 1e3 for line in lines}
    return {"private": sizes["Anon"], "mapped": sizes["File"]}
path, in_memory = sys.argv[1], sys.argv[2] == "memory"
before, start = memory(), time.perf_counter()
index = rdsearch.open(path, in_memory=in_memory)
opened, seconds = memory(), time.perf_counter() - start
vector = np.load(sys.argv[3])
start = time.perf_counter()
index.rank(vector, 10, index.default_funnel)
print(json.dumps({
    "open s": seconds,
    "first search s": time.perf_counter() - start,
    **{f"{key} MB opened": opened[key] - before[key] for key in before},
    **{f"{key} MB searched": value - before[key] for key, value in memory().items()},
}))
"""


def random_chain(seed: int = 0) -> Chain:
    """A chain of ESM-2's six members; what its steps compute does not matter here."""
    draw = np.random.default_rng(seed)
    members = family.get("esm2").members
    steps = [
        Step(
            np.zeros(before.boundary),
            np.zeros(member.width),
            draw.standard_normal((before.boundary, member.width)),
            draw.standard_normal((member.width, member.boundary - before.boundary)),
            n_components_=before.boundary,
        )
        for before, member in itertools.pairwise(members)
    ]
    return Chain("esm2", members, 0, np.zeros(members[-1].boundary), steps)


def build(folder: Path, n_rows: int, recipe: str, space: str) -> Path:
    """An index of made-up vectors."""
    made = Made(n_rows, tuple(ESM2.values()))
    vectors = np.lib.format.open_memmap(
        folder / "rd.npy", mode="w+", dtype=np.float32, shape=(n_rows, made.dims)
    )
    start = 0
    for block in made.blocks():
        vectors[start : start + len(block)] = block
        start += len(block)
    vectors.flush()
    letters = np.array(list("ACDEFGHIKLMNPQRSTVWY"))
    draw = np.random.default_rng(0)
    with (folder / "made.fasta").open("w") as fasta, (folder / "ids.txt").open("w") as ids:
        for row in range(n_rows):
            fasta.write(f">p{row}\n{''.join(letters[draw.integers(20, size=60)])}\n")
            ids.write(f"p{row}\n")
    np.save(folder / "query.npy", made.queries(1))
    start_time = time.perf_counter()
    rdsearch.build(
        folder / "made.fasta",
        random_chain(),
        folder / "index",
        vectors=folder / "rd.npy",
        ids=folder / "ids.txt",
        recipe=recipe,
        space=space,
        overwrite=True,
    )
    print(f"built in {time.perf_counter() - start_time:.0f} s", file=sys.stderr)
    return folder / "index"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--recipe", default="balanced")
    parser.add_argument("--space", default="centred")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="default: a temporary folder")
    parser.add_argument("-o", "--output", type=Path, help="JSON")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as temporary:
        folder = Path(temporary)
        index = build(folder, options.rows, options.recipe, options.space)
        found: dict[str, list[dict[str, float]]] = {"mapped": [], "memory": []}
        for _ in range(options.rounds):
            for how, results in found.items():
                command = [sys.executable, "-c", _OPEN, str(index), how, str(folder / "query.npy")]
                done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
                results.append(json.loads(done.stdout))
        size = sum(file.stat().st_size for file in index.rglob("*") if file.is_file())
    lines = [
        {"": how, **{key: statistics.median(r[key] for r in results) for key in results[0]}}
        for how, results in found.items()
    ]
    print(f"{options.rows:,} rows, {options.recipe}, {options.space}: {size / 1e9:.2f} GB on disk")
    print(tabulate(lines, headers="keys", floatfmt=".3f"))
    if options.output:
        facts = {"rows": options.rows, "recipe": options.recipe, "bytes": size, "results": found}
        options.output.write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
