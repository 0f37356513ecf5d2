"""The catalog: rows and accessions, read by many, damage by name."""

from __future__ import annotations

import hashlib
import multiprocessing
import subprocess
import sys

import duckdb
import numpy as np
import pytest

from rdsearch.catalog import Catalog, CatalogWriter
from rdsearch.errors import CatalogError
from rdsearch.fasta import Record, read
from rdsearch.headers import HEADER_COLUMNS

RECORDS = [
    Record("sp|P1|A_X", "P1", "MKV", "Name OS=Org", "A_X", "Name", "Org", 562, "abc", 1, 2),
    Record("sp|P2|B_X", "P2", "ACD"),
    Record("third", "third", "MKV", "the first sequence again"),
    Record("we|ird 'id'", 'O\'Hara "β"', "G"),
]


def write(path, records=RECORDS, tables=(), meta=None):
    with CatalogWriter(path) as writer:
        rows = [writer.add(record) for record in records]
        reports = [writer.join(table) for table in tables]
        return rows, reports, writer.finish(meta or {})


def test_rows_are_distinct_sequences_in_order(tmp_path):
    rows, _, checksum = write(tmp_path / "c.duckdb", meta={"chain": "abc", "segment": "000001"})
    assert rows == [0, 1, 0, 2]
    digests = [hashlib.sha256(s).digest() for s in (b"MKV", b"ACD", b"G")]
    assert checksum == hashlib.sha256(b"".join(digests)).hexdigest()
    with Catalog(tmp_path / "c.duckdb") as catalog:
        assert (catalog.n_rows, catalog.n_accessions) == (3, 4)
        assert catalog.row_checksum == catalog.compute_row_checksum() == checksum
        assert (catalog.meta["chain"], catalog.meta["segment"]) == ("abc", "000001")
        assert catalog.sequences([2, 0, 0]) == ["G", "MKV", "MKV"]
        assert catalog.sequences([]) == []
        assert catalog.proteins([]) == {}
        catalog.check()
    assert [path.name for path in tmp_path.iterdir()] == ["c.duckdb"]


def test_proteins_have_every_column_in_order_of_addition(tmp_path):
    write(tmp_path / "c.duckdb")
    with Catalog(tmp_path / "c.duckdb") as catalog:
        found = catalog.proteins(np.array([2, 0]))
        assert list(found) == [2, 0]
        assert [entry["accession"] for entry in found[0]] == ["P1", "third"]
        for entry in (*found[0], *found[2]):
            assert list(entry) == list(catalog.columns)
        header = {name: getattr(RECORDS[0], name) for name, _ in HEADER_COLUMNS}
        assert found[0][0] == {"row": 0, "accession": "P1", "length": 3, **header}
        assert found[2][0]["accession"] == 'O\'Hara "β"'


def test_order_holds_over_batches(tmp_path, monkeypatch):
    monkeypatch.setattr("rdsearch.catalogwriter._BATCH_RECORDS", 7)
    monkeypatch.setattr("rdsearch.catalogfile._SCAN_ROWS", 5)
    rng = np.random.default_rng(0)
    texts = ["".join(rng.choice(list("ACDE"), 3)) for _ in range(150)]
    records = [Record(f"p{i}", f"p{i}", text) for i, text in enumerate(texts)]
    distinct = list(dict.fromkeys(texts))
    with CatalogWriter(tmp_path / "c.duckdb") as writer:
        assert [writer.add(record) for record in records] == [distinct.index(t) for t in texts]
        assert writer.n_rows == len(distinct)
        assert writer.sequences(3, 30) == distinct[3:30]
        writer.finish({})
    with Catalog(tmp_path / "c.duckdb") as catalog:
        catalog.check()
        assert catalog.sequences(range(len(distinct))) == distinct
        for row, entries in catalog.proteins(range(len(distinct))).items():
            expected = [f"p{i}" for i, text in enumerate(texts) if text == distinct[row]]
            assert [entry["accession"] for entry in entries] == expected


def test_an_unknown_row_is_named(tmp_path):
    write(tmp_path / "c.duckdb")
    with Catalog(tmp_path / "c.duckdb") as catalog:
        for ask in (catalog.proteins, catalog.sequences):
            for row in (-1, 3):
                with pytest.raises(CatalogError, match=f"expected a row from 0 to 2, found {row}"):
                    ask([0, row])


def test_an_accession_of_two_files_is_kept_once(tmp_path):
    rows, _, _ = write(tmp_path / "c.duckdb", [*RECORDS, RECORDS[1]])
    assert rows == [0, 1, 0, 2, 1]
    with Catalog(tmp_path / "c.duckdb") as catalog:
        catalog.check()
        assert catalog.n_accessions == 4
    other = Record("P1", "P1", "WWW")
    with pytest.raises(CatalogError, match="accession P1 comes with two sequences"):
        write(tmp_path / "d.duckdb", [*RECORDS, RECORDS[1], other])
    assert [path.name for path in tmp_path.iterdir()] == ["c.duckdb"]


