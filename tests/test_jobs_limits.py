"""Jobs, with an engine that the test answers for: how many, for whom, how long, and the end."""

from __future__ import annotations

import asyncio
import threading

import pytest

pytest.importorskip("fastapi", reason="needs rdsearch[server]")

from rdsearch.server import jobs as module
from tests.jobbing import World, plan, raised, reading, running, until, world


@pytest.fixture
def quick(monkeypatch, tmp_path):
    """The engine answers at once."""
    with world(monkeypatch, tmp_path) as made:
        yield made


@pytest.fixture
def slow(monkeypatch, tmp_path):
    """The engine answers when it is told to."""
    with world(monkeypatch, tmp_path, at_once=False) as made:
        yield made


# Limits.


def test_so_many_wait_or_run(monkeypatch, tmp_path):
    with world(monkeypatch, tmp_path, at_once=False, jobs=2) as made:
        first = running(made)
        second = made.create()
        full = raised("jobs-full", made.create)
        assert (full.status, full.facts["limit"]) == (429, 2)
        assert int(full.headers["Retry-After"]) > 0
        made.jobs.remove(second.id)
        made.create()
        raised("jobs-full", made.create)
        made.engine.answer()
        until(lambda: first.final)
        made.create()


def test_a_report_has_so_many_hits(slow):
    """It is held in memory; what is streamed may have any number."""
    running(slow)
    slow.create(["M"] * 100, k=1_000, format="html")
    large = raised("too-large", slow.create, ["M"] * 101, k=1_000, format="html")
    assert (large.status, large.facts["found"]) == (413, 101_000)
    slow.create(["M"] * 101, k=1_000, format="tsv")
    assert slow.jobs.counts()["waiting"] == 2


def test_what_is_being_planned_counts(monkeypatch, tmp_path):
    with world(monkeypatch, tmp_path, jobs=1) as made:
        begun, go = threading.Event(), threading.Event()

        def planned(*arguments, **named):
            begun.set()
            assert go.wait(20)
            return plan(*arguments, **named)

        monkeypatch.setattr(module.planning, "planned", planned)
        thread = threading.Thread(target=made.create)
        thread.start()
        assert begun.wait(20)
        raised("jobs-full", made.create)
        go.set()
        thread.join()
        until(lambda: made.jobs.counts()["done"] == 1)
        made.create()


def test_planning_holds_up_no_other_request(quick, monkeypatch):
    begun = threading.Event()
    go = threading.Event()

    def planned(*arguments, **named):
        begun.set()
        assert go.wait(20), "the event loop was held up"
        return plan(*arguments, **named)

    monkeypatch.setattr(module.planning, "planned", planned)

    async def both():
        creating = asyncio.create_task(quick.jobs.create(module.Search(sequences=["M"])))
        while not begun.is_set():
            await asyncio.sleep(0.001)
        go.set()
        return await creating

    assert asyncio.run(both()).total == 1


def test_another_key_finds_no_job(quick):
    job = quick.create(owner="one")
    until(lambda: job.final)
    for other in ("two", None):
        raised("no-such-job", quick.jobs.get, job.id, other)
        raised("no-such-job", quick.jobs.remove, job.id, other)
        raised("no-such-job", reading, quick, job, other)
    reading(quick, job, "one")
    assert quick.jobs.get(job.id, "one") is job


# How long results are kept.


def test_results_expire(monkeypatch, tmp_path):
    with world(monkeypatch, tmp_path, job_seconds=600.0) as made:
        job = made.create()
        until(lambda: job.final)
        made.clock.now += 599.9
        made.jobs.sweep()
        reading(made, job)
        made.clock.now += 0.2
        gone = raised("no-such-job", reading, made, job)
        assert "10 minutes" in gone.detail
        assert made.files == [job.id]
        made.jobs.sweep()
        assert made.files == []
        assert sum(made.jobs.counts().values()) == 0


def test_the_thread_sweeps_by_itself(monkeypatch, tmp_path):
    with world(monkeypatch, tmp_path, job_seconds=0.2) as made:
        job = made.create()
        until(lambda: job.final)
        made.clock.now += 1
        until(lambda: made.files == [])


def test_a_job_that_runs_sweeps_too(slow, monkeypatch):
    monkeypatch.setattr(module, "_SWEEP", 0.0)
    done = running(slow)
    slow.engine.answer()
    until(lambda: done.final)
    job = running(slow)
    slow.clock.now += 10_000
    until(lambda: slow.files == [f".{job.id}.new"])


def test_each_owner_has_so_many_finished_jobs(quick, monkeypatch):
    monkeypatch.setattr(module, "KEPT", 2)
    other = quick.create(owner="other")
    made = []
    for _ in range(4):
        quick.clock.now += 1
        made.append(quick.create())
        until(lambda: made[-1].final)
    quick.jobs.sweep()
    assert quick.files == sorted([other.id, made[2].id, made[3].id])
    raised("no-such-job", quick.jobs.get, made[1].id)


def test_a_file_stays_while_it_is_read(quick):
    job = quick.create()
    until(lambda: job.final)
    with quick.jobs.reading(job.id), quick.jobs.reading(job.id):
        quick.jobs.remove(job.id)
        assert quick.files == [job.id]
        raised("no-such-job", reading, quick, job)
    assert quick.files == []


# The end of the server.


def test_close_waits_for_the_job_that_runs_and_cancels_the_others(slow):
    first = running(slow)
    second = slow.create()
    closing = threading.Thread(target=slow.close, args=(20.0,))
    closing.start()
    until(lambda: second.final)
    assert (second.state, second.error.kind) == ("cancelled", "stopping")
    assert raised("stopping", slow.create).status == 503
    assert first.state == "running"
    slow.engine.answer()
    closing.join()
    assert (first.state, first.error) == ("done", None)
    assert slow.jobs.closed
    assert not slow.jobs.folder.path.exists()


def test_close_cancels_what_takes_too_long(slow):
    job = running(slow)
    slow.close(0.0)
    assert (job.state, job.error.kind) == ("cancelled", "stopping")
    assert not slow.jobs.folder.path.exists()


def test_close_without_jobs(monkeypatch, tmp_path):
    monkeypatch.setattr(module.planning, "planned", plan)
    made = World(tmp_path / "jobs")
    made.close(20.0)
    assert not list((tmp_path / "jobs").iterdir())


def test_a_server_that_stops_ends_its_jobs_in_time(monkeypatch, tmp_path):
    """Those who follow a job see its end before the server waits for them no more."""
    with world(monkeypatch, tmp_path, at_once=False, grace=0.5) as made:
        job = running(made)
        waiting = made.create()
        made.stopping = True
        until(lambda: waiting.final)
        until(lambda: job.final)
        assert [one.state for one in (job, waiting)] == ["cancelled"] * 2
        assert {one.error.kind for one in (job, waiting)} == {"stopping"}


def test_an_engine_that_closes(slow):
    job = running(slow)
    slow.engine.open[0][0].cancel()
    until(lambda: job.final)
    assert job.error.kind == "stopping"
