"""Index folders of somebody else: nothing outside is read, nothing hangs, grows or crashes.

Checksums are no help here, for who forges a file can forge them too (`tests.forging`).
"""

from __future__ import annotations

import json
import os
import random
import shutil
import socket
import struct
from collections import Counter
from pathlib import Path

import duckdb
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import rdsearch
from rdsearch.errors import IndexDamagedError, InputError
from rdsearch.fileentry import FileEntry
from rdsearch.manifest import Manifest, SegmentEntry, TierEntry
from tests import damaging, forging

TIER = "segments/000001/c.faiss"


@pytest.fixture
def copy(living, tmp_path):
    shutil.copytree(living("exact"), tmp_path / "copy")
    return tmp_path / "copy"


# --- links, pipes, folders -------------------------------------------------------------------


@pytest.mark.parametrize(
    "file",
    [
        "manifest.json",
        "generations/000003.json",
        "chain.safetensors",
        "codecs/000001/b.faiss",
        TIER,
        "segments/000002/catalog.duckdb",
        "tombstones/000003.safetensors",
    ],
)
def test_links_are_not_followed(copy, tmp_path, file):
    """Not even to the same file: who follows one follows any."""
    outside = tmp_path / "outside"
    (copy / file).rename(outside)
    (copy / file).symlink_to(outside)
    for check in (rdsearch.open, rdsearch.verify):
        with pytest.raises(IndexDamagedError, match=f"{Path(file).name}.*links .* not followed"):
            check(copy)


@pytest.mark.parametrize("folder", ["segments/000001", "segments", "codecs", "tombstones"])
def test_folders_that_are_links_are_not_followed(copy, tmp_path, folder):
    outside = tmp_path / "outside"
    (copy / folder).rename(outside)
    (copy / folder).symlink_to(outside)
    for check in (rdsearch.open, rdsearch.verify):
        with pytest.raises(IndexDamagedError, match=f"{Path(folder).name}: expected no link"):
            check(copy)


def test_the_index_itself_may_be_a_link(copy, tmp_path):
    (tmp_path / "link").symlink_to(copy)
    rdsearch.open(tmp_path / "link").close()
    rdsearch.verify(tmp_path / "link")


@pytest.mark.parametrize(
    "file", ["manifest.json", "generations/000003.json", "space.safetensors", TIER]
)
@pytest.mark.parametrize("kind", ["pipe", "socket"])
def test_nobody_waits_for_a_pipe(copy, monkeypatch, file, kind):
    (copy / file).unlink()
    if kind == "pipe":
        os.mkfifo(copy / file)
    else:
        monkeypatch.chdir((copy / file).parent)  # a socket's name must be short
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(Path(file).name)
    said = damaging.said_in_child(copy)
    assert Path(file).name in said["open"]
    assert "a device, a pipe or a socket" in said["open"]
    assert Path(file).name in said["verify"]


@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_a_note_of_damage_that_is_no_file_counts(copy, tmp_path, kind):
    note = copy / "damaged.json"
    if kind == "link":
        note.symlink_to(tmp_path / "absent")
    elif kind == "pipe":
        os.mkfifo(note)
    else:
        note.mkdir()
    assert "verify found damage in it" in damaging.said_in_child(copy)["open"]
    assert not (tmp_path / "absent").exists()


# --- manifests -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        "../x",
        "a/../../x",
        "",
        ".",
        "a/./b",
        "a//b",
        "a/",
        "/",
        "a\\b",
        "a\0b",
        "a\nb",
    ],
)
def test_paths_are_plain(path):
    with pytest.raises(InputError, match="leaves the index"):
        FileEntry(path, 1, "", "")


@pytest.mark.parametrize("skipped", [((0, 2), (1, 3)), ((3, 2),), ((-1, 2),), ((0, 11),)])
def test_skipped_parts_are_inside(skipped):
    with pytest.raises(InputError, match="not inside its bytes"):
        FileEntry("a", 10, "", "", skipped)


def test_a_quick_check_reads_little():
    with pytest.raises(InputError, match="at most 131,072 bytes; found 1,000,000"):
        FileEntry("a", 1_000_000, "", "")


@pytest.mark.parametrize("name", ["a/b", "..\\x", "a\0", "\n"])
def test_tier_names_have_no_separators(name):
    with pytest.raises(InputError, match="part of a file name"):
        TierEntry(name, 8, "flat")


