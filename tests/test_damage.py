"""Every file of an index, damaged in every way: a named error from opening or from `verify`.

`tests.damaging` makes the damages and asks child processes. The indexes are small; that their quick
checks read little, as those of large ones do, is arranged.
"""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter, defaultdict
from pathlib import Path

import pytest
from tabulate import tabulate

import rdsearch
from rdsearch import changes, fileentry, generations
from rdsearch.damage import DAMAGED
from rdsearch.errors import IndexDamagedError, InputError
from rdsearch.manifest import MANIFEST, Manifest
from rdsearch.verification import checks
from tests import damaging
from tests.damaging import CHANGES, FLIP, Try

ROWS = 1560
# Then the codes of a tier are not read when the index is opened, nor the middle of a catalog.
QUICK_BYTES = 512


@pytest.fixture(scope="session")
def make_index(tmp_path_factory):
    """Indexes by recipe and seed, made once."""
    made: dict[tuple[str, int], Path] = {}

    def make(recipe: str, seed: int = 0) -> Path:
        if (recipe, seed) not in made:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(fileentry, "_QUICK_BYTES", QUICK_BYTES)
                folder = tmp_path_factory.mktemp("living")
                made[recipe, seed] = damaging.living_index(folder, recipe, ROWS, seed)
        return made[recipe, seed]

    return make


@pytest.fixture
def copy(make_index, tmp_path):
    shutil.copytree(make_index("exact"), tmp_path / "copy")
    return tmp_path / "copy"


def every_damage(path: Path, flips: int) -> list[Try]:
    """Of every file that the published generation names, and of every manifest."""
    earlier = {str(generations.generation_file(Path(), number)) for number in (1, 2)}
    named = {file.path for file in Manifest.read(path).all_files()}
    tries = []
    for file in [*sorted(named), MANIFEST, *sorted(earlier), "generations/000003.json"]:
        # An earlier generation may be gone.
        gone = "missing" if file in earlier else ""
        tries += [Try(file, change) for change in CHANGES if change != gone]
        tries += [Try(file, FLIP, seed) for seed in range(1 if file in earlier else flips)]
    return tries


def kind(file: str) -> str:
    """What the table says of a file."""
    parts = Path(file).parts
    return parts[0] if len(parts) < 3 else f"{parts[0]}/…/{parts[-1]}"


def check(one: Try, found: dict, thorough: bool) -> str:
    """Whether a damage was answered as it must be, and by what."""
    assert found["code"] == 0, (one, found)
    said, name = found["answer"], Path(one.file).name
    if not found["changed"]:
        assert not any(said.values()), (one, said)
        return "same bytes"
    for stage, error in said.items():
        assert error is None or name in error, (one, stage, error)
    if said["open"] and not thorough:
        return "open"
    # No hit comes from a copy of a manifest: the index can be opened all the same.
    harmless = one.file.startswith("generations/")
    assert said["verify"] is not None, (one, said)
    assert (said["again"] is None) == (said["open"] is None and harmless), (one, said)
    if said["open"] is None and not harmless:
        assert "verify found damage" in said["again"], (one, said)
    return "open" if said["open"] else "search" if said["search"] else "verify"


def report(answered: dict[tuple[str, str], Counter]) -> None:
    """The table that ``pytest -s`` shows."""
    stages = ("open", "search", "verify", "same bytes")
    lines = [
        (*key, sum(counts.values()), *(counts[stage] or "" for stage in stages))
        for key, counts in sorted(answered.items())
    ]
    total = sum(answered.values(), Counter())
    lines.append(("all", "", sum(total.values()), *(total[stage] for stage in stages)))
    headers = ("file", "damage", "tries", *(f"answered by {stage}" for stage in stages))
    print("\n" + tabulate(lines, headers=headers))  # noqa: T201


def all_answered(path: Path, other: Path, flips: int, thorough: bool = False) -> None:
    answered: dict[tuple[str, str], Counter] = defaultdict(Counter)
    for one, found in damaging.run(path, other, every_damage(path, flips), thorough):
        damage = FLIP if one.change == FLIP else "all else"
        answered[kind(one.file), damage][check(one, found, thorough)] += 1
    report(answered)
    seen = sum(answered.values(), Counter())
    # That the quick check does not see everything is arranged above.
    assert seen["open"] > seen["verify"] > 0


@pytest.mark.slow
def test_every_damage_is_answered_by_name(make_index):
    all_answered(make_index("cells"), make_index("cells", 1), flips=4)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["bits"])
def test_every_damage_is_answered_by_name_many_times(make_index, recipe):
    all_answered(make_index(recipe), make_index(recipe, 1), flips=3, thorough=True)


def test_a_sound_index_passes(make_index):
    path = make_index("bits")
    assert [one for one in checks(path) if one.error] == []
    assert sorted(one.path for one in checks(path)) == [
        file for file in damaging.files_of(path) if file != "tombstones/000002.safetensors"
    ]
    assert damaging.answers(path) == dict.fromkeys(("open", "search", "verify", "again"))


def flip(file: Path, position: int) -> None:
    content = bytearray(file.read_bytes())
    content[position] ^= 1
    file.write_bytes(content)


