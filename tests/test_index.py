"""The whole path on real proteins: build, open, search, against an exhaustive search."""

from __future__ import annotations

import itertools
import shutil
from dataclasses import replace

import faiss
import numpy as np
import pytest

import rdsearch
from rdsearch import fasta, samples
from rdsearch.builder import building_folder
from rdsearch.catalog import Catalog
from rdsearch.errors import (
    ChainMismatchError,
    IndexDamagedError,
    IndexExistsError,
    IndexMissingError,
    InputError,
    MetadataError,
)
from rdsearch.funnel import Funnel
from rdsearch.verification import checks
from tests import oracle

SEGMENT = "segments/000001"


@pytest.fixture
def copy(mini_index, tmp_path):
    """An index that may be broken."""
    return shutil.copytree(mini_index, tmp_path / "copy")


@pytest.fixture(scope="module")
def queries():
    return list(itertools.islice(fasta.read(samples.CHAIN_SAMPLE), 300, 325))


@pytest.fixture(scope="module", params=["exact", "balanced"])
def index(request, tmp_path_factory, mini_chain, mini_store):
    path = tmp_path_factory.mktemp(request.param) / "index"
    rdsearch.build(mini_store.path, mini_chain, path, recipe=request.param)
    with rdsearch.open(path) as opened:
        yield opened


def test_search_equals_an_exhaustive_search(mini_index, mini_store, mini_chain, queries):
    with rdsearch.open(mini_index) as index:
        database = mini_store.rd(slice(None))
        for tier in index.tiers:
            vectors = index.embed([query.sequence for query in queries], tier)
            dims = mini_chain.dim(tier)
            rows, scores = oracle.exhaustive_search(
                database[:, :dims], mini_chain.mean(tier), vectors, 10
            )
            found = index.search(queries, 10, to_tier=tier, shortlists=index.n_rows)
            for (query, hits), asked, expected, cosines in zip(
                found, queries, rows, scores, strict=True
            ):
                assert query is asked
                assert [hit.row for hit in hits] == expected.tolist()
                np.testing.assert_allclose([hit.score for hit in hits], cosines, atol=5e-6)
                assert [hit.rank for hit in hits] == list(range(1, 11))
                assert list(hits[0].scores)[-1] == tier
                assert hits[0].score == hits[0].scores[tier]


def test_a_protein_finds_itself_first(index, proteins_file):
    records = list(fasta.read(proteins_file))
    for query, hits in index.search(proteins_file, k=2):
        assert query.accession in hits[0].accessions
        assert hits[0].score == pytest.approx(1, abs=2e-3)
    assert len(records) == 121


def test_rows_are_distinct_sequences(index, proteins_file):
    records = list(fasta.read(proteins_file))
    assert (index.n_rows, index.n_accessions) == (120, 121)
    ((_, hits),) = index.search(records[-1], k=1)
    assert hits[0].accessions == (records[0].accession, "twin")
    assert hits[0].accession == records[0].accession
    assert hits[0].organism == records[0].organism


def test_plain_faiss_on_a_tier_file(index, queries):
    for entry in index.manifest.tiers:
        vectors = index.embed([query.sequence for query in queries], entry.name)
        plain = faiss.read_index(str(index.path / SEGMENT / f"{entry.name}.faiss"))
        scores, _ = plain.search(vectors, 1)
        found = index.search_vectors(queries, vectors, 1, Funnel((entry.name,), ()))
        np.testing.assert_allclose([r.hits[0].score for r in found], scores[:, 0], atol=1e-6)


def test_metadata_keeps_types_and_reaches_hits(mini_index, proteins_file):
    with rdsearch.open(mini_index) as index:
        assert index.columns["reviewed"] == "BOOLEAN"
        ((_, hits),) = index.search(next(fasta.read(proteins_file)), k=1)
        assert isinstance(hits[0].columns["reviewed"], bool)


def test_to_tier_never_loads_wider_members(mini_index, queries, monkeypatch):
    from rdsearch import embed

    asked = []
    pool = embed.Embedder.pool

    def spy(self, member, sequences, **options):
        asked.append(member.name)
        return pool(self, member, sequences, **options)

    monkeypatch.setattr(embed.Embedder, "pool", spy)
    with rdsearch.open(mini_index) as index:
        list(index.search(queries[:1], to_tier="0.5M"))
    assert asked == ["0.1M", "0.5M"]


