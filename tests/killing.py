"""Change an index in children that are killed, and look at what they leave.

    python -m tests.killing

answers requests, a line of JSON each, by forking a child for each: this process has loaded all
libraries and done nothing with them, so that a child costs milliseconds and inherits no thread.
`Server` starts it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import importlib
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

import numpy as np

from rdsearch import changes, durable, generations, merging
from rdsearch.builder import build
from rdsearch.chain import Chain
from rdsearch.errors import IndexMissingError, RdsearchError
from rdsearch.fasta import Record
from rdsearch.funnel import Funnel
from rdsearch.index import open as open_index
from rdsearch.manifest import MANIFEST, Manifest
from rdsearch.store import Store
from rdsearch.storewriter import write_store
from rdsearch.verification import verify
from tests.stored import FAMILY, FakeEmbedder, chain, vector

#: What these libraries would load in every child again; DuckDB looks for pandas.
LOADED = (
    "encodings.utf_8_sig",
    "faiss",
    "pandas",
    "pyarrow.compute",
    "safetensors.numpy",
    "rdsearch._faiss",
)
ROOT = Path(__file__).parents[1]
RESIDUES = list("ACDEFGHIKLMNPQRSTVWY")
#: An accession of every index here that no change touches; the next writer removes it.
SPARE = "spare"


@functools.lru_cache
def used_chain() -> Chain:
    return chain()


def made(names: str, seed: int) -> list[Record]:
    """Proteins with these names."""
    rng = np.random.default_rng(seed)
    texts = ["".join(rng.choice(RESIDUES, rng.integers(5, 40))) for _ in names.split()]
    return [
        Record(name, name, text, gene=f"g{i % 3}")
        for i, (name, text) in enumerate(zip(names.split(), texts, strict=True))
    ]


def twin(name: str, record: Record) -> Record:
    """Another protein of the same sequence."""
    return dataclasses.replace(record, id=name, accession=name)


FIRST = [*made("a1 a2 a3 a4 a5 a6 a7 a8 a9", 1), *made(SPARE, 9)]
FIRST.append(twin("a1b", FIRST[0]))
SECOND = [*made("b1 b2 b3 b4", 2), twin("a2b", FIRST[1])]
ADDED = [*made("c1 c2 c3", 3), twin("a3b", FIRST[2]), FIRST[4]]
CHANGED = made("a4 b2 a1", 4)
OTHER = [*made("d1 d2 d3", 5), twin("a2c", FIRST[1]), FIRST[6], *made(SPARE, 9)]
STORES = {"first": FIRST, "second": SECOND, "added": ADDED, "changed": CHANGED, "other": OTHER}
REMOVED = ("a2", "b1", "a9")
QUERIES = made("q1 q2 q3", 6)


def built(store: Path, path: Path) -> None:
    """An index of a store, in the place of the one that is there."""
    options = {"recipe": "exact", "space_from": "chain", "overwrite": True}
    build(Store.open(store), used_chain(), path, **options)


#: What each change is given: the folder of its trial, and the folder of the stores.
CHANGES = {
    "add": lambda trial, made: changes.add(trial / "index", made / "added"),
    "remove": lambda trial, made: changes.remove(trial / "index", ids=["a1b", "a3", "b3"]),
    "update": lambda trial, made: changes.update(trial / "index", made / "changed"),
    "compact": lambda trial, made: merging.compact(trial / "index"),
    "merge": lambda trial, made: merging.merge(
        trial / "index", made / "otherindex", trial / "output"
    ),
    "rollback": lambda trial, made: generations.rollback(trial / "index", 2),
    "gc": lambda trial, made: generations.gc(trial / "index"),
    "build": lambda trial, made: built(made / "other", trial / "index"),
}


def sequences(*records: list[Record]) -> dict[str, str]:
    """Accessions and their sequences; later ones win."""
    return {record.accession: record.sequence for part in records for record in part}


def without(proteins: dict[str, str], *accessions: str) -> dict[str, str]:
    return {name: text for name, text in proteins.items() if name not in accessions}


#: What the index holds before a change, and after it.
BEFORE = without(sequences(FIRST, SECOND), *REMOVED)
AFTER = {
    "add": {**BEFORE, **sequences(ADDED)},
    "remove": without(BEFORE, "a1b", "a3", "b3"),
    "update": {**BEFORE, **sequences(CHANGED)},
    "compact": BEFORE,
    "merge": {**BEFORE, **sequences(OTHER)},
    "rollback": sequences(FIRST, SECOND),
    "gc": BEFORE,
    "build": sequences(OTHER),
}


def changed_index(change: str, trial: Path) -> Path:
    """The index that a change makes or changes."""
    return trial / ("output" if change == "merge" else "index")


def prepare(folder: Path) -> None:
    """Stores of `STORES`, the index that is changed, and the one it is merged with."""
    used = used_chain()
    for name, records in STORES.items():
        write_store(folder / name, records, FakeEmbedder(), used, block_rows=8)
    built(folder / "first", folder / "trial" / "index")
    changes.add(folder / "trial" / "index", folder / "second")
    changes.remove(folder / "trial" / "index", ids=list(REMOVED))
    built(folder / "other", folder / "otherindex")


def run(change: str, trial: Path, made: Path) -> None:
    """Make a change."""
    CHANGES[change](trial, made)


def state(path: Path) -> dict[str, Any] | None:
    """Everything that can be asked of an index; None where there is none.

    Scores are exact: ``proteins`` with their sequences, and what each query finds.
    """
    try:
        index = open_index(path)
    except IndexMissingError:
        return None
    with index:
        rows = list(range(index.n_rows))
        proteins = {}
        found = index.catalog.proteins(rows)
        for row, text in zip(rows, index.catalog.sequences(rows), strict=True):
            proteins.update((entry["accession"], text) for entry in found[row])
        vectors = used_chain().transform(
            [
                np.stack([vector(member, query.sequence) for query in QUERIES])
                for member in FAMILY.members
            ]
        )
        answers = index.search_vectors(QUERIES, vectors, len(rows), Funnel(("c",), ()))
        assert index.n_accessions == len(proteins)
        hits = [
            [
                (sorted(hit.accessions), float(np.float32(hit.score)).hex(), hit.length)
                for hit in answer.hits
            ]
            for answer in answers
        ]
    return {"proteins": proteins, "hits": hits}


def digest(found: dict[str, Any] | None) -> str:
    """A `state`, short; hits of the same score in any order."""
    if found is None:
        return "none"
    hits = [sorted(answer) for answer in found["hits"]]
    text = json.dumps([sorted(found["proteins"].items()), hits])
    return hashlib.sha256(text.encode()).hexdigest()


def leftovers(path: Path) -> list[str]:
    """Files and empty folders of an index that belong to no generation that it knows."""
    known = {MANIFEST}
    current = Manifest.read(path)
    for copy in (path / "generations").iterdir():
        manifest = Manifest.from_bytes(copy.read_bytes(), copy)
        if manifest.generation <= current.generation:
            known.add(str(copy.relative_to(path)))
            known.update(file.path for file in manifest.all_files())
    there = {
        str(entry.relative_to(path))
        for entry in path.rglob("*")
        if not entry.is_dir() or (entry.parent != path and not any(entry.iterdir()))
    }
    return sorted(there - known)


def beside(trial: Path, path: Path) -> list[str]:
    """What holds files beside the index that was changed, but for the one that was read."""
    others = (one for one in trial.iterdir() if one not in (path, trial / "index"))
    return [one.name for one in others if any(entry.is_file() for entry in one.rglob("*"))]


def look(change: str, trial: Path) -> dict[str, Any]:
    """Check what a killed or failed change left, and what it means to a reader."""
    path = changed_index(change, trial)
    found = state(path)
    incomplete = []
    if found is not None:
        verify(path)
        known = generations.history(path)
        assert [one.current for one in known] == [True] + [False] * (len(known) - 1)
        incomplete = [one.number for one in known if not one.complete]
    return {"state": digest(found), "incomplete": incomplete}


def aftermath(change: str, trial: Path, made: Path) -> dict[str, Any]:
    """`look`, then the next writer: the state that it leaves, and what it did not clear away."""
    path, said = changed_index(change, trial), []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())
    logging.getLogger("rdsearch").addHandler(handler)
    seen = look(change, trial)
    locked = (path / ".lock").exists()
    if change == "gc" or seen["state"] == "none":
        run(change, trial, made)
    changes.remove(path, ids=[SPARE])
    seen["incomplete"] += [one.number for one in generations.history(path) if not one.complete]
    assert not seen["incomplete"], seen
    return {
        "state": seen["state"],
        "next": digest(state(path)),
        "leftovers": [*leftovers(path), *beside(trial, path)],
        "unsaid": locked and not any("taking over" in line for line in said),
    }


def settle(change: str, trial: Path, made: Path) -> dict[str, Any]:
    """A change that nothing disturbs: the states before, after, and after the next writer."""
    path = changed_index(change, trial)
    old = state(path)
    steps: list[str] = []
    durable.on_step = steps.append
    run(change, trial, made)
    durable.on_step = None
    new = state(path)
    changes.remove(path, ids=[SPARE])
    return {
        "old": digest(old),
        "new": digest(new),
        "next": digest(state(path)),
        "proteins": new["proteins"],
        "steps": steps,
    }


def attempt(change: str, trial: Path, made: Path, user: int | None = None) -> dict[str, Any]:
    """Make a change that may be refused; the named error's kind and message.

    A user may have no right to the folder that Python is installed in: what the change imports
    is imported by a rehearsal.
    """
    if user is not None:
        with tempfile.TemporaryDirectory() as folder:
            run(change, Path(shutil.copytree(trial, Path(folder) / "trial")), made)
        os.setgid(user)
        os.setuid(user)
    try:
        run(change, trial, made)
    except RdsearchError as error:
        return {"error": type(error).__name__, "message": str(error)}
    return {"error": None}


CALLS = {call.__name__: call for call in (prepare, run, look, aftermath, settle, attempt)}


class Server:
    """Asks ``python -m tests.killing``."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.killing"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def __call__(
        self, call: str, *arguments: object, at: int | None = None, after: float | None = None
    ) -> Any:
        """Call a function of `CALLS` in a child.

        ``at`` and ``after`` say when it is killed: before that durable step, or after so many
        seconds. Then the answer is whether it was.
        """
        values = [str(one) if isinstance(one, Path) else one for one in arguments]
        request = {"call": call, "arguments": values, "at": at, "after": after}
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        if at is not None or after is not None:
            assert answer["code"] in (0, -signal.SIGKILL), answer["text"]
            return answer["code"] != 0
        assert answer["code"] == 0, answer["text"]
        return json.loads(answer["text"])


def _kill_at(step: int) -> None:
    """Kill this process before so many more durable steps."""
    left = [step]

    def count(_: str) -> None:
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)
        left[0] -= 1

    durable.on_step = count


def _child(request: dict[str, Any], answer: int) -> None:
    """Do what is asked and write the answer."""
    code = 1
    try:
        os.fsync = durable._sync_data = lambda _: None  # a killed process is no power failure
        if request["at"] is not None:
            _kill_at(request["at"])
        values = [Path(one) if "/" in str(one) else one for one in request["arguments"]]
        text = json.dumps(CALLS[request["call"]](*values))
        code = 0
    except BaseException:  # noqa: BLE001
        text = traceback.format_exc()
    os.write(answer, text.encode())
    os._exit(code)


def main() -> None:
    used_chain()
    for name in LOADED:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    for line in sys.stdin:
        request = json.loads(line)
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            os.close(reading)
            _child(request, writing)
        os.close(writing)
        if request["after"] is not None:
            time.sleep(request["after"])
            os.kill(child, signal.SIGKILL)
        with os.fdopen(reading) as pipe:
            text = pipe.read()
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        sys.stdout.write(json.dumps({"code": code, "text": text}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
