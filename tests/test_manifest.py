"""Manifest: canonical bytes, its own checksum, paths that stay inside."""

from __future__ import annotations

import json
import random

import pytest

from rdsearch import recipe
from rdsearch.errors import IndexDamagedError, IndexMissingError, InputError
from rdsearch.fileentry import FileEntry
from rdsearch.funnel import Funnel
from rdsearch.generations import publish
from rdsearch.guarantee import Guarantee
from rdsearch.manifest import Manifest, SegmentEntry, TierEntry


@pytest.fixture
def manifest(tmp_path):
    (tmp_path / "data.bin").write_bytes(bytes(range(256)) * 1024)
    entry = FileEntry.of(tmp_path, "data.bin")
    made = Manifest(
        generation=1,
        operation="build",
        created="2026-01-01T00:00:00+00:00",
        rdsearch="0.1.0",
        family="mini",
        chain_hash="ab" * 32,
        embedding={"dtype": "float32", "window": 1022},
        space="centred",
        recipe=recipe.load("exact"),
        tiers=(TierEntry("a", 8, "rabitq", 20), TierEntry("b", 16, "flat")),
        scan=TierEntry("a.scan", 8, "pq4"),
        funnel=Funnel(("a", "b"), (100,), 4),
        guarantee=Guarantee(0.99, 0.95, 10, 500, 0.995, "sample", 0),
        segments=(SegmentEntry("000001", 3, 4, 0, 0, "cd" * 32, (entry,)),),
        tombstones=None,
        files=(entry,),
    )
    publish(tmp_path, made)
    return made


def test_round_trip(manifest, tmp_path):
    assert Manifest.read(tmp_path) == manifest
    assert (tmp_path / "manifest.json").read_bytes() == manifest.to_bytes()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_every_flipped_bit_is_noticed(manifest, tmp_path):
    content = manifest.to_bytes()
    for position in range(len(content)):
        changed = bytearray(content)
        changed[position] ^= 1 << random.Random(position).randrange(8)
        with pytest.raises(IndexDamagedError, match=r"manifest\.json"):
            Manifest.from_bytes(bytes(changed), tmp_path / "manifest.json")


def test_other_white_space_is_noticed(manifest, tmp_path):
    content = manifest.to_bytes()
    assert json.loads(content.replace(b"\n", b" ")) == json.loads(content)
    with pytest.raises(IndexDamagedError, match="its own checksum"):
        Manifest.from_bytes(content.replace(b"\n", b" ", 1), tmp_path / "manifest.json")


def test_newer_format_is_named_before_its_checksum(manifest, tmp_path):
    table = json.loads(manifest.to_bytes())
    table["format_version"] = 99
    with pytest.raises(IndexDamagedError, match="format version 99, this rdsearch reads version 2"):
        Manifest.from_bytes(json.dumps(table).encode(), tmp_path)


def test_missing_entries_are_named(manifest, tmp_path):
    import hashlib

    table = json.loads(manifest.to_bytes())
    del table["checksum"], table["segments"]

    def canonical(value):
        return (json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()

    table["checksum"] = hashlib.sha256(canonical(table)).hexdigest()
    with pytest.raises(IndexDamagedError, match="segments"):
        Manifest.from_bytes(canonical(table), tmp_path)


def test_no_index_here(tmp_path):
    with pytest.raises(IndexMissingError, match="no index here"):
        Manifest.read(tmp_path)
    with pytest.raises(IndexMissingError, match="no index here"):
        Manifest.read(tmp_path / "absent")


@pytest.mark.parametrize("path", ["/etc/passwd", "../outside", "a/../../b", ""])
def test_paths_stay_inside(path):
    with pytest.raises(InputError, match="leaves the index"):
        FileEntry(path, 1, "", "")


def test_files_are_checked(manifest, tmp_path):
    (entry,) = manifest.files
    file = tmp_path / "data.bin"
    whole = file.read_bytes()
    entry.check(tmp_path)
    entry.check(tmp_path, full=True)
    for position, quick in ((0, True), (len(whole) - 1, True), (len(whole) // 2, False)):
        changed = bytearray(whole)
        changed[position] ^= 1
        file.write_bytes(changed)
        if quick:
            with pytest.raises(IndexDamagedError, match="first or last bytes"):
                entry.check(tmp_path)
        else:
            entry.check(tmp_path)
        with pytest.raises(IndexDamagedError, match="SHA-256"):
            entry.check(tmp_path, full=True)
    file.write_bytes(whole[:-1])
    with pytest.raises(IndexDamagedError, match="expected 262144 bytes, found 262143"):
        entry.check(tmp_path)
    file.unlink()
    with pytest.raises(IndexDamagedError, match="missing"):
        entry.check(tmp_path)