def test_plans(mini_index):
    with rdsearch.open(mini_index) as index:
        assert index.plan() == Funnel(("0.1M", "4.8M"), (2000,))
        assert index.plan(to_tier="1.2M") == Funnel(("0.1M", "1.2M"), (2000,))
        assert index.plan(shortlists=50) == Funnel(("0.1M", "4.8M"), (50,))
        assert index.plan(to_tier="4.8M", shortlists={"0.1M": 90}) == Funnel(
            ("0.1M", "4.8M"), (90,)
        )
        assert index.plan(to_tier="1.2M", shortlists={}) == Funnel(("1.2M",), ())
        for to_tier, shortlists, words in [
            ("650M", None, "no tier '650M'; it has 0.1M, 0.5M, 1.2M, 4.8M"),
            (None, {"9B": 3}, "no tier '9B'"),
            ("0.5M", {"1.2M": 3}, "before the last one, 0.5M; found 1.2M"),
            (None, {"0.1M": 3, "0.5M": 30}, "must not grow"),
            (None, 0, "must be positive"),
        ]:
            with pytest.raises(InputError, match=words):
                index.plan(None, to_tier, shortlists)


def test_options_are_checked_before_a_query_is_read(mini_index):
    with rdsearch.open(mini_index) as index:
        for k in (0, -3, 121):
            with pytest.raises(InputError, match=rf"k must be from 1 to 120.*found {k}"):
                index.search("absent.fasta", k=k)
        for shortlists in (9, {"0.1M": 30, "1.2M": 9}):
            with pytest.raises(InputError, match=r"must hold the 10 hits .*:9 > 4\.8M"):
                index.search("absent.fasta", k=10, shortlists=shortlists)
        with pytest.raises(InputError, match="give a funnel, or to_tier, not both"):
            index.search("absent.fasta", funnel=index.default_funnel, to_tier="0.5M")
        with pytest.raises(InputError, match="no tier"):
            index.search("absent.fasta", to_tier="3B")


def test_filters_reach_the_search(mini_index, queries):
    with rdsearch.open(mini_index) as index:
        every = list(index.search(queries, index.n_rows))
        for options, holds in [
            ({"where": "length < 200"}, lambda hit: hit.length < 200),
            ({"where": "length = 0"}, lambda hit: False),
            ({"ids": [every[0].hits[5].accession]}, lambda hit: hit.row == every[0].hits[5].row),
        ]:
            for whole, some in zip(every, index.search(queries, 120, **options), strict=True):
                expected = [hit.row for hit in whole.hits if holds(hit)]
                assert [hit.row for hit in some.hits] == expected
        with pytest.raises(InputError, match="lenght"):
            index.search(queries, where="lenght < 200")


def test_a_query_can_be_left_out_of_its_hits(mini_index, proteins_file):
    records = list(fasta.read(proteins_file))
    named = replace(records[3], accession="unknown", id="unknown")
    other = replace(records[4], accession="unknown", sequence=records[4].sequence + "A")
    with rdsearch.open(mini_index) as index:
        asked = [records[0], named, other]
        whole, others = index.search(asked, 9), index.search(asked, 8, exclude_self=True)
        for query, one, left in zip(asked, whole, others, strict=True):
            rows = [hit.row for hit in one.hits]
            expected = rows[:8] if query is other else rows[1:]
            assert [hit.row for hit in left.hits] == expected


def test_a_store_of_queries(mini_index, mini_store, mini_chain, proteins_file, tmp_path):
    with rdsearch.open(mini_index, dtype="float32") as index:
        embedded = list(index.search(proteins_file, 3))
        for queries in (mini_store, mini_store.path, str(mini_store.path)):
            stored = list(index.search(queries, 3))
            assert [r.query.id for r in stored] == [r.query.id for r in embedded]
            for one, other in zip(embedded, stored, strict=True):
                assert [hit.row for hit in one.hits] == [hit.row for hit in other.hits]
        few = tmp_path / "few.fasta"
        few.write_text(">a\nMKVLAAGIVGLCAKAYWE\n")
        rdsearch.embed_proteins(few, mini_chain.upto("0.5M"), tmp_path / "other")
        with pytest.raises(ChainMismatchError, match="Embed the queries with the index's chain"):
            index.search(tmp_path / "other")


