"""An index that is changed together with its model, and compared with it in every way."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest

import rdsearch
from rdsearch import changes, generations, merging
from rdsearch.builder import build
from rdsearch.errors import InputError
from rdsearch.funnel import Funnel
from rdsearch.index import Index
from tests import living, oracle
from tests.living import (
    FILTERS,
    NAMES,
    SEQUENCES,
    Described,
    Drawn,
    Protein,
    Proteins,
    by_row,
    named,
    placed,
    rows,
)

FULL = Funnel(("a", "b", "c"), (10**6, 10**6))
ALONE = Funnel(("c",), ())
#: With equal vectors what a shortlist cuts off is FAISS's choice: only without them.
SHORT = Funnel(("a", "b", "c"), (7, 5))
TWO = Funnel(("a", "c"), (6,))

#: Some have the accession of one protein and the sequence of another.
QUERIES = [
    living.record("new1", "MLLAV"),
    living.record("Q00", SEQUENCES[5]),
    living.record("Q01", "MLLAV"),
    living.record("new2", SEQUENCES[0]),
    living.record("new3", SEQUENCES[7]),
]


class Trial:
    """Every change is made twice: to an index on disk, and to the model.

    Attributes
    ----------
    path : Path
        Of the index.
    index : Index
        It was opened once, and moves on.
    model : tuple of Protein
        What the index holds.
    known : dict of int to tuple of Protein
        What every generation held that can be gone back to.
    """

    def __init__(self, drawn: Drawn, described: Described = None, *, ties: bool = False) -> None:
        self.folder, self.ties = Path(tempfile.mkdtemp()), ties
        self.path, self._count = self.folder / "index", 0
        self._at_once: dict[tuple, Path] = {}
        self.known: dict[int, Proteins] = {}
        self.queries = living.store(self.folder / "queries", QUERIES, ties)
        new, tables = self._described(living.proteins(drawn), described)
        self._build(self.path, new, tables)
        self._now(1, placed(new, 1))
        self.index = rdsearch.open(self.path)

    def close(self) -> None:
        """Remove all files."""
        self.index.close()
        shutil.rmtree(self.folder)

    def _fresh(self, kind: str) -> Path:
        self._count += 1
        return self.folder / f"{kind}{self._count}"

    def _store(self, proteins: Iterable[Protein]) -> rdsearch.Store:
        return living.store(self._fresh("store"), proteins, self.ties)

    def _build(self, path: Path, proteins: Proteins, tables: Iterable[Path]) -> None:
        options = {"recipe": "exact", "space": "centred", "space_from": "chain"}
        build(self._store(proteins), living.CHAIN, path, metadata=tuple(tables), **options)

    def _described(self, proteins: Proteins, described: Described) -> tuple[Proteins, list[Path]]:
        """Proteins with what a table says of them, and the table."""
        if described is None:
            return proteins, []
        file = self._fresh("table").with_suffix(".tsv")
        said = living.table(file, ["unknown", *named(proteins)], described)
        return tuple(protein.told(said[protein.name]) for protein in proteins), [file]

    def _now(self, generation: int, model: Proteins) -> None:
        self.model = self.known[generation] = model

    def _replaced(self, generation: int, new: Proteins) -> None:
        """These proteins move to a segment of their own."""
        kept = (protein for protein in self.model if protein.name not in named(new))
        self._now(generation, (*kept, *placed(new, generation)))

    # --- changes ------------------------------------------------------------------------------

    def fitting(self, drawn: Drawn) -> Drawn:
        """Without those that the index has with another sequence."""
        there = named(self.model)
        return {
            name: facts
            for name, facts in drawn.items()
            if name not in there or there[name].record.sequence == facts[0]
        }

    def add(self, drawn: Drawn, described: Described = None) -> None:
        """Those that are there are skipped, and keep header and columns."""
        store = self._store(living.proteins(drawn))
        if self.fitting(drawn) != drawn:
            with pytest.raises(InputError, match="is in the index with another sequence"):
                changes.add(self.path, store)
            return
        there = named(self.model)
        new = tuple(one for one in living.proteins(drawn) if one.name not in there)
        new, tables = self._described(new, described if new else None)
        done = changes.add(self.path, store, metadata=tables)
        assert (done.added, done.skipped) == (len(new), len(drawn) - len(new))
        if new:
            generation = done.manifest.generation
            self._now(generation, (*self.model, *placed(new, generation)))

    def remove(self, names: Iterable[str]) -> None:
        """Not if nothing or everything would go."""
        names = set(names)
        left = tuple(protein for protein in self.model if protein.name not in names)
        if len(left) in (0, len(self.model)):
            with pytest.raises(InputError, match="nothing was removed"):
                changes.remove(self.path, names)
            return
        done = changes.remove(self.path, names)
        assert done.removed == len(self.model) - len(left) == len(names) - done.skipped
        self._now(done.manifest.generation, left)

    def remove_where(self, expression: str) -> None:
        """As `remove`; no matter where nothing fits."""
        left = tuple(one for one in self.model if not FILTERS[expression](one.shown))
        if not self.can_ask(expression) or not left:
            with pytest.raises(InputError):
                changes.remove(self.path, where=expression)
            return
        done = changes.remove(self.path, where=expression)
        assert done.removed == len(self.model) - len(left)
        self._now(done.manifest.generation, left)

    def update(self, drawn: Drawn, described: Described = None) -> None:
        """New sequences and headers of proteins that are there; tables' columns stay."""
        there = named(self.model)
        new = living.proteins(drawn)
        kept = tuple(protein.told(there[protein.name].columns) for protein in new)
        kept, tables = self._described(kept, described)
        done = changes.update(self.path, self._store(new), metadata=tables)
        assert (done.added, done.removed) == (len(new), len(new))
        self._replaced(done.manifest.generation, kept)

    def update_metadata(self, names: Iterable[str], described: tuple[str, int]) -> None:
        """Of those that are there."""
        names, file = sorted(names), self._fresh("table").with_suffix(".tsv")
        said = living.table(file, names, described)
        new = tuple(one.told(said[one.name]) for one in by_row(self.model) if one.name in said)
        if not new:
            with pytest.raises(InputError, match="nothing was changed"):
                changes.update(self.path, metadata=[file])
            return
        done = changes.update(self.path, metadata=[file])
        assert (done.added, done.skipped) == (len(new), len(names) - len(new))
        self._replaced(done.manifest.generation, new)

    def compact(self) -> None:
        """The rows keep their order."""
        generation = merging.compact(self.path).generation
        self._now(generation, placed(by_row(self.model), generation))

    def merge(self, drawn: Drawn, described: Described = None, *, less: int = 0) -> None:
        """With another index, of which so many proteins were removed; go on with the result."""
        theirs, tables = self._described(living.proteins(drawn), described)
        other, merged = self._fresh("other"), self._fresh("index")
        self._build(other, theirs, tables)
        theirs = placed(theirs, 1)
        if less:
            changes.remove(other, [protein.name for protein in theirs[:less]])
        new = [one for one in by_row(theirs[less:]) if one.name not in named(self.model)]
        merging.merge(self.path, other, merged)
        self.index.close()
        self.path, self.index, self.known = merged, rdsearch.open(merged), {}
        self._now(1, placed([*by_row(self.model), *new], 1))

    def rollback(self, to: int) -> None:
        """Everything is as it was in an earlier generation."""
        self._now(generations.rollback(self.path, to).generation, self.known[to])

    def gc(self, keep: int) -> None:
        """The last generations stay."""
        removed = sorted(self.known)[:-keep]
        assert generations.gc(self.path, keep).removed == tuple(removed)
        self.known = {n: state for n, state in self.known.items() if n not in removed}

    def can_ask(self, expression: str) -> bool:
        """Whether the index has the columns of an expression."""
        self.index.refresh()
        there = self.index.columns
        return all(name not in expression or name in there for name in living.COLUMNS)

    # --- comparison ---------------------------------------------------------------------------

    def check(self) -> None:
        """The index equals the model, and an index that is built of the same proteins at once."""
        self.index.refresh()
        assert self.index.generation == max(self.known)
        rdsearch.verify(self.path)
        self._check_catalog()
        with rdsearch.open(self._built_at_once()) as other:
            self._check_rankings(other)
            self._check_hits(other)

    def _built_at_once(self) -> Path:
        held = by_row(self.model)
        key = tuple((one.record, tuple(sorted(one.columns.items()))) for one in held)
        if key not in self._at_once:
            tables = []
            for column in living.COLUMNS:
                said = {one.name: dict(one.columns) for one in held if column in one.columns}
                if said:
                    tables.append(self._fresh("table").with_suffix(".tsv"))
                    living.write_table(tables[-1], column, said)
            self._at_once[key] = self._fresh("once")
            self._build(self._at_once[key], held, tables)
        return self._at_once[key]

    def _check_catalog(self) -> None:
        """Proteins, their order behind each row, columns, sequences, generations."""
        index, shown = self.index, rows(self.model)
        assert (index.n_rows, index.n_accessions) == (len(shown), len(self.model))
        found = index.catalog.proteins(range(len(shown)))
        for row, group in enumerate(shown):
            entries = [_with_value(entry) for entry in found[row]]
            assert entries == [{"row": row, "accession": one.name, **one.shown} for one in group]
        texts = [group[0].record.sequence for group in shown]
        assert index.catalog.sequences(range(len(shown))) == texts
        assert list(index.catalog.records()) == [one.record for one in by_row(self.model)]
        assert index.catalog.rows_of_sequences(SEQUENCES) == {
            text: texts.index(text) for text in SEQUENCES if text in texts
        }
        history = generations.history(self.path)
        assert [(one.number, one.rows, one.accessions, one.complete) for one in history] == [
            (number, len(rows(state)), len(state), True)
            for number, state in sorted(self.known.items(), reverse=True)
        ]

    def _check_rankings(self, other: Index) -> None:
        """Rows and scores for vectors and for rows."""
        index, n = self.index, len(rows(self.model))
        asked = living.vectors([query.sequence for query in QUERIES], self.ties)
        texts = [group[0].record.sequence for group in rows(self.model)]
        expected = oracle.exhaustive_search(
            living.vectors(texts, self.ties), living.CHAIN.mean("c"), asked, n
        )
        for funnel in (FULL, ALONE):
            for one, best, cosines in zip(index.rank(asked, n, funnel), *expected, strict=True):
                assert one.rows.tolist() == best.tolist()
                np.testing.assert_allclose(one.scores[:, -1], cosines, atol=5e-6)
        short = () if self.ties else (SHORT, TWO)
        for funnel in (FULL, ALONE, index.default_funnel, *short):
            for k in {1, min(3, n), n}:
                _same(*(one.rank(asked, k, funnel, trace=True) for one in (index, other)))
                _same(*(one.rank_rows(range(n), k, funnel) for one in (index, other)))
            _same(
                *(one.rank_rows([n - 1], n, funnel, exclude_self=False) for one in (index, other))
            )
            assert index.cost(funnel, 2) == other.cost(funnel, 2)
            explained = [one.explain(asked[:2], 2, funnel) for one in (index, other)]
            for steps in zip(*explained, strict=True):
                mine, theirs = ([(s.tier, s.rows, s.bytes) for s in part] for part in steps)
                assert mine == theirs
        backwards = [np.arange(n)[::-1]] * len(asked)
        for tier in index.tiers:
            scores = (one.score_rows(asked, backwards, tier) for one in (index, other))
            np.testing.assert_array_equal(*scores)

    def _check_hits(self, other: Index) -> None:
        """Hits: filtered, without the query itself, and of candidates."""
        index, shown = self.index, rows(self.model)
        here = [protein.name for protein in self.model][::2]
        filters: list[tuple[dict, Callable[[Protein], bool]]] = [
            ({}, lambda one: True),
            ({"ids": [*here, "absent"]}, lambda one: one.name in here),
        ]
        filters += [
            ({"where": text}, lambda one, fits=fits: fits(one.shown))
            for text, fits in FILTERS.items()
            if self.can_ask(text)
        ]
        if "lineage" in index.columns:
            filters.append(({"taxon": 501}, _of_taxon))
        asked = living.vectors([query.sequence for query in QUERIES], self.ties)
        k = min(4, len(shown))
        for given, wanted in filters:
            kept = [row for row, group in enumerate(shown) if any(map(wanted, group))]
            allowed = np.array(kept, np.int64) if given else None
            for funnel, exclude_self in ((FULL, True), (FULL if self.ties else SHORT, False)):
                options = {"funnel": funnel, "exclude_self": exclude_self}
                found = index.search(self.queries, k, **options, **given)
                _same_hits(found, other.search_vectors(QUERIES, asked, k, **options, rows=allowed))
        candidates = [*NAMES[::3], *here]
        mine, theirs = (one.rerank(self.queries, candidates) for one in (index, other))
        assert mine.report == theirs.report
        _same_hits(mine.results, theirs.results)


def _of_taxon(protein: Protein) -> bool:
    """Whether it is of taxon 501."""
    return protein.shown.get("taxon_id") == 501 or protein.columns.get("lineage") == "2;501"


def _same(mine, theirs) -> None:
    """The same rankings, to the last bit."""
    for one, other in zip(mine, theirs, strict=True):
        assert one.rows.tolist() == other.rows.tolist()
        np.testing.assert_array_equal(one.scores, other.scores)


def _same_hits(mine, theirs) -> None:
    """The same hits, in all that they say."""
    for (query, found), (asked, expected) in zip(mine, theirs, strict=True):
        assert query.id == asked.id
        said = [[_with_value(hit.as_dict()) for hit in hits] for hits in (found, expected)]
        assert said[0] == said[1]
        assert [hit.row for hit in found] == [hit.row for hit in expected]


def _with_value(entry: dict) -> dict:
    return {name: value for name, value in entry.items() if value is not None}
