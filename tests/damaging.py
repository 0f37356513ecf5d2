"""Damage an index, and see in child processes what becomes of opening, searching and verifying.

    python -m tests.damaging INDEX OTHER [thorough] <tries.json >answers.json

OTHER is an index whose files take the place of INDEX's. Every try damages one file of a copy, asks
a forked child and puts the file back. What cannot be opened is verified too if that is `thorough`.
"""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import faiss
import numpy as np

import rdsearch
from rdsearch import builder, changes, durable
from rdsearch.damage import DAMAGED
from rdsearch.errors import RdsearchError
from rdsearch.fasta import Record
from rdsearch.funnel import Funnel
from rdsearch.index import Index
from rdsearch.recipe import Cells, Recipe
from rdsearch.storewriter import write_store
from tests.stored import FakeEmbedder, chain

ROOT = Path(__file__).parents[1]
PROCESSES = 2

#: What a try may take: more than any should, and far less than a forged length asks for.
SECONDS, MORE_BYTES = 60, 4 << 30

#: Between them they write every codec.
RECIPES = {
    "exact": Recipe("exact", "flat", "flat", "flat", 200, 50),
    "cells": Recipe("cells", "pq4", "rabitq4", "sqfp16", 200, 50, Cells(0, 0.3, 4)),
    "bits": Recipe("bits", "rabitq", "rabitq", "sq8", 200, 50, Cells(0, 0.3, 4)),
}

FLIP = "a flipped bit"
CHANGES = (
    "a byte less",
    "cut in half",
    "the first bytes",
    "empty",
    "missing",
    "another index's",
    "random bytes",
    "a folder",
)


class Try(NamedTuple):
    """One damage.

    Attributes
    ----------
    file : str
        Relative to the index.
    change : str
        One of `CHANGES`, or `FLIP`.
    seed : int
    """

    file: str
    change: str
    seed: int = 0


def living_index(folder: Path, recipe: str, rows: int, seed: int) -> Path:
    """An index of two segments with removed, hidden and doubled rows, made in three steps."""
    path, rng = folder / f"{recipe}-{seed}", random.Random(seed)
    texts = sorted({"".join(rng.choices("ACDEFGHIKLMNPQRSTVWY", k=14)) for _ in range(rows)})
    own = chain(seed)

    def store(name: str, some: Sequence[str]) -> Any:
        records = [
            Record(f"{name}{i}", f"{name}{i}", text, gene=f"g{i % 7}")
            for i, text in enumerate(some)
        ]
        return write_store(folder / f"{name}-{recipe}-{seed}", records, FakeEmbedder(), own)

    half = len(texts) * 2 // 3
    builder.build(store("a", texts[:half]), own, path, recipe=RECIPES[recipe], space="whitened")
    changes.add(path, store("b", [*texts[half:], *texts[:20]]))
    changes.remove(path, ids=[f"a{i}" for i in range(10, 40)])
    return path


def files_of(path: Path) -> list[str]:
    """All files of an index, relative to it."""
    return sorted(str(file.relative_to(path)) for file in path.rglob("*") if file.is_file())


