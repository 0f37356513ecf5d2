"""Batches: what is answered together, in which order, and what is refused."""

from __future__ import annotations

import threading
import time
from concurrent.futures import CancelledError
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="needs rdsearch[server]")

from rdsearch.fasta import Record
from rdsearch.hits import QueryHits
from rdsearch.server import engine as engines
from rdsearch.server.engine import Engine
from rdsearch.server.metrics import Metrics
from rdsearch.server.problems import Problem
from rdsearch.server.settings import Settings


@dataclass(eq=False)
class Index:
    """Embeds a sequence as its length; notes what it was asked for together."""

    calls: list[list[str]] = field(default_factory=list)
    gate: threading.Event = field(default_factory=threading.Event)
    manifest: Any = field(default_factory=lambda: SimpleNamespace(embedding={"dtype": "float32"}))
    chain: Any = field(default_factory=lambda: SimpleNamespace(hash="c"))

    def embed(self, sequences, tier):
        self.gate.wait(10)
        self.calls.append(list(sequences))
        if any("X" in one for one in sequences):
            raise ValueError("a sequence with X")
        return np.array([[len(one)] for one in sequences], dtype=np.float32)


@dataclass(frozen=True)
class Plan:
    """As much of a plan as the engine looks at."""

    index: Index
    key: Any = 0
    funnel: Any = field(default_factory=lambda: SimpleNamespace(tiers=("8M",)), compare=False)
    map: bool = False


def records(*sequences: str) -> list[Record]:
    return [Record(f"q{i}", f"q{i}", one) for i, one in enumerate(sequences)]


@pytest.fixture
def searched(monkeypatch):
    """Searches that return the vectors; what was searched together is noted."""
    calls: list[tuple[Any, list[str]]] = []

    def found(planned, wanted, vectors):
        calls.append((planned.key, [one.sequence for one in wanted]))
        return [QueryHits(one, [float(v[0])]) for one, v in zip(wanted, vectors, strict=True)]

    monkeypatch.setattr(engines, "_found", found)
    return calls


@pytest.fixture
def start():
    """Engines that are closed at the end."""
    made: list[tuple[Engine, Index]] = []

    def begin(**settings: Any) -> tuple[Engine, Index]:
        one = Engine(Settings(**settings), Metrics()), Index()
        made.append(one)
        return one

    yield begin
    for engine, index in made:
        index.gate.set()
        engine.close()


def until(holds) -> None:
    """Wait for what another thread is about to do."""
    end = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.002)


def busy(engine: Engine, index: Index) -> Any:
    """Keep the first thread in a call, so that what comes after is taken together."""
    first = engine.submit(Plan(index), records("W"))
    until(lambda: engine.waiting == 0)
    return first


def test_waiting_requests_are_one_model_call_and_one_search(searched, start):
    engine, index = start()
    first = busy(engine, index)
    later = [engine.submit(Plan(index), records("A" * n, "C" * n)) for n in range(1, 9)]
    index.gate.set()
    assert [len(one.hits) for one in first.result(10)] == [1]
    for n, future in enumerate(later, start=1):
        assert [(q.sequence, hits) for q, hits in future.result(10)] == [
            ("A" * n, [float(n)]),
            ("C" * n, [float(n)]),
        ]
    assert [len(call) for call in index.calls] == [1, 16]
    assert [len(call) for _, call in searched] == [1, 16]


def test_a_sequence_is_embedded_once(searched, start):
    engine, index = start()
    index.gate.set()
    for _ in range(3):
        engine.submit(Plan(index), records("AAC", "AAC", "AC")).result(10)
    assert index.calls == [["AAC", "AC"]]
    assert [len(call) for _, call in searched] == [3, 3, 3]


def test_the_cache_is_bounded(searched, start):
    engine, index = start(cached_vectors=2)
    index.gate.set()
    for one in ("A", "AA", "AAA", "AA", "A"):
        engine.submit(Plan(index), records(one)).result(10)
    assert index.calls == [["A"], ["AA"], ["AAA"], ["A"]]


def test_other_plans_share_the_model_call_and_not_the_search(searched, start):
    engine, index = start()
    busy(engine, index)
    futures = [engine.submit(Plan(index, key), records("A" * 4)) for key in (1, 2, 1)]
    index.gate.set()
    assert [future.result(10)[0].hits for future in futures] == [[4.0]] * 3
    assert index.calls[1:] == [["AAAA"]]
    assert searched[1:] == [(1, ["AAAA", "AAAA"]), (2, ["AAAA"])]


