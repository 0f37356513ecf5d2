"""Disks that are full, read-only, or another's: a named error and the index as it was."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess

import pytest

from tests.killing import CHANGES, Server, changed_index
from tests.stored import open_to_all, tmpfs

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
NOBODY = 65534
# DuckDB takes room by blocks of 256 KB.
PAGE, STEP = 4, 192


@pytest.fixture(scope="module")
def server():
    with Server() as started:
        yield started


@pytest.fixture(scope="module")
def made(server, tmp_path_factory):
    """Stores and an index; see `tests.killing.prepare`."""
    folder = tmp_path_factory.mktemp("made")
    server("prepare", folder)
    return folder


@pytest.fixture(scope="module")
def settled(server, made, tmp_path_factory):
    """A change, undisturbed: the states before and after; see `tests.killing.settle`."""

    @functools.lru_cache
    def settle(change):
        trial = tmp_path_factory.mktemp("settled") / "trial"
        return server("settle", change, shutil.copytree(made / "trial", trial), made)

    return settle


def every_change(*quick, but=()):
    """Parametrises a test by changes, of which these are quick."""
    return pytest.mark.parametrize(
        "change",
        [
            name if name in quick else pytest.param(name, marks=pytest.mark.slow)
            for name in CHANGES
            if name not in but
        ],
    )


def resize(disk, kilobytes):
    subprocess.run(["mount", "-o", f"remount,size={kilobytes}k", str(disk)], check=True)


def used(folder):
    """What a tmpfs takes for a folder, in KB."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return sum(-(-file.stat().st_size // 4096) * 4 for file in files)


@every_change("remove", "merge", but=["gc"])
def test_a_full_disk(tmp_path, server, made, settled, change):
    """A little more room every time, so that it is full in every phase once."""
    full = 0
    with tmpfs(tmp_path / "disk", "64m") as disk:
        trial = shutil.copytree(made / "trial", disk / "trial")
        room = used(trial)
        expected = settled(change)
        while True:
            resize(disk, room)
            done = server("attempt", change, trial, made)
            if done["error"] is None:
                break
            assert done["error"] == "IndexWriteError", done
            assert "No space left on device" in done["message"] or "disk is full" in done["message"]
            assert str(changed_index(change, trial)) in done["message"]
            assert "run the same command again" in done["message"]
            full += 1
            found = server("look", change, trial)
            assert (found["state"], found["incomplete"]) == (expected["old"], [])
            room += PAGE if full < 4 else STEP
        assert full > 2
        resize(disk, 65536)
        assert server("look", change, trial)["state"] == expected["new"]
        found = server("aftermath", change, trial, made)
        assert found["next"] == expected["next"]
        assert found["leftovers"] == []


def test_a_full_disk_can_be_cleared(tmp_path, server, made, settled):
    """`gc` needs no room."""
    with tmpfs(tmp_path / "disk", "64m") as disk:
        trial = shutil.copytree(made / "trial", disk / "trial")
        assert server("attempt", "compact", trial, made)["error"] is None
        resize(disk, used(trial))
        before = used(trial)
        assert server("attempt", "add", trial, made)["error"] == "IndexWriteError"
        assert server("attempt", "gc", trial, made)["error"] is None
        assert used(trial) < before
        assert server("look", "gc", trial)["state"] == settled("gc")["old"]


@every_change("add", "merge")
def test_a_read_only_disk(tmp_path, server, made, settled, change):
    with tmpfs(tmp_path / "disk", "64m") as disk:
        trial = shutil.copytree(made / "trial", disk / "trial")
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        done = server("attempt", change, trial, made)
        assert done["error"] == "IndexWriteError"
        assert "Read-only file system" in done["message"]
        # Whoever reads is not concerned.
        assert server("look", change, trial)["state"] == settled(change)["old"]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs to be root, to give its rights away")
@pytest.mark.parametrize("closed", ["index", "segments", "generations", "nothing"])
@every_change("add", "gc")
def test_a_missing_permission(tmp_path, server, made, settled, change, closed):
    """The whole index is another's, or one folder in it."""
    open_to_all(tmp_path)
    open_to_all(made)
    trial = shutil.copytree(made / "trial", tmp_path / "trial")
    if closed != "index":
        for path in (tmp_path, trial, *trial.rglob("*")):
            os.chown(path, NOBODY, NOBODY)
        if closed != "nothing":
            os.chown(trial / "index" / closed, 0, 0)
    done = server("attempt", change, trial, made, NOBODY)
    expected = settled(change)
    if done["error"] is None:
        # Not every change writes everywhere; these two do not write in this index.
        assert (change, closed) not in {("add", "segments"), ("gc", "generations")}
        assert closed != "index"
        assert closed != "generations" or change in ("merge", "build")
        assert server("look", change, trial)["state"] == expected["new"]
        return
    assert closed != "nothing"
    assert done["error"] == "IndexWriteError", done
    assert "Permission denied" in done["message"]
    assert server("look", change, trial)["state"] == expected["old"]
    found = server("aftermath", change, trial, made)
    assert found["leftovers"] == []
