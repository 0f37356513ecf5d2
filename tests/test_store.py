"""The embedding store: what it holds, how it goes on, what it refuses."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import shutil
import subprocess

import numpy as np
import pytest

from rdsearch import ingest
from rdsearch.blockfile import locked
from rdsearch.builder import build
from rdsearch.errors import ChainMismatchError, InputError, StoreError, StoreMismatchError
from rdsearch.index import open as open_index
from rdsearch.store import Store
from rdsearch.storewriter import write_store
from tests.stored import BLOCK_ROWS, FAMILY, FakeEmbedder, chain, records, vector


def write(folder, embedder=None, **changes):
    options = {"records": records(), "chain": chain(), "block_rows": BLOCK_ROWS, **changes}
    return write_store(folder, embedder=embedder or FakeEmbedder(), **options)


def contents(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def distinct():
    return list(dict.fromkeys(record.sequence for record in records()))


def test_holds_the_chains_output_of_each_distinct_sequence(tmp_path):
    embedder = FakeEmbedder()
    store = write(tmp_path / "s", embedder)
    raw = [
        np.stack([vector(member, sequence) for sequence in distinct()]) for member in FAMILY.members
    ]
    full = chain().transform(raw)
    np.testing.assert_array_equal(store.rd(), full)
    for tier in store.tiers:
        np.testing.assert_array_equal(store.rd(tier=tier), full[:, : chain().dim(tier)])
        np.testing.assert_array_equal(np.concatenate(list(store.blocks(tier))), store.rd(tier=tier))
    np.testing.assert_array_equal(store.rd(np.array([5, 2])), full[[5, 2]])
    asked = [sequence for name, block in embedder.calls if name == "b" for sequence in block]
    assert asked == distinct()
    assert (store.n_rows, store.n_accessions) == (54, 60)


def test_records_come_back(tmp_path):
    store = write(tmp_path / "s")
    assert list(store.records()) == records()
    rows = [distinct().index(record.sequence) for record in records()]
    assert store.accession_rows.tolist() == rows


def test_row_checksum_is_the_catalogs(tmp_path):
    store = write(tmp_path / "s")
    digests = b"".join(hashlib.sha256(sequence.encode()).digest() for sequence in distinct())
    assert store.row_checksum == hashlib.sha256(digests).hexdigest()
    build(store, chain(), tmp_path / "index")
    with open_index(tmp_path / "index") as index:
        assert index.manifest.segments[0].row_checksum == store.row_checksum


@pytest.mark.parametrize("stop", [0, 1, 6, 7, 8, 13, 20])
def test_goes_on_with_the_first_unfinished_block(tmp_path, stop):
    write(tmp_path / "whole", keep_members=True)
    embedder = FakeEmbedder()
    embedder.fail_at = stop
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "s", embedder, keep_members=True)
    with pytest.raises(StoreError, match=f"not finished: {stop} of 21 blocks"):
        Store.open(tmp_path / "s")
    embedder.fail_at = None
    write(tmp_path / "s", embedder, keep_members=True)
    assert len(embedder.calls) == len(set(embedder.calls)) == 21
    assert contents(tmp_path / "s") == contents(tmp_path / "whole")


def test_a_finished_store_is_not_computed_again(tmp_path):
    write(tmp_path / "s")
    embedder = FakeEmbedder()
    write(tmp_path / "s", embedder)
    assert embedder.calls == []


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"records": records(seed=1)}, "input"),
        ({"records": records()[::-1]}, "input"),
        ({"embedder": FakeEmbedder(dtype="bfloat16")}, "embedding"),
        ({"embedder": FakeEmbedder(window="500")}, "embedding"),
        ({"chain": chain(seed=1)}, "chain"),
        ({"chain": None}, "chain"),
        ({"keep_members": True}, "keep_members"),
        ({"block_rows": 9}, "block_rows"),
    ],
)
@pytest.mark.parametrize("finished", [True, False])
def test_other_input_or_options_are_refused(tmp_path, change, named, finished):
    embedder = FakeEmbedder()
    if finished:
        write(tmp_path / "s", embedder)
    else:
        embedder.fail_at = 3
        with pytest.raises(KeyboardInterrupt):
            write(tmp_path / "s", embedder)
    before = contents(tmp_path / "s")
    with pytest.raises(StoreMismatchError, match=rf"{named}: .* there, .* now") as caught:
        write(tmp_path / "s", **change)
    assert named in caught.value.facts["differences"]
    assert contents(tmp_path / "s") == before


def test_a_foreign_folder_is_refused_and_untouched(tmp_path):
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "thesis.txt").write_text("years")
    with pytest.raises(StoreError, match=r"not an embedding store \(thesis\.txt is in it\)"):
        write(tmp_path / "s")
    assert contents(tmp_path / "s") == {"thesis.txt": b"years"}


def test_leftovers_of_a_crash_before_the_manifest_are_cleared(tmp_path):
    folder = tmp_path / "s"
    folder.mkdir()
    for name in (ingest.PROTEINS, "row_sha256.npy", ".manifest.json.new"):
        (folder / name).write_bytes(b"half")
    write(folder)
    write(tmp_path / "whole")
    assert contents(folder) == contents(tmp_path / "whole")


def _hold(folder, ready, release):
    with locked(folder):
        ready.set()
        release.wait(30)


def test_a_second_writer_is_refused(tmp_path):
    folder = tmp_path / "s"
    folder.mkdir()
    context = multiprocessing.get_context("spawn")
    ready, release = context.Event(), context.Event()
    holder = context.Process(target=_hold, args=(folder, ready, release))
    holder.start()
    assert ready.wait(60)
    with pytest.raises(StoreError, match="another process is writing"):
        write(folder)
    holder.kill()  # the lock goes with the process
    holder.join()
    write(folder)


def test_another_chain_from_kept_members(tmp_path):
    store = write(tmp_path / "s", keep_members=True)
    other = chain(seed=1)
    again = write(tmp_path / "t", chain=other)
    np.testing.assert_array_equal(store.applied(other).rd(), again.rd())
    np.testing.assert_array_equal(store.applied(other).rd(tier="b"), again.rd(tier="b"))
    assert store.applied(chain()) is store
    raw = write(tmp_path / "raw", chain=None)
    np.testing.assert_array_equal(raw.applied(other).rd(), again.rd())
    with pytest.raises(StoreError, match="raw member vectors and no rd"):
        raw.rd()
    with pytest.raises(ChainMismatchError, match="were not kept"):
        again.applied(chain())
    with pytest.raises(StoreError, match="were not kept"):
        again.member("a")
    with pytest.raises(InputError, match="no tier 'z'; it has a, b, c"):
        store.rd(tier="z")


def test_damage_is_named(tmp_path):
    store = write(tmp_path / "s")
    for name in contents(tmp_path / "s"):
        if name == "manifest.json":
            continue
        copy = shutil.copytree(tmp_path / "s", tmp_path / "copy")
        file = copy / name
        whole = bytearray(file.read_bytes())
        file.write_bytes(whole[:-1])
        with pytest.raises(StoreError, match=file.name):
            Store.open(copy)
        whole[len(whole) // 2] ^= 1
        file.write_bytes(whole)
        with pytest.raises(StoreError, match=file.name):
            Store.open(copy).verify()
        file.unlink()
        with pytest.raises(StoreError, match="no file"):
            Store.open(copy)
        shutil.rmtree(copy)
    store.verify()


def test_manifests_that_are_no_stores(tmp_path):
    with pytest.raises(StoreError, match="no embedding store here"):
        Store.open(tmp_path)
    manifest = tmp_path / "manifest.json"
    for text, words in [
        ("{", "cannot be read"),
        ("[]", "expected the manifest of a store"),
        (json.dumps({"format": "rdsearch store", "format_version": 9}), "format version 9"),
    ]:
        manifest.write_text(text)
        with pytest.raises(StoreError, match=words):
            Store.open(tmp_path)


def test_an_empty_input_is_refused(tmp_path):
    with pytest.raises(InputError, match="no protein to embed"):
        write(tmp_path / "s", records=[])
    write(tmp_path / "s")


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 64 KB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)],
        capture_output=True, check=False,
    )  # fmt: skip
    if done.returncode:
        pytest.skip("needs the permission to mount a tmpfs")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_is_named_and_loses_nothing(tmp_path, small_disk):
    options = {"records": records(700), "keep_members": True}
    embedder = FakeEmbedder()
    with pytest.raises(StoreError, match=r"No space left on device.*run the same command again"):
        write(small_disk / "s", embedder, **options)
    subprocess.run(["mount", "-o", "remount,size=4m", str(small_disk)], check=True)
    write(small_disk / "s", embedder, **options)
    assert len(embedder.calls) == len(set(embedder.calls))
    write(tmp_path / "whole", **options)
    assert contents(small_disk / "s") == contents(tmp_path / "whole")


def test_a_read_only_disk_is_named(small_disk):
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(StoreError, match="Read-only file system"):
        write(small_disk / "s")
    assert list(small_disk.iterdir()) == []
