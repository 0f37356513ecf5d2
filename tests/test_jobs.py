"""Jobs, with an engine that the test answers for: order, bounds, cancellation, failure."""

from __future__ import annotations

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
from rdsearch.finding import full_note
from rdsearch.server import job as job_module
from rdsearch.server import jobs as module
from rdsearch.server import problems
from rdsearch.server.problems import Problem
from rdsearch.server.settings import Settings
from tests.jobbing import Alive, lines, plan, raised, reading, running, until, world
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


# Results.


def test_the_file_has_the_hits_in_the_order_of_the_queries(quick):
    job = quick.create(SEQUENCES)
    until(lambda: job.final)
    records = plan(quick, module.Search(sequences=SEQUENCES), job=True).records
    assert [json.loads(line) for line in quick.text(job).splitlines()] == lines(records)
    assert (job.state, job.done, job.hits) == ("done", 30, sum(map(len, SEQUENCES)))
    assert quick.files == [job.id]


def test_the_notes_of_a_search_come_at_the_end(quick):
    job = quick.create(SEQUENCES, k=1000)
    until(lambda: job.final)
    assert job.as_dict()["notes"] == ["a note"]
    # Hits of a query are as many as its residues: those of one have as many as are given at most.
    job = quick.create(["MA", "M", "MAV"], k=3, evalue=1.0)
    until(lambda: job.final)
    assert job.as_dict()["notes"] == ["a note", full_note(["q2"], 3)]


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


def test_problems_are_copied():
    problem = Problem(429, "jobs-full", "wait", headers={"Retry-After": "3"}, limit=2)
    copy = job_module.copied(problem)
    assert copy is not problem
    assert copy.as_dict() == problem.as_dict()
    assert problems.answer(copy).headers["Retry-After"] == "3"
