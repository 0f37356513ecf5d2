"""rdsearch's recipes against exact and approximate vector search at full width.

    python examples/benchmarks/search.py --folder SCRATCH
    python examples/benchmarks/search.py --store PROTEINS --query-store QUERIES --sizes ''

Made vectors of the shape of ESM-2 rd embeddings (`made.py`) and, if given, those of embedding
stores. Every side (`peers.py`, `ours.py`) writes its files once. Then, of the efforts that it
offers (shortlists, probes, breadths), the fastest one whose recall reaches ``--target`` is taken;
ties with the k-th score count as found. That effort is timed: in each round every side in turn,
each measurement in a fresh process that opens the stored files, runs other queries to warm up,
and then the queries one at a time and, in another process, all at once. Ratios are taken within a
round; shown are medians. Memory is what opening and warming add to a process: of its own, and
mapped from files. Linux maps 64 kB around a row that is read, where it holds them in its cache, and
takes them back when it needs them. The peers of FAISS, usearch and hnswlib are opened into memory,
as they are by default; rdsearch maps its wide tiers, and LanceDB reads from the disk.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import report
from machine import processor
from made import ESM2, Made
from measure import SIDES
from vectors import Vectors

from rdsearch.chain import Chain
from rdsearch.store import Store

_LARGE = 500_000
_WARM = 100
_GB = 1e9


def made_vectors(folder: Path, n_rows: int, tiers: dict[str, int], n: int, seed: int) -> Vectors:
    """Made vectors in a folder."""
    made = Made(n_rows, list(tiers.values()), seed)
    queries, warm = made.queries(n), made.queries(_WARM, part=1)
    name = f"made {n_rows:,} × {made.dims:,}"
    return Vectors.write(folder, name, tiers, n_rows, made.blocks(), made.mean, queries, warm)


def stored_vectors(folder: Path, store: Store, queries: Store, n: int) -> Vectors:
    """Vectors of an embedding store, centred on their own mean; queries of another."""
    tiers = {name: store.rd(slice(0, 0), name).shape[1] for name in store.tiers}
    total = np.zeros(max(tiers.values()))
    for block in store.blocks():
        total += block.sum(axis=0, dtype=np.float64)
    asked = queries.rd(slice(0, n + _WARM))
    shuffled = np.random.default_rng(0).permutation(asked)  # a store is sorted in one way or other
    n = min(n, max(1, len(asked) - min(_WARM, len(asked) // 2)))
    name = f"{store.path.name} {store.n_rows:,} × {len(total):,}"
    return Vectors.write(
        folder,
        name,
        tiers,
        store.n_rows,
        store.blocks(),
        total / store.n_rows,
        shuffled[:n],
        shuffled[n:],
    )


def run(task: str, job: dict[str, Any], threads: int, **more: Any) -> dict[str, Any]:
    """One job in a process of its own."""
    job = {**job, **more, "task": task, "threads": threads}
    # RAYON and LANCE: libraries that cannot be told while they run.
    variables = ("OMP", "OPENBLAS", "MKL", "RAYON")
    settings = {f"{variable}_NUM_THREADS": str(threads) for variable in variables}
    settings |= {"LANCE_CPU_THREADS": str(threads), "TOKIO_WORKER_THREADS": str(threads)}
    settings |= {"LANCE_LOG": "error", "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("measure.py")), json.dumps(job)],
        env={**os.environ, **settings},
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{task} of {job['side']} ended with exit status {done.returncode}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def obstacle(name: str, vectors: Vectors, folder: Path, options: argparse.Namespace) -> str | None:
    """Why a side is left out at this size."""
    side = SIDES[name]
    if side.graph and vectors.n_rows > options.graphs_up_to:
        return f"not run: building a graph of {vectors.n_rows:,} takes hours (--graphs-up-to)"
    need = side.expected_bytes(vectors)
    if name not in (report.EXACT, "LanceDB") and not side.raw and need > options.memory * _GB:
        return f"not run: it needs {need / _GB:.0f} GB of memory (--memory)"
    if 1.1 * need > shutil.disk_usage(folder).free:
        return f"not run: it needs {need / _GB:.0f} GB on the disk of --folder"
    return None


def compare(vectors: Vectors, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Build, tune and time every side on one set of vectors."""
    say(f"{vectors.name}: exact answers")
    vectors.answer(options.k)
    sides: dict[str, dict[str, Any]] = {}
    jobs: dict[str, dict[str, Any]] = {}
    for number, name in enumerate(chosen_sides(options.sides)):
        sides[name] = {}
        reason = obstacle(name, vectors, folder, options)
        if reason is not None:
            sides[name]["left_out"] = reason
            continue
        job = {
            "side": name,
            "folder": str(folder / f"side{number}"),
            "vectors": str(vectors.folder),
            "memory": options.memory * _GB,
            "k": options.k,
            "target": options.target,
            "seconds": options.seconds,
        }
        say(f"{vectors.name}: {name}: building")
        built = run("build", job, options.build_threads)
        if "missing" in built:
            sides[name]["left_out"] = f"not installed ({built['missing']})"
            continue
        say(f"{vectors.name}: {name}: built in {built['build_seconds']:.1f} s; tuning")
        tuned = run("tune", job, options.batched_threads)
        del tuned["seconds"]
        sides[name] |= {**built, **tuned, "single": [], "batched": []}
        jobs[name] = job
    modes = {"single": options.single_threads, "batched": options.batched_threads}
    for number in range(options.rounds):
        for name, job in jobs.items():
            say(f"{vectors.name}: round {number + 1} of {options.rounds}: {name}")
            for mode, threads in modes.items():
                timed = run(mode, job, threads, effort=sides[name]["effort"])
                sides[name][mode].append(timed)
    return {
        "vectors": vectors.name,
        "rows": vectors.n_rows,
        "dims": vectors.dims,
        "tiers": vectors.tiers,
        "queries": len(vectors.queries),
        "target": options.target,
        "sides": sides,
    }


