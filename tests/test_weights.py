"""Checkpoints are found, fetched and refused."""

from __future__ import annotations

import functools
import os
import pickle
import random
import shutil
import threading
from dataclasses import replace
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from rdsearch import family
from rdsearch.errors import WeightsError
from rdsearch.family import Member
from rdsearch.weights import Checkpoint, describe, fetch, locate, obtain
from tests import fairesm

TINY = Member("tiny", "esm2_tiny", 2, 32, 2, url="http://127.0.0.1:1/esm2_tiny.pt")
MINI = family.MINI.members[0]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    """Torch hub's cache, empty."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    folder = tmp_path / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def tiny(tmp_path) -> Path:
    (tmp_path / "weights").mkdir()
    return fairesm.save(fairesm.random(TINY), tmp_path / "weights" / "esm2_tiny.pt")


@pytest.fixture
def server(tmp_path):
    """A folder and the address under which it is served."""
    folder = tmp_path / "served"
    folder.mkdir()

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    served = ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Handler, directory=str(folder))
    )
    thread = threading.Thread(target=served.serve_forever, daemon=True)
    thread.start()
    yield folder, f"http://127.0.0.1:{served.server_port}"
    served.shutdown()
    thread.join()
    served.server_close()


def test_the_folder_given_comes_before_the_cache_and_the_package(tmp_path, cache):
    name = f"{MINI.checkpoint}.safetensors"
    assert locate(MINI) == MINI.packaged_path
    shutil.copy(MINI.packaged_path, cache / name)
    assert locate(MINI) == locate(MINI, tmp_path) == cache / name
    shutil.copy(MINI.packaged_path, tmp_path / name)
    assert locate(MINI, tmp_path) == tmp_path / name
    assert locate(MINI, cache / name) == cache / name
    assert locate(TINY, tmp_path) is None


def test_absent_and_offline_names_file_folders_and_address(tmp_path, cache):
    with pytest.raises(WeightsError) as caught:
        obtain(TINY, tmp_path)
    for part in ("esm2_tiny.pt", str(tmp_path), str(cache), TINY.url, "--weights"):
        assert part in str(caught.value)
    assert sorted(tmp_path.iterdir()) == [tmp_path / "torch"]


def test_a_folder_that_is_not_there_is_not_passed_over(tmp_path):
    with pytest.raises(WeightsError, match=r"nowhere: there is no such folder"):
        Checkpoint.open(MINI, tmp_path / "nowhere")


def test_a_member_without_address(tmp_path):
    with pytest.raises(WeightsError, match="no download address"):
        obtain(replace(TINY, url=None), tmp_path)


def test_fetch(server, tiny, tmp_path):
    folder, address = server
    member = replace(TINY, url=f"{address}/esm2_tiny.pt")
    with pytest.raises(WeightsError, match="404"):
        fetch(member, tmp_path / "new")
    shutil.copy(tiny, folder)
    path = fetch(member, tmp_path / "new")
    assert path.read_bytes() == tiny.read_bytes()
    assert list((tmp_path / "new").iterdir()) == [path]


def test_what_is_fetched_and_not_the_member_gets_no_name(server, tiny, tmp_path):
    folder, address = server
    (folder / "esm2_tiny.pt").write_bytes(tiny.read_bytes()[:-1000])
    with pytest.raises(WeightsError, match="cannot be read"):
        fetch(replace(TINY, url=f"{address}/esm2_tiny.pt"), tmp_path / "new")
    assert not list((tmp_path / "new").iterdir())


def test_describe(tiny, cache):
    absent = describe(TINY)
    assert (absent.path, absent.size, absent.fingerprint) == (None, None, None)
    assert absent.looked_in == (cache,)
    found = describe(TINY, tiny.parent)
    assert (found.path, found.size) == (tiny, tiny.stat().st_size)
    assert found.fingerprint == Checkpoint.open(TINY, tiny).fingerprint
    assert found.looked_in == (tiny.parent, cache)


def test_one_changed_matrix_is_another_fingerprint(tiny, tmp_path):
    model = fairesm.random(TINY)
    before = Checkpoint.open(TINY, tiny).fingerprint
    assert before == Checkpoint.open(TINY, fairesm.save(model, tmp_path / "same.pt")).fingerprint
    with torch.no_grad():
        model.layers[1].fc2.weight += 1e-3
    assert before != Checkpoint.open(TINY, fairesm.save(model, tmp_path / "b.pt")).fingerprint


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layers": 3}, "expected 3 layers, found 2"),
        ({"layers": 1}, "expected 1 layers, found 2"),
        ({"width": 64}, r"embed_tokens.weight: expected shape \(33, 64\), found \(33, 32\)"),
        ({"heads": 4}, "expected 4 attention heads, found 2"),
    ],
    ids=str,
)
def test_another_shape(tiny, change, message):
    with pytest.raises(WeightsError, match=message):
        Checkpoint.open(replace(TINY, **change), tiny.parent)


def _without_tensor(content):
    del content["model"]["encoder.sentence_encoder.layers.1.fc1.bias"]


def _with_tensor(content):
    content["model"]["encoder.sentence_encoder.emb_layer_norm_before.bias"] = torch.ones(32)


def _without_dropout(content):
    content["cfg"]["model"].token_dropout = False


def _without_heads(content):
    del content["cfg"]["model"].encoder_attention_heads


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_without_tensor, "lacks 1 tensors, layers.1.fc1.bias first"),
        (_with_tensor, "1 tensors too many, emb_layer_norm_before.bias first"),
        (_without_dropout, "trained with token dropout"),
        (_without_heads, "does not state its attention heads"),
        (lambda content: content.pop("cfg"), "does not state its attention heads"),
        (lambda content: content.pop("model"), "holds no model"),
        (lambda content: content.update(model={"a": 1}), "holds no model"),
    ],
)
def test_content_that_is_not_a_members(tmp_path, change, message):
    content = fairesm.content(fairesm.random(TINY))
    change(content)
    path = tmp_path / "changed.pt"
    torch.save(content, path)
    with pytest.raises(WeightsError, match=message):
        Checkpoint.open(TINY, path)


def test_a_checkpoint_in_torchs_old_format(tmp_path):
    """No zip, so that it cannot be mapped: it is read whole."""
    path = tmp_path / "old.pt"
    content = fairesm.content(fairesm.random(TINY))
    torch.save(content, path, _use_new_zipfile_serialization=False)
    layer = Checkpoint.open(TINY, path).layer(1)
    expected = content["model"]["encoder.sentence_encoder.layers.1.fc1.weight"]
    assert torch.equal(layer["fc1.weight"], expected)


@pytest.mark.parametrize("content", [b"", b"not weights\n", b"PK\x03\x04", b"\x80\x02."], ids=repr)
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_file_that_is_no_checkpoint(tmp_path, content, suffix):
    path = tmp_path / f"garbage{suffix}"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"garbage.*not the checkpoint of member tiny"):
        Checkpoint.open(TINY, path)


class _Payload:
    """Unpickled, it makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("write", [torch.save, lambda c, p: p.write_bytes(pickle.dumps(c))])