def damage(file: Path, other: Path, one: Try) -> bool:
    """Damage a file.

    Returns
    -------
    bool
        Whether it is another now.
    """
    whole, rng = file.read_bytes(), random.Random(f"{one}")
    content: bytes | None = None
    match one.change:
        case "a byte less":
            content = whole[:-1]
        case "cut in half":
            content = whole[: len(whole) // 2]
        case "the first bytes":
            content = whole[: rng.randrange(1, 200)]
        case "empty":
            content = b""
        case "another index's":
            content = (other / one.file).read_bytes()
        case "random bytes":
            content = rng.randbytes(len(whole))
        case "a flipped bit":
            changed = bytearray(whole)
            changed[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
            content = bytes(changed)
    file.unlink()
    if one.change == "a folder":
        file.mkdir()
    if content is not None:
        file.write_bytes(content)
    return content != whole


def use(index: Index) -> None:
    """Search in every way: all tiers, filters, single rows, catalog."""
    names = index.tiers
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((3, index.manifest.tiers[-1].dims)).astype(np.float32)
    queries = [Record(f"q{i}", f"q{i}", "ACDE") for i in range(3)]
    funnels = [Funnel((name,), ()) for name in names]
    funnels += [index.default_funnel, Funnel(names, (100,) * (len(names) - 1), 2)]
    rows = index.catalog.rows_where("length > 5 AND gene <> 'g1'")
    for funnel in funnels:
        index.search_vectors(queries, vectors, 5, funnel)
        index.search_vectors(queries, vectors, 5, funnel, rows=rows)
        index.rank_rows(range(0, index.n_rows, 50), 5, funnel)
    for name in names:
        index.score_rows(vectors, [np.arange(index.n_rows)] * 3, name)
    index.catalog.sequences(range(index.n_rows))


def answers(path: Path, thorough: bool = True) -> dict[str, str | None]:
    """What opening, searching, verifying and opening again say: an error, or None."""
    found: dict[str, str | None] = dict.fromkeys(("open", "search", "verify", "again"))
    try:
        with rdsearch.open(path) as index:
            found["search"] = said(lambda: use(index))
    except RdsearchError as error:
        found["open"] = told(error)
        if not thorough:
            return found
    found["verify"] = said(lambda: rdsearch.verify(path))
    found["again"] = said(lambda: rdsearch.open(path).close())
    return found


def said(call: Any) -> str | None:
    """The named error that a call raises; None where it raises none."""
    try:
        call()
    except RdsearchError as error:
        return told(error)
    return None


def told(error: RdsearchError) -> str:
    """Kind and message."""
    return f"{type(error).__name__}: {error}"


def in_child(call: Any) -> dict[str, Any]:
    """What a call returns in a forked child of bounded memory and time.

    Returns
    -------
    dict
        ``code``: negative for a signal; ``answer``, or ``trace`` where it raised.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        _answer(call, writing)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        text = pipe.read()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return {"code": code, **json.loads(text or "{}")}


def _answer(call: Any, writing: int) -> None:
    """In the child."""
    import traceback

    code = 1
    try:
        os.fsync = durable._sync_data = lambda _: None  # no power failure is tried here
        now = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_AS, (now + MORE_BYTES,) * 2)
        signal.alarm(SECONDS)
        text = json.dumps({"answer": call()})
        code = 0
    except BaseException:  # noqa: BLE001
        text = json.dumps({"trace": traceback.format_exc()})
    os.write(writing, text.encode())
    os._exit(code)


def tried(path: Path, other: Path, one: Try, thorough: bool) -> dict[str, Any]:
    """Damage a file, ask a child, put the file back."""
    file = path / one.file
    whole = file.read_bytes()
    changed = damage(file, other, one)
    try:
        return {"changed": changed, **in_child(lambda: answers(path, thorough))}
    finally:
        if file.is_dir():
            file.rmdir()
        file.write_bytes(whole)
        (path / DAMAGED).unlink(missing_ok=True)


def run(
    index: Path, other: Path, tries: Iterable[Try], thorough: bool
) -> list[tuple[Try, dict[str, Any]]]:
    """Make tries in several processes."""
    tries = list(tries)
    parts = [tries[i::PROCESSES] for i in range(PROCESSES)]
    command = [sys.executable, "-m", "tests.damaging", str(index), str(other)]
    command += ["thorough"] * thorough
    running = [
        subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in parts
    ]
    for process, part in zip(running, parts, strict=True):
        process.stdin.write(json.dumps(part))
        process.stdin.close()
    found = []
    for process, part in zip(running, parts, strict=True):
        with process:
            found += list(zip(part, json.loads(process.stdout.read()), strict=True))
        assert process.returncode == 0
    return found


def main() -> None:
    index, other, thorough = Path(sys.argv[1]), Path(sys.argv[2]), "thorough" in sys.argv[3:]
    faiss.omp_set_num_threads(1)
    tries = [Try(*one) for one in json.load(sys.stdin)]
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "index"
        shutil.copytree(index, copy)
        json.dump([tried(copy, other, one, thorough) for one in tries], sys.stdout)


if __name__ == "__main__":
    main()


def said_in_child(path: Path) -> dict[str, str | None]:
    """What opening, searching and verifying say, in a process of bounded memory and time."""
    found = in_child(lambda: answers(path))
    assert found["code"] == 0, found
    return found["answer"]
