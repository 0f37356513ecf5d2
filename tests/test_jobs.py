"""Jobs, with an engine that the test answers for: order, bounds, cancellation, failure."""

from __future__ import annotations

import asyncio
import errno
import gc
import json
import os
import re
import threading
import weakref
from types import SimpleNamespace

import pytest

pytest.importorskip("fastapi", reason="needs rdsearch[server]")

from rdsearch.errors import InputError
from rdsearch.fasta import Record
from rdsearch.server import job as job_module
from rdsearch.server import jobs as module
from rdsearch.server import problems
from rdsearch.server.problems import Problem
from rdsearch.server.settings import Settings
from tests.jobbing import Alive, World, lines, plan, until, world
from tests.stored import tmpfs

SEQUENCES = ["M" * (1 + place % 5) for place in range(30)]


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


def running(slow: World, *arguments, **named):
    """A job that waits for the engine."""
    job = slow.create(*arguments, **named)
    until(lambda: job.state == "running" and slow.engine.asked)
    return job


def raised(kind, function, *arguments, **named) -> Problem:
    with pytest.raises(Problem) as caught:
        function(*arguments, **named)
    assert caught.value.kind == kind
    return caught.value


def reading(made, job, owner=None):
    with made.jobs.reading(job.id, owner):
        pass


# Results.


def test_the_file_has_the_hits_in_the_order_of_the_queries(quick):
    job = quick.create(SEQUENCES)
    until(lambda: job.final)
    records = plan(quick, module.Search(sequences=SEQUENCES), job=True).records
    assert [json.loads(line) for line in quick.text(job).splitlines()] == lines(records)
    assert (job.state, job.done, job.hits) == ("done", 30, sum(map(len, SEQUENCES)))
    assert quick.files == [job.id]


def test_parts_are_small_and_let_clients_pass(quick):
    job = quick.create(SEQUENCES)
    until(lambda: job.final)
    assert [len(records) for records in quick.engine.asked] == [4] * 7 + [2]
    assert [r.id for records in quick.engine.asked for r in records] == [
        f"q{place}" for place in range(30)
    ]
    assert quick.engine.urgent == {False}


@pytest.mark.parametrize(
    ("speed", "expected"), [(100, 25), (4_000, 1_000), (40_000, 10_000), (10**9, 32_000)]
)
def test_parts_take_a_quarter_of_a_second(speed, expected):
    """Whatever an engine computes in a second; also where two are answered together."""
    for together in (1, 2):
        pace = job_module.Pace(Settings(batch_residues=32_000))
        for _ in range(40):
            residues = int(pace.residues)
            pace.learn(residues, together * residues / speed)
            for _ in range(together - 1):
                pace.learn(residues, 0.0)
        assert expected / 2 <= pace.residues <= expected * 2
        assert pace.residues <= 32_000


def test_parts_are_of_the_pace():
    records = [Record(str(place), "", "M" * 10) for place in range(20)]
    records[7] = Record("long", "", "M" * 500)
    pace = job_module.Pace(Settings(batch_sequences=6))
    parts = pace.parts(records)
    sizes = [len(next(parts))]
    pace.residues = 25
    sizes += [len(part) for part in parts]
    assert sizes == [6, 1, 1, 2, 2, 2, 2, 2, 2]
    assert sum(sizes) == 20


