"""The embedding store: what it holds, how it goes on, what it refuses."""

from __future__ import annotations

import errno
import hashlib
import json
import multiprocessing
import os
import re
import shutil
import subprocess
from dataclasses import replace

import numpy as np
import pytest

from rdsearch import ingest
from rdsearch.builder import build
from rdsearch.errors import (
    ChainMismatchError,
    EmbeddingError,
    InputError,
    StoreError,
    StoreMismatchError,
)
from rdsearch.index import open as open_index
from rdsearch.locks import writing
from rdsearch.store import Store
from rdsearch.storewriter import write_store
from tests.stored import BLOCK_ROWS, FAMILY, FakeEmbedder, chain, records, tmpfs, vector


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
    assert store.accessions == [record.accession for record in records()]
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
        ({"embedder": FakeEmbedder(dtype="bfloat16")}, "embedding.dtype"),
        ({"embedder": FakeEmbedder(window="500")}, "embedding.window"),
        ({"embedder": FakeEmbedder(layers="streamed")}, "embedding.layers"),
        ({"chain": chain(seed=1)}, "chain"),
        ({"chain": None}, "chain"),  # which keeps the members
        ({"keep_members": True}, "keep_members"),
        ({"block_rows": 9}, "block_rows"),
    ],
)
@pytest.mark.parametrize("finished", [True, False])
def test_other_input_or_options_are_refused(tmp_path, change, named, finished):
    also = ["keep_members"] if change == {"chain": None} else []
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
    assert list(caught.value.facts["differences"]) == [named, *also]
    assert contents(tmp_path / "s") == before


def test_a_foreign_folder_is_refused_and_untouched(tmp_path):
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "thesis.txt").write_text("years")
    with pytest.raises(StoreError, match=r"not an embedding store \(thesis\.txt is in it\)"):
        write(tmp_path / "s")
    assert contents(tmp_path / "s") == {"thesis.txt": b"years"}


def test_the_users_own_proteins_are_not_taken_for_leftovers(tmp_path):
    own = tmp_path / "data" / ingest.PROTEINS
    own.parent.mkdir()
    own.write_text(">mine\nMKV\n")
    with pytest.raises(StoreError, match=r"proteins\.fasta is in it"):
        write(own.parent)
    assert contents(own.parent) == {ingest.PROTEINS: b">mine\nMKV\n"}
    with pytest.raises(StoreError, match="is a file"):
        write(own)


def test_values_that_differ_are_both_shown(tmp_path):
    write(tmp_path / "s")
    other = FakeEmbedder(dtype="bfloat16", window="500")
    with pytest.raises(StoreMismatchError) as caught:
        write(tmp_path / "s", other)
    assert "embedding.dtype: float32 there, bfloat16 now; " in str(caught.value)
    assert "embedding.window: 1022 there, 500 now" in str(caught.value)
    fewer = FakeEmbedder()
    fewer.members = FAMILY.members[:2]
    with pytest.raises(StoreMismatchError, match="members: a, b, c there, a, b now"):
        write(tmp_path / "s", fewer, chain=None)
    wider = FakeEmbedder()
    wider.members = (*FAMILY.members[:2], replace(FAMILY.members[2], width=8))
    with pytest.raises(StoreMismatchError, match=r"members\.c\.width: 9 there, 8 now"):
        write(tmp_path / "s", wider, chain=None)


def test_input_that_breaks_off_leaves_nothing(tmp_path):
    def broken():
        yield from records()[:30]
        raise InputError("line 61 is no protein")

    with pytest.raises(InputError, match="line 61"):
        write(tmp_path / "s", records=broken())
    assert not (tmp_path / "s").exists()
    (tmp_path / "mine").mkdir()
    with pytest.raises(InputError, match="line 61"):
        write(tmp_path / "mine", records=broken())
    assert list((tmp_path / "mine").iterdir()) == []


def _stopped(folder, calls):
    embedder = FakeEmbedder()
    embedder.fail_at = calls
    with pytest.raises(KeyboardInterrupt):
        write(folder, embedder)


def test_an_array_that_is_gone_is_computed_again(tmp_path):
    _stopped(tmp_path / "s", 10)
    (tmp_path / "s" / "parts" / "a.npy").unlink()
    embedder = FakeEmbedder()
    write(tmp_path / "s", embedder)
    assert [name for name, _ in embedder.calls] == ["a"] * 7 + ["b"] * 4 + ["c"] * 7
    write(tmp_path / "whole")
    assert contents(tmp_path / "s") == contents(tmp_path / "whole")


