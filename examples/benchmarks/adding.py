"""What it costs to add and remove proteins, at indexes of several sizes, and to search segments.

    python examples/benchmarks/adding.py --folder /somewhere/with/5/GB

Made-up vectors (made.py) of ESM-2's first four members, so that no model runs: what is measured is
the index's part of the work, after embedding. In each round 1,000 proteins are added to an index
of each size and removed again. Then the same rows are searched in one segment and in several.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from machine import processor
from made import ESM2, Made
from opening import random_chain
from tabulate import tabulate

import rdsearch
from rdsearch import builder
from rdsearch.chain import Chain
from rdsearch.fasta import Record
from rdsearch.imported import store_from_vectors
from rdsearch.store import Store

_LAST = "650M"
_QUERIES = 100
_LETTERS = np.array(list("ACDEFGHIKLMNPQRSTVWY"))


def stores(folder: Path, chain: Chain, sizes: list[int]) -> Iterator[Store]:
    """Stores of so many proteins each, all different."""
    folder.mkdir(parents=True)
    made = Made(sum(sizes), chain.boundaries)
    vectors = np.concatenate(list(made.blocks()))
    draw = np.random.default_rng(0)
    start = 0
    for number, size in enumerate(sizes):
        names = [f"p{start + i}" for i in range(size)]
        letters = _LETTERS[draw.integers(20, size=(size, 60))]
        records = [
            Record(accession=name, id=name, description="", sequence="".join(line))
            for name, line in zip(names, letters, strict=True)
        ]
        part = vectors[start : start + size]
        yield store_from_vectors(folder / f"store{number}", records, names, part, chain)
        start += size


def timed(work: Callable[[], Any]) -> float:
    """Seconds that it takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def changes(folder: Path, chain: Chain, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Seconds to add and to remove, by the size of the index before."""
    paths, new = {}, {}
    for size in options.sizes:
        sizes = [size, *[options.add] * options.rounds]
        first, *new[size] = stores(folder / f"{size}", chain, sizes)
        paths[size] = folder / f"index{size}"
        builder.build(first, chain, paths[size], space="centred", recipe=options.recipe)
    found: dict[int, dict[str, list[float]]] = {size: {} for size in paths}
    for turn in range(options.rounds):
        for size, path in paths.items():
            store = new[size][turn]
            work = {
                "add": lambda path=path, store=store: rdsearch.add(path, store),
                "remove": lambda path=path, store=store: rdsearch.remove(path, store.accessions),
            }
            for name, step in work.items():
                found[size].setdefault(name, []).append(timed(step))
    for size, path in paths.items():
        found[size]["compact"] = [timed(lambda path=path: rdsearch.compact(path))]
    least = found[options.sizes[0]]
    return [
        {
            "rows before": size,
            **{f"{name} s": min(seconds) for name, seconds in one.items()},
            **{f"{name} ×": min(one[name]) / min(least[name]) for name in ("add", "remove")},
        }
        for size, one in found.items()
    ]


def segments(folder: Path, chain: Chain, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Seconds of a search of the same rows in several segments, by the number of these."""
    paths = {}
    for count in options.segments:
        sizes = [options.searched // count] * count
        first, *others = stores(folder / f"parts{count}", chain, sizes)
        paths[count] = folder / f"segments{count}"
        builder.build(first, chain, paths[count], space="centred", recipe=options.recipe)
        for store in others:
            rdsearch.add(paths[count], store)
    queries = Made(options.searched, chain.boundaries).queries(_QUERIES)
    seconds: dict[int, dict[str, list[float]]] = {
        count: {"batch of 100": [], "one by one": []} for count in paths
    }
    opened = {count: rdsearch.open(path) for count, path in paths.items()}
    for _ in range(1 + options.rounds):  # the first round warms up
        for count, index in opened.items():
            found = seconds[count]
            found["batch of 100"].append(timed(lambda index=index: index.rank(queries, 10)))
            singly = timed(lambda index=index: [index.rank(one[None], 10) for one in queries])
            found["one by one"].append(singly)
    lines = []
    for count, found in seconds.items():
        line: dict[str, Any] = {"segments": count}
        for name, values in found.items():
            line[f"{name}, ms a query"] = 1e3 * min(values[1:]) / _QUERIES
            line[f"{name} ×"] = min(values[1:]) / min(seconds[options.segments[0]][name][1:])
        lines.append(line)
    return lines


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sizes", type=numbers, default=[1_000, 10_000, 100_000])
    parser.add_argument("--add", type=int, default=1_000, help="proteins added and removed")
    parser.add_argument("--searched", type=int, default=20_000, help="rows that are searched")
    parser.add_argument("--segments", type=numbers, default=[1, 2, 5, 10])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--recipe", default="balanced")
    parser.add_argument("--folder", type=Path, help="default: a temporary folder")
    parser.add_argument("-o", "--output", type=Path, help="JSON")
    options = parser.parse_args()
    chain = random_chain().upto(_LAST)
    print(f"{processor()}, {os.cpu_count()} cores; {options.recipe}, tiers {tuple(ESM2)[:4]}")
    with tempfile.TemporaryDirectory(dir=options.folder) as temporary:
        tables = {
            name: measured(Path(temporary) / name, chain, options)
            for name, measured in {"changes": changes, "segments": segments}.items()
        }
    for name, lines in tables.items():
        print(f"\n{name}")
        print(tabulate(lines, headers="keys", floatfmt=".2f", intfmt=","))
    if options.output:
        facts = {"add": options.add, "searched": options.searched, **tables}
        options.output.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


def numbers(text: str) -> list[int]:
    """Whole numbers between commas."""
    return [int(part) for part in text.split(",")]


if __name__ == "__main__":
    sys.exit(main())