def test_a_slow_engine_gets_smaller_parts(slow, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(job_module, "time", SimpleNamespace(monotonic=lambda: now[0]))
    job = running(slow, ["M" * 250] * 40)
    while len(slow.engine.asked) < 12:
        now[0] += 10
        count = len(slow.engine.asked)
        slow.engine.answer()
        until(lambda count=count: len(slow.engine.asked) > count)
    assert len(slow.engine.asked[0]) == 4
    assert len(slow.engine.asked[-1]) == 1
    slow.jobs.remove(job.id)


def test_two_parts_are_in_flight_and_three_in_memory(slow):
    gc.collect()
    before, Alive.most = Alive.now, Alive.now
    job = slow.create(["M"] * 80)
    for part in range(1, 20):
        until(lambda part=part: len(slow.engine.asked) > part)
        slow.engine.answer()
    until(lambda: job.final)
    assert job.state == "done"
    assert slow.engine.open_most == 2
    assert Alive.most - before <= 3 * 4


def test_one_job_runs_at_a_time_and_the_others_wait_in_order(slow):
    made = [slow.create(["M" * n]) for n in (1, 2, 3)]
    for place, job in enumerate(made):
        until(lambda place=place: len(slow.engine.asked) == place + 1)
        assert [one.state for one in made] == ["done"] * place + ["running"] + ["waiting"] * (
            2 - place
        )
        slow.engine.answer()
        until(lambda job=job: job.final)
    assert [job.started for job in made] == sorted(job.started for job in made)


def test_progress_rises_and_the_object_says_what_is(slow):
    clock = slow.clock
    job = running(slow, ["MM"] * 12)
    seen = []
    for done in (8, 12):
        seen.append(slow.jobs.describe(job))
        slow.engine.answer()
        until(lambda done=done: job.done == done)
    until(lambda: job.final)
    seen.append(slow.jobs.describe(job))
    assert [one["sequences"]["done"] for one in seen] == [0, 8, 12]
    assert [one["hits"] for one in seen] == [0, 16, 24]
    last = seen[-1]
    assert clock.now == 1_800_000_000
    assert last["created"] == last["started"] == last["finished"] == "2027-01-15T08:00:00.000Z"
    assert last["expires"] == "2027-01-15T09:00:00.000Z"
    assert seen[0]["expires"] is seen[0]["finished"] is None
    assert last["links"]["events"] == f"/v1/jobs/{job.id}/events"
    assert slow.jobs.counts() == {
        "waiting": 0, "running": 0, "done": 1, "failed": 0, "cancelled": 0,
    }  # fmt: skip


def test_ids_are_long_and_fit_their_pattern(quick):
    ids = {quick.create(["M"]).id for _ in range(10)}
    assert len(ids) == 10

    assert all(re.fullmatch(module.ID_PATTERN, one) for one in ids)


# Cancellation.


def test_a_job_that_waits_is_cancelled_at_once(slow):
    running(slow)
    second = slow.create()
    assert slow.jobs.remove(second.id) is second
    assert second.state == "cancelled"
    assert second.error is None
    slow.engine.answer()
    third = slow.create()
    slow.engine.at_once = True
    until(lambda: third.started or slow.engine.answer())
    assert second.started is None


def test_a_job_that_runs_stops_and_leaves_no_file(slow):
    job = running(slow, ["M"] * 20)
    assert slow.files == [f".{job.id}.new"]
    assert slow.jobs.remove(job.id) is job
    until(lambda: job.final)
    assert job.state == "cancelled"
    assert all(future.cancelled() for future, _ in slow.engine.open)
    assert slow.files == []
    assert raised("job-not-done", reading, slow, job).status == 409
    # The thread goes on with the next.
    slow.engine.at_once = True
    after = slow.create()
    until(lambda: after.state == "done")


def test_a_job_stops_between_two_results(quick, monkeypatch):
    """While a part is written the next is not waited for."""
    written = threading.Event()
    going = threading.Event()

    def write(planned, results, file):
        for _ in results:
            written.set()
            assert going.wait(20)

    monkeypatch.setattr(job_module.rendering, "write", write)
    job = quick.create(["M"] * 20)
    assert written.wait(20)
    quick.jobs.remove(job.id)
    going.set()
    until(lambda: job.final)
    assert (job.state, job.done) == ("cancelled", 1)


def test_a_job_that_is_cancelled_as_it_ends_has_no_file(quick, monkeypatch):
    real = job_module.rendering.write

    def write(planned, results, file):
        real(planned, results, file)
        quick.jobs.remove(job.id)

    held = threading.Event()
    monkeypatch.setattr(job_module.rendering, "write", lambda *args: held.wait(20) and write(*args))
    job = quick.create()
    held.set()
    until(lambda: job.final)
    assert job.state == "cancelled"
    assert quick.files == []


def test_a_job_that_is_done_is_removed_with_its_file(quick):
    job = quick.create()
    until(lambda: job.final)
    assert quick.jobs.remove(job.id) is None
    assert quick.files == []
    assert raised("no-such-job", quick.jobs.get, job.id).status == 404
    raised("no-such-job", quick.jobs.remove, job.id)


# Failure.


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (InputError("q3 is no protein"), 422, "input"),
        (Problem(504, "deadline", "too slow"), 504, "deadline"),
        (RuntimeError("secret"), 500, "internal"),
        (OSError(errno.EIO, "secret", "/secret/tier"), 500, "internal"),
    ],
)
def test_an_error_of_the_engine_is_the_jobs(quick, error, status, kind):
    quick.engine.error = error
    job = quick.create()
    until(lambda: job.final)
    told = quick.jobs.describe(job)
    assert told["state"] == "failed"
    assert (told["error"]["status"], told["error"]["type"].rpartition(":")[2]) == (status, kind)
    assert "secret" not in json.dumps(told)
    assert raised(kind, reading, quick, job).status == status
    assert quick.files == []
    quick.engine.error = None
    after = quick.create()
    until(lambda: after.state == "done")