@pytest.mark.parametrize("name", ["..", "../x", "", "x", "٣", "1" * 30])
def test_segment_names_are_numbers(name):
    with pytest.raises(InputError, match="name is a number"):
        SegmentEntry(name, 1, 1, 0, 0, "", ())


@pytest.mark.parametrize(
    ("place", "value", "found"),
    [
        (("segments", 0, "rows"), 10**15, "manifest.json"),
        (("segments", 0, "rows"), 1039, "catalog.duckdb"),
        (("segments", 0, "hidden"), 31, "tombstones"),
        (("tiers", 2, "dims"), 10**9, "manifest.json"),
        (("tiers", 2, "dims"), 20, None),
        (("tiers", 2, "codec"), "sq8", None),
        (("files", 0, "size"), 10**18, "manifest.json"),
        (("files", 0, "path"), "../../../etc/passwd", "manifest.json"),
        (("segments", 0, "files", 0, "path"), "segments/000001/x", "manifest.json"),
        (("segments", 0, "name"), "../../x", "manifest.json"),
        (("tombstones",), None, "manifest.json"),
        (("tombstones", "size"), 10**18, "manifest.json"),
        (("funnel", "tiers"), ["c", "a"], "manifest.json"),
        (("funnel", "shortlists"), ["many", 3], "manifest.json"),
        (("embedding",), [], "manifest.json"),
    ],
)
def test_claims_are_refused(copy, place, value, found):
    """What opening does not compare with a file is nothing that is made room for."""
    forging.sign(copy, forging.changed(forging.read(copy), place, value))
    said = damaging.said_in_child(copy)
    assert (said["open"] is None) == (found is None)
    assert found is None or found in said["open"]
    assert said["verify"] is not None


def test_no_value_of_a_manifest_does_harm(living):
    """A table that can be read makes a manifest, and that the same file again; or it is refused."""
    table, counts = forging.read(living("exact")), Counter()
    for place in forging.places(table):
        for value in forging.ODD:
            content = forging.signed(forging.changed(table, place, value))
            try:
                made = Manifest.from_bytes(content, Path("manifest.json"))
            except IndexDamagedError:
                counts["refused"] += 1
            else:
                counts["read"] += 1
                assert made.to_bytes() == content
    assert counts["refused"] > 5 * counts["read"] > 0


def some_forged(table: dict, n: int) -> list[dict]:
    """Forged tables that make a manifest."""
    rng, found = random.Random(0), []
    all_places = [place for place in forging.places(table) if place[0] != "embedding"]
    while len(found) < n:
        forged = forging.changed(table, rng.choice(all_places), rng.choice(forging.ODD))
        try:
            if Manifest.from_bytes(forging.signed(forged), Path("manifest.json")):
                found.append(forged)
        except IndexDamagedError:
            continue
    return found


@pytest.mark.parametrize("tries", [8, pytest.param(50, marks=pytest.mark.slow)])
def test_forged_manifests_do_not_crash_a_search(copy, tries):
    for forged in some_forged(forging.read(copy), tries):
        forging.sign(copy, forged)
        damaging.said_in_child(copy)
        (copy / "damaged.json").unlink(missing_ok=True)


@pytest.mark.parametrize("missing", [TIER, "segments/000002/catalog.duckdb", "space.safetensors"])
def test_a_file_that_nothing_is_said_about_is_not_read(copy, missing):
    table = forging.read(copy)
    for files in (table["files"], *(segment["files"] for segment in table["segments"])):
        files[:] = [entry for entry in files if entry["path"] != missing]
    forging.sign(copy, table)
    for check in (rdsearch.open, rdsearch.verify):
        with pytest.raises(IndexDamagedError, match=f"manifest.json: expected each .* {missing}"):
            check(copy)


def test_lone_surrogates_are_refused(copy):
    content = (copy / "manifest.json").read_bytes().replace(b'"build', b'"\\ud800')
    with pytest.raises(IndexDamagedError, match=r"manifest\.json"):
        Manifest.from_bytes(content.replace(b'"remove', b'"\\ud800'), copy / "manifest.json")


@pytest.mark.parametrize("content", [b"[" * 100_000, b'{"a":' * 100_000, b"9" * 10_000, b"\xff"])
def test_no_json_is_too_odd(content):
    with pytest.raises(IndexDamagedError, match=r"manifest\.json"):
        Manifest.from_bytes(content, Path("manifest.json"))