def test_an_unfinished_catalog_leaves_nothing_and_a_file_is_never_replaced(tmp_path):
    writer = CatalogWriter(tmp_path / "c.duckdb")
    writer.add(RECORDS[0])
    writer.sequences(0, 1)
    writer.close()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "c.duckdb").write_text("mine")
    with pytest.raises(CatalogError, match="a file already"):
        CatalogWriter(tmp_path / "c.duckdb")
    with pytest.raises(CatalogError, match="cannot be written"):
        CatalogWriter(tmp_path / "absent" / "c.duckdb")
    assert (tmp_path / "c.duckdb").read_text() == "mine"


def test_nothing_is_added_after_a_join_or_the_end(tmp_path):
    (tmp_path / "t.tsv").write_text("accession\tx\nP1\t1\n")
    writer = CatalogWriter(tmp_path / "c.duckdb")
    writer.add(RECORDS[0])
    writer.join(tmp_path / "t.tsv")
    with pytest.raises(CatalogError, match="before the first table"):
        writer.add(RECORDS[1])
    writer.finish({})
    with pytest.raises(CatalogError, match="finished or closed"):
        writer.finish({})
    writer.close()
    Catalog(tmp_path / "c.duckdb").close()


def test_removed_accessions_are_not_there(tmp_path):
    write(tmp_path / "c.duckdb", meta={"segment": "000001"})
    with Catalog(tmp_path / "c.duckdb", np.array([0, 3])) as catalog:
        assert (catalog.n_rows, catalog.n_accessions) == (3, 2)
        assert [entry["accession"] for entry in catalog.proteins([0])[0]] == ["third"]
        assert catalog.records([1, 0]) == {1: [RECORDS[1]], 0: [RECORDS[2]]}
        for ask in (catalog.proteins, catalog.records):
            with pytest.raises(CatalogError, match="behind row 2, found that all were removed"):
                ask([1, 2])
        assert catalog.rows_of(["P1", "P2", "third"]) == {"P2": 1, "third": 0}
        assert catalog.locate(["third", "P1"]) == {"third": (2, 0)}
        assert catalog.rows_where("length > 0").tolist() == [0, 1]
        assert catalog.rows_where("organism = 'Org'").tolist() == []
        assert catalog.accessions_where("length = 3 AND proteins.id <> 'none'") == ["P2", "third"]
        assert catalog.inhabited([0, 1, 2, 7]) == {0, 1}
        assert catalog.inhabited(range(3), without=[2]) == {1}
        # What is asked by sequence, and the check, are of the file.
        assert catalog.rows_of_sequences(["G", "MKV", "K"]) == {"G": 2, "MKV": 0}
        assert catalog.sequences([2]) == ["G"]
        catalog.check()
    nobody = np.empty(0, dtype=np.int64)
    for removed in (None, nobody, np.array([17])):
        with Catalog(tmp_path / "c.duckdb", removed) as catalog:
            assert (catalog.n_accessions, len(catalog.proteins([0])[0])) == (4, 2)


def test_sequences_of_one_key_are_told_apart(tmp_path, monkeypatch):
    monkeypatch.setattr("rdsearch.catalogwriter.sequence_key", lambda digest: 5)
    monkeypatch.setattr("rdsearch.catalog.sequence_key", lambda digest: 5)
    write(tmp_path / "c.duckdb")
    with Catalog(tmp_path / "c.duckdb") as catalog:
        assert catalog.rows_of_sequences(["ACD", "AAA", "MKV"]) == {"ACD": 1, "MKV": 0}


@pytest.mark.parametrize("removed", [None, np.array([0])])
def test_only_the_catalog_can_be_read(tmp_path, removed):
    write(tmp_path / "c.duckdb")
    with Catalog(tmp_path / "c.duckdb", removed) as catalog:
        for statement in (
            "SELECT * FROM read_csv('/etc/hostname')",
            f"ATTACH '{tmp_path}/other.duckdb'",
            f"COPY rows TO '{tmp_path}/stolen.csv'",
            "DELETE FROM rows",
            "DROP VIEW proteins",
            "SET enable_external_access = true",
            "SET memory_limit = '1GB'",
        ):
            with pytest.raises(CatalogError):
                catalog._query(statement)
        catalog.check()
    assert [path.name for path in tmp_path.iterdir()] == ["c.duckdb"]


def test_a_file_put_in_place_of_another_is_the_one_that_opens(tmp_path):
    write(tmp_path / "c.duckdb")
    write(tmp_path / "new.duckdb", RECORDS[1:2])
    with Catalog(tmp_path / "c.duckdb") as before:
        (tmp_path / "new.duckdb").replace(tmp_path / "c.duckdb")
        with Catalog(tmp_path / "c.duckdb") as after:
            assert after.sequences([0]) == ["ACD"]
            assert before.sequences([0]) == ["MKV"]


def test_many_processes_read_at_once(tmp_path):
    path = tmp_path / "c.duckdb"
    write(path)
    path.chmod(0o444)
    code = (
        "import sys; from rdsearch.catalog import Catalog\n"
        "with Catalog(sys.argv[1]) as catalog:\n"
        "    print(catalog.sequences([0]), flush=True); sys.stdin.read()\n"
    )
    readers = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    assert [reader.stdout.readline() for reader in readers] == ["['MKV']\n"] * 3
    for reader in readers:
        reader.communicate("")
        assert reader.returncode == 0


