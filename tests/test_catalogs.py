"""The catalogs of several segments as one, against plain lists of proteins."""

from __future__ import annotations

import tempfile
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rdsearch.catalog import Catalog, CatalogWriter
from rdsearch.catalogs import Catalogs
from rdsearch.errors import CatalogError, IndexDamagedError, InputError
from rdsearch.fasta import Record
from rdsearch.filters import allowed_rows
from rdsearch.rowmap import RowMap
from rdsearch.tombstones import Tombstones
from tests.segmented import HEADERS, KINDS, ORGANISMS, SEQUENCES, SPELLING, Model, opened

LINES = st.lists(
    st.tuples(
        st.integers(0, 7),
        st.integers(0, len(SEQUENCES) - 1),
        st.integers(0, len(ORGANISMS) - 1),
        st.tuples(*[st.integers(0, 3)] * 3),
    ),
    min_size=1,
    max_size=8,
)
CHANGES = st.lists(st.tuples(LINES, st.sets(st.integers(0, 7))), min_size=1, max_size=5)

CONDITIONS = {
    "depth > 2": lambda line: (line.get("Depth") or 0) > 2,
    "DEPTH IS NULL": lambda line: line.get("Depth") is None,
    "note = 'it''s'": lambda line: line.get("note") == "it's",
    "organism = 'Rattus' OR length = 2": lambda line: (
        line["organism"] == "Rattus" or line["length"] == 2
    ),
    "proteins.organism LIKE 'Mus%' AND sequence LIKE 'M%'": lambda line: (
        (line["organism"] or "").startswith("Mus") and line["sequence"].startswith("M")
    ),
    "false": lambda line: False,
}


def check(model, catalogs):
    """Every answer is that of the lists."""
    live, sequences = model.live(), model.shown()
    row_of = {sequence: row for row, sequence in enumerate(sequences)}
    behind = {row: [] for row in range(len(sequences))}
    for protein in live:
        behind[row_of[protein.record.sequence]].append(protein)
    assert (catalogs.n_rows, catalogs.n_accessions) == (len(sequences), len(live))
    user = dict.fromkeys(
        SPELLING[name.lower()] for protein in model.proteins for name in protein.values
    )
    user = [name for name in user if name not in HEADERS]
    assert list(catalogs.columns) == ["row", "accession", "length", *HEADERS, *user]
    assert all(catalogs.columns[name] == KINDS[name.lower()] for name in user)

    expected = {
        row: [protein.line(catalogs.columns, row) for protein in proteins]
        for row, proteins in behind.items()
    }
    asked = [*reversed(expected), *expected]
    assert catalogs.proteins(asked) == expected
    assert list(catalogs.proteins(asked)) == list(dict.fromkeys(asked))
    assert catalogs.sequences(asked) == [sequences[row] for row in asked]

    accessions = {protein.record.accession: protein for protein in live}
    names = [f"p{number}" for number in range(9)]
    assert list(catalogs.rows_of(iter(names)).items()) == [
        (name, row_of[accessions[name].record.sequence]) for name in names if name in accessions
    ]
    assert list(catalogs.locate(names).items()) == [
        (name, (accessions[name].segment, accessions[name].position, accessions[name].row))
        for name in names
        if name in accessions
    ]
    assert list(catalogs.rows_of_sequences([*SEQUENCES, "MK"]).items()) == [
        (text, row_of[text]) for text in SEQUENCES if text in row_of
    ]

    records = [protein.record for proteins in behind.values() for protein in proteins]
    assert list(catalogs.records()) == records
    chosen = [row for row in reversed(behind) if row % 2]
    assert list(catalogs.records(chosen)) == [
        protein.record for row in sorted(chosen) for protein in behind[row]
    ]

    def with_sequence(protein):
        line = protein.line(catalogs.columns, row_of[protein.record.sequence])
        return {**line, "sequence": protein.record.sequence}

    for expression, condition in CONDITIONS.items():
        if ("depth" in expression.lower() and "Depth" not in user) or (
            "note" in expression and "note" not in user
        ):
            with pytest.raises(InputError, match="there is no column"):
                catalogs.rows_where(expression)
            continue
        fitting = [p for p in live if condition(with_sequence(p))]
        found = allowed_rows(catalogs, where=expression)
        assert found.tolist() == sorted({row_of[p.record.sequence] for p in fitting})
        assert found.dtype == np.int64
        assert sorted(catalogs.accessions_where(expression)) == sorted(
            p.record.accession for p in fitting
        )
    for taxon in (562, 9606, 5):
        if "Lineage" in user:
            fitting = [
                p
                for p in live
                if p.record.taxon_id == taxon
                or str(taxon) in (p.values.get("Lineage") or "").split(";")
            ]
            expected_rows = sorted({row_of[p.record.sequence] for p in fitting})
            assert catalogs.rows_of_taxon(taxon).tolist() == expected_rows
        else:
            with pytest.raises(InputError, match="no column lineage"):
                catalogs.rows_of_taxon(taxon)
    check_joined(model, catalogs)


