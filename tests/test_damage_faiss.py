"""FAISS files of somebody else: what is read of them is checked first; see `tests.forging`."""

from __future__ import annotations

import random
import shutil
from collections import Counter
from pathlib import Path

import faiss
import numpy as np
import pytest

from rdsearch import codecs, faissfile, fileentry
from rdsearch.codeccheck import check_codec, codec_of
from rdsearch.codecs import Codec
from rdsearch.errors import IndexDamagedError
from rdsearch.fileentry import FileEntry
from rdsearch.space import Space
from tests import damaging, forging

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
        said = damaging.said_in_child(path)
        for stage in ("open", "search", "verify"):
            assert said[stage] is None or Path(file).name in said[stage], said
        answer = next((stage for stage in ("open", "search", "verify") if said[stage]), "nothing")
        counts[answer] += 1
        (path / file).write_bytes(whole)
        (path / "damaged.json").unlink(missing_ok=True)
        forging.resign(path, file)
    return counts


@pytest.mark.parametrize("tries", [8, pytest.param(50, marks=pytest.mark.slow)])
@pytest.mark.parametrize("recipe", damaging.RECIPES)
def test_forged_tiers_do_not_crash_a_search(living, tmp_path, recipe, tries):
    shutil.copytree(living(recipe), tmp_path / "copy")
    counts = forge_tiers(tmp_path / "copy", tries)
    print(recipe, dict(counts))  # noqa: T201
    assert counts["search"] > 0


@pytest.mark.parametrize("recipe", ["cells", "bits"])
def test_a_search_follows_no_row_that_is_not_there(living, tmp_path, recipe):
    shutil.copytree(living(recipe), tmp_path / "copy")
    name = "segments/000001/a.faiss"
    file = tmp_path / "copy" / name
    owner = codecs.read_faiss(file, 4)
    lists = codecs.unwrapped(owner).invlists
    rows = faiss.rev_swig_ptr(lists.get_ids(0), lists.list_size(0)).tobytes()
    whole = file.read_bytes()
    assert whole.count(rows) == 1
    file.write_bytes(whole.replace(rows, (10**12).to_bytes(8, "little") + rows[8:]))
    forging.resign(tmp_path / "copy", name)
    said = damaging.said_in_child(tmp_path / "copy")
    assert said["open"] is None
    assert "a.faiss: rows: expected 0 to" in said["search"]
    assert said["verify"] == said["search"]


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
