"""Stores of vectors that somebody else computed: what is joined, what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from rdsearch.errors import InputError, StoreMismatchError
from rdsearch.imported import store_from_vectors
from rdsearch.store import Store
from tests.stored import FAMILY, chain, records, vector


@pytest.fixture(scope="module")
def ids():
    return [record.accession for record in records()]


@pytest.fixture(scope="module")
def raw():
    """Each member's vectors, one row a record."""
    return {
        member.name: np.stack([vector(member, record.sequence) for record in records()])
        for member in FAMILY.members
    }


@pytest.fixture(scope="module")
def full(raw):
    return chain().transform(raw.values())


def test_a_finished_store_that_says_it_is_imported(tmp_path, ids, full):
    store_from_vectors(tmp_path / "s", records(), ids, full, chain())
    store = Store.open(tmp_path / "s")
    store.verify()
    np.testing.assert_array_equal(store.rd(np.asarray(store.accession_rows)), full)
    assert store.signature.keys() == {"dtype", "window", "overlap", "imported"}
    assert store.chain_hash == chain().hash


@pytest.mark.parametrize("kind", ["rd", "raw"])
def test_other_ids_for_the_same_array_are_other_vectors(tmp_path, ids, raw, full, kind):
    vectors = {"rd": full, "raw": raw}[kind]
    swapped = [ids[1], ids[0], *ids[2:]]
    store_from_vectors(tmp_path / "s", records(), swapped, vectors, chain())
    with pytest.raises(StoreMismatchError, match=r"embedding\.imported"):
        store_from_vectors(tmp_path / "s", records(), ids, vectors, chain())


def test_the_order_of_the_vectors_does_not_matter(tmp_path, ids, raw, full):
    order = np.random.default_rng(0).permutation(len(ids))
    shuffled = [ids[i] for i in order]
    first = store_from_vectors(tmp_path / "s", records(), ids, full, chain())
    again = store_from_vectors(tmp_path / "s", records(), shuffled, full[order], chain())
    np.testing.assert_array_equal(again.rd(), first.rd())
    store_from_vectors(tmp_path / "t", records(), ids, raw, chain())
    backwards = {name: raw[name][order] for name in reversed(raw)}
    made = store_from_vectors(tmp_path / "t", records(), shuffled, backwards, chain())
    np.testing.assert_array_equal(made.rd(), first.rd())


@pytest.mark.parametrize("kind", ["rd", "raw"])
def test_a_value_that_is_not_finite_is_refused_before_there_is_a_store(
    tmp_path, ids, raw, full, kind
):
    for value in (np.nan, np.inf, 1e300):
        given = {"rd": full} if kind == "rd" else raw
        spoilt = {name: array.astype(np.float64) for name, array in given.items()}
        name = "rd" if kind == "rd" else "b"
        spoilt[name][8:10, 2] = value  # both have one sequence
        vectors = spoilt["rd"] if kind == "rd" else spoilt
        with pytest.raises(InputError, match=f"the {name} vector of P00008 .* not finite"):
            store_from_vectors(tmp_path / "s", records(), ids, vectors, chain())
        assert not (tmp_path / "s").exists()


def test_an_id_that_is_there_twice_is_refused(tmp_path, ids, full):
    twice = [*ids, ids[4]]
    with pytest.raises(InputError, match="the id P00004 is there twice"):
        store_from_vectors(
            tmp_path / "s", records(), twice, np.concatenate([full, full[:1]]), chain()
        )
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize("kind", [object, complex, "U", int])
def test_arrays_that_are_no_floats_are_refused(tmp_path, ids, full, kind):
    with pytest.raises(InputError, match="the rd vectors must be floating point numbers"):
        store_from_vectors(tmp_path / "s", records(), ids, full.astype(kind), chain())


def test_lists_and_half_precision_are_taken(tmp_path, ids, full):
    made = store_from_vectors(tmp_path / "s", records(), ids, full.tolist(), chain())
    np.testing.assert_array_equal(made.rd(np.asarray(made.accession_rows)), full)
    half = full.astype(np.float16)
    made = store_from_vectors(tmp_path / "t", records(), ids, half, chain())
    np.testing.assert_array_equal(made.rd(np.asarray(made.accession_rows)), half)
