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
import faiss
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import rdsearch
from rdsearch import codecs, faissfile, fileentry
from rdsearch.codeccheck import check_codec, codec_of
from rdsearch.codecs import Codec
from rdsearch.errors import IndexDamagedError, InputError
from rdsearch.fileentry import FileEntry
from rdsearch.manifest import Manifest, SegmentEntry, TierEntry
from rdsearch.space import Space
from tests import damaging, forging

TIER = "segments/000001/c.faiss"


@pytest.fixture(scope="session")
def living(tmp_path_factory):
    """Indexes by recipe, made once."""
    made: dict[str, Path] = {}

    def make(recipe: str) -> Path:
        if recipe not in made:
            folder = tmp_path_factory.mktemp("living")
            made[recipe] = damaging.living_index(folder, recipe, 1560, 0)
        return made[recipe]

    return make


@pytest.fixture
def copy(living, tmp_path):
    shutil.copytree(living("exact"), tmp_path / "copy")
    return tmp_path / "copy"


def in_child(path: Path) -> dict[str, str | None]:
    """What opening, searching and verifying say, in a process of bounded memory and time."""
    found = damaging.in_child(lambda: damaging.answers(path))
    assert found["code"] == 0, found
    return found["answer"]


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
    said = in_child(copy)
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
    assert "verify found damage in it" in in_child(copy)["open"]
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
    said = in_child(copy)
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


@pytest.mark.parametrize("tries", [8, pytest.param(200, marks=pytest.mark.slow)])
def test_forged_manifests_do_not_crash_a_search(copy, tries):
    for forged in some_forged(forging.read(copy), tries):
        forging.sign(copy, forged)
        in_child(copy)
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
    assert "found more: this is no manifest" in in_child(copy)["open"]


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
    said = in_child(copy)
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
    said = in_child(copy)
    assert "space.safetensors" in said["search"]
    assert "space.safetensors" in said["verify"]


def test_tombstones_of_any_size_are_not_read(copy):
    file = copy / "tombstones" / "000003.safetensors"
    with file.open("r+b") as handle:
        handle.truncate(1 << 26)  # a hole
    forging.resign(copy, "tombstones/000003.safetensors")
    assert "000003.safetensors: expected at most" in in_child(copy)["open"]


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
    said = in_child(copy)
    assert "000003.safetensors" in said["verify"]


def test_verify_compares_tombstones_with_the_catalogs(copy):
    """Numbers that are possible, and not those that follow from the proteins."""
    file = copy / "tombstones" / "000003.safetensors"
    whole = file.read_bytes()
    arrays = load_file(file)
    for name, column in (("doubles", 1), ("doubles", 3), ("hidden/000001", None)):
        forged = {key: array.copy() for key, array in arrays.items()}
        if column is None:
            forged[name][0] -= 1  # shown without a protein, and the row before hidden with one
        else:
            forged[name][:, column] = forged[name][::-1, column]
        save_file(forged, file)
        forging.resign(copy, "tombstones/000003.safetensors")
        with pytest.raises(IndexDamagedError, match=r"000003\.safetensors: segment 00000"):
            rdsearch.verify(copy)
        file.write_bytes(whole)


# --- FAISS -----------------------------------------------------------------------------------

NUMBERS = (-1, 0, 1, 10**6, 2**20, 2**31 - 1, -(2**31), 2**40, 2**63 - 1)


def fields_of(file: Path) -> list[tuple[int, int]]:
    """Where a FAISS file has single numbers: start and length."""
    found, position = [], 0

    def write(block: bytes) -> None:
        nonlocal position
        if len(block) <= 8:
            found.append((position, len(block)))
        position += len(block)

    faiss.write_index(faiss.read_index(str(file)), faiss.PyCallbackIOWriter(write, 1 << 20))
    assert position == file.stat().st_size
    return found