def test_a_large_request_does_not_hold_up_a_small_one(searched, start):
    engine, index = start(batch_sequences=4)
    busy(engine, index)
    large = engine.submit(Plan(index), records(*("A" * n for n in range(1, 21))))
    small = engine.submit(Plan(index), records("CC"))
    index.gate.set()
    assert [hits for _, hits in small.result(10)] == [[2.0]]
    assert [hits for _, hits in large.result(10)] == [[float(n)] for n in range(1, 21)]
    assert "CC" in index.calls[1]
    assert max(map(len, index.calls)) <= 4


def test_residues_bound_a_batch(searched, start):
    engine, index = start(batch_residues=100)
    busy(engine, index)
    futures = [engine.submit(Plan(index), records("ACDEF"[n] * 60)) for n in range(5)]
    one = engine.submit(Plan(index), records("G" * 500))
    index.gate.set()
    for future in (*futures, one):
        future.result(10)
    assert [len("".join(call)) for call in index.calls[1:]] == [60] * 5 + [500]


def test_a_job_lets_clients_pass_and_goes_on(searched, start):
    engine, index = start(batch_sequences=4)
    busy(engine, index)
    job = engine.submit(Plan(index), records(*("A" * n for n in range(1, 9))), urgent=False)
    clients = [engine.submit(Plan(index), records("C" * n)) for n in range(1, 9)]
    index.gate.set()
    job.result(10)
    for client in clients:
        client.result(10)
    first, second = index.calls[1:3]
    assert [one[0] for one in first] == [one[0] for one in second] == ["C"] * 4 + ["A"]


def test_a_full_queue_refuses_clients_and_says_when(searched, start):
    engine, index = start(queue_sequences=3)
    busy(engine, index)
    engine.submit(Plan(index), records("A", "C"))
    with pytest.raises(Problem) as refused:
        engine.submit(Plan(index), records("A", "C"))
    assert refused.value.status == 429
    assert int(refused.value.headers["Retry-After"]) >= 1
    engine.submit(Plan(index), records("D"))
    engine.submit(Plan(index), records("A", "C", "D", "E"), urgent=False)
    assert engine.waiting == 3


def test_nobody_waits_for_what_is_cancelled_or_late(searched, start):
    engine, index = start()
    busy(engine, index)
    left = engine.submit(Plan(index), records("AA"))
    late = engine.submit(Plan(index), records("CC"), deadline=time.monotonic())
    kept = engine.submit(Plan(index), records("DD"))
    assert left.cancel()
    index.gate.set()
    assert kept.result(10)[0].hits == [2.0]
    with pytest.raises(CancelledError):
        left.result(0)
    with pytest.raises(Problem) as problem:
        late.result(10)
    assert problem.value.status == 504
    assert index.calls[1:] == [["DD"]]


def test_an_error_reaches_the_one_who_caused_it(searched, start):
    engine, index = start()
    busy(engine, index)
    good, bad = (engine.submit(Plan(index), records(one)) for one in ("AA", "AXA"))
    index.gate.set()
    assert good.result(10)[0].hits == [2.0]
    with pytest.raises(ValueError, match="a sequence with X"):
        bad.result(10)


def test_vectors_and_functions(searched, start):
    engine, index = start()
    index.gate.set()
    vectors = engine.embed(index, "8M", records("A", "AAA")).result(10)
    assert [one.tolist() for one in vectors] == [[1.0], [3.0]]
    assert searched == []
    assert engine.run(lambda: threading.current_thread().name).result(10) == "rdsearch searching"
    with pytest.raises(ZeroDivisionError):
        engine.run(lambda: 1 / 0).result(10)


def test_functions_wait_in_a_queue_that_has_an_end(searched, start):
    engine, _ = start(queue_sequences=2)
    gate = threading.Event()
    first = engine.run(lambda: gate.wait(10))
    until(first.running)
    waiting = [engine.run(lambda: 1), engine.run(lambda: 2)]
    with pytest.raises(Problem) as refused:
        engine.run(lambda: 3)
    assert refused.value.status == 429
    gate.set()
    assert [one.result(10) for one in waiting] == [1, 2]


def test_closing_answers_what_waits(searched, start):
    engine, index = start()
    busy(engine, index)
    last = engine.submit(Plan(index), records("AAA"))
    closing = threading.Thread(target=engine.close)
    closing.start()
    index.gate.set()
    closing.join(10)
    assert last.result(0)[0].hits == [3.0]
    with pytest.raises(Problem) as problem:
        engine.submit(Plan(index), records("A"))
    assert problem.value.status == 503
