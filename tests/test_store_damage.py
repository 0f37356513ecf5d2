"""Damaged manifests and vector files: a named error, whatever the bytes are."""

from __future__ import annotations

import errno
import json
import random
import subprocess

import numpy as np
import pytest

from rdsearch import ingest
from rdsearch.errors import InputError, StoreError
from rdsearch.exchange import export_store, read_vectors
from rdsearch.store import MANIFEST, Store
from rdsearch.storewriter import write_store
from tests.stored import BLOCK_ROWS, FakeEmbedder, chain, records, tmpfs


@pytest.fixture
def store(tmp_path):
    return write_store(tmp_path / "s", records(20), FakeEmbedder(), chain(), block_rows=BLOCK_ROWS)


WRONG = [None, [], {}, "", 3.5, -1, True, [1], [{}], [{"name": "a"}], {"a": None}, {"a": [1]}]


@pytest.mark.parametrize(
    "name",
    ["block_rows", "chain", "embedding", "family", "files", "input", "keep_members", "members",
     "rows"],
)  # fmt: skip
def test_an_entry_that_no_store_writes_is_named(store, name):
    path = store.path / MANIFEST
    manifest = json.loads(path.read_text())
    right = type(manifest[name])
    fine = {"chain": [None, ""], "family": [""], "input": [""], "embedding": [{}], "files": [{}]}
    fine["keep_members"] = [True]
    for value in WRONG:
        if any(
            value is one or (type(value) is right and value == one) for one in fine.get(name, [])
        ):
            continue
        changed = {**manifest, name: value}
        for unfinished in (False, True):
            if unfinished:
                changed.pop("files", None)
                if name == "files":
                    continue
            path.write_text(json.dumps(changed))
            with pytest.raises(StoreError, match=f"its {name} cannot be right"):
                Store.open(store.path)
            with pytest.raises(StoreError, match=f"its {name} cannot be right"):
                write_store(store.path, records(20), FakeEmbedder(), chain())


@pytest.mark.parametrize("suffix", [".npy", ".h5", ".parquet"])
def test_flipped_and_cut_vector_files_give_named_errors(tmp_path, store, suffix):
    path = tmp_path / f"v{suffix}"
    export_store(store, path)
    whole = path.read_bytes()
    rng = random.Random(0)
    named = read = 0
    for i in range(300):
        content = bytearray(whole)
        if i % 3 == 0:
            del content[rng.randrange(len(whole)) :]
        else:  # mostly in the headers
            reach = len(whole) if i % 3 == 1 else min(2500, len(whole))
            for _ in range(rng.choice((1, 4, 30))):
                content[rng.randrange(reach)] = rng.randrange(256)
        path.write_bytes(content)
        try:
            read_vectors(path)
        except InputError as error:
            named += str(path) in str(error)
        else:
            named += 1  # the damage is in a vector or a name, where nothing can tell
            read += 1
    assert named == 300
    assert read < 200


def test_a_npy_header_that_is_no_python_is_named(tmp_path, store):
    path = tmp_path / "v.npy"
    export_store(store, path)
    path.write_bytes(path.read_bytes().replace(b"}", b"(", 1))
    with pytest.raises(InputError, match="cannot be read"):
        read_vectors(path)


def test_no_array_of_the_proteins_is_cut_in_silence(tmp_path):
    """4,128 bytes: the end that needs a second page is what C would hold in a buffer."""
    short = records(500)
    ingest.write(tmp_path, short)
    expected = {name: np.load(tmp_path / f"{name}.npy") for name in ingest.ARRAYS}
    assert expected["accession_rows"].nbytes == 4000  # and 128 of header
    failed = 0
    with tmpfs(tmp_path / "disk", "4k") as disk:
        for pages in range(2, 40):
            resize = ["mount", "-o", f"remount,size={4 * pages}k", str(disk)]
            subprocess.run(resize, check=True)
            try:
                ingest.write(disk, short)
            except OSError as error:
                failed += error.errno == errno.ENOSPC
            else:
                break
        for name, array in expected.items():
            np.testing.assert_array_equal(np.load(disk / f"{name}.npy"), array)
    assert failed == pages - 2 > 5
