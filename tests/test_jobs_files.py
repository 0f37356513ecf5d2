"""The folder of jobs: private, removed with its server, or by the next one."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
import sys

import pytest

pytest.importorskip("fastapi", reason="needs rdsearch[server]")

from rdsearch.errors import InputError
from rdsearch.server.jobfiles import PREFIX, JobFolder

_DIES = """
import os, sys
from pathlib import Path
from rdsearch.server.jobfiles import JobFolder
folder = JobFolder(Path(sys.argv[1]))
(folder.path / "results").write_text("left behind")
print(folder.path.name, flush=True)
os._exit(9)
"""


def test_nobody_else_can_read_it(tmp_path):
    before = os.umask(0)
    try:
        folder = JobFolder(tmp_path / "new" / "jobs")
    finally:
        os.umask(before)
    for one in (folder.path, folder.path.parent):
        assert one.stat().st_mode & 0o777 == 0o700
    folder.close()
    assert not folder.path.exists()
    assert folder.path.parent.exists()


def test_without_a_parent_it_is_a_temporary_one(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    folder = JobFolder()
    assert folder.path.parent == tmp_path
    folder.close()
    assert list(tmp_path.iterdir()) == []


def test_a_file_has_its_name_when_it_is_complete(tmp_path):
    folder = JobFolder(tmp_path)
    with folder.writing("one") as file:
        file.write(b"content")
        assert not folder.place("one").exists()
    assert folder.place("one").read_bytes() == b"content"
    with contextlib.suppress(KeyError), folder.writing("two") as file:
        file.write(b"content")
        raise KeyError
    assert {one.name for one in folder.path.iterdir()} == {".lives", "one"}
    folder.remove("one")
    folder.remove("one")
    folder.close()


def test_a_file_whose_name_cannot_be_made_durable_is_removed(tmp_path, monkeypatch):
    def broken(path):
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))

    folder = JobFolder(tmp_path)
    monkeypatch.setattr("rdsearch.durable.sync_folder", broken)
    with pytest.raises(OSError, match="Input/output error"), folder.writing("one"):
        pass
    assert {one.name for one in folder.path.iterdir()} == {".lives"}


def test_what_a_dead_server_left_is_removed_and_what_lives_is_not(tmp_path):
    """Also a folder that another server is making, a link, and what is no server's."""
    lives = JobFolder(tmp_path)
    died = subprocess.run(
        [sys.executable, "-c", _DIES, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert died.returncode == 9
    left = tmp_path / died.stdout.strip()
    assert (left / "results").exists()
    (tmp_path / f"{PREFIX}new").mkdir()
    (tmp_path / "other").mkdir()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / ".lives").touch()
    (tmp_path / f"{PREFIX}link").symlink_to(elsewhere)
    JobFolder(tmp_path).close()
    assert not left.exists()
    assert {one.name for one in tmp_path.iterdir()} == {
        lives.path.name, f"{PREFIX}new", f"{PREFIX}link", "other", "elsewhere",
    }  # fmt: skip
    assert (elsewhere / ".lives").exists()


def test_a_place_that_is_a_file(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="results of jobs cannot be kept in") as caught:
        JobFolder(tmp_path / "file")
    assert "Name a folder that can be written" in str(caught.value)
