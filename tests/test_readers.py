"""Readers in processes of their own while a writer changes, compacts and clears the index.

What each published generation must answer is computed from its proteins alone, by brute force.
"""

from __future__ import annotations

import contextlib
import json
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import rdsearch
from rdsearch import changes, generations, merging
from rdsearch.builder import build
from rdsearch.fasta import Record
from rdsearch.storewriter import write_store
from tests import oracle
from tests.reading import CHAIN, HITS, QUERIES, vectors
from tests.stored import FakeEmbedder

ROOT = Path(__file__).parents[1]
READERS = 4
MEAN = CHAIN.mean("c")
ASKED = vectors([query.sequence for query in QUERIES])


def expected(proteins: dict[str, str]) -> list[list[tuple[set[str], float]]]:
    """For each query the best sequences of a set of proteins: accessions and score."""
    texts = sorted(set(proteins.values()))
    found = oracle.exhaustive_search(vectors(texts), MEAN, ASKED, HITS)
    behind = {text: {name for name in proteins if proteins[name] == text} for text in texts}
    return [
        [(behind[texts[row]], float(score)) for row, score in zip(rows, scores, strict=True)]
        for rows, scores in zip(*found, strict=True)
    ]


class Writer:
    """Changes an index at random, and knows what every generation holds."""

    def __init__(self, path: Path, seed: int) -> None:
        self.path, self.rng, self.count = path, random.Random(seed), 0
        self.proteins: dict[str, str] = {}
        build(self.store(self.fresh(30)), CHAIN, path, recipe="exact", space_from="chain")
        self.known = {1: self.proteins}

    def store(self, proteins: dict[str, str]):
        """A new store of them; the index will hold them."""
        self.proteins = {**self.proteins, **proteins}
        records = [Record(name, name, text) for name, text in proteins.items()]
        folder = self.path.parent / "store"
        shutil.rmtree(folder, ignore_errors=True)
        return write_store(folder, records, FakeEmbedder(), CHAIN)

    def text(self) -> str:
        """A sequence, sometimes of a protein that is there."""
        if self.proteins and self.rng.random() < 0.3:
            return self.rng.choice(sorted(self.proteins.values()))
        return "".join(self.rng.choices("ACDEFGHIKLMNPQRSTVWY", k=self.rng.randrange(5, 30)))

    def fresh(self, n: int) -> dict[str, str]:
        self.count += n
        return {f"p{i}": self.text() for i in range(self.count - n, self.count)}

    def some(self, n: int) -> list[str]:
        return self.rng.sample(sorted(self.proteins), n)

    def step(self) -> str:
        """Make a change."""
        names = ["add", "add", "remove", "remove", "update", "compact", "gc", "rollback"]
        change = self.rng.choice(names if len(self.proteins) > 25 else ["add"])
        if change == "add":
            changes.add(self.path, self.store(self.fresh(3)))
        elif change == "remove":
            gone = self.some(3)
            changes.remove(self.path, ids=gone)
            self.proteins = {n: t for n, t in self.proteins.items() if n not in gone}
        elif change == "update":
            changes.update(self.path, self.store({name: self.text() for name in self.some(2)}))
        elif change == "compact":
            merging.compact(self.path)
        elif change == "gc":
            generations.gc(self.path, keep=self.rng.choice([1, 3]))
        elif change == "rollback":
            there = [one for one in generations.history(self.path) if not one.current]
            if there:
                to = self.rng.choice(there).number
                generations.rollback(self.path, to)
                self.proteins = self.known[to]
        self.known[generations.history(self.path)[0].number] = self.proteins
        return change


@contextlib.contextmanager
def reader(path: Path, log: Path, seed: int):
    """A reader; it says when it has opened the index."""
    command = [sys.executable, "-m", "tests.reading", str(path), str(log), str(seed)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, cwd=ROOT, text=True, **pipes) as process:
        try:
            yield process
        finally:
            process.kill()


def same(found: list, proteins: list) -> bool:
    """Accessions and scores are those expected, query by query."""
    return all(
        {frozenset(names) for names, _ in hits} == {frozenset(names) for names, _ in right}
        and np.allclose([score for _, score in hits], [score for _, score in right], atol=5e-6)
        for hits, right in zip(found, proteins, strict=True)
    )


def _lines(log: Path) -> list[list]:
    """What a reader wrote, but for the line that it is writing."""
    return [json.loads(line) for line in log.read_text().split("\n")[:-1]]


def _enough(logs: list[Path]) -> bool:
    """Whether the readers met several generations, and moved on while they had the index open."""
    lines = [line for log in logs for line in _lines(log)]
    return len({number for number, _, _ in lines}) > 4 and sum(moved for _, moved, _ in lines) > 2


@pytest.mark.parametrize("seconds", [3, pytest.param(30, marks=pytest.mark.slow)])
def test_every_answer_is_that_of_a_published_generation(tmp_path, seconds):
    path = tmp_path / "index"
    writer = Writer(path, seed=seconds)
    done = []
    with contextlib.ExitStack() as stack:
        logs = [tmp_path / f"log{seed}" for seed in range(READERS)]
        readers = [
            stack.enter_context(reader(path, log, seed)) for seed, log in enumerate(logs)
        ]  # fmt: skip
        for process in readers:
            assert process.stdout.readline() == "ready\n", process.stderr.read()
        end = time.monotonic() + seconds
        while time.monotonic() < end or not _enough(logs):
            done.append(writer.step())
        # The generation that the first reader opened is still there, whatever was removed.
        assert generations.gc(path).in_use[:1] == (1,)
        last = max(writer.known)
        for process in readers:
            _, err = process.communicate("")
            assert process.returncode == 0, err
    right = {number: expected(proteins) for number, proteins in writer.known.items()}
    for seed, log in enumerate(logs):
        lines = _lines(log)
        for number, _, found in lines:
            assert same(found, right[number]), (seed, number)
        numbers = [number for number, _, _ in lines]
        assert numbers == sorted(numbers)
        if seed == 0:
            assert set(numbers) == {1}
        else:
            assert numbers[-1] == last
    assert {"add", "remove"} <= set(done)
    assert not same(right[1], right[last])
    assert generations.gc(path).in_use == ()
    assert [one.number for one in generations.history(path)] == [last]
    rdsearch.verify(path)


def test_refresh_moves_on_and_only_when_asked(tmp_path):
    writer = Writer(tmp_path / "index", seed=0)
    with rdsearch.open(tmp_path / "index") as index, rdsearch.open(tmp_path / "index") as still:
        assert not index.refresh()
        before = index.n_accessions
        changes.remove(tmp_path / "index", ids=writer.some(4))
        generations.gc(tmp_path / "index")
        assert (index.generation, index.n_accessions) == (1, before)
        assert index.refresh()
        assert (index.generation, index.n_accessions) == (2, before - 4)
        assert not index.refresh()
        assert (still.generation, still.n_accessions) == (1, before)
        list(still.search_vectors(QUERIES, ASKED, 3))