def check_joined(model, catalogs):
    live = model.live()
    joined = catalogs.joined()
    columns = dict.fromkeys(
        SPELLING[name.lower()] for protein in model.proteins for name in protein.values
    )
    if not columns:
        assert joined is None
        return
    assert joined.column_names[0] == "accession"
    assert set(joined.column_names[1:]) == set(columns)
    expected = {}
    for protein in live:
        given = {SPELLING[name.lower()]: value for name, value in protein.values.items()}
        line = {name: given.get(name) for name in columns}
        if protein.values:
            expected[protein.record.accession] = line
        else:
            expected.setdefault(protein.record.accession, line)
    lines = {line.pop("accession"): line for line in joined.to_pylist()}
    # Proteins of a segment without user columns are left out.
    assert lines == {name: expected[name] for name in lines}
    assert {name for name in expected if any(expected[name].values())} <= set(lines)
    some = [protein.record.accession for protein in live[::2]]
    chosen = catalogs.joined([*some, "absent"])
    assert set(chosen.column("accession").to_pylist()) == set(some) & set(lines)
    assert chosen.schema == joined.schema


def _every_answer(changes):
    model = Model()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        for lines, removed in changes:
            model.add(lines)
            for protein in model.live():
                if protein.record.accession in {f"p{number}" for number in removed}:
                    # Something has to be left.
                    protein.live = len(model.live()) == 1
        model.write(Path(folder))
        check(model, opened(model, Path(folder), stack))


@settings(max_examples=6, deadline=None)
@given(changes=CHANGES)
def test_every_answer_is_that_of_plain_lists(changes):
    _every_answer(changes)


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(changes=CHANGES)
def test_every_answer_is_that_of_plain_lists_often(changes):
    _every_answer(changes)


@settings(max_examples=5, deadline=None)
@given(changes=CHANGES)
def test_what_is_inhabited_settles_the_tombstones(changes):
    """`Tombstones.settled`, asking the catalogs before a removal, comes to what lists say."""
    model = Model()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        for lines, _ in changes:
            model.add(lines)
        model.write(Path(folder))
        for _, numbers in changes:
            before = model.tombstones()
            catalogs = opened(model, Path(folder), stack, before)
            gone = [p for p in model.live() if p.record.accession in {f"p{n}" for n in numbers}]
            if len(gone) == len(model.live()):
                continue
            positions = {}
            for segment, position, _ in catalogs.locate(p.record.accession for p in gone).values():
                positions.setdefault(segment, []).append(position)
            after = before.without(positions).settled(
                {protein.place for protein in gone},
                partial(catalogs.inhabited, without=positions),
                {name: place for place, name in enumerate(model.names)},
            )
            for protein in gone:
                protein.live = False
            expected = model.tombstones()
            assert after.doubles == expected.doubles
            for name in model.names:
                assert after.hidden_in(name).tolist() == expected.hidden_in(name).tolist()
                assert after.removed_in(name).tolist() == expected.removed_in(name).tolist()


