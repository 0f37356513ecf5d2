"""The embedding store with real members: the packaged mini family."""

from __future__ import annotations

import numpy as np
import pytest

from rdsearch import family
from rdsearch.embed import Embedder
from rdsearch.errors import StoreError
from rdsearch.fasta import read
from rdsearch.store import Store
from rdsearch.storewriter import write_store

BLOCK_ROWS = 9


class Watched(Embedder):
    """Counts the blocks it is given, and stops before one of them."""

    stop_at: int | None = None

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.given: list[tuple[str, tuple[str, ...]]] = []

    def pool(self, member, sequences, **options):
        if len(self.given) == self.stop_at:
            raise KeyboardInterrupt
        self.given.append((member.name, tuple(sequences)))
        return super().pool(member, sequences, **options)


@pytest.fixture(scope="module")
def short(mini_chain):
    return mini_chain.upto("0.5M")


@pytest.fixture(scope="module")
def proteins(proteins_file):
    """25 proteins, and one with the sequence of the first."""
    found = list(read(proteins_file))
    return [*found[:25], found[-1]]


def embedder(short, **options):
    return Watched(family.get("mini"), short.tiers, device="cpu", **options)


def test_holds_what_the_members_and_the_chain_give(tmp_path, short, proteins):
    used = embedder(short)
    store = write_store(tmp_path / "s", proteins, used, short, block_rows=BLOCK_ROWS)
    sequences = list(dict.fromkeys(protein.sequence for protein in proteins))
    assert len(sequences) == 25
    oracle = embedder(short)
    blocks = [sequences[i : i + BLOCK_ROWS] for i in range(0, 25, BLOCK_ROWS)]
    for tier in short.tiers:
        expected = [
            short.upto(tier).transform(oracle.pool(m, block) for m in short.upto(tier).members)
            for block in blocks
        ]
        np.testing.assert_array_equal(store.rd(tier=tier), np.concatenate(expected))
    for member in short.members:
        asked = [s for name, block in used.given if name == member.name for s in block]
        assert asked == sequences
    assert list(store.records()) == proteins


@pytest.mark.parametrize("stop", [1, 4])
def test_goes_on_to_the_same_bits(tmp_path, short, proteins, stop):
    whole = write_store(tmp_path / "w", proteins, embedder(short), short, block_rows=BLOCK_ROWS)
    first = embedder(short)
    first.stop_at = stop
    with pytest.raises(KeyboardInterrupt):
        write_store(tmp_path / "s", proteins, first, short, block_rows=BLOCK_ROWS)
    with pytest.raises(StoreError, match=f"{stop} of 6 blocks"):
        Store.open(tmp_path / "s")
    second = embedder(short)
    store = write_store(tmp_path / "s", proteins, second, short, block_rows=BLOCK_ROWS)
    assert len(second.given) == 6 - stop
    assert not set(first.given) & set(second.given)
    np.testing.assert_array_equal(store.rd(), whole.rd())
