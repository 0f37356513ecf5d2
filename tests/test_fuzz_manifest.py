"""Manifests that somebody else wrote: arbitrary JSON under a right checksum, mutated bytes.

What is accepted has the types that the manifest declares, names no path outside the index, and is
written as it was read. Everything else is an error that names the file.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import hashlib
import json
import types
import typing
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from hypothesis import strategies as st

from rdsearch.errors import IndexDamagedError
from rdsearch.manifest import MANIFEST, Manifest
from tests.fuzzing import PIECES, fuzz, mutated
from tests.test_manifest import manifest as made  # noqa: F401


@pytest.fixture
def whole(made: Manifest) -> bytes:  # noqa: F811
    return made.to_bytes()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "index").mkdir()
    return tmp_path / "index"


def signed(table: Any) -> bytes:
    """A manifest with the checksum that belongs to it."""

    def canonical(value: Any) -> bytes:
        text = json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
        return text.encode("utf-8", "surrogatepass")

    if not isinstance(table, dict):
        return canonical(table)
    bare = {key: value for key, value in table.items() if key != "checksum"}
    return canonical({**bare, "checksum": hashlib.sha256(canonical(bare)).hexdigest()})


def read(folder: Path, content: bytes) -> Manifest | None:
    """The manifest, or None where it was refused by name."""
    (folder / MANIFEST).write_bytes(content)
    refused, manifest = None, None
    try:
        manifest = Manifest.read(folder)
    except IndexDamagedError as error:
        refused = str(error)
    if manifest is None:
        assert refused.startswith(str(folder / MANIFEST))
        return None
    fits(manifest, Manifest)
    for file in manifest.all_files():
        path = PurePosixPath(file.path)
        assert not path.is_absolute()
        assert ".." not in path.parts
        assert (folder / path).resolve().is_relative_to(folder.resolve())
    assert manifest.rows >= 0
    assert manifest.to_bytes() == content
    return manifest


def fits(value: Any, declared: Any) -> None:
    """What a dataclass declares is what it holds."""
    inside = typing.get_args(declared)
    if declared is Any:
        return
    if isinstance(declared, types.UnionType):
        assert any(type(value) is part for part in inside if isinstance(part, type)), value
        if dataclasses.is_dataclass(value):
            fits(value, type(value))
    elif typing.get_origin(declared) is tuple:
        assert type(value) is tuple, value
        for place, part in enumerate(value):
            fits(part, inside[0] if inside[-1] is Ellipsis else inside[place])
    elif typing.get_origin(declared) is dict:
        assert type(value) is dict, value
    elif declared is float:
        assert type(value) in (int, float), value
    else:
        assert type(value) is declared, (value, declared)
        if dataclasses.is_dataclass(value):
            for name, kind in typing.get_type_hints(declared).items():
                fits(getattr(value, name), kind)


PATHS = (
    *("..", "../x", "/etc/passwd", "a/../../b", "a\0b", "", ".", "a//b", "a\\..\\b", "~/x"),
    *("manifest.json", "CON", "é", "\u202e", "\ud800", "segments/000001", "x" * 5_000),
)
SCALARS = st.one_of(
    st.sampled_from([None, True, False, 0, 1, -1, 2**31, 2**63, 2**64, 10**4_000, 0.0, -0.0]),
    st.sampled_from([1e308, 5e-324, float("nan"), float("inf"), -float("inf"), 0.5, "1", "nan"]),
    st.sampled_from(PATHS),
    st.integers(),
    st.text(st.characters(), max_size=8),
)
KEYS = st.sampled_from(["", "path", "name", "tiers", "é", "\ud800"])
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=6,
)


def places(value: Any, way: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """Ways to everything inside a JSON value."""
    parts: list[tuple[Any, Any]] = []
    if isinstance(value, dict | list):
        parts = list(value.items() if isinstance(value, dict) else enumerate(value))
    return [
        one for key, part in parts for one in ((*way, key), *places(part, (*way, key)))
    ]  # fmt: skip


def at(value: Any, way: Sequence[str | int]) -> Any:
    return functools.reduce(lambda inner, key: inner[key], way, value)


PLACES = st.integers(0, 1 << 20)
CHANGES = st.one_of(
    st.tuples(PLACES, st.sampled_from(["remove", "twice", "wrap"]), st.none()),
    st.tuples(PLACES, st.just("other"), PLACES),
    st.tuples(PLACES, st.sampled_from(["value", "value", "add"]), VALUES),
)


@fuzz(st.lists(CHANGES, min_size=1, max_size=3), examples=200)
def test_other_values_under_a_right_checksum(folder, whole, changes):
    table, right = json.loads(whole), json.loads(whole)
    for place, change, value in changes:
        found = places(table)
        *way, last = found[place % len(found)]
        parent = at(table, way)
        if change == "remove":
            del parent[last]
        elif change == "twice" and isinstance(parent, list):
            parent.append(parent[last])
        elif change == "add" and isinstance(parent, dict):
            parent[str(value)[:9]] = parent[last]
        elif change == "other":
            parent[last] = copy.deepcopy(at(right, places(right)[value % len(places(right))]))
        elif change == "wrap":
            parent[last] = [parent[last]]
        else:
            parent[last] = value
    read(folder, signed(table))


@fuzz(st.data(), examples=100)
def test_mutated_bytes(folder, whole, data):
    """One changed byte is enough to be refused."""
    content = data.draw(mutated(whole))
    assert (read(folder, content) is not None) == (content == whole)


@fuzz(
    st.one_of(
        st.lists(st.sampled_from(PIECES), max_size=5).map(b"".join),
        st.builds(lambda text, n: text * n, st.sampled_from([b"[", b'{"a":', b"[[],", b"-", b"9"]),
                  st.integers(1, 200_000)),
        VALUES.map(signed),
        st.binary(max_size=50),
    ),
    st.sampled_from(["utf-8", "utf-16", "utf-32", "utf-8-sig"]),
    examples=100,
)  # fmt: skip
def test_anything_but_a_manifest(folder, whole, content, encoding):
    for raw in (content, content.decode("latin-1").encode(encoding)):
        assert read(folder, raw) is None
    assert read(folder, whole.decode().encode("utf-16")) is None


def test_keys_that_are_there_twice(folder, whole):
    """JSON lets the last one count; the canonical form has each once."""
    assert read(folder, whole) is not None
    first = whole.index(b'"chain_hash"')
    assert read(folder, whole[:first] + b'"chain_hash": "x",\n ' + whole[first:]) is None
