"""Filters by accession and by taxon, and several together."""

from __future__ import annotations

import json
import logging
import sys

import numpy as np
import pytest

from rdsearch import filters
from rdsearch.catalog import Catalog, CatalogWriter
from rdsearch.errors import InputError
from rdsearch.fasta import Record
from tests.described import RECORDS, ROWS, expected, write_catalog


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return write_catalog(tmp_path_factory.mktemp("filters"))


@pytest.fixture(scope="module")
def catalog(path):
    with Catalog(path) as opened:
        yield opened


def test_rows_of_accessions_and_sequences(catalog, monkeypatch):
    monkeypatch.setattr("rdsearch.catalogfile._LOOKUP", 3)
    wanted = ["p299", "absent", "p0", "p205", "p0", "p5", "O'Hara"]
    assert list(catalog.rows_of(wanted).items()) == [
        (name, ROWS[RECORDS[int(name[1:])].sequence]) for name in ("p299", "p0", "p205", "p5")
    ]
    texts = [RECORDS[3].sequence, "WWWWWW", RECORDS[201].sequence]
    assert catalog.rows_of_sequences(texts) == {text: ROWS[text] for text in texts if text in ROWS}
    assert catalog.rows_of([]) == {}


LINEAGES = {
    "A": "1;2;1224;562",
    "B": '"131567 (cellular organisms), 2 (superkingdom), 1239 (Firmicutes 9606)"',
    "C": "1 131567 9606",
    "D": "[5620, 62]",
    "E": None,
    "F": "2, 562",
}


@pytest.mark.parametrize("kind", ["text", "list of numbers", "list of text"])
def test_a_taxon_is_found_in_every_form_of_lineage(tmp_path, kind):
    records = [Record(name, name, "ACDE" + "K" * i) for i, name in enumerate(LINEAGES)]
    records[4] = Record("E", "E", "WWW", taxon_id=9606)
    if kind == "text":
        lines = [f"{name}\t{text}" for name, text in LINEAGES.items() if text]
        table = tmp_path / "t.tsv"
        table.write_text("\n".join(["accession\tLineage", *lines]) + "\n")
    else:
        table = tmp_path / "t.jsonl"
        convert = int if kind == "list of numbers" else str
        ids = {"A": (1, 2, 1224, 562), "B": (131567, 2, 1239), "C": (1, 131567, 9606),
               "D": (5620, 62), "F": (2, 562)}  # fmt: skip
        table.write_text(
            "\n".join(
                json.dumps({"accession": name, "lineage": [convert(n) for n in numbers]})
                for name, numbers in ids.items()
            )
        )
    with CatalogWriter(tmp_path / "c.duckdb") as writer:
        for record in records:
            writer.add(record)
        writer.join(table)
        writer.finish({})
    with Catalog(tmp_path / "c.duckdb") as catalog:
        names = {
            row: entries[0]["accession"] for row, entries in catalog.proteins(range(6)).items()
        }
        for taxon, found in {
            562: "AF", 2: "ABF", 131567: "BC", 9606: "CE", 1: "AC", 62: "D", 1239: "B", 12: "",
        }.items():  # fmt: skip
            rows = catalog.rows_of_taxon(taxon)
            assert rows.dtype == np.int64
            assert "".join(names[row] for row in rows.tolist()) == found, taxon
        with pytest.raises(InputError, match="positive number; found 0"):
            catalog.rows_of_taxon(0)


def test_without_lineage_the_error_says_how_to_add_it(catalog):
    with pytest.raises(
        InputError, match=r"taxon_id = 562.*metadata table that has a column lineage"
    ):
        catalog.rows_of_taxon(562)


def test_filters_together_leave_what_passes_each(catalog):
    rng = np.random.default_rng(5)
    for _ in range(20):
        sets = [np.sort(rng.choice(50, int(rng.integers(0, 50)), replace=False)) for _ in range(3)]
        together = filters.combine(sets[0], None, sets[1], sets[2])
        assert together.tolist() == sorted(set.intersection(*(set(s.tolist()) for s in sets)))
    assert filters.combine(None, None) is None
    assert filters.allowed_rows(catalog) is None
    names = [f"p{i}" for i in range(0, 300, 7)]
    rows = filters.allowed_rows(catalog, where="length < 40", ids=names)
    short = set(expected(lambda r: len(r.sequence) < 40))
    named = {ROWS[r.sequence] for r in RECORDS if r.accession in names}
    assert rows.tolist() == sorted(short & named)
    assert rows.dtype == np.int64
    assert filters.allowed_rows(catalog, where="length < 0", ids=names).tolist() == []


def test_ids_that_the_index_lacks_are_counted(catalog, caplog):
    ids = ["p3", "sp|p5|NAME_X", "x1", "x2", "p3", "", "x3", "x4"]
    with caplog.at_level(logging.WARNING, "rdsearch"):
        rows = filters.rows_of_ids(catalog, ids)
    assert rows.tolist() == sorted(ROWS[RECORDS[i].sequence] for i in (3, 5))
    assert "4 of 6 accessions are not in the index (x1, x2, x3, …)" in caplog.text
    caplog.clear()
    filters.rows_of_ids(catalog, ["p3"])
    assert caplog.text == ""
    with pytest.raises(InputError, match=r"none of 2 accessions is in the index \(x1, x2\)"):
        filters.rows_of_ids(catalog, ["x1", "x2"])
    with pytest.raises(InputError, match="none of 0 accessions"):
        filters.rows_of_ids(catalog, [])
    with pytest.raises(InputError, match="one string each"):
        filters.rows_of_ids(catalog, "p3")


def test_a_file_of_ids(tmp_path, monkeypatch):
    file = tmp_path / "ids.txt"
    file.write_bytes("\ufeff# mine\nP1\n\n  sp|P2|X_Y \r\n# more\nP3".encode())
    assert filters.read_ids(file) == ["P1", "sp|P2|X_Y", "P3"]
    with file.open("rb") as stream:
        monkeypatch.setattr(sys, "stdin", type("In", (), {"buffer": stream}))
        assert filters.read_ids("-") == ["P1", "sp|P2|X_Y", "P3"]
    for content, reason in (
        (b"P1\nP2\tP3\n", "line 2: expected one accession, found 2 words"),
        (b"# nothing\n", "found none"),
        (b"\xff\xfe\x00", "UTF-8"),
    ):
        file.write_bytes(content)
        with pytest.raises(InputError, match=reason):
            filters.read_ids(file)
    with pytest.raises(InputError, match="cannot be read"):
        filters.read_ids(tmp_path / "absent")


def test_an_expression_gets_the_time_that_is_allowed():
    asked = []

    class Catalog:
        def rows_where(self, expression, seconds=30.0):
            asked.append((expression, seconds))
            return np.array([3], dtype=np.int64)

    assert filters.allowed_rows(Catalog(), "a", seconds=2.5).tolist() == [3]
    assert filters.allowed_rows(Catalog(), "a").tolist() == [3]
    assert asked == [("a", 2.5), ("a", 30.0)]