def small(folder, stack, *segments):
    """Catalogs of segments of accessions and sequences, nothing removed."""
    model = Model()
    for lines in segments:
        model.add([(number, text, 0, (1, 1, 1)) for number, text in lines])
    model.write(folder)
    return model, partial(opened, model, folder, stack)


def test_blocks_of_records(tmp_path, monkeypatch):
    monkeypatch.setattr("rdsearch.catalogs._SCAN_ROWS", 2)
    with ExitStack() as stack:
        # The doubles of the second segment stand in another order than the rows shown for them.
        model, reopen = small(
            tmp_path, stack, [(0, 0), (1, 1), (2, 2)], [(3, 1), (4, 3), (5, 0)], [(6, 4), (7, 1)]
        )
        check(model, reopen())


def test_a_row_that_is_not_there_is_named(tmp_path):
    with ExitStack() as stack:
        model, reopen = small(tmp_path, stack, [(0, 0), (1, 1)], [(2, 1)])
        catalogs = reopen()
        for ask in (
            catalogs.proteins,
            catalogs.sequences,
            lambda rows: list(catalogs.records(rows)),
        ):
            for row in (-1, 2):
                with pytest.raises(CatalogError, match=f"expected a row from 0 to 1, found {row}"):
                    ask([0, row])
        model.proteins[0].live = False
        removed = Catalog(tmp_path / "000001", np.array([0]))
        with removed, pytest.raises(CatalogError, match="row 0, found that all were removed"):
            removed.proteins([0])


def test_tombstones_of_another_index_are_refused(tmp_path):
    with ExitStack() as stack:
        _, reopen = small(tmp_path, stack, [(0, 0), (1, 1)], [(2, 1), (3, 2)])
        wrong = {
            "name segments 000009": Tombstones({}, {}, {("000009", 0): ("000001", 1)}),
            "a hidden row as shown": Tombstones(
                {}, {"000001": np.array([1])}, {("000002", 0): ("000001", 1)}
            ),
        }
        for reason, tombstones in wrong.items():
            with pytest.raises(IndexDamagedError, match=reason):
                reopen(tombstones)
        hidden = reopen(Tombstones({}, {"000002": np.array([1])}, {}))
        with pytest.raises(IndexDamagedError, match=r"000002: row 1 has proteins and is hidden"):
            hidden.rows_of(["p3"])


def test_a_column_has_one_type_and_any_spelling(tmp_path):
    catalogs = []
    for name, column, value in (("a", "N", "1"), ("b", "n", "2"), ("c", "n", "x")):
        (tmp_path / f"{name}.tsv").write_text(f"accession\t{column}\n{name}\t{value}\n")
        with CatalogWriter(tmp_path / name) as writer:
            writer.add(Record(name, name, "MKV" + name.upper()))
            writer.join(tmp_path / f"{name}.tsv")
            writer.finish({})
        catalogs.append(Catalog(tmp_path / name))
    shown = [np.empty(0, dtype=np.int64)] * 2
    with Catalogs(catalogs[:2], ["a", "b"], RowMap([1, 1], shown), Tombstones()) as both:
        assert [name for name in both.columns if name.lower() == "n"] == ["N"]
        assert [behind[0]["N"] for behind in both.proteins([0, 1]).values()] == [1, 2]
        assert both.joined().to_pydict() == {"accession": ["a", "b"], "N": [1, 2]}
        with pytest.raises(CatalogError, match="column 'n' is VARCHAR here and BIGINT in"):
            Catalogs(catalogs[::2], ["a", "c"], RowMap([1, 1], shown), Tombstones())
    catalogs[2].close()


def test_the_time_is_that_of_all_segments(tmp_path, monkeypatch):
    given = []

    def slow(catalog, expression, seconds, absent):
        given.append(seconds)
        time.sleep(0.05)
        return np.array([0])

    monkeypatch.setattr(Catalog, "rows_where", slow)
    with ExitStack() as stack:
        _, reopen = small(tmp_path, stack, [(0, 0)], [(1, 1)], [(2, 2)])
        assert reopen().rows_where("length > 1", seconds=0.08).tolist() == [0, 1, 2]
    assert given[0] > given[1] > given[2] == 0
    assert given[1] <= 0.03