def test_the_note_of_verify_keeps_an_index_shut(copy):
    tier = copy / "segments" / "000001" / "c.faiss"
    whole = tier.read_bytes()
    flip(tier, len(whole) // 2)
    rdsearch.open(copy).close()  # the codes are not read
    with pytest.raises(IndexDamagedError, match=r"c\.faiss: its SHA-256"):
        rdsearch.verify(copy)
    table = json.loads((copy / DAMAGED).read_text())
    assert list(table["files"]) == ["segments/000001/c.faiss"]
    assert "SHA-256" in table["files"]["segments/000001/c.faiss"]
    assert table["generation"] == 3
    with pytest.raises(IndexDamagedError, match="found damage in segments/000001/c") as told:
        rdsearch.open(copy)
    assert told.value.facts["files"] == ["segments/000001/c.faiss"]
    assert "rdsearch verify" in str(told.value)
    with pytest.raises(IndexDamagedError, match="found damage"):
        changes.remove(copy, ids=["a1"])
    tier.write_bytes(whole)
    with pytest.raises(IndexDamagedError, match="found damage"):
        rdsearch.open(copy)
    rdsearch.verify(copy)
    assert not (copy / DAMAGED).exists()
    rdsearch.open(copy).close()


def test_opening_in_full_is_verifying_before(copy):
    flip(copy / "segments" / "000002" / "b.faiss", 4000)
    with pytest.raises(IndexDamagedError, match=r"b\.faiss: its SHA-256"):
        rdsearch.open(copy, verify="full")
    assert (copy / DAMAGED).exists()
    with pytest.raises(IndexDamagedError, match=r"b\.faiss: its SHA-256"):
        rdsearch.open(copy, verify="full")
    flip(copy / "segments" / "000002" / "b.faiss", 4000)
    with rdsearch.open(copy, verify="full") as index:
        assert index.generation == 3
    assert not (copy / DAMAGED).exists()


def test_a_reader_that_is_open_does_not_move_to_a_flagged_generation(copy):
    with rdsearch.open(copy) as index:
        changes.remove(copy, ids=["a1"])
        tier = copy / "segments" / "000001" / "c.faiss"
        flip(tier, tier.stat().st_size // 2)
        with pytest.raises(IndexDamagedError):
            rdsearch.verify(copy)
        with pytest.raises(IndexDamagedError, match="found damage"):
            index.refresh()
        assert index.generation == 3


def test_going_back_leaves_the_damage_behind(copy):
    flip(copy / "segments" / "000002" / "c.faiss", 5000)
    with pytest.raises(IndexDamagedError):
        rdsearch.verify(copy)
    generations.rollback(copy, 1)
    with pytest.raises(IndexDamagedError, match="found damage"):
        rdsearch.open(copy)
    rdsearch.verify(copy)
    with rdsearch.open(copy) as index:
        assert len(index.manifest.segments) == 1


@pytest.mark.parametrize("change", [one for one in CHANGES if one != "another index's"])
def test_an_earlier_generation_with_damage_is_not_gone_back_to(copy, make_index, change):
    """`verify` is about the published generation."""
    tombstones = "tombstones/000002.safetensors"
    damaging.damage(copy / tombstones, make_index("exact", 1), Try(tombstones, change))
    rdsearch.verify(copy)
    with pytest.raises(InputError, match=r"generation 2 cannot be gone back to.*\(1\)"):
        generations.rollback(copy, 2)
    rdsearch.open(copy).close()


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b'{"files": 3}'])
def test_any_note_keeps_an_index_shut(copy, content):
    (copy / DAMAGED).write_bytes(content)
    with pytest.raises(IndexDamagedError, match="found damage in it"):
        rdsearch.open(copy)
    rdsearch.verify(copy)
    rdsearch.open(copy).close()


def test_a_folder_that_cannot_be_written_gets_no_note(copy, caplog, monkeypatch):
    def full(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("rdsearch.durable.replace", full)
    tier = copy / "segments" / "000001" / "c.faiss"
    flip(tier, tier.stat().st_size // 2)
    with pytest.raises(IndexDamagedError, match="SHA-256"):
        rdsearch.verify(copy)
    assert "cannot be noted in damaged.json (Permission denied)" in caplog.text
    assert not (copy / DAMAGED).exists()


def test_who_may_not_read_a_file_does_not_flag_it(copy, monkeypatch):
    opened = os.open

    def refuse(path, *arguments, **options):
        if str(path).endswith("space.safetensors"):
            raise PermissionError(13, "Permission denied")
        return opened(path, *arguments, **options)

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(IndexDamagedError, match=r"space\.safetensors: it cannot be read"):
        rdsearch.verify(copy)
    monkeypatch.undo()
    rdsearch.open(copy).close()


def test_verify_keeps_the_files_that_it_reads(copy):
    found = checks(copy)
    next(found)  # it has begun
    changes.remove(copy, ids=["a1"])
    assert generations.gc(copy).in_use == (3,)
    assert [one for one in found if one.error] == []
    assert generations.gc(copy).removed == (3,)


def test_a_damaged_space_is_not_searched_with(copy):
    with rdsearch.open(copy) as index:
        flip(copy / "space.safetensors", 300)
        with pytest.raises(IndexDamagedError, match=r"space\.safetensors: its SHA-256"):
            damaging.use(index)


def test_the_published_copy_is_the_manifest(copy):
    generation = generations.generation_file(copy, 3)
    shutil.copy(generations.generation_file(copy, 2), generation)
    with pytest.raises(IndexDamagedError, match=r"000003\.json: expected a copy"):
        rdsearch.verify(copy)
    rdsearch.open(copy).close()  # no hit comes from it
    shutil.copy(copy / "manifest.json", generation)
    rdsearch.verify(copy)
    assert Manifest.read(copy) == Manifest.read(copy, "generations/000003.json")
