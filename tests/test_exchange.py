"""Vectors out and in: .npy, HDF5, Parquet, residues."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

import rdsearch
from rdsearch import exchange, family
from rdsearch.builder import build
from rdsearch.embed import Embedder
from rdsearch.errors import EmbeddingError, InputError, StoreError, StoreMismatchError
from rdsearch.exchange import export_store, read_vectors
from rdsearch.fasta import read
from rdsearch.imported import store_from_vectors
from rdsearch.residuefile import write_residues
from rdsearch.storewriter import write_store
from tests.stored import BLOCK_ROWS, FAMILY, FakeEmbedder, chain, records, tmpfs

SUFFIXES = [".npy", ".h5", ".hdf5", ".parquet"]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("store") / "s"
    return write_store(
        folder, records(), FakeEmbedder(), chain(), keep_members=True, block_rows=BLOCK_ROWS
    )


@pytest.fixture
def small_disk(tmp_path):
    with tmpfs(tmp_path / "disk", "64k") as folder:
        yield folder


def by_accession(store, tier=None):
    rows = store.rd(np.asarray(store.accession_rows), tier)
    return {r.accession: row for r, row in zip(store.records(), rows, strict=True)}


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("tier", [None, "b"])
def test_what_is_written_is_read(tmp_path, store, suffix, tier, monkeypatch):
    monkeypatch.setattr(exchange, "_BLOCK", 7)
    path = tmp_path / f"vectors{suffix}"
    export_store(store, path, tier)
    ids, vectors = read_vectors(path)
    expected = by_accession(store, tier)
    assert sorted(ids) == sorted(expected)
    assert vectors.dtype == np.float32
    for name, vector in zip(ids, vectors, strict=True):
        np.testing.assert_array_equal(vector, expected[name])
    beside = {path.name, "vectors.ids.txt"} if suffix == ".npy" else {path.name}
    assert {file.name for file in tmp_path.iterdir()} == beside


def test_a_slash_in_an_accession_survives_hdf5(tmp_path):
    path = tmp_path / "v.h5"
    exchange.write_vectors(path, iter([(["P1/3-9", "P2"], np.eye(2, 3, dtype="f4"))]), 2, 3)
    ids, vectors = read_vectors(path)
    assert dict(zip(ids, vectors.tolist(), strict=True)) == {"P1/3-9": [1, 0, 0], "P2": [0, 1, 0]}
    with h5py.File(path) as file:
        assert sorted(file) == ["P1_3-9", "P2"]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_accession_that_comes_twice_is_not_written(tmp_path, suffix):
    blocks = iter([(["a"], np.zeros((1, 3), np.float32)), (["a"], np.ones((1, 3), np.float32))])
    with pytest.raises(InputError, match="accession a is there twice"):
        exchange.write_vectors(tmp_path / f"v{suffix}", blocks, 2, 3)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_full_disk_leaves_what_was_there(tmp_path, suffix, small_disk, capfd):
    path = small_disk / f"v{suffix}"
    exchange.write_vectors(path, iter([(["a"], np.ones((1, 3), np.float32))]), 1, 3)
    before = {file.name: file.read_bytes() for file in small_disk.iterdir()}
    noise = np.random.default_rng(0).standard_normal((100, 1000)).astype("f4")
    blocks = (([f"{i}-{k}" for k in range(100)], noise) for i in range(5))
    with pytest.raises(StoreError, match=r"cannot be written .*No space left on device"):
        exchange.write_vectors(path, blocks, 500, 1000)
    assert {file.name: file.read_bytes() for file in small_disk.iterdir()} == before
    assert capfd.readouterr().err == ""  # HDF5 alone writes a traceback for each open object


def test_new_ids_never_stand_beside_old_vectors(tmp_path, monkeypatch):
    path = tmp_path / "v.npy"
    exchange.write_vectors(path, iter([(["a"], np.zeros((1, 3), np.float32))]), 1, 3)
    replace_file = Path.replace

    def once(source, target):
        replace_file(source, target)
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", once)
    with pytest.raises(KeyboardInterrupt):
        exchange.write_vectors(path, iter([(["b"], np.ones((1, 3), np.float32))]), 1, 3)
    with pytest.raises(InputError, match="cannot be read"):
        read_vectors(path)


def test_other_tools_can_read_them(tmp_path, store):
    expected = by_accession(store)
    for suffix in SUFFIXES:
        export_store(store, tmp_path / f"v{suffix}")
    np.testing.assert_array_equal(np.load(tmp_path / "v.npy"), list(expected.values()))
    assert (tmp_path / "v.ids.txt").read_text().split() == list(expected)
    with h5py.File(tmp_path / "v.h5") as file:
        np.testing.assert_array_equal(file["P00003"][()], expected["P00003"])
    table = parquet.read_table(tmp_path / "v.parquet")
    assert table.column_names == ["accession", "vector"]
    assert table["vector"][3].as_py() == expected["P00003"].tolist()


def test_rd_vectors_come_back_as_a_store(tmp_path, store):
    export_store(store, tmp_path / "v.parquet")
    ids, vectors = read_vectors(tmp_path / "v.parquet")
    order = np.random.default_rng(0).permutation(len(ids))
    shuffled = [ids[i] for i in order]
    made = store_from_vectors(tmp_path / "s", records(), shuffled, vectors[order], chain())
    np.testing.assert_array_equal(made.rd(), store.rd())
    assert made.row_checksum == store.row_checksum
    assert list(made.records()) == records()
    build(made, chain(), tmp_path / "index")
    rdsearch.verify(tmp_path / "index")
    with pytest.raises(StoreMismatchError):
        store_from_vectors(tmp_path / "s", records(), ids, vectors + 1, chain())


def test_raw_member_vectors_get_the_chain(tmp_path, store):
    rows = np.asarray(store.accession_rows)
    ids = [record.id for record in records()]
    raw = {member.name: store.member(member.name, rows) for member in FAMILY.members}
    made = store_from_vectors(tmp_path / "s", records(), ids, raw, chain())
    np.testing.assert_array_equal(made.rd(), store.rd())


def test_vectors_that_do_not_fit_are_named(tmp_path, store):
    ids, full = list(by_accession(store)), np.stack(list(by_accession(store).values()))

    def import_(*, records_=None, ids_=None, vectors=None):
        return store_from_vectors(
            tmp_path / "s",
            records() if records_ is None else records_,
            ids if ids_ is None else ids_,
            full if vectors is None else vectors,
            chain(),
        )

    twin = full.copy()
    twin[9] += 1  # the same sequence as 8
    for changes, words in [
        ({"vectors": full[:, :8]}, r"must have shape \(60, 9\) \(the chain's tiers end at"),
        ({"vectors": {"a": full[:, :4]}}, "members a, b, c; found a"),
        ({"records_": records()[:50]}, "10 vectors have no protein, P00050, P00051, P00052 first"),
        ({"ids_": ids[:50], "vectors": full[:50]}, "10 proteins have no vector, P00050"),
        ({"vectors": twin}, "P00008 and P00009 have one sequence and two different vectors"),
    ]:
        with pytest.raises(InputError, match=words):
            import_(**changes)
        assert not (tmp_path / "s").exists()


def test_files_that_are_no_vectors_are_named(tmp_path):
    good = np.zeros((2, 3), np.float32)
    ids = tmp_path / "v.ids.txt"

    def expect(words, path=tmp_path / "v.npy", **options):
        with pytest.raises(InputError, match=words) as caught:
            read_vectors(path, **options)
        assert str(path) in str(caught.value)

    np.save(tmp_path / "v.npy", good)
    expect("names of its rows are missing")
    ids.write_text("a\nb\nc\n")
    expect("2 vectors need as many ids; found 3")
    ids.write_text("a\na\n")
    expect("the id a is there twice")
    ids.write_text("a\nb\n")
    assert read_vectors(tmp_path / "v.npy", ids)[0] == ["a", "b"]
    np.save(tmp_path / "v.npy", np.where(np.arange(6).reshape(2, 3) == 4, np.nan, good))
    expect("the vector of b has values that are not finite")
    np.save(tmp_path / "v.npy", good[0])
    expect(r"found shape \(3,\)")
    np.save(tmp_path / "v.npy", good.astype(int))
    expect("of int64")
    np.save(tmp_path / "v.npy", np.array([{}, {}], dtype=object), allow_pickle=True)
    expect("cannot be read")
    np.save(tmp_path / "v.npy", np.full((2, 3), 1e300))
    expect("the vector of a has values that are not finite in float32")
    (tmp_path / "v.npy").write_bytes(b"")
    expect("cannot be read")
    np.savez(tmp_path / "v.npz", good)
    (tmp_path / "v.npz").rename(tmp_path / "v.npy")
    expect("cannot be read")
    for suffix in SUFFIXES:
        path = tmp_path / f"garbage{suffix}"
        path.write_bytes(b"garbage" * 50)
        (tmp_path / "garbage.ids.txt").write_text("a\n")
        expect("cannot be read", path)
        expect("cannot be read", tmp_path / f"absent{suffix}", **(
            {"ids": ids} if suffix == ".npy" else {}
        ))  # fmt: skip
    expect("expected a name that ends in", tmp_path / "v.csv")
    expect("--ids belongs to .npy", tmp_path / "v.h5", ids=ids)
    with h5py.File(tmp_path / "v.h5", "w") as file:
        file["a"], file["b"] = good[0], good[0, :2]
    expect("differ in length", tmp_path / "v.h5")
    with h5py.File(tmp_path / "w.h5", "w") as file:
        file["a"] = good
    expect("a is not one vector", tmp_path / "w.h5")
    with h5py.File(tmp_path / "x.h5", "w"):
        pass
    expect("no dataset in it", tmp_path / "x.h5")


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        # As many numbers as two vectors of three.
        ({"accession": ["a", "b"], "vector": [[1.0, 2.0], [3.0, 4.0, 5.0, 6.0]]}, r": \[2, 4\]"),
        ({"accession": ["a", "b", "c"], "vector": [[1.0], None, [2.0]]}, "1 of its vectors are nu"),
        ({"accession": ["a", "b"], "vector": [[1.0], [None]]}, "the vector of b has values"),
        ({"accession": ["a", None], "vector": [[1.0], [2.0]]}, "hold text, found string with 1 nu"),
        ({"accession": [1, 2], "vector": [[1.0], [2.0]]}, "hold text, found int64"),
        ({"accession": ["a"], "vector": ["x"]}, "hold lists, found string"),
        ({"accession": ["a"], "vector": [["x"]]}, "row of floating point numbers"),
        ({"id": ["a"], "embedding": [[1.0]]}, "accession and vector, found id, embedding"),
        ({"accession": pa.array([], "string"), "vector": pa.array([], pa.list_(pa.float32()))},
         "its vectors are none"),
    ],
)  # fmt: skip
def test_parquet_that_is_no_vectors_is_named(tmp_path, columns, words):
    path = tmp_path / "v.parquet"
    parquet.write_table(pa.table(columns), path)
    with pytest.raises(InputError, match=words):
        read_vectors(path)


def test_parquet_of_plain_lists_in_many_chunks(tmp_path):
    path = tmp_path / "v.parquet"
    expected = np.arange(60.0).reshape(20, 3)
    table = pa.table({"accession": [f"P{i}" for i in range(20)], "vector": expected.tolist()})
    parquet.write_table(table, path, row_group_size=6)
    ids, vectors = read_vectors(path)
    assert ids == table["accession"].to_pylist()
    np.testing.assert_array_equal(vectors, expected)


def test_a_store_without_a_chain_has_no_rd_vectors(tmp_path):
    raw = write_store(tmp_path / "s", records(), FakeEmbedder(), None)
    with pytest.raises(StoreError, match="raw member vectors and no rd"):
        export_store(raw, tmp_path / "v.npy")
    assert not (tmp_path / "v.npy").exists()


@pytest.fixture(scope="module")
def residues(tmp_path_factory, mini_chain, proteins_file):
    path = tmp_path_factory.mktemp("residues") / "r.h5"
    chosen = [*list(read(proteins_file))[:12], list(read(proteins_file))[-1]]
    short = mini_chain.upto("0.5M")
    embedder = Embedder(family.get("mini"), short.tiers, dtype="float32")
    assert write_residues(path, chosen, embedder, short, precision="float32") == 13
    return path, chosen, embedder, short


def test_residues_are_the_chain_of_the_members_residues(residues):
    path, chosen, embedder, short = residues
    found = [dict(embedder.residues(m, [r.sequence for r in chosen])) for m in short.members]
    with h5py.File(path) as file:
        assert sorted(file) == sorted(record.accession for record in chosen)
        for i, record in enumerate(chosen):
            expected = short.transform([member[i] for member in found])
            assert file[record.accession].shape == (len(record.sequence), 96)
            np.testing.assert_allclose(file[record.accession][()], expected, atol=1e-5)
        assert file["twin"] == file[chosen[0].accession]  # one dataset, two names


def test_the_mean_over_residues_is_the_pooled_vector(residues, mini_store):
    path, chosen, *_ = residues
    pooled = by_accession(mini_store, "0.5M")
    with h5py.File(path) as file:
        for record in chosen:
            mean = file[record.accession][()].mean(axis=0)
            np.testing.assert_allclose(mean, pooled[record.accession], atol=1e-5)


def test_residues_in_half_precision(residues, tmp_path, monkeypatch):
    path, chosen, embedder, short = residues
    monkeypatch.setattr("rdsearch.residuefile.BLOCK_RESIDUES", 500)  # several blocks
    write_residues(tmp_path / "h.h5", chosen, embedder, short)
    with h5py.File(path) as exact, h5py.File(tmp_path / "h.h5") as half:
        for record in chosen:
            assert half[record.accession].dtype == np.float16
            np.testing.assert_allclose(
                half[record.accession][()], exact[record.accession][()], atol=4e-3
            )

    with pytest.raises(InputError, match="is in the input twice"):
        write_residues(tmp_path / "x.h5", chosen * 2, embedder, short)
    for slashed in ("a/b", "a_b"), ("a_b", "a_b"):
        clash = [replace(r, accession=name) for r, name in zip(chosen, slashed, strict=False)]
        with pytest.raises(InputError, match="a_b is in the input twice"):
            write_residues(tmp_path / "x.h5", clash, embedder, short)

    def huge(i, base, vectors):
        return np.full((len(vectors), (64, 32)[i]), 1e6, np.float32)

    monkeypatch.setattr(short, "part", huge)
    with pytest.raises(EmbeddingError, match="beyond float16's range"):
        write_residues(tmp_path / "x.h5", chosen, embedder, short)
    with pytest.raises(InputError, match="no precision 'int8'"):
        write_residues(tmp_path / "x.h5", chosen, embedder, short, precision="int8")
    assert [file.name for file in tmp_path.iterdir()] == ["h.h5"]


def test_residues_of_identical_sequences_are_computed_once(residues, tmp_path, monkeypatch):
    _, chosen, embedder, short = residues
    monkeypatch.setattr("rdsearch.residuefile.BLOCK_RESIDUES", 300)
    seen = []
    compute = embedder.residues

    def counted(member, sequences, **options):
        seen.extend((member.name, sequence) for sequence in sequences)
        return compute(member, sequences, **options)

    monkeypatch.setattr(embedder, "residues", counted)
    copies = [replace(record, accession=f"{record.accession}/copy") for record in chosen[:12]]
    assert write_residues(tmp_path / "r.h5", [*chosen, *copies], embedder, short) == 25
    assert len(seen) == len(set(seen)) == 2 * 12
    with h5py.File(tmp_path / "r.h5") as file:
        for record in chosen[:12]:
            assert file[f"{record.accession}_copy"] == file[record.accession]


def test_residues_on_a_full_disk(residues, small_disk):
    subprocess.run(["mount", "-o", "remount,size=64k", str(small_disk)], check=True)
    _, chosen, embedder, short = residues
    with pytest.raises(StoreError, match="No space left on device"):
        write_residues(small_disk / "r.h5", chosen, embedder, short)
    assert list(small_disk.iterdir()) == []