def forged_faiss(whole: bytes, fields: list[tuple[int, int]], rng: random.Random) -> bytes:
    """Another number in one of the fields, or up to three bits."""
    content = bytearray(whole)
    if rng.random() < 0.5:
        start, length = rng.choice(fields)
        number = rng.choice(NUMBERS).to_bytes(16, "little", signed=True)
        content[start : start + length] = number[:length]
    for _ in range(rng.randrange(4)):
        start, length = rng.choice(fields)
        content[start + rng.randrange(length)] ^= 1 << rng.randrange(8)
    return bytes(content)


def forge_tiers(path: Path, tries: int) -> Counter:
    """Forge the tiers of an index in turn, and open, search and verify it."""
    counts: Counter = Counter()
    rng = random.Random(0)
    files = sorted(str(file.relative_to(path)) for file in (path / "segments").glob("*/*.faiss"))
    fields = {file: fields_of(path / file) for file in files}
    for number in range(tries):
        file = files[number % len(files)]
        whole = (path / file).read_bytes()
        (path / file).write_bytes(forged_faiss(whole, fields[file], rng))
        forging.resign(path, file)
        said = in_child(path)
        for stage in ("open", "search", "verify"):
            assert said[stage] is None or Path(file).name in said[stage], said
        answer = next((stage for stage in ("open", "search", "verify") if said[stage]), "nothing")
        counts[answer] += 1
        (path / file).write_bytes(whole)
        (path / "damaged.json").unlink(missing_ok=True)
        forging.resign(path, file)
    return counts


@pytest.mark.parametrize("tries", [8, pytest.param(200, marks=pytest.mark.slow)])
@pytest.mark.parametrize("recipe", damaging.RECIPES)
def test_forged_tiers_do_not_crash_a_search(living, tmp_path, recipe, tries):
    shutil.copytree(living(recipe), tmp_path / "copy")
    counts = forge_tiers(tmp_path / "copy", tries)
    print(recipe, dict(counts))  # noqa: T201
    assert counts["search"] > 0


@pytest.fixture(scope="module")
def faiss_files(tmp_path_factory):
    """A tier file of each codec, with and without cells."""
    folder = tmp_path_factory.mktemp("faiss")
    rows = np.random.default_rng(0).standard_normal((1200, 16)).astype(np.float32)
    space = Space("standardised", rows.mean(0).astype(np.float64), np.eye(16, dtype=np.float32))
    made = {}
    for codec in [*map(Codec, codecs.CODECS), Codec("pq4", 9), Codec("rabitq", 9)]:
        index = space.wrap(codecs.learn(codec, space, rows))
        index.add(rows)
        made[codec] = folder / f"{codec}.faiss"
        codecs.save_faiss(index, made[codec])
    return made


def test_every_codec_passes_the_check(faiss_files):
    for codec, file in faiss_files.items():
        for flags in (0, faiss.IO_FLAG_MMAP_IFC):
            owner = codecs.read_faiss(file, 16, flags)
            read = codecs.unwrapped(owner)
            assert codec_of(read) == codec
            check_codec(file, read, 16, 1200)
            for dims, rows in ((17, 1200), (16, 1199)):
                with pytest.raises(IndexDamagedError, match=r"\.faiss: .* expected"):
                    check_codec(file, read, dims, rows)


def test_other_faiss_indexes_are_none_of_ours(tmp_path):
    for index in (
        faiss.IndexHNSWFlat(16, 8),
        faiss.IndexFlatL2(16),
        faiss.IndexScalarQuantizer(16, faiss.ScalarQuantizer.QT_4bit, faiss.METRIC_INNER_PRODUCT),
        faiss.IndexIDMap(faiss.IndexFlatIP(16)),
    ):
        with pytest.raises(IndexDamagedError, match="expected"):
            check_codec(tmp_path / "x", index, 16, 0)


@pytest.mark.parametrize("change", ["twice", "outside", "negative"])
def test_rows_in_cells_are_each_there_once(faiss_files, change):
    for codec in (Codec("pq4", 9), Codec("rabitq", 9)):
        file = faiss_files[codec]
        owner = codecs.read_faiss(file, 16)
        read = codecs.unwrapped(owner)
        cell = next(cell for cell in range(9) if read.invlists.list_size(cell) > 1)
        ids = faiss.rev_swig_ptr(read.invlists.get_ids(cell), 2)
        ids[0] = {"twice": ids[1], "outside": 1200, "negative": -1}[change]
        with pytest.raises(IndexDamagedError, match="expected"):
            check_codec(file, read, 16, 1200)