def test_files_that_are_no_catalog(tmp_path):
    write(tmp_path / "good.duckdb")
    good = (tmp_path / "good.duckdb").read_bytes()
    with duckdb.connect(str(tmp_path / "other.duckdb")) as other:
        other.execute("CREATE TABLE t AS SELECT 1")
    for name, raw in {
        "empty": b"",
        "text": b"hello" * 9000,
        "sqlite": b"SQLite format 3\0" + bytes(9000),
        "half": good[: len(good) // 2],
        "short": good[:-1],
        "other.duckdb": None,
    }.items():
        if raw is not None:
            (tmp_path / name).write_bytes(raw)
        with pytest.raises(CatalogError, match=name), Catalog(tmp_path / name) as catalog:
            catalog.check()
    for path in (tmp_path / "absent", tmp_path):
        with pytest.raises(CatalogError, match="no catalog file"):
            Catalog(path)
    (tmp_path / "good.duckdb.wal").write_bytes(b"")
    with pytest.raises(CatalogError, match=r"good\.duckdb: not finished"):
        Catalog(tmp_path / "good.duckdb")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("UPDATE rows SET sequence = 'MKL' WHERE \"row\" = 0", "the sequences are not those"),
        ('UPDATE rows SET length = 4 WHERE "row" = 0', "lengths that are not"),
        ('UPDATE rows SET "row" = 7 WHERE "row" = 2', "rows that are not 0 to n - 1: 1"),
        ('DELETE FROM rows WHERE "row" = 2', "accessions without a row: 1"),
        ('UPDATE accessions SET "row" = 1 WHERE "row" = 2', "rows without an accession: 1"),
        ("UPDATE accessions SET accession = 'P1'", "accessions that are there twice: 3"),
        ('UPDATE accessions SET position = 9 WHERE "row" = 2', "positions that are not 0 to n - 1"),
        ('UPDATE rows SET key = 7 WHERE "row" = 2', "keys that are not those of the sequences: 1"),
        ("UPDATE meta SET value = '99' WHERE key = 'format'", "expected a catalog of format 2"),
        ("DELETE FROM meta WHERE key = 'row_checksum'", "the sequences are not those"),
        ("DROP TABLE accessions", "damaged, or not a catalog"),
    ],
)
def test_check_compares_the_tables(tmp_path, change, reason):
    write(tmp_path / "c.duckdb")
    with duckdb.connect(str(tmp_path / "c.duckdb")) as connection:
        connection.execute(change)
    with pytest.raises(CatalogError) as caught, Catalog(tmp_path / "c.duckdb") as catalog:
        catalog.check()
    assert reason in str(caught.value)
    assert str(tmp_path / "c.duckdb") in str(caught.value)


def _try_damaged(path, answers):
    """What a damaged file answers; in a process of its own, which must not die."""
    try:
        with Catalog(path) as catalog:
            catalog.check()
            answers.put(("sound", catalog.sequences([0, 1]), catalog.proteins([0, 1])))
    except CatalogError as error:
        answers.put(("named", str(path) in str(error)))


@pytest.mark.parametrize("tries", [25, pytest.param(400, marks=pytest.mark.slow)])
def test_damage_is_named_or_harmless(tmp_path, tries):
    whole = tmp_path / "c.duckdb"
    write(whole)
    with Catalog(whole) as catalog:
        expected = ("sound", catalog.sequences([0, 1]), catalog.proteins([0, 1]))
    raw = whole.read_bytes()
    rng = np.random.default_rng(tries)
    context = multiprocessing.get_context("fork")
    named = 0
    for attempt in range(tries):
        changed = bytearray(raw)
        start = int(rng.integers(12_288 if attempt % 3 == 0 else len(raw)))
        if attempt % 5 == 1:
            del changed[start:]
        elif attempt % 5 == 2:
            stop = min(start + 256, len(raw))
            changed[start:stop] = rng.bytes(stop - start)
        else:
            changed[start] ^= 1 << int(rng.integers(8))
        path = tmp_path / "damaged.duckdb"
        path.write_bytes(changed)
        answers = context.SimpleQueue()
        process = context.Process(target=_try_damaged, args=(path, answers))
        process.start()
        process.join(60)
        assert process.exitcode == 0
        answer = answers.get()
        # Parts of the file are unused: a change there is seen by the index's checksums alone.
        assert answer in (("named", True), expected)
        named += answer[0] == "named"
    assert named > tries / 5


def test_real_proteins(tmp_path, data_dir):
    with CatalogWriter(tmp_path / "c.duckdb") as writer:
        for record in read(data_dir / "uniprot-20k.fasta.gz"):
            writer.add(record)
        writer.finish({})
    with Catalog(tmp_path / "c.duckdb") as catalog:
        catalog.check()
        assert catalog.n_accessions == 20_000
        # zcat uniprot-20k.fasta.gz | awk '/^>/{print "";next}{printf "%s",$0}' |
        # grep . | sort -u | wc -l
        assert catalog.n_rows == 18_801
