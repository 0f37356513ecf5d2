"""One measurement of one side, in a process of its own: `search.py` starts it.

    python measure.py '{"task": "time", "side": "usearch", …}'

The last line it prints is the result as JSON. A fresh process has nothing in memory but the side.
"""

from __future__ import annotations

import json
import resource
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ours import RECIPES
from peers import PEERS
from side import Effort, Floats, Side
from vectors import Vectors

SIDES: dict[str, type[Side]] = {side.name: side for side in (*PEERS[:1], *RECIPES, *PEERS[1:])}

# A single query is timed for at least so many queries, whatever the time; while tuning, so many.
_LEAST, _WHILE_TUNING = 20, 30
_LARGEST_BATCHES = 5
# A ladder of efforts is left when a step brings less.
_GAIN = 5e-4


def build(side: Side, vectors: Vectors, job: dict[str, Any]) -> dict[str, Any]:
    """Write the side's files."""
    side.folder.mkdir(parents=True)
    side.use_threads(job["threads"])
    began = time.perf_counter()
    reused = side.build(vectors)
    return {
        "version": side.version(),
        "build_seconds": time.perf_counter() - began + reused,
        "disk_bytes": side.bytes_on_disk(),
        "build_peak_bytes": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
    }


def tune(side: Side, vectors: Vectors, job: dict[str, Any]) -> dict[str, Any]:
    """Find the fastest effort with the recall wanted; the best recall where none has it."""
    side.open()
    queries = seen_by(side, vectors, vectors.queries)
    tried = []
    for ladder in side.ladders():
        before = -1.0
        for effort in ladder:
            side.use_threads(job["threads"])
            recall = vectors.recall(side.search(queries, job["k"], effort))
            side.use_threads(1)
            seconds = one_by_one(side, queries[:_WHILE_TUNING], job["k"], effort, job["seconds"])
            tried.append(
                {"effort": effort, "recall": recall, "seconds": statistics.median(seconds)}
            )
            if recall >= job["target"] or recall < before + _GAIN:
                break
            before = recall
    reached = [one for one in tried if one["recall"] >= job["target"]]
    chosen = (
        min(reached, key=lambda one: one["seconds"])
        if reached
        else max(tried, key=lambda one: one["recall"])
    )
    side.use_threads(job["threads"])
    touched = side.touched(queries, job["k"], chosen["effort"])
    return {**chosen, "reached": bool(reached), "touched_bytes": touched, "tried": tried}


def time_single(side: Side, vectors: Vectors, job: dict[str, Any]) -> dict[str, Any]:
    """Resident memory, and the median time of a query alone."""

    def warm(queries: Floats) -> None:
        one_by_one(side, queries, job["k"], job["effort"], job["seconds"])

    result, queries = _opened(side, vectors, job, warm)
    seconds = one_by_one(side, queries, job["k"], job["effort"], job["seconds"])
    return {**result, "seconds": statistics.median(seconds), "queries": len(seconds)}


def time_batched(side: Side, vectors: Vectors, job: dict[str, Any]) -> dict[str, Any]:
    """Time of a query in a batch of all of them."""

    def warm(queries: Floats) -> None:
        side.search(queries, job["k"], job["effort"])

    result, queries = _opened(side, vectors, job, warm)
    seconds: list[float] = []
    while len(seconds) < _LARGEST_BATCHES and sum(seconds) < job["seconds"]:
        began = time.perf_counter()
        side.search(queries, job["k"], job["effort"])
        seconds.append(time.perf_counter() - began)
    each = statistics.median(seconds) / len(queries)
    return {**result, "seconds": each, "queries": len(queries)}


def _opened(
    side: Side, vectors: Vectors, job: dict[str, Any], warm: Callable[[Floats], None]
) -> tuple[dict[str, Any], Floats]:
    """Open and warm a side with queries of their own; what that adds to resident memory."""
    warming = seen_by(side, vectors, vectors.warm)
    queries = seen_by(side, vectors, vectors.queries)
    side.use_threads(job["threads"])
    before = resident()
    began = time.perf_counter()
    side.open()
    opened = time.perf_counter() - began
    warm(warming)
    added = {key: value - before[key] for key, value in resident().items()}
    return {"open_seconds": opened, **added}, queries


def one_by_one(side: Side, queries: Floats, k: int, effort: Effort, limit: float) -> list[float]:
    """Seconds of each query alone; of the first ones if all would take longer than `limit`."""
    seconds: list[float] = []
    for i in range(len(queries)):
        if sum(seconds) > limit and i >= _LEAST:
            break
        query = queries[i : i + 1]
        began = time.perf_counter()
        side.search(query, k, effort)
        seconds.append(time.perf_counter() - began)
    return seconds


def seen_by(side: Side, vectors: Vectors, queries: Floats) -> Floats:
    """Queries as a side takes them."""
    return queries if side.raw else vectors.unit(queries)


def resident() -> dict[str, int]:
    """Resident bytes of this process: its own, and those of mapped files; 0 where not known."""
    status = Path("/proc/self/status")
    lines = status.read_text(encoding="utf-8").splitlines() if status.exists() else []
    values = dict(line.split(":", 1) for line in lines)
    kilobytes = {key: int(values.get(key, "0 kB").split()[0]) for key in ("RssAnon", "RssFile")}
    return {"anon_bytes": 1024 * kilobytes["RssAnon"], "file_bytes": 1024 * kilobytes["RssFile"]}


TASKS = {"build": build, "tune": tune, "single": time_single, "batched": time_batched}


def main() -> None:
    """Do one job."""
    job = json.loads(sys.argv[1])
    try:
        side = SIDES[job["side"]](Path(job["folder"]), job["memory"])
    except ImportError as error:
        print(json.dumps({"missing": str(error)}))
        return
    print(json.dumps(TASKS[job["task"]](side, Vectors(Path(job["vectors"])), job)))


if __name__ == "__main__":
    main()
