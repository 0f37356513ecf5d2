"""What changes refuse, and that a refused change leaves the index as it was."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest

import rdsearch
from rdsearch import changes, generations, merging
from rdsearch.builder import build
from rdsearch.errors import (
    ChainMismatchError,
    IndexExistsError,
    IndexMissingError,
    InputError,
    MetadataError,
    RdsearchError,
    WeightsError,
)
from rdsearch.funnel import Funnel
from rdsearch.guarantee import Guarantee
from rdsearch.imported import store_from_vectors
from rdsearch.manifest import Manifest
from rdsearch.storewriter import write_store
from tests import living, stored
from tests.living import SEQUENCES, proteins

S = SEQUENCES
FIRST = {"Q00": (S[0], 1), "Q01": (S[3], 2), "Q02": (S[0], 0), "Q03": (S[6], 0)}
SECOND = {"Q04": (S[3], 0), "Q05": (S[9], 1)}
EXACT = {"recipe": "exact", "space": "centred", "space_from": "chain"}


@pytest.fixture(scope="module")
def stores(tmp_path_factory) -> Path:
    """Stores of proteins, by name; the index that is copied is among them."""
    folder = tmp_path_factory.mktemp("stores")
    made = {
        "first": FIRST,
        "second": SECOND,
        "unknown": {"Q01": (S[1], 0), "Q90": (S[2], 0), "Q91": (S[2], 0)},
        "differs": {"Q80": (S[2], 0), "Q05": (S[10], 0)},
        "other": {"Q60": (S[3], 0), "Q61": (S[12], 0)},
    }
    for name, drawn in made.items():
        living.store(folder / name, proteins(drawn))
    records = [protein.record for protein in proteins(made["other"])]
    chain = stored.chain(seed=5)
    write_store(folder / "other chain", records, stored.FakeEmbedder(), chain)
    signed = stored.FakeEmbedder(window=510)
    write_store(folder / "other windows", records, signed, living.CHAIN)
    write_store(folder / "members", records, stored.FakeEmbedder(), None)
    build(rdsearch.Store.open(folder / "first"), living.CHAIN, folder / "index", **EXACT)
    changes.add(folder / "index", folder / "second")
    changes.remove(folder / "index", ["Q02"])
    return folder


@pytest.fixture
def path(stores, tmp_path) -> Path:
    """An index of two segments that has removed a protein: its third generation."""
    return shutil.copytree(stores / "index", tmp_path / "index")


def files(path: Path) -> dict[str, str]:
    """The content of every file but the lock's."""
    return {
        str(file.relative_to(path)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(path.rglob("*"))
        if file.is_file() and file.name != ".lock"
    }


@contextlib.contextmanager
def refused(path: Path, kind: type[RdsearchError], words: str):
    """An error with these words, and nothing else happens."""
    before, beside = files(path), sorted(path.parent.iterdir())
    with pytest.raises(kind, match=words):
        yield
    assert files(path) == before
    assert sorted(path.parent.iterdir()) == beside
    rdsearch.verify(path)


def test_add(path, stores, tmp_path):
    for name, kind, words in (
        ("differs", InputError, "accession Q05 is in the index with another sequence.*update"),
        ("other chain", ChainMismatchError, "were made with chain .* Use the chain they were"),
        ("other windows", WeightsError, "made with window 510, those of index .* with 1022"),
    ):
        with refused(path, kind, words):
            changes.add(path, stores / name)
    with refused(path, MetadataError, "absent.tsv"):
        changes.add(path, stores / "other", metadata=[tmp_path / "absent.tsv"])


def test_the_chain_is_applied_to_kept_members(path, stores):
    assert changes.add(path, stores / "members").added == 2
    texts = [S[3], S[12]]
    with rdsearch.open(path) as index:
        rows = index.catalog.rows_of_sequences(texts)
        for text, ranking in zip(texts, index.rank(living.vectors(texts), 1), strict=True):
            assert ranking.rows.tolist() == [rows[text]]
            assert ranking.scores[0] == pytest.approx(1, abs=1e-6)


def test_a_column_keeps_its_type(path, stores, tmp_path):
    numbers, words = tmp_path / "numbers.tsv", tmp_path / "words.tsv"
    living.write_table(numbers, "mass", {"Q00": {"mass": 3}})
    living.write_table(words, "mass", {"Q60": {"mass": "heavy"}})
    changes.update(path, metadata=[numbers])
    with refused(path, MetadataError, "mass.*heavy|heavy.*mass"):
        changes.add(path, stores / "other", metadata=[words])
    living.write_table(words, "mass", {"Q01": {"mass": "heavy"}})
    with refused(path, MetadataError, "heavy"):
        changes.update(path, metadata=[words])


def test_update(path, stores, tmp_path):
    with refused(path, InputError, r"nothing to update: Q90, Q91\. Add them.*nothing was changed"):
        changes.update(path, stores / "unknown")
    with refused(path, InputError, "give proteins, or tables"):
        changes.update(path)
    with refused(path, ChainMismatchError, "made with chain"):
        changes.update(path, stores / "other chain")
    table = tmp_path / "unknown.tsv"
    living.write_table(table, "mass", {"Q02": {"mass": 1}, "Q90": {"mass": 2}})
    with refused(path, InputError, r"no line of .*unknown.tsv has .*\(Q02, Q90\); nothing was"):
        changes.update(path, metadata=[table])


def test_remove(path):
    for options, words in (
        ({}, "say what to remove"),
        ({"ids": ["Q00"], "where": "true"}, "not both"),
        ({"ids": "Q00"}, "one string each"),
        ({"ids": []}, "none of 0 accessions"),
        ({"ids": ["Q90", "Q02"]}, r"none of 2 accessions is in the index \(Q90, Q02\); nothing"),
        ({"ids": ["Q00", "Q01", "Q03", "Q04", "Q05", "Q90"]}, "all 5 proteins .* nothing was"),
        ({"where": "length > 0"}, "all 5 proteins"),
        ({"where": "mass > 1"}, "mass"),
        ({"where": "length >"}, "length >"),
    ):
        with refused(path, InputError, words):
            changes.remove(path, **options)
    assert changes.remove(path, where="length > 1000").manifest.generation == 3


def test_compact_and_merge(path, stores, tmp_path):
    other = tmp_path / "other"
    build(rdsearch.Store.open(stores / "other"), living.CHAIN, other, **EXACT)
    output = tmp_path / "output"
    for name, chain, options, kind, words in (
        ("other chain", stored.chain(seed=5), {}, ChainMismatchError,
         "its vectors were made with chain"),
        ("other windows", living.CHAIN, {}, WeightsError, "window 510, .* with 1022"),
        ("other", living.CHAIN, {"space_from": "indexed"}, ChainMismatchError,
         "different scoring spaces"),
        ("other", living.CHAIN, {"space": "whitened", "space_from": "indexed"},
         ChainMismatchError, "different scoring spaces"),
        ("differs", living.CHAIN, {}, InputError, "Q05 is in the index with another sequence"),
    ):  # fmt: skip
        different = tmp_path / "different"
        shutil.rmtree(different, ignore_errors=True)
        store = rdsearch.Store.open(stores / name)
        build(store, chain, different, **{**EXACT, **options})
        with refused(path, kind, words):
            merging.merge(path, different, output)
    for taken in (path, other):
        with refused(path, InputError, "is one of the two indexes"):
            merging.merge(path, other, taken, overwrite=True)
    with refused(path, IndexExistsError, "Add --overwrite"):
        merging.merge(path, other, tmp_path / "different")
    with refused(path, IndexMissingError, "absent"):
        merging.merge(path, tmp_path / "absent", output)
    merging.merge(path, other, tmp_path / "different", overwrite=True)
    with pytest.raises(IndexMissingError):
        merging.compact(tmp_path / "absent")


def test_rollback_and_gc(path):
    for to, there in ((0, "2, 1"), (3, "2, 1"), (4, "2, 1"), (-1, "2, 1")):
        with refused(path, InputError, rf"generation {to} cannot .* before 3 .*\({there}\)"):
            generations.rollback(path, to)
    with refused(path, InputError, "at least 1 generation must be kept; found 0"):
        generations.gc(path, keep=0)
    assert generations.gc(path).removed == (1, 2)
    with refused(path, InputError, r"generation 2 cannot be gone back to: .*\(none\)"):
        generations.rollback(path, 2)


def test_a_guarantee_is_of_the_rows_it_was_measured_on(path, stores):
    promised = Guarantee(0.9, 0.9, 3, 5, 0.95, "sample", 0)

    def promise() -> None:
        manifest = Manifest.read(path)
        generations.publish(path, generations.successor(manifest, "tune", guarantee=promised))

    for change in (
        lambda: changes.add(path, stores / "other"),
        lambda: changes.remove(path, ["Q60"]),
        lambda: changes.update(path, stores / "second"),
    ):
        promise()
        change()
        assert Manifest.read(path).guarantee is None
    promise()
    compacted = merging.compact(path)
    assert (compacted.guarantee, len(compacted.segments)) == (promised, 1)
    # Nothing to do: no generation, and no loss.
    changes.add(path, stores / "other")
    again = Manifest.read(path).generation
    assert changes.add(path, stores / "other").manifest.generation == again
    assert generations.rollback(path, compacted.generation).guarantee == promised


def test_more_hits_than_are_left(path, stores):
    changes.remove(path, ["Q03"])
    queries = rdsearch.Store.open(stores / "other")
    with rdsearch.open(path) as index:
        assert index.n_rows == 3
        with pytest.raises(InputError, match="k must be from 1 to 3, the rows of the index"):
            index.search(queries, 4)
        for _, hits in index.search(queries):
            assert len(hits) == 3
        assert [len(one.rows) for one in index.rank_rows(range(3), 3)] == [2] * 3
        for _, hits in index.search(queries, 3, ids=["Q00", "Q04", "Q05"], exclude_self=True):
            assert len(hits) == (2 if hits[0].query == "Q60" else 3)


MANY, LEFT = 450, (7, 8, 330, 449)


def test_a_narrow_filter_takes_the_last_tier_alone(tmp_path):
    """Fewer than 1 % of the rows, in three segments, some hidden."""
    rng = np.random.default_rng(0)
    texts = ["".join(rng.choice(list("ACDEFHIKLM"), 12)) for _ in range(MANY)]
    records = [living.record(f"p{i}", text) for i, text in enumerate(texts)]
    vectors = rng.standard_normal((MANY, living.CHAIN.boundaries[-1])).astype(np.float32)
    path = tmp_path / "index"
    for number, part in enumerate((slice(300), slice(300, 400), slice(400, MANY))):
        names = [record.accession for record in records[part]]
        folder = tmp_path / f"store{number}"
        store = store_from_vectors(folder, records[part], names, vectors[part], living.CHAIN)
        if number:
            changes.add(path, store)
        else:
            build(store, living.CHAIN, path, **EXACT)
    changes.remove(path, [f"p{i}" for i in (0, 9, 329, 448)])
    rows = [row for row in range(MANY) if row not in (0, 9, 329, 448)]
    query = living.record("q", "MM")
    asked = rng.standard_normal((1, vectors.shape[1])).astype(np.float32)
    with rdsearch.open(path) as index:
        allowed = np.array([rows.index(row) for row in LEFT])
        taken: list = []
        ((_, hits),) = index.search_vectors(
            [query],
            asked,
            2,
            Funnel(("a", "b", "c"), (3, 3)),
            rows=allowed,
            explain=lambda _, steps: taken.extend(steps),
        )
        assert [(step.tier, step.rows) for step in taken] == [("c", 4)]
        mean = living.CHAIN.mean("c")
        centred = vectors[list(LEFT)] - mean
        cosines = centred @ (asked[0] - mean)
        cosines /= np.linalg.norm(centred, axis=1) * np.linalg.norm(asked[0] - mean)
        best = np.argsort(-cosines)[:2]
        assert [hit.accession for hit in hits] == [f"p{LEFT[i]}" for i in best]
        np.testing.assert_allclose([hit.score for hit in hits], cosines[best], atol=5e-6)
        # As many hits as rows that are left in other segments, and none.
        for kept in ([3], [299], [300, 445], []):
            ((_, hits),) = index.search_vectors([query], asked, 10, rows=np.array(kept, np.int64))
            assert sorted(hit.row for hit in hits) == kept