def test_the_layout_of_files_without_cells_is_known(faiss_files):
    """Between the arrays is everything that says what they are, and it is what FAISS writes."""
    for codec, file in faiss_files.items():
        found = faissfile.arrays(file)
        if codec.cells or codec.name == "pq4":
            assert found is None
            continue
        numbers = {
            byte for start, length in fields_of(file) for byte in range(start, start + length)
        }
        arrays = {byte for start, stop in found for byte in range(start, stop)}
        assert numbers | arrays == set(range(file.stat().st_size))
        assert not numbers & arrays


def test_a_layout_that_does_not_end_with_the_file_is_not_known(faiss_files, tmp_path):
    whole = faiss_files[Codec("sq8")].read_bytes()
    for content in (whole + b"\0", whole[:-1], whole[:10], b"", b"IxPT", whole[4:]):
        (tmp_path / "x").write_bytes(content)
        assert faissfile.arrays(tmp_path / "x") is None


def test_an_array_that_ends_after_the_file_is_not_mapped(faiss_files, tmp_path):
    """FAISS 1.15 would read on behind the end of the mapping."""
    content = bytearray(faiss_files[Codec("rabitq")].read_bytes())
    centre = faissfile.arrays(faiss_files[Codec("rabitq")])[-1][0]
    content[centre - 8] += 1
    (tmp_path / "x.faiss").write_bytes(content)
    found = damaging.in_child(
        lambda: damaging.said(
            lambda: codecs.read_faiss(tmp_path / "x.faiss", 16, faiss.IO_FLAG_MMAP_IFC)
        )
    )
    assert found["code"] == 0
    assert "x.faiss: FAISS cannot read it" in found["answer"]


def test_limits_on_faiss_are_put_back(faiss_files, tmp_path):
    before = faiss.get_deserialization_vector_byte_limit(), faiss.get_deserialization_loop_limit()
    (tmp_path / "x").write_bytes(b"IxPTnonsense")
    with pytest.raises(IndexDamagedError):
        codecs.read_faiss(tmp_path / "x", 16)
    codecs.read_faiss(faiss_files[Codec("pq4", 9)], 16)
    after = faiss.get_deserialization_vector_byte_limit(), faiss.get_deserialization_loop_limit()
    assert before == after


def test_the_quick_check_reads_all_but_the_arrays(faiss_files, tmp_path, monkeypatch):
    monkeypatch.setattr(fileentry, "_QUICK_BYTES", 600)
    for codec in map(Codec, ("flat", "sqfp16", "sq8", "rabitq4", "rabitq")):
        file = tmp_path / "x.faiss"
        whole = faiss_files[codec].read_bytes()
        file.write_bytes(whole)
        entry = FileEntry.of(tmp_path, file.name)
        entry.check(tmp_path)
        for start, length in fields_of(faiss_files[codec]):
            changed = bytearray(whole)
            changed[start + length // 2] ^= 4
            file.write_bytes(changed)
            with pytest.raises(IndexDamagedError, match="its headers"):
                entry.check(tmp_path)
        changed = bytearray(whole)
        changed[entry.skipped[-1][0] + 1000] ^= 4
        file.write_bytes(changed)
        entry.check(tmp_path)
        with pytest.raises(IndexDamagedError, match="SHA-256"):
            entry.check(tmp_path, full=True)


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
    said = in_child(copy)
    assert "catalog.duckdb" in (said["open"] or said["search"])
    assert "secret" not in str(said).replace("secret.csv", "")


def test_nothing_of_an_index_is_pickled(living):
    for file in damaging.files_of(living("cells")):
        content = (living("cells") / file).read_bytes()
        assert content[:1] != b"\x80"
        assert file.endswith((".json", ".safetensors", ".faiss", ".duckdb"))