def chosen_sides(wanted: str | None) -> list[str]:
    """Sides whose names hold one of the words; all where none is given."""
    words = [word.lower() for word in (wanted or "").split(",") if word]
    names = [n for n in SIDES if not words or any(word in n.lower() for word in words)]
    if not names:
        raise SystemExit(f"no side is named like {wanted!r}; there are {', '.join(SIDES)}")
    return names


def say(text: str) -> None:
    """Progress, on standard error."""
    print(text, file=sys.stderr, flush=True)


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", default="20000,100000", help="rows of made vectors")
    parser.add_argument("--large", action="store_true", help=f"{_LARGE:,} rows too")
    parser.add_argument("--boundaries", help="prefix widths of made vectors; ESM-2's by default")
    parser.add_argument("--seed", type=int, default=0, help="of made vectors")
    parser.add_argument("--store", type=Path, help="embedding store whose vectors are searched")
    parser.add_argument("--query-store", type=Path, help="embedding store of queries")
    parser.add_argument("--chain", type=Path, help="for stores that hold members, not rd vectors")
    parser.add_argument("--sides", help="words of the sides to run, as balanced,HNSW")
    parser.add_argument("-k", type=int, default=10)
    parser.add_argument("--target", type=float, default=0.99, help="recall@k wanted")
    parser.add_argument("--queries", type=int, default=200, help="timed; those of a batch")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, help="1 for single queries, all else, if not given")
    parser.add_argument("--seconds", type=float, default=5, help="limit of one timing")
    parser.add_argument("--memory", type=float, default=20, help="GB that a side may take")
    parser.add_argument("--graphs-up-to", type=int, default=200_000, help="rows")
    parser.add_argument("--folder", type=Path, help="for the files; a temporary one by default")
    parser.add_argument("-o", "--output", type=Path, default=Path("build/search-benchmark"))
    options = parser.parse_args(given)
    if bool(options.store) != bool(options.query_store):
        parser.error("--store and --query-store go together")
    options.single_threads = options.threads or 1
    options.batched_threads = options.build_threads = options.threads or os.cpu_count() or 1
    return options


def main() -> None:
    """Compare on each set of vectors, write the results after each."""
    options = arguments()
    tiers = ESM2
    if options.boundaries:
        tiers = {width: int(width) for width in options.boundaries.split(",")}
    sizes = [int(size) for size in options.sizes.split(",") if size]
    sizes += [_LARGE] if options.large else []
    options.output.mkdir(parents=True, exist_ok=True)
    threads = {
        "single": options.single_threads,
        "batched": options.batched_threads,
        "building": options.build_threads,
    }
    counts = ", ".join(f"{mode} {n}" for mode, n in threads.items())
    machine = f"{processor()}, {os.cpu_count()} cores; threads: {counts}"
    print(f"{machine}; recall@{options.k} ≥ {options.target:g}, {options.rounds} rounds")
    results: list[dict[str, Any]] = []
    for size in [*sizes, None] if options.store else sizes:
        with tempfile.TemporaryDirectory(dir=options.folder, prefix="rdsearch-") as scratch:
            folder = Path(scratch)
            if size is not None:
                say(f"making {size:,} vectors")
                vectors = made_vectors(
                    folder / "vectors", size, tiers, options.queries, options.seed
                )
            else:
                stores = [Store.open(path) for path in (options.store, options.query_store)]
                if options.chain:
                    chain = Chain.load(options.chain)
                    stores = [store.applied(chain) for store in stores]
                vectors = stored_vectors(folder / "vectors", *stores, options.queries)
            results.append({**compare(vectors, folder, options), "made": size is not None})
        print(f"\n{vectors.name}, {len(vectors.queries)} queries\n{report.table(results[-1])}")
        about = {"machine": machine, "threads": threads, "k": options.k, "results": results}
        text = json.dumps(about, indent=1) + "\n"
        (options.output / "search.json").write_text(text, encoding="utf-8")
    print("\n" + "\n".join(report.targets(results)))
    try:
        report.plot(results, options.output / "search.png")
    except ImportError as error:
        say(f"no plot: {error}")


if __name__ == "__main__":
    main()
