"""Values of a column, over all segments of a living index."""

from __future__ import annotations

from collections import Counter

import pytest

import rdsearch
from rdsearch.columnvalues import summary
from rdsearch.errors import InputError


@pytest.fixture(scope="module")
def catalog(living):
    with rdsearch.open(living("exact")) as index:
        yield index.catalog


@pytest.mark.parametrize("column", ["gene", "length", "accession", "organism"])
def test_they_are_those_of_the_proteins(catalog, column):
    found = catalog.proteins(range(catalog.n_rows))
    values = [entry[column] for entries in found.values() for entry in entries]
    given = [value for value in values if value is not None]
    answer = summary(catalog, column, 3)
    counts = Counter(given)
    assert [number for _, number in answer.values] == sorted(counts.values(), reverse=True)[:3]
    assert all(counts[value] == number for value, number in answer.values)
    assert answer.missing == len(values) - len(given)
    assert (answer.min, answer.max) == (min(given, default=None), max(given, default=None))


def test_items_of_a_list(tmp_path, mini_chain, mini_store):
    accessions = [record.accession for record in mini_store.records()][:4]
    table = tmp_path / "more.jsonl"
    lists = ('["a", "b"]', '["b"]', "[]", "null")
    lines = (
        f'{{"accession": "{name}", "go": {value}}}\n'
        for name, value in zip(accessions, lists, strict=True)
    )
    table.write_text("".join(lines))
    path = tmp_path / "index"
    rdsearch.build(mini_store.path, mini_chain, path, metadata=[table], recipe="exact")
    with rdsearch.open(path) as index:
        answer = summary(index.catalog, "go", 9)
        assert answer.values == [("b", 2), ("a", 1)]
        assert answer.missing == index.n_accessions - 3
        with pytest.raises(InputError, match="no column 'nothing'; there are row, accession"):
            summary(index.catalog, "nothing", 9)
