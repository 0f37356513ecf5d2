"""Each durable step: what it leaves behind when it is done, and when the process ends in it."""

from __future__ import annotations

import errno
import os
import signal

import pytest

from rdsearch import durable


@pytest.fixture
def steps(monkeypatch):
    told: list[str] = []
    monkeypatch.setattr(durable, "on_step", told.append)
    return told


@pytest.fixture
def synced(monkeypatch):
    """What was given to fsync, as (device, inode)."""
    seen, sync = [], os.fsync

    def note(handle):
        status = os.fstat(handle)
        seen.append((status.st_dev, status.st_ino))
        sync(handle)

    monkeypatch.setattr(os, "fsync", note)
    return seen


def identity(path):
    status = path.stat()
    return status.st_dev, status.st_ino


def test_replace_syncs_the_content_before_the_name_and_the_folder_after(tmp_path, steps, synced):
    path = tmp_path / "a"
    durable.replace(path, b"one")
    durable.replace(path, b"two")
    assert path.read_bytes() == b"two"
    assert list(tmp_path.iterdir()) == [path]
    assert synced[-2:] == [identity(path), identity(tmp_path)]
    temporary = tmp_path / ".a.new"
    once = [
        f"write {temporary}", f"write {temporary}",
        f"sync {temporary}", f"sync {temporary}",
        f"replace {path}", f"replace {path}",
        f"sync {tmp_path}", f"sync {tmp_path}",
    ]  # fmt: skip
    assert steps == once * 2


@pytest.mark.parametrize("failing", ["write", "sync", "replace"])
def test_a_replacement_that_fails_leaves_the_file_before(tmp_path, monkeypatch, failing):
    path = tmp_path / "a"
    path.write_bytes(b"one")

    def fail(step):
        if step.startswith(failing):
            raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(durable, "on_step", fail)
    with pytest.raises(OSError, match="full"):
        durable.replace(path, b"two")
    assert path.read_bytes() == b"one"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_in_any_step_the_file_is_old_or_new(tmp_path):
    path = tmp_path / "a"
    found = []
    for after in range(9):
        path.write_bytes(b"one")
        child = os.fork()
        if not child:
            left = [after]

            def step(_, left=left):
                if not left[0]:
                    os.kill(os.getpid(), signal.SIGKILL)
                left[0] -= 1

            durable.on_step = step
            try:
                durable.replace(path, b"two")
            finally:
                os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert status == (0 if after == 8 else -signal.SIGKILL)
        found.append(path.read_bytes())
    assert found == [b"one"] * 5 + [b"two"] * 4
    durable.replace(path, b"three")  # over what the dead one left
    assert list(tmp_path.iterdir()) == [path]


def test_sync_tree_reaches_every_file_and_then_its_folder(tmp_path, synced):
    (tmp_path / "b" / "c").mkdir(parents=True)
    files = [tmp_path / "x", tmp_path / "b" / "y", tmp_path / "b" / "c" / "z"]
    for file in files:
        file.write_text("text")
    durable.sync_tree(tmp_path)
    order = [identity(p) for p in (files[2], tmp_path / "b" / "c", files[1], tmp_path / "b")]
    assert synced == [*order, identity(files[0]), identity(tmp_path)]
    with pytest.raises(FileNotFoundError):
        durable.sync_tree(tmp_path / "absent")


def test_publish_syncs_both_folders_of_a_move(tmp_path, synced):
    building, output = tmp_path / "building" / "new", tmp_path / "index"
    building.mkdir(parents=True)
    (building / "file").write_text("text")
    durable.publish(building, output)
    assert (output / "file").read_text() == "text"
    assert synced == [identity(tmp_path), identity(tmp_path / "building")]


def test_an_open_file_is_synced_by_its_handle(tmp_path, monkeypatch, steps):
    seen = []
    monkeypatch.setattr(durable, "_sync_data", seen.append)
    with (tmp_path / "a").open("wb") as file:
        durable.sync_handle(file.fileno(), tmp_path / "a")
        assert seen == [file.fileno()]
    assert steps == [f"sync {tmp_path / 'a'}"] * 2


def test_folders_that_a_file_system_cannot_sync(tmp_path, monkeypatch):
    for number, named in [(errno.EINVAL, False), (errno.EIO, True)]:

        def refuse(_, number=number):
            raise OSError(number, "refused")

        monkeypatch.setattr(os, "fsync", refuse)
        if named:
            with pytest.raises(OSError, match="refused"):
                durable.sync_folder(tmp_path)
        else:
            durable.sync_folder(tmp_path)
        (tmp_path / "a").write_text("text")
        with pytest.raises(OSError, match="refused"):  # a file is never let off
            durable.sync_file(tmp_path / "a")


def test_removing_tolerates_absence_and_is_durable(tmp_path, synced, steps):
    file, folder = tmp_path / "a", tmp_path / "d"
    (folder / "e").mkdir(parents=True)
    for path in (file, folder / "x", folder / "e" / "y"):
        path.write_text("text")
    assert durable.remove(file)
    assert not durable.remove(file)
    assert synced == [identity(tmp_path)]
    steps.clear()
    assert durable.remove_tree(folder)
    assert not durable.remove_tree(folder)
    assert list(tmp_path.iterdir()) == []
    assert synced == [identity(tmp_path)] * 2
    removed = [folder / "e" / "y", folder / "e", folder / "x", folder]
    expected = [f"remove {path}" for path in removed] + [f"sync {tmp_path}"]
    assert steps == [step for step in expected for _ in range(2)]


def test_removing_a_tree_does_not_follow_links(tmp_path):
    outside, folder = tmp_path / "outside", tmp_path / "d"
    for path in (outside, folder):
        path.mkdir()
    (outside / "kept").write_text("text")
    (folder / "link").symlink_to(outside)
    (folder / "dangling").symlink_to(tmp_path / "absent")
    (tmp_path / "alias").symlink_to(outside)
    assert durable.remove_tree(folder)
    assert durable.remove_tree(tmp_path / "alias")
    assert [path.name for path in tmp_path.iterdir()] == ["outside"]
    assert (outside / "kept").read_text() == "text"


@pytest.fixture(params=[True, False], ids=["files", "folders"])
def pair(request, tmp_path):
    """Two files, or two folders with a file each, in different folders."""
    paths = [tmp_path / "a" / "one", tmp_path / "b" / "other"]
    for path in paths:
        path.parent.mkdir()
        if not request.param:
            path.mkdir()
        (path if request.param else path / "file").write_text(path.name)
    return paths


def text(path):
    return (path / "file" if path.is_dir() else path).read_text()


def test_two_names_are_exchanged_in_one_step(pair, synced, steps):
    one, other = pair
    if not durable.exchange(one, other):
        pytest.skip("this system or file system cannot exchange names")
    assert (text(one), text(other)) == ("other", "one")
    assert synced == [identity(other.parent), identity(one.parent)]
    assert steps[:2] == [f"replace {other}"] * 2
    with pytest.raises(FileNotFoundError, match="absent"):
        durable.exchange(one, other.with_name("absent"))


@pytest.mark.parametrize("swap", [None, lambda *_: errno.EINVAL, lambda *_: errno.ENOSYS])
def test_where_names_cannot_be_exchanged_nothing_happens(pair, monkeypatch, swap):
    monkeypatch.setattr(durable, "_swap", lambda: swap)
    assert not durable.exchange(*pair)
    assert [text(path) for path in pair] == ["one", "other"]
