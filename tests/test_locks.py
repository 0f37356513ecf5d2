"""Locks between real processes, some of which are killed."""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import platform
import re
import signal
import subprocess
import sys
import threading
from datetime import datetime, timezone
from pathlib import Path

import pytest

from rdsearch import locks
from rdsearch.errors import IndexLockedError, IndexWriteError, StoreError
from rdsearch.locks import LOCK, claim, held, hold, writing
from tests.stored import open_to_all

ROOT = Path(__file__).parents[1]


@contextlib.contextmanager
def process(code: str, *arguments: object):
    """A process that has said it is ready; killed at the end."""
    text = f"import sys\nfrom pathlib import Path\nfrom rdsearch import locks\n{code}"
    child = subprocess.Popen(
        [sys.executable, "-c", text, *map(str, arguments)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with child:
        try:
            assert child.stdout.readline() == "ready\n"
            yield child
        finally:
            child.kill()


WRITER = """
with locks.writing(Path(sys.argv[1]), operation="add"):
    print("ready", flush=True)
    sys.stdin.readline()
"""
READER = """
held = locks.hold(Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
held.close()
print("closed", flush=True)
sys.stdin.readline()
"""


def test_a_second_writer_is_refused_and_told_who_writes(tmp_path):
    start = datetime.now(timezone.utc).replace(microsecond=0)
    with process(WRITER, tmp_path) as owner:
        with pytest.raises(IndexLockedError) as caught, writing(tmp_path):
            pass
        found = caught.value.facts["owner"]
        assert (found.process, found.host, found.operation) == (owner.pid, platform.node(), "add")
        assert start <= datetime.fromisoformat(found.since) <= datetime.now(timezone.utc)
        for word in (str(tmp_path), "this index", f"process {owner.pid} on", "since", "Wait until"):
            assert word in str(caught.value)
        with (
            pytest.raises(StoreError, match="writing this store"),
            writing(tmp_path, "store", error=StoreError),
        ):
            pass
        owner.communicate("go on\n")
    with writing(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_the_lock_of_a_dead_process_is_taken_over_and_said_so(tmp_path, caplog):
    with process(WRITER, tmp_path) as owner:
        owner.send_signal(signal.SIGKILL)
        owner.wait()
    assert (tmp_path / LOCK).exists()
    with caplog.at_level(logging.WARNING), writing(tmp_path, operation="gc"):
        assert re.search(rf"taking over .*process {owner.pid} on .*, add, since 20", caplog.text)
        assert json.loads((tmp_path / LOCK).read_text())["process"] == os.getpid()
    caplog.clear()
    with writing(tmp_path):
        pass
    assert caplog.text == ""
    assert list(tmp_path.iterdir()) == []


def test_two_threads_of_one_process(tmp_path):
    refused: list[str] = []

    def second():
        try:
            with writing(tmp_path):
                pass
        except IndexLockedError as error:
            refused.append(str(error))

    with writing(tmp_path):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join()
    assert len(refused) == 1
    assert f"process {os.getpid()} on" in refused[0]
    second()
    assert len(refused) == 1


def test_one_of_many_writers_at_a_time(tmp_path):
    """Threads that come and go: nobody is ever in together with another, everybody gets in."""
    inside, most = [], []

    def come_and_go():
        entered = 0
        while entered < 10:
            with contextlib.suppress(IndexLockedError), writing(tmp_path):
                inside.append(1)
                most.append(len(inside))
                entered += 1
                inside.pop()

    threads = [threading.Thread(target=come_and_go) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most) == 1
    assert len(most) == 60
    assert list(tmp_path.iterdir()) == []


def test_a_lock_on_a_file_that_is_gone_is_no_lock(tmp_path, monkeypatch):
    """The writer before removes the file between this one's opening and locking it."""
    take, taken = fcntl.flock, []

    def late(handle, operation):
        if not taken:
            (tmp_path / LOCK).unlink()
        taken.append(handle)
        take(handle, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    with writing(tmp_path):
        assert len(taken) == 2
        with pytest.raises(IndexLockedError, match="another process"), writing(tmp_path):
            pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_neither_keeps_nor_removes_the_lock(tmp_path):
    """The child lives on when its parent is killed; leaving the block there changes nothing."""
    code = """
import os
with locks.writing(Path(sys.argv[1])):
    if not os.fork():
        raise SystemExit  # unwinds the block in the child
    os.wait()
    assert (Path(sys.argv[1]) / ".lock").exists()
    if not os.fork():
        os.write(1, b"ready\\n")
        sys.stdin.readline()
        os._exit(0)
    sys.stdin.readline()
"""
    with process(code, tmp_path) as parent:
        with pytest.raises(IndexLockedError), writing(tmp_path):
            pass
        parent.send_signal(signal.SIGKILL)
        os.waitpid(parent.pid, 0)  # `wait` would wait for the pipes, too
        parent.returncode = -signal.SIGKILL
        with writing(tmp_path):
            pass
        parent.stdin.write("go on\n" * 2)


def test_an_executed_child_does_not_keep_the_lock(tmp_path):
    code = """
import subprocess
with locks.writing(Path(sys.argv[1])):
    subprocess.Popen([sys.executable, "-c", "import sys; print('ready', flush=True); "
                      "sys.stdin.readline()"], close_fds=False)
    sys.stdin.readline()
"""
    with process(code, tmp_path) as parent:
        parent.send_signal(signal.SIGKILL)
        os.waitpid(parent.pid, 0)
        parent.returncode = -signal.SIGKILL
        with writing(tmp_path):
            pass
        parent.stdin.write("go on\n" * 2)


def as_nobody(code: str, *arguments: object) -> str:
    """Standard output of a process without any right."""
    if os.geteuid():
        pytest.skip("needs to be root, to give its rights away")
    text = f"import sys\nfrom pathlib import Path\nfrom rdsearch import locks\n{code}"
    done = subprocess.run(
        [sys.executable, "-c", f"from rdsearch import locks\nimport os\nos.setuid(65534)\n{text}",
         *map(str, arguments)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_missing_permission_is_named(tmp_path):
    open_to_all(tmp_path)
    said = as_nobody(
        """
try:
    with locks.writing(Path(sys.argv[1])):
        pass
except locks.IndexWriteError as error:
    print(error)
""",
        tmp_path,
    )
    assert re.search(r"the index cannot be written \(Permission denied.*\.lock.* again", said)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_only_readable_can_be_held_and_claimed(tmp_path):
    open_to_all(tmp_path)
    (tmp_path / "a").write_text("text")
    code = """
with locks.hold(Path(sys.argv[1])):
    assert locks.held(Path(sys.argv[1]))
assert not locks.held(Path(sys.argv[1]))
"""
    as_nobody(code, tmp_path / "a")


def test_folders_that_cannot_be_locked_are_named(tmp_path, monkeypatch):
    with pytest.raises(IndexWriteError, match="No such file"), writing(tmp_path / "absent"):
        pass
    (tmp_path / LOCK).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(IndexWriteError, match="symbolic link"), writing(tmp_path):
        pass
    assert not (tmp_path / "elsewhere").exists()
    (tmp_path / LOCK).unlink()

    def none(*_):
        raise OSError(locks.errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", none)
    with pytest.raises(StoreError, match="No locks"), writing(tmp_path, unwritable=StoreError):
        pass


def test_a_full_disk_does_not_keep_a_writer_out(tmp_path, monkeypatch):
    """It may come to make room."""

    def full(*_):
        raise OSError(locks.errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    refused = pytest.raises(IndexLockedError, match="not given its name")
    with writing(tmp_path), refused, writing(tmp_path):
        pass


@pytest.mark.parametrize(
    "content", [b"", b"\xff\x00", b"[]", b"3", b'{"process": "x"}', b"[" * 9999]
)
def test_a_lock_file_that_names_nobody(tmp_path, caplog, content):
    (tmp_path / LOCK).write_bytes(content)
    with writing(tmp_path):
        pass
    assert caplog.text == ""


def test_a_hold_is_seen_by_other_processes_until_it_ends(tmp_path):
    path = tmp_path / "a"
    path.write_text("text")
    assert not held(path)
    with process(READER, path) as first, process(READER, path) as second, hold(path):
        assert held(path)
        first.stdin.write("close\n")
        first.stdin.flush()
        assert first.stdout.readline() == "closed\n"
        second.send_signal(signal.SIGKILL)
        second.wait()
        assert held(path)  # by this process
    assert not held(path)


def test_a_hold_ends_with_the_last_of_its_owners(tmp_path):
    path = tmp_path / "a"
    path.write_text("text")
    one = hold(path)
    two = hold(path)
    one.close()
    one.close()
    assert held(path)
    del two
    assert not held(path)
    with pytest.raises(FileNotFoundError):
        hold(tmp_path / "absent")


def test_who_comes_too_late_for_a_claimed_file_learns_it(tmp_path):
    path = tmp_path / "a"
    path.write_text("text")
    with hold(path):
        assert claim(path) is None
    claimed = claim(path)
    answers: list[object] = []

    def late():
        try:
            answers.append(hold(path))
        except FileNotFoundError as error:
            answers.append(error)

    reader = threading.Thread(target=late)
    reader.start()
    reader.join(0.05)
    assert answers == []
    path.unlink()
    claimed.close()
    reader.join()
    assert isinstance(answers[0], FileNotFoundError)


def test_a_reader_does_not_wait_for_a_claim_that_never_ends(tmp_path, monkeypatch, caplog):
    path = tmp_path / "a"
    path.write_text("text")
    monkeypatch.setattr(locks, "_PATIENCE", 0.02)
    with claim(path), hold(path):
        assert "read without a lock" in caplog.text


def test_a_file_system_without_locks_keeps_no_reader_out(tmp_path, monkeypatch, caplog):
    path = tmp_path / "a"
    path.write_text("text")

    def none(*_):
        raise OSError(locks.errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", none)
    with caplog.at_level(logging.DEBUG, logger=locks.__name__), hold(path):
        assert "No locks available" in caplog.text
    assert held(path)  # nobody can tell: nothing is removed
