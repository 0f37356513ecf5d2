"""A reader that searches an index again and again while others change it.

    python -m tests.reading INDEX LOG SEED

It says "ready" when the index is open, and ends at the end of its standard input. Every answer is
a line of JSON in LOG: generation, whether `refresh` moved on, and for each query its hits as
accessions and score. With the seed 0 it keeps the generation that it opened first.
"""

from __future__ import annotations

import json
import random
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np

from rdsearch.fasta import Record
from rdsearch.funnel import Funnel
from rdsearch.index import Index
from rdsearch.index import open as open_index
from tests.stored import FAMILY, chain, vector

HITS = 6
CHAIN = chain()
QUERIES = [
    Record(f"q{i}", f"q{i}", text) for i, text in enumerate(["ACDEFGHIK", "MKVLAAGIVGL", "WYWY"])
]


def vectors(sequences: list[str]) -> np.ndarray:
    """Their rd embeddings, shape (n, 19)."""
    members = [
        np.stack([vector(member, text) for text in sequences]) for member in FAMILY.members
    ]  # fmt: skip
    return CHAIN.transform(members)


def answers(index: Index, asked: np.ndarray) -> list[list[Any]]:
    found = index.search_vectors(QUERIES, asked, HITS, Funnel(("c",), ()))
    return [[[list(hit.accessions), hit.score] for hit in one.hits] for one in found]


def main() -> None:
    path, log, seed = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    ended = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
    rng, asked = random.Random(seed), vectors([query.sequence for query in QUERIES])
    index = open_index(path)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    last = False
    with log.open("w") as file:
        while not last:
            last = ended.is_set()
            before, moved = index.generation, False
            if seed and (rng.random() < 0.2 or last):
                moved = index.refresh()
                assert moved == (index.generation > before)
            elif seed and rng.random() < 0.2:
                index.close()
                index = open_index(path)
            found = answers(index, asked)
            file.write(json.dumps([index.generation, moved, found]) + "\n")
            file.flush()
            ended.wait(0.01)
    index.close()


if __name__ == "__main__":
    main()