def test_explanations_count_rows_and_bytes(mini_index, queries):
    told = []
    with rdsearch.open(mini_index) as index:
        shortlists = {"0.1M": 50, "1.2M": 20}
        list(
            index.search(
                queries,
                explain=lambda query, steps: told.append((query, steps)),
                shortlists=shortlists,
            )
        )
    assert [query for query, _ in told] == queries
    for _, steps in told:
        assert [step.tier for step in steps] == ["0.1M", "1.2M", "4.8M"]
        assert [step.rows for step in steps] == [120, 50, 20]
        assert [step.bytes for step in steps] == [120 * 64 * 4, 50 * 128 * 4, 20 * 256 * 4]
        assert all(step.seconds >= 0 for step in steps)


def test_explanations_widen_short_default_shortlists_as_the_search_does(mini_index, mini_store):
    vectors = mini_store.rd(slice(0, 2))
    with rdsearch.open(mini_index) as index:
        funnel = index.plan(shortlists={"0.1M": 50, "1.2M": 20})
        for steps in index.explain(vectors, 60, funnel):
            assert [step.rows for step in steps] == [120, 60, 60]
        for rows in (np.arange(30), np.arange(1), np.arange(0)):
            for steps in index.explain(vectors, 60, funnel, rows):
                assert steps[0].rows == len(rows)
        for ranking, steps in zip(
            index.rank(vectors, 120, funnel), index.explain(vectors, 120, funnel), strict=True
        ):
            assert len(ranking.rows) == 120 == steps[-1].rows


def test_memory_and_disk_give_the_same_hits(mini_index, queries):
    with (
        rdsearch.open(mini_index) as mapped,
        rdsearch.open(mini_index, in_memory=True) as loaded,
    ):
        one, other = list(mapped.search(queries)), list(loaded.search(queries))
    assert [r.hits for r in one] == [r.hits for r in other]


def test_rows_as_queries(mini_index, mini_store):
    with rdsearch.open(mini_index) as index:
        database = mini_store.rd(slice(None))
        rows, scores = oracle.exhaustive_search(database, index.space.mean, database[:40], 6)
        for funnel in (index.plan(shortlists={}), index.plan(shortlists=120)):
            found = index.rank_rows(range(40), 5, funnel)
            for row, ranking, expected, cosines in zip(range(40), found, rows, scores, strict=True):
                others = expected != row
                assert ranking.rows.tolist() == expected[others][:5].tolist()
                np.testing.assert_allclose(ranking.scores[:, -1], cosines[others][:5], atol=5e-6)
        with pytest.raises(InputError, match="rows from 0 to 119"):
            index.rank_rows([120], 5, funnel)


def test_vectors_that_cannot_be_searched(mini_index):
    with rdsearch.open(mini_index) as index:
        funnel = index.default_funnel
        for vectors, words in [
            (np.full((1, 256), np.nan), "not finite"),
            (np.zeros((1, 255)), r"\(n, 256\) or be wider; found \(1, 255\)"),
        ]:
            given = vectors.astype(np.float32)
            before = given.copy()
            with pytest.raises(InputError, match=words):
                index.rank(given, 3, funnel)
            np.testing.assert_array_equal(given, before)


def test_existing_things_are_not_replaced(mini_store, mini_chain, tmp_path):
    def build(path, **options):
        return rdsearch.build(mini_store.path, mini_chain, path, **options)

    build(tmp_path / "a")
    before = (tmp_path / "a" / "manifest.json").read_bytes()
    with pytest.raises(IndexExistsError, match="--overwrite"):
        build(tmp_path / "a")
    assert (tmp_path / "a" / "manifest.json").read_bytes() == before
    build(tmp_path / "a", overwrite=True, recipe="exact")
    rdsearch.verify(tmp_path / "a")
    other = tmp_path / "thesis"
    other.mkdir()
    (other / "chapter.txt").write_text("years of work")
    with pytest.raises(IndexExistsError, match="not an index"):
        build(other, overwrite=True)
    assert (other / "chapter.txt").read_text() == "years of work"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "thesis"]


