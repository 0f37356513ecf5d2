"""Row numbers and tombstones against plain lists."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rdsearch.errors import IndexDamagedError
from rdsearch.rowmap import RowMap
from rdsearch.tombstones import Tombstones

FILE = Path("tombstones/000007.safetensors")

SEGMENTS = st.lists(
    st.lists(st.booleans(), max_size=12).map(lambda hidden: np.array(hidden, dtype=bool)),
    min_size=1,
    max_size=5,
)


@given(SEGMENTS, st.randoms(use_true_random=False))
def test_rows_are_those_that_are_shown(segments, random):
    rowmap = RowMap([len(one) for one in segments], [np.flatnonzero(one) for one in segments])
    shown = [
        (place, row)
        for place, one in enumerate(segments)
        for row, gone in enumerate(one)
        if not gone
    ]
    assert rowmap.n_rows == len(shown)
    assert rowmap.plain == (len(segments) == 1 and not segments[0].any())
    asked = [random.randrange(len(shown)) for _ in range(20)] if shown else []
    found = [None] * len(asked)
    for part in rowmap.split(asked):
        for place, row in zip(part.places, part.rows, strict=True):
            found[place] = (part.segment, row)
    assert found == [shown[row] for row in asked]
    for place, one in enumerate(segments):
        expected = [
            shown.index((place, row)) if (place, row) in shown else -1 for row in range(len(one))
        ]
        assert rowmap.join(place, range(len(one))).tolist() == expected


def naive(sequences, alive):
    """Which places are shown, and the doubles: the first of a sequence with an accession left."""
    shown: dict[int, tuple[str, int]] = {}
    doubles = {}
    for place, sequence in sequences.items():
        if place in alive:
            if sequence in shown:
                doubles[place] = shown[sequence]
            else:
                shown[sequence] = place
    return set(shown.values()), doubles


@given(st.data())
def test_tombstones_follow_removals(data):
    sizes = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))
    names = [f"{i + 1:06d}" for i in range(len(sizes))]
    places = [(name, row) for name, size in zip(names, sizes, strict=True) for row in range(size)]
    sequences: dict[tuple[str, int], int] = {}
    for name, size in zip(names, sizes, strict=True):
        # Distinct within a segment, as its rows are.
        drawn = data.draw(st.permutations(range(6)))
        sequences.update(((name, row), drawn[row]) for row in range(size))
    order = {name: i for i, name in enumerate(names)}
    _, doubles = naive(sequences, set(places))
    tombstones = Tombstones().with_doubles(doubles)
    alive = set(places)
    for _ in range(data.draw(st.integers(0, 4))):
        gone = data.draw(st.sets(st.sampled_from(sorted(alive)), max_size=3)) if alive else set()
        alive -= gone
        positions: dict[str, list[int]] = {}
        for name, row in gone:
            positions.setdefault(name, []).append(row)

        def inhabited(segment, rows, alive=frozenset(alive)):
            return {row for row in rows if (segment, row) in alive}

        tombstones = tombstones.without(positions).settled(gone, inhabited, order)
        shown, doubles = naive(sequences, alive)
        hidden = {(name, row) for name in names for row in tombstones.hidden_in(name).tolist()}
        assert hidden == set(places) - shown
        assert tombstones.doubles == doubles
        removed = {(name, row) for name in names for row in tombstones.removed_in(name).tolist()}
        assert removed == set(places) - alive
        counts = {name: (size, size) for name, size in zip(names, sizes, strict=True)}
        again = Tombstones.from_bytes(tombstones.to_bytes(), FILE, counts)
        assert again.doubles == tombstones.doubles
        for name in names:
            assert again.hidden_in(name).tolist() == tombstones.hidden_in(name).tolist()
            assert again.removed_in(name).tolist() == tombstones.removed_in(name).tolist()


def test_tombstones_of_other_segments_are_refused():
    tombstones = Tombstones(
        {"000001": np.array([4])}, {"000002": np.array([1])}, {("000002", 1): ("000001", 0)}
    )
    content = tombstones.to_bytes()
    fitting = {"000001": (3, 5), "000002": (2, 2)}
    assert bool(Tombstones.from_bytes(content, FILE, fitting))
    for sizes in (
        {"000001": (3, 4), "000002": (2, 2)},
        {"000001": (3, 5), "000002": (1, 2)},
        {"000001": (0, 5), "000002": (2, 2)},
        {"000001": (3, 5)},
    ):
        with pytest.raises(IndexDamagedError, match=r"000007\.safetensors"):
            Tombstones.from_bytes(content, FILE, sizes)
    for damaged in (b"", content[:-1], content[:20], b"\0" * len(content)):
        with pytest.raises(IndexDamagedError, match=r"000007\.safetensors"):
            Tombstones.from_bytes(damaged, FILE, fitting)
