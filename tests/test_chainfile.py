"""Chain files: what is saved is what is loaded, and damage is noticed."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from rdsearch import chainfile
from rdsearch.chain import Chain
from rdsearch.errors import ChainError
from rdsearch.moments import Moments

from .synthetic import members, residues

WIDTHS = (5, 8, 11)
VECTORS = residues(0, 400, WIDTHS)
ENTRY = "rdsearch.chain"


def fit(targets: list[int | None] | None = None) -> Chain:
    moments = Moments(WIDTHS)
    moments.update(np.concatenate(VECTORS, axis=1))
    return Chain.fit(moments, "made-up", members(WIDTHS, targets))


@pytest.fixture(params=[None, [4, 6, 9]], ids=["widths", "targets"])
def chain(request) -> Chain:
    return fit(request.param)


@pytest.fixture
def saved(chain: Chain, tmp_path: Path) -> Path:
    chain.save(tmp_path / "chain.safetensors")
    return tmp_path / "chain.safetensors"


def refused(path: Path) -> str:
    """The message, which must name the file."""
    with pytest.raises(ChainError) as caught:
        Chain.load(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_a_loaded_chain_is_bit_for_bit_the_saved_one(chain, saved):
    loaded = Chain.load(saved)
    assert loaded.hash == chain.hash
    for name in ("family", "members", "tiers", "boundaries", "n_residues"):
        assert getattr(loaded, name) == getattr(chain, name)
    assert [step.report() for step in loaded.steps] == [step.report() for step in chain.steps]
    assert np.array_equal(loaded.mean_, chain.mean_)
    assert loaded.transform(VECTORS).tobytes() == chain.transform(VECTORS).tobytes()
    for tier in chain.tiers:
        assert loaded.upto(tier).hash == chain.upto(tier).hash
    assert repr(loaded) == repr(chain)


def test_the_same_chain_gives_the_same_bytes(chain, saved, tmp_path):
    Chain.load(saved).save(tmp_path / "again.safetensors")
    fit([member.target for member in chain.members]).save(tmp_path / "refitted.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == saved.read_bytes()
    assert (tmp_path / "refitted.safetensors").read_bytes() == saved.read_bytes()
    assert {path.suffix for path in tmp_path.iterdir()} == {".safetensors"}


def test_what_the_metadata_says(chain, saved):
    with safe_open(saved, framework="numpy") as file:
        said = json.loads(file.metadata()[ENTRY])
    assert said["format"] == 1
    assert said["hash"] == chain.hash
    assert said["residues"] == 400
    assert said["boundaries"] == list(chain.boundaries)
    assert [member["width"] for member in said["members"]] == list(WIDTHS)
    assert [step["n_components"] for step in said["steps"]] == [
        step.n_components_ for step in chain.steps
    ]


def test_saving_replaces_and_a_failure_leaves_the_old_file(chain, saved, tmp_path):
    shorter = chain.upto("m1")
    shorter.save(saved)
    assert Chain.load(saved).hash == shorter.hash
    with pytest.raises(ChainError, match="cannot be written"):
        chain.save(tmp_path / "nowhere" / "chain.safetensors")
    (tmp_path / "folder").mkdir()
    with pytest.raises(ChainError, match="cannot be written"):
        chain.save(tmp_path / "folder")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["chain.safetensors", "folder"]


def test_one_flipped_bit_in_any_array_is_noticed(saved):
    data = saved.read_bytes()
    header_length = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + header_length])
    header.pop("__metadata__")
    for entry in header.values():
        start, end = entry["data_offsets"]
        # First, middle and last byte; lowest and sign bit.
        for offset in {start, (start + end) // 2, end - 1}:
            for bit in (0, 7):
                damaged = bytearray(data)
                damaged[8 + header_length + offset] ^= 1 << bit
                saved.write_bytes(damaged)
                assert "damaged" in refused(saved)


def test_one_flipped_bit_anywhere_in_the_header_is_noticed(saved):
    data = saved.read_bytes()
    end = 8 + struct.unpack("<Q", data[:8])[0]
    for position in range(end):
        damaged = bytearray(data)
        damaged[position] ^= 1 << (position % 7)
        saved.write_bytes(damaged)
        refused(saved)


def test_truncated_and_lengthened_files(saved):
    data = saved.read_bytes()
    for length in (0, 1, 7, 8, 9, 100, len(data) // 2, len(data) - 1):
        saved.write_bytes(data[:length])
        refused(saved)
    saved.write_bytes(data + b"\0")
    refused(saved)


def test_files_that_are_no_chain(tmp_path):
    path = tmp_path / "chain.safetensors"
    assert "no chain file here" in refused(path)
    assert "no chain file here" in refused(tmp_path)
    for content in (b">sp|P1\nMKV\n", b"\0" * 1000, b"\xff" * 1000, bytes(range(256)) * 9):
        path.write_bytes(content)
        refused(path)
    save_file({"x": np.zeros(3)}, path)
    assert "without the metadata" in refused(path)
    for text in ("", "[]", "{}", "null", '{"format": "1"}', '{"format": 0}', '{"format": 1}'):
        save_file({"x": np.zeros(3)}, path, metadata={ENTRY: text})
        refused(path)


def test_a_newer_format(chain, saved, monkeypatch):
    monkeypatch.setattr(chainfile, "FORMAT", 2)
    chain.save(saved)
    monkeypatch.undo()
    assert "format 2, this rdsearch reads up to 1. Update rdsearch" in refused(saved)


def forged(chain: Chain, path: Path, **changes: object) -> Path:
    """A file with a right hash and wrong content."""
    header, arrays = chain._header(), chain._arrays()
    for name, value in changes.items():
        name = name.replace("__", ".")
        place = arrays if name in arrays or isinstance(value, np.ndarray) else header
        if value is None:
            del place[name]
        else:
            place[name] = value
    chainfile.write(path, header, arrays)
    return path


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mean": None}, "not complete or not consistent"),
        ({"m1__weights": None}, "m1.weights"),
        ({"members": None}, "members"),
        ({"members": []}, "not complete or not consistent"),
        ({"members": [{"name": "m0"}]}, "not complete or not consistent"),
        ({"steps": []}, "not complete or not consistent"),
        ({"steps": [{}, {}]}, "n_components"),
        ({"m1__weights": np.zeros((5, 7))}, "weights of a step have shape"),
        ({"m1__directions": np.zeros((8, 2))}, "do not fit its members"),
        ({"mean": np.zeros(10)}, "do not fit its members"),
        ({"surplus": np.zeros(3)}, "more than a chain"),
        ({"surplus": 1}, "more than a chain"),
        ({"boundaries": [1, 2, 3]}, "more than a chain"),
    ],
)
def test_incomplete_files_with_a_right_hash(changes, message, tmp_path):
    path = forged(fit(), tmp_path / "chain.safetensors", **changes)
    assert message in refused(path)


def test_arrays_of_another_type(chain, saved):
    with safe_open(saved, framework="numpy") as file:
        metadata = file.metadata()
        arrays = {name: file.get_tensor(name).astype(np.float32) for name in file.keys()}  # noqa: SIM118
    save_file(arrays, saved, metadata=metadata)
    assert "must be float64, found float32" in refused(saved)


def test_the_hash_covers_everything(chain):
    header, arrays = chain._header(), chain._arrays()
    assert chainfile.digest(header, arrays) == chain.hash
    assert chainfile.digest(dict(reversed(header.items())), arrays) == chain.hash
    for name, array in arrays.items():
        changed = array.copy()
        changed.flat[-1] = np.nextafter(changed.flat[-1], 1e9)
        assert chainfile.digest(header, {**arrays, name: changed}) != chain.hash
        reshaped = array.reshape(1, *array.shape)
        assert chainfile.digest(header, {**arrays, name: reshaped}) != chain.hash
    for name in header:
        assert chainfile.digest({**header, name: "other"}, arrays) != chain.hash


def test_loading_and_applying_import_nothing_heavy(saved):
    code = (
        "import sys, numpy as np; from rdsearch.chain import Chain\n"
        f"chain = Chain.load({str(saved)!r})\n"
        f"chain.transform([np.ones((2, w), dtype=np.float32) for w in {WIDTHS}])\n"
        "print(sorted({'torch', 'faiss', 'duckdb', 'scipy'} & set(sys.modules)), chain.hash)"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert run.stdout.split("]")[0] == "["
    # The hash is the same in another process.
    assert run.stdout.split()[-1] == Chain.load(saved).hash
