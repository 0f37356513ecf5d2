"""Checkpoints of a family's members: where they are, what they hold, how they are read.

Two formats: fair-esm's ``.pt`` (a zip of tensors and a pickle) and safetensors. Of the pickle
nothing is accepted but tensors, plain containers and the `argparse.Namespace` that fair-esm's
checkpoints carry. The contact head's file is not needed.
"""

from __future__ import annotations

import hashlib
import logging
import pickle
import re
import shutil
import struct
import tempfile
from argparse import Namespace
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import URLError

import torch
from safetensors import SafetensorError, safe_open

from rdsearch.errors import WeightsError
from rdsearch.family import TOKENS, Member

__all__ = ["Checkpoint", "Description", "describe", "fetch", "folders", "locate", "obtain"]

_LOGGER = logging.getLogger(__name__)
_PREFIX = re.compile(r"^encoder\.(sentence_encoder\.)?")
_LAYER = re.compile(r"^layers\.(\d+)\.")
# Tensors of a checkpoint that an embedding does not need.
_UNUSED = re.compile(r"^(lm_head\.|contact_head\.|layers\.\d+\.self_attn\.rot_emb\.inv_freq$)")
# The order counts: a member that stands in several folders is taken from the first.
_SUFFIXES = (".pt", ".safetensors")
_EMBEDDING = "embed_tokens.weight"
_FINAL = ("emb_layer_norm_after.weight", "emb_layer_norm_after.bias")
_ZIP = b"PK\x03\x04"
# What reading a damaged zip, pickle or tensor table can raise.
_UNREADABLE = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    OSError,
    RuntimeError,
    SafetensorError,
    TypeError,
    ValueError,
    struct.error,
)


def folders(weights: Path | None = None) -> list[Path]:
    """Where checkpoints are looked for: the folder given, then torch hub's cache."""
    cache = Path(torch.hub.get_dir()) / "checkpoints"
    return [cache] if weights is None else [weights, cache]


def locate(member: Member, weights: Path | None = None) -> Path | None:
    """The checkpoint of a member on this machine, or None.

    Parameters
    ----------
    member : Member
    weights : Path, optional
        A folder with checkpoints, or the member's checkpoint file itself, whatever its name.
    """
    if weights is not None and weights.is_file():
        return weights
    for folder in folders(weights):
        for suffix in _SUFFIXES:
            path = folder / (member.checkpoint + suffix)
            if path.is_file():
                return path
    return member.packaged_path


def obtain(member: Member, weights: Path | None = None) -> Path:
    """The checkpoint of a member; downloaded where it is nowhere on this machine.

    Raises
    ------
    WeightsError
        Absent and not to be had: names the file, the folders and the address.
    """
    if weights is not None and not weights.exists():
        raise WeightsError(
            f"{weights}: there is no such folder or file; expected one with {member.checkpoint}"
            f"{' or '.join(_SUFFIXES)}. Correct --weights, or leave it out to use {folders()[0]}",
            path=weights,
            member=member.name,
        )
    path = locate(member, weights)
    return fetch(member, folders(weights)[0]) if path is None else path


def fetch(member: Member, folder: Path) -> Path:
    """Download a member's checkpoint from fair-esm's address.

    The file gets its name when it is complete and is found to be this member's.

    Raises
    ------
    WeightsError
        No address, no network, or no room.
    """
    path = folder / f"{member.checkpoint}.pt"
    if member.url is None:
        raise WeightsError(
            f"member {member.name} has no download address, and {member.checkpoint}"
            f"{' or '.join(_SUFFIXES)} is not in {folder}. Give its folder with --weights",
            member=member.name,
        )
    _LOGGER.info("downloading %s to %s", member.url, folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".download-") as temporary:
            part = Path(temporary) / path.name
            torch.hub.download_url_to_file(member.url, str(part), progress=False)
            Checkpoint(member, part).check()
            shutil.move(part, path)
    except (URLError, HTTPException, OSError) as error:
        raise WeightsError(
            f"the weights of member {member.name} are missing: {path.name} is not in "
            f"{' or '.join(map(str, dict.fromkeys([folder, *folders()])))}, and {member.url} "
            f"cannot be downloaded ({error}). Download it on a machine with network and put it "
            "there, or give its folder with --weights",
            member=member.name,
            path=path,
            url=member.url,
        ) from error
    return path