def test_a_checkpoint_that_would_run_code(tmp_path, write):
    content = fairesm.content(fairesm.random(TINY))
    content["model"]["payload"] = _Payload(tmp_path / "ran")
    path = tmp_path / "bad.pt"
    write(content, path)
    with pytest.raises(WeightsError, match=r"bad\.pt"):
        Checkpoint.open(TINY, path)
    assert not (tmp_path / "ran").exists()


def test_damaged_checkpoints_are_named(tiny, tmp_path):
    """Any error that is not a WeightsError fails the test; a flipped weight goes unnoticed."""
    draw = random.Random(3)
    refused = 0
    for good in (tiny, MINI.packaged_path):
        member = TINY if good == tiny else MINI
        content = good.read_bytes()
        path = tmp_path / f"damaged{good.suffix}"
        for trial in range(60):
            damaged = bytearray(content)
            # The pickle and the tensor table stand first.
            for _ in range(3):
                damaged[draw.randrange(3000)] = draw.randrange(256)
            path.write_bytes(damaged if trial % 3 else content[: draw.randrange(len(content))])
            try:
                Checkpoint.open(member, path).layer(0)
            except WeightsError as error:
                assert str(path) in str(error)  # noqa: PT017
                refused += 1
    assert refused > 60


def test_safetensors_must_state_their_heads(tmp_path):
    path = tmp_path / "silent.safetensors"
    tensors = load_file(MINI.packaged_path)
    save_file(tensors, path)
    with pytest.raises(WeightsError, match="does not state its attention heads"):
        Checkpoint.open(MINI, path)
    save_file(tensors, path, {"attention_heads": "4", "token_dropout": "true"})
    with pytest.raises(WeightsError, match="expected 2 attention heads, found 4"):
        Checkpoint.open(MINI, path)


def test_parameters_are_the_checkpoints():
    for member in family.MINI.members:
        tensors = load_file(member.packaged_path)
        expected = sum(
            one.numel() for name, one in tensors.items() if not name.startswith("lm_head")
        )
        assert member.parameters == expected