@pytest.mark.parametrize("damage", ["cut", "other"])
def test_a_damaged_array_of_an_unfinished_store_is_named(tmp_path, damage):
    _stopped(tmp_path / "s", 3)
    array = tmp_path / "s" / "parts" / "a.npy"
    array.write_bytes(array.read_bytes()[:-4] if damage == "cut" else b"x" * array.stat().st_size)
    with pytest.raises(StoreError, match=r"a\.npy: expected an array of shape \(54, 4\)"):
        write(tmp_path / "s")


def test_damaged_proteins_are_not_embedded(tmp_path):
    _stopped(tmp_path / "s", 3)
    proteins = tmp_path / "s" / ingest.PROTEINS
    content = bytearray(proteins.read_bytes())
    at = content.find(records()[40].sequence.encode())
    content[at] = ord("X")
    proteins.write_bytes(content)
    row = distinct().index(records()[40].sequence)
    with pytest.raises(StoreError, match=f"the sequence of row {row} is not the one"):
        write(tmp_path / "s")


@pytest.mark.parametrize("with_chain", [True, False])
def test_an_embedder_that_is_wrong_is_named(tmp_path, with_chain):
    class Wrong(FakeEmbedder):
        def pool(self, member, sequences, *, progress=None):
            return self.spoil(super().pool(member, sequences))

    embedder = Wrong()
    made = chain() if with_chain else None
    for embedder.spoil, words in [
        (lambda vectors: vectors[:-1], r"shape \(8, 4\), the embedder gave \(7, 4\)"),
        (lambda vectors: vectors[:, 1:], r"shape \((8|rows), 4\).* \(8, 3\)"),
        (lambda vectors: vectors / np.float32(0), "not finite"),
    ]:
        with pytest.raises((EmbeddingError, InputError), match=words), np.errstate(divide="ignore"):
            write(tmp_path / "s", embedder, chain=made)
    write(tmp_path / "s", chain=made)


def test_without_room_taken_beforehand(tmp_path, monkeypatch):
    """File systems and systems that cannot do that."""
    write(tmp_path / "whole")

    def refuse(*_):
        raise OSError(errno.EOPNOTSUPP, "not supported")

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    write(tmp_path / "s")
    monkeypatch.delattr(os, "posix_fallocate")
    write(tmp_path / "t")
    assert contents(tmp_path / "s") == contents(tmp_path / "t") == contents(tmp_path / "whole")


def _hold(folder, ready, release):
    with writing(folder, "store", operation="embed"):
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
    with pytest.raises(StoreError, match=rf"is writing this store \(process {holder.pid} on "):
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
        opened = Store.open(copy)
        with pytest.raises(StoreError, match=file.name):
            opened.verify()
        file.unlink()
        with pytest.raises(StoreError, match="no file"):
            Store.open(copy)
        with pytest.raises(StoreError, match="cannot be read"):
            opened.verify()
        shutil.rmtree(copy)
    store.verify()


def test_manifests_that_are_no_stores(tmp_path):
    with pytest.raises(StoreError, match="no embedding store here"):
        Store.open(tmp_path)
    manifest = tmp_path / "manifest.json"
    for text, words in [
        ("{", "cannot be read"),
        ("[]", "expected the manifest of a store"),
        (json.dumps({"format": "rdsearch index"}), "found 'rdsearch index'"),
        (json.dumps({"format": "rdsearch store", "format_version": 1, "input": ""}), "lacks block"),
        (json.dumps({"format": "rdsearch store", "format_version": 1}), "were not read to the end"),
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
    with tmpfs(tmp_path / "disk", "8k") as folder:
        yield folder


@pytest.mark.parametrize("keep_members", [True, False])
def test_a_full_disk_is_named_and_loses_nothing(tmp_path, small_disk, keep_members):
    """The disk grows page by page, so that it is full in every phase once."""
    folder, embedder = small_disk / "s", FakeEmbedder()
    # Arrays of several pages.
    options = {"records": records(700), "block_rows": 90, "keep_members": keep_members}
    stopped_at = set()
    for pages in range(2, 120):
        subprocess.run(["mount", "-o", f"remount,size={4 * pages}k", str(small_disk)], check=True)
        try:
            write(folder, embedder, **options)
            break
        except StoreError as error:
            message = str(error)
        assert re.search(r"No space left on device\).*run the same command again", message)
        stopped_at.add(len(embedder.calls))
    assert {0, 7, 14} <= stopped_at  # before each member; its arrays take their room first
    assert len(embedder.calls) == len(set(embedder.calls)) == 21
    write(tmp_path / "whole", **options)
    assert contents(folder) == contents(tmp_path / "whole")


def test_a_read_only_disk_is_named(small_disk):
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(StoreError, match="Read-only file system"):
        write(small_disk / "s")
    assert list(small_disk.iterdir()) == []