@dataclass(frozen=True, slots=True)
class Description:
    """What is known of a member's checkpoint on this machine.

    Attributes
    ----------
    path : Path or None
        Where it is; None where it is in none of `looked_in`.
    size : int or None
        Bytes.
    fingerprint : str or None
        `Checkpoint.fingerprint`.
    looked_in : tuple of Path
        Folders, in the order of preference. What comes with the package is found besides.
    """

    path: Path | None
    size: int | None
    fingerprint: str | None
    looked_in: tuple[Path, ...]


def describe(member: Member, weights: Path | None = None) -> Description:
    """Find a member's checkpoint without downloading it, and say what it is.

    Raises
    ------
    WeightsError
        It is there and unreadable, or not this member's.
    """
    path, looked_in = locate(member, weights), tuple(folders(weights))
    if path is None:
        return Description(None, None, None, looked_in)
    checkpoint = Checkpoint(member, path)
    checkpoint.check()
    return Description(path, path.stat().st_size, checkpoint.fingerprint, looked_in)


@dataclass(frozen=True)
class Checkpoint:
    """A member's parameters on disk.

    Parameters
    ----------
    member : Member
        What the file must hold.
    path : Path
        ``.pt`` or ``.safetensors``.
    """

    member: Member
    path: Path

    @classmethod
    def open(cls, member: Member, weights: Path | None = None) -> Checkpoint:
        """Find a member's checkpoint and check that it is this member's.

        Raises
        ------
        WeightsError
            Absent, unreadable, or of another shape than the member says.
        """
        checkpoint = cls(member, obtain(member, weights))
        checkpoint.check()
        return checkpoint

    @cached_property
    def fingerprint(self) -> str:
        """Hex digest of the first row of every tensor: tells models apart and reads little.

        Training changes every row; a digest of the whole file would read 30 GB for the 15B member.
        """
        digest = hashlib.sha256()
        for name, tensor in self.read(self._expected()).items():
            digest.update(name.encode())
            digest.update(tensor[:1].float().contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]

    def layer(self, i: int) -> dict[str, torch.Tensor]:
        """Parameters of layer i by their names inside the layer; see `read`."""
        prefix = f"layers.{i}."
        found = self.read(prefix + name for name in _layer_shapes(self.member))
        return {name.removeprefix(prefix): tensor for name, tensor in found.items()}

    def ends(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Token embedding, and weight and bias of the norm after the last layer; see `read`."""
        found = self.read([_EMBEDDING, *_FINAL])
        return found[_EMBEDDING], found[_FINAL[0]], found[_FINAL[1]]

    def read(self, names: Iterable[str]) -> dict[str, torch.Tensor]:
        """These tensors as views of the file, which stays mapped as long as one of them lives.

        A ``.pt`` of torch's format before 1.6 cannot be mapped and is read whole each time.
        Pages of the mapping that were read count as this process's memory: copy what is to be
        kept and let go of the views.
        """
        if self.path.suffix == ".safetensors":
            try:
                with safe_open(self.path, framework="pt") as file:
                    return {name: file.get_tensor(name) for name in names}
            except _UNREADABLE as error:
                raise self._wrong(f"it cannot be read ({_first_line(error)})") from error
        state = self._state()
        try:
            return {name: state[name] for name in names}
        except KeyError as error:
            raise self._wrong(f"it lacks the tensor {error}") from error

    def check(self) -> None:
        """Compare the file's tensors with the member's shape.

        Raises
        ------
        WeightsError
            Names what differs.
        """
        found, expected = self._shapes(), self._expected()
        layers = {int(match[1]) for match in map(_LAYER.match, found) if match}
        if layers != set(range(self.member.layers)):
            raise self._wrong(f"expected {self.member.layers} layers, found {len(layers)}")
        missing = sorted(expected.keys() - found.keys())
        if missing:
            raise self._wrong(f"it lacks {len(missing)} tensors, {missing[0]} first")
        foreign = sorted(name for name in found.keys() - expected.keys() if not _UNUSED.match(name))
        if foreign:
            raise self._wrong(f"it has {len(foreign)} tensors too many, {foreign[0]} first")
        for name, shape in expected.items():
            if found[name] != shape:
                raise self._wrong(f"{name}: expected shape {shape}, found {found[name]}")
        heads, token_dropout = self._options()
        if heads != self.member.heads:
            raise self._wrong(f"expected {self.member.heads} attention heads, found {heads}")
        if not token_dropout:
            raise self._wrong("expected a model trained with token dropout, found one without")

    def _expected(self) -> dict[str, tuple[int, ...]]:
        """The tensors an embedding needs, and their shapes."""
        width = self.member.width
        shapes = {_EMBEDDING: (TOKENS, width), _FINAL[0]: (width,), _FINAL[1]: (width,)}
        layer = _layer_shapes(self.member)
        return shapes | {
            f"layers.{i}.{name}": shape
            for i in range(self.member.layers)
            for name, shape in layer.items()
        }

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        if self.path.suffix == ".safetensors":
            try:
                with safe_open(self.path, framework="pt") as file:
                    return {
                        name: tuple(file.get_slice(name).get_shape())
                        for name in file.keys()  # noqa: SIM118
                    }
            except _UNREADABLE as error:
                raise self._wrong(f"it cannot be read ({_first_line(error)})") from error
        return {name: tuple(tensor.shape) for name, tensor in self._state().items()}

    def _options(self) -> tuple[int, bool]:
        """Attention heads and token dropout as the file states them; shapes do not tell."""
        try:
            if self.path.suffix == ".safetensors":
                with safe_open(self.path, framework="pt") as file:
                    stated = file.metadata() or {}
                return int(stated["attention_heads"]), stated["token_dropout"] == "true"
            model = self._content()["cfg"]["model"]
            return int(model.encoder_attention_heads), bool(model.token_dropout)
        except (LookupError, AttributeError, TypeError, ValueError) as error:
            raise self._wrong(
                "it does not state its attention heads and token dropout (cfg.model, or the "
                "metadata attention_heads and token_dropout of a .safetensors file)"
            ) from error

    def _state(self) -> dict[str, torch.Tensor]:
        """The tensors of a fair-esm checkpoint under their short names, mapped, not read."""
        model = self._content().get("model")
        if not isinstance(model, dict) or not all(
            isinstance(value, torch.Tensor) for value in model.values()
        ):
            raise self._wrong("it holds no model: expected fair-esm's 'cfg' and 'model'")
        return {_PREFIX.sub("", str(name)): tensor for name, tensor in model.items()}

    def _content(self) -> dict[str, Any]:
        with torch.serialization.safe_globals([Namespace]):
            try:
                # Torch's format before 1.6 is no zip and cannot be mapped: it is read whole.
                with self.path.open("rb") as file:
                    mapped = file.read(len(_ZIP)) == _ZIP
                content = torch.load(self.path, map_location="cpu", weights_only=True, mmap=mapped)
            except pickle.UnpicklingError as error:
                raise self._wrong(
                    "it holds more than tensors and a Namespace and was not unpickled"
                ) from error
            except _UNREADABLE as error:
                raise self._wrong(f"it cannot be read ({_first_line(error)})") from error
        if not isinstance(content, dict):
            raise self._wrong("it holds no model: expected fair-esm's 'cfg' and 'model'")
        return content

    def _wrong(self, found: str) -> WeightsError:
        return WeightsError(
            f"{self.path}: this is not the checkpoint of member {self.member.name} "
            f"({self.member.checkpoint}): {found}. Download it again, or give another folder with "
            "--weights",
            path=self.path,
            member=self.member.name,
        )


def _layer_shapes(member: Member) -> dict[str, tuple[int, ...]]:
    """Parameters of one layer and their shapes."""
    width = member.width
    shapes: dict[str, tuple[int, ...]] = {}
    for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
        shapes[f"self_attn.{name}.weight"] = (width, width)
        shapes[f"self_attn.{name}.bias"] = (width,)
    for name in ("self_attn_layer_norm", "final_layer_norm"):
        shapes[f"{name}.weight"] = shapes[f"{name}.bias"] = (width,)
    shapes |= {"fc1.weight": (4 * width, width), "fc1.bias": (4 * width,)}
    shapes |= {"fc2.weight": (width, 4 * width), "fc2.bias": (width,)}
    return shapes


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