def test_an_error_keeps_nothing_of_the_job_in_memory(quick, monkeypatch):
    quick.engine.error = InputError("no protein")  # what is logged the log keeps
    seen = []
    real = module.planning.planned

    def planned(*arguments, **named):
        made = real(*arguments, **named)
        seen.append(weakref.ref(made))
        return made

    monkeypatch.setattr(module.planning, "planned", planned)
    job = quick.create()
    until(lambda: job.final)
    quick.engine.error = None
    until(lambda: gc.collect() is not None and seen[0]() is None)


def test_what_cannot_be_written_is_a_clear_problem_without_paths(quick, monkeypatch):
    def full(path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    with monkeypatch.context() as patched:
        patched.setattr("rdsearch.durable.sync_file", full)
        job = quick.create()
        until(lambda: job.final)
    error = quick.jobs.describe(job)["error"]
    assert error["type"] == "urn:rdsearch:problem:job-failed"
    assert "No space left on device" in error["detail"]
    assert str(quick.jobs.folder.path) not in json.dumps(error)
    assert quick.files == []
    after = quick.create()
    until(lambda: after.state == "done")


def test_a_folder_that_is_gone(quick):
    for one in quick.jobs.folder.path.iterdir():
        one.unlink()
    quick.jobs.folder.path.rmdir()
    job = quick.create()
    until(lambda: job.final)
    assert job.error.kind == "job-failed"
    assert quick.jobs.folder.path.name not in job.error.detail


def test_a_full_disk(monkeypatch, tmp_path):
    with tmpfs(tmp_path / "disk", "64k") as disk, world(monkeypatch, disk) as made:
        large = made.create(["M" * 500] * 20)
        until(lambda: large.final)
        assert large.error.kind == "job-failed"
        assert "No space left on device" in large.error.detail
        assert made.files == []
        small = made.create()
        until(lambda: small.state == "done")


def test_a_job_that_takes_longer_than_it_may(slow):
    job = running(slow, timeout=0.05)
    until(lambda: job.final)
    assert (job.state, job.error.kind) == ("failed", "deadline")


def test_bad_input_is_answered_before_there_is_a_job(quick, monkeypatch):
    def planned(*arguments, **named):
        raise InputError("no protein")

    monkeypatch.setattr(module.planning, "planned", planned)
    for _ in range(20):  # and takes no place
        with pytest.raises(InputError, match="no protein"):
            quick.create()
    assert sum(quick.jobs.counts().values()) == 0


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


def test_problems_are_copied():
    problem = Problem(429, "jobs-full", "wait", headers={"Retry-After": "3"}, limit=2)
    copy = job_module.copied(problem)
    assert copy is not problem
    assert copy.as_dict() == problem.as_dict()
    assert problems.answer(copy).headers["Retry-After"] == "3"