def test_a_failed_build_leaves_nothing(mini_store, mini_chain, tmp_path):
    table = tmp_path / "table.tsv"
    table.write_text("accession\tsequence\nA\tB\n")
    with pytest.raises(MetadataError):
        rdsearch.build(mini_store.path, mini_chain, tmp_path / "x", metadata=[table])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["table.tsv"]


def test_a_failed_overwrite_keeps_the_index_before(copy, mini_store, mini_chain, tmp_path):
    with pytest.raises(MetadataError):
        rdsearch.build(
            mini_store.path, mini_chain, copy, metadata=[tmp_path / "absent.tsv"], overwrite=True
        )
    rdsearch.verify(copy)
    assert not building_folder(copy).exists()


def test_vectors_of_another_chain_are_refused(mini_store, mini_chain, tmp_path):
    with pytest.raises(ChainMismatchError, match="made with chain"):
        rdsearch.build(mini_store.path, mini_chain.upto("1.2M"), tmp_path / "x")


def test_verify_accepts_a_sound_index(mini_index):
    rdsearch.verify(mini_index)
    found = [check.path for check in checks(mini_index)]
    on_disk = [str(p.relative_to(mini_index)) for p in mini_index.rglob("*") if p.is_file()]
    assert sorted(found) == sorted(on_disk)


@pytest.mark.slow
def test_verify_names_a_flipped_byte_in_any_file(copy):
    rng = np.random.default_rng(0)
    for file in sorted(path for path in copy.rglob("*") if path.is_file()):
        whole = file.read_bytes()
        for position in {0, len(whole) - 1, *rng.integers(len(whole), size=12).tolist()}:
            changed = bytearray(whole)
            changed[position] ^= 1 << int(rng.integers(8))
            file.write_bytes(changed)
            with pytest.raises(rdsearch.RdsearchError, match=file.name):
                rdsearch.verify(copy)
        file.write_bytes(whole)
    rdsearch.verify(copy)


def test_a_swapped_catalog_has_its_own_message(copy, mini_chain, proteins_file, tmp_path):
    few = tmp_path / "few.fasta"
    few.write_text("".join(proteins_file.read_text().partition("\n>")[:1]) + "\n")
    rdsearch.build(few, mini_chain, tmp_path / "other")
    shutil.copy(tmp_path / "other" / SEGMENT / "catalog.duckdb", copy / SEGMENT)
    with pytest.raises(IndexDamagedError, match="this catalog belongs to other vectors"):
        rdsearch.verify(copy)
    with pytest.raises(IndexDamagedError, match=r"catalog\.duckdb"):
        rdsearch.open(copy)


def test_a_foreign_chain_has_its_own_message(copy, mini_chain):
    mini_chain.upto("1.2M").save(copy / "chain.safetensors")
    for check in (rdsearch.open, rdsearch.verify):
        with pytest.raises(ChainMismatchError, match="the index was built with chain"):
            check(copy)


def test_missing_files_and_folders(copy, tmp_path):
    with pytest.raises(IndexMissingError, match="no index here"):
        rdsearch.open(tmp_path / "absent")
    (copy / SEGMENT / "1.2M.faiss").unlink()
    with pytest.raises(IndexDamagedError, match=r"1\.2M\.faiss: the file is missing"):
        rdsearch.open(copy)


def test_verify_lists_everything_that_is_wrong(copy):
    (copy / SEGMENT / "0.1M.faiss").write_bytes(b"")
    (copy / SEGMENT / "catalog.duckdb").write_bytes(b"x")
    with pytest.raises(IndexDamagedError) as caught:
        rdsearch.verify(copy)
    assert len(caught.value.facts["errors"]) == 2


def test_catalog_and_vectors_are_tied(mini_index):
    with (
        Catalog(mini_index / SEGMENT / "catalog.duckdb") as catalog,
        rdsearch.open(mini_index) as index,
    ):
        assert catalog.row_checksum == index.manifest.segments[0].row_checksum
        assert catalog.compute_row_checksum() == catalog.row_checksum
