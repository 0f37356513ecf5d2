"""Windows and batches: every residue once, within the budget, the same every time."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rdsearch.batches import Statistics, Window, coverage, pack, size, windows

LENGTHS = st.lists(st.integers(1, 400), max_size=60)


def whole(lengths: list[int]) -> list[Window]:
    """One window a sequence."""
    return [Window(i, 0, length) for i, length in enumerate(lengths)]


@given(st.integers(1, 5000), st.integers(1, 1022), st.data())
def test_every_residue_is_in_the_windows_it_is_counted_in(length, window, data):
    overlap = data.draw(st.integers(0, window - 1))
    cut = windows(3, length, window, overlap)
    seen = [sum(part.start <= i < part.stop for part in cut) for i in (0, length // 2, length - 1)]
    weights = coverage(length, cut)
    assert weights.dtype == np.float32
    np.testing.assert_allclose(weights[[0, length // 2, length - 1]], 1 / np.array(seen))
    # No window more than the overlap asked for needs.
    assert len(cut) == max(1, -(-(length - overlap) // (window - overlap)))
    assert all(len(part) <= window for part in cut)
    for before, after in itertools.pairwise(cut):
        assert before.stop - after.start >= overlap


@pytest.mark.parametrize(
    ("length", "expected"),
    [
        (1, [(0, 1)]),
        (100, [(0, 100)]),
        (101, [(0, 100), (1, 101)]),
        (170, [(0, 100), (70, 170)]),
        (171, [(0, 100), (35, 135), (71, 171)]),
    ],
)
def test_windows_of_100_with_30_in_common(length, expected):
    assert [(part.start, part.stop) for part in windows(0, length, 100, 30)] == expected


@given(LENGTHS, st.integers(1, 2000))
def test_pack_is_deterministic_and_longest_first(lengths, budget):
    batches = list(pack(whole(lengths), budget))
    assert batches == list(pack(whole(lengths), budget))
    # The order of the input does not change the batches.
    assert batches == list(pack(whole(lengths)[::-1], budget))
    longest = [len(part) for batch in batches for part in batch]
    assert longest == sorted(lengths, reverse=True)


@given(LENGTHS, st.integers(1, 2000))
def test_a_batch_ends_for_a_reason(lengths, budget):
    """The next window would break the budget or is shorter than nine tenths."""
    for batch, following in itertools.pairwise(pack(whole(lengths), budget)):
        joined = (len(batch) + 1) * (len(batch[0]) + 2) > budget
        assert joined or len(following[0]) + 2 < 0.9 * (len(batch[0]) + 2)


@given(LENGTHS, st.integers(1, 2000))
def test_statistics_add_up(lengths, budget):
    statistics = Statistics()
    assert statistics.padded_share == 0
    batches = list(pack(whole(lengths), budget))
    statistics.count(batches)
    assert statistics.batches == len(batches)
    assert statistics.tokens == size(batches)
    assert statistics.tokens - statistics.padding == sum(length + 2 for length in lengths)
    assert 0 <= statistics.padded_share <= 0.1
