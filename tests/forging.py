"""Indexes of somebody who knows the format: the checksums are right, the content is not."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rdsearch.fileentry import FileEntry
from rdsearch.generations import generation_file
from rdsearch.manifest import MANIFEST

#: What stands in place of a value.
ODD: tuple[Any, ...] = (
    None, True, -1, 0, 1, 7, 1 << 31, 10**15, 1 << 80, 1e308, "", "x", "../../x", "/etc/passwd",
    "a\\b", "a\0b", [], ["x"], [-1], [10**15], {}, {"x": 1},
)  # fmt: skip


def read(path: Path) -> dict[str, Any]:
    """The manifest of an index as a table."""
    return json.loads((path / MANIFEST).read_bytes())


def signed(table: dict[str, Any]) -> bytes:
    """A manifest file with its checksum, written as rdsearch writes it."""

    def canonical(some: dict[str, Any]) -> bytes:
        return (json.dumps(some, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()

    body = {key: value for key, value in table.items() if key != "checksum"}
    return canonical({**body, "checksum": hashlib.sha256(canonical(body)).hexdigest()})


def sign(path: Path, table: dict[str, Any]) -> None:
    """Publish a manifest."""
    (path / MANIFEST).write_bytes(signed(table))
    generation_file(path, 3).write_bytes(signed(table))


def entries(table: dict[str, Any]) -> list[dict[str, Any]]:
    """What a manifest says about all files."""
    own = [*table["files"], table["tombstones"]]
    return [*own, *(file for segment in table["segments"] for file in segment["files"])]


def resign(path: Path, file: str) -> None:
    """Let the manifest say that a file is as it should be."""
    table = read(path)
    for entry in entries(table):
        if entry["path"] == file:
            entry.update(json.loads(json.dumps(asdict(FileEntry.of(path, file)))))
    sign(path, table)


def places(table: Any, before: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every value in a manifest, but its checksum."""
    items = table.items() if isinstance(table, dict) else enumerate(table)
    for key, value in items:
        if key == "checksum":
            continue
        yield (*before, key)
        if isinstance(value, dict | list):
            yield from places(value, (*before, key))


def changed(table: dict[str, Any], place: tuple[Any, ...], value: Any) -> dict[str, Any]:
    """A copy with another value at a place."""
    forged = json.loads(json.dumps(table))
    inside = forged
    for key in place[:-1]:
        inside = inside[key]
    inside[place[-1]] = value
    return forged