def test_a_manifest_that_is_too_long_is_not_read(copy):
    with (copy / "manifest.json").open("r+b") as file:
        file.truncate(1 << 40)  # a hole
    assert "found more: this is no manifest" in damaging.said_in_child(copy)["open"]


# --- arrays ----------------------------------------------------------------------------------


def claim(file: Path, length: int) -> None:
    """Let a safetensors header say that it is longer than it is."""
    content = bytearray(file.read_bytes())
    content[:8] = struct.pack("<Q", length)
    file.write_bytes(content)


@pytest.mark.parametrize("file", ["tombstones/000003.safetensors", "space.safetensors"])
@pytest.mark.parametrize("length", [2**20, 2**40, 2**63, 2**64 - 1])
def test_headers_that_claim_more_than_the_file(copy, file, length):
    claim(copy / file, length)
    forging.resign(copy, file)
    said = damaging.said_in_child(copy)
    assert Path(file).name in (said["open"] or said["search"])
    assert Path(file).name in said["verify"]


def test_arrays_that_claim_more_than_the_file(copy):
    file = copy / "space.safetensors"
    content = file.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    header["mean"]["shape"] = [2**40]
    header["mean"]["data_offsets"] = [0, 2**43]
    text = json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])
    forging.resign(copy, "space.safetensors")
    said = damaging.said_in_child(copy)
    assert "space.safetensors" in said["search"]
    assert "space.safetensors" in said["verify"]


def test_tombstones_of_any_size_are_not_read(copy):
    file = copy / "tombstones" / "000003.safetensors"
    with file.open("r+b") as handle:
        handle.truncate(1 << 26)  # a hole
    forging.resign(copy, "tombstones/000003.safetensors")
    assert "000003.safetensors: expected at most" in damaging.said_in_child(copy)["open"]


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("hidden/000001", [5, 4]),
        ("hidden/000001", [-1]),
        ("removed/000002", [10**15]),
        ("hidden/000007", [1]),
        ("doubles", [[2, 0, 1, 10**15]]),
        ("doubles", [[2, 520, 1, 3]]),
        ("doubles", [[1, 2, 3]]),
    ],
)
def test_tombstones_that_do_not_fit(copy, name, values):
    file = copy / "tombstones" / "000003.safetensors"
    arrays = load_file(file)
    save_file({**arrays, name: np.array(values, dtype=np.int64)}, file)
    forging.resign(copy, "tombstones/000003.safetensors")
    said = damaging.said_in_child(copy)
    assert "000003.safetensors" in said["verify"]


def test_verify_compares_tombstones_with_the_catalogs(copy):
    """Numbers that are possible, and not those that follow from the proteins."""
    file = copy / "tombstones" / "000003.safetensors"
    whole = file.read_bytes()
    arrays = load_file(file)
    for name, column in (("doubles", 1), ("doubles", 3), ("hidden/000001", None)):
        forged = {key: array.copy() for key, array in arrays.items()}
        if column is None:
            forged[name][-1] += 1  # shown without a protein, and the row after hidden with one
        else:
            forged[name][:, column] = forged[name][::-1, column]
        save_file(forged, file)
        forging.resign(copy, "tombstones/000003.safetensors")
        with pytest.raises(IndexDamagedError, match=r"000003\.safetensors: segment 00000"):
            rdsearch.verify(copy)
        file.write_bytes(whole)


# --- catalogs --------------------------------------------------------------------------------


@pytest.mark.parametrize("table", ["meta", "rows", "accessions", "proteins"])
def test_a_catalog_cannot_read_other_files(copy, tmp_path, table):
    (tmp_path / "secret.csv").write_text("key,value\nformat,secret\n")
    file = "segments/000001/catalog.duckdb"
    with duckdb.connect(str(copy / file)) as connection:
        kind = "VIEW" if table == "proteins" else "TABLE"
        connection.execute(f"DROP {kind} {table} CASCADE")
        connection.execute(
            f"CREATE VIEW {table} AS SELECT * FROM read_csv('{tmp_path / 'secret.csv'}')"
        )
    forging.resign(copy, file)
    said = damaging.said_in_child(copy)
    assert "catalog.duckdb" in (said["open"] or said["search"])
    assert "secret" not in str(said).replace("secret.csv", "")


def test_nothing_of_an_index_is_pickled(living):
    for file in damaging.files_of(living("cells")):
        content = (living("cells") / file).read_bytes()
        assert content[:1] != b"\x80"
        assert file.endswith((".json", ".safetensors", ".faiss", ".duckdb"))
