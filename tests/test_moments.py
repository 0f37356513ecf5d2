"""Moments: any split, any order, any offset."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rdsearch.errors import ChainError, InputError
from rdsearch.moments import Moments

from . import oracle

WIDTHS = (3, 5, 9)
ROWS = np.random.default_rng(1).standard_normal((300, 17)).astype(np.float32) * 2 + 5


def of(rows: np.ndarray, widths: tuple[int, ...] = WIDTHS) -> Moments:
    moments = Moments(widths)
    moments.update(rows)
    return moments


def assert_same(moments: Moments, rows: np.ndarray, tolerance: float = 1e-12) -> None:
    """Equal to the oracle, each cross product relative to the two lengths it belongs to."""
    n, mean, scatter = oracle.moments(rows)
    length = np.sqrt(np.diag(scatter))
    assert moments.n_ == n
    assert np.abs((moments.mean_ - mean) / np.maximum(np.abs(mean), 1)).max() <= tolerance
    assert np.abs((moments.scatter_ - scatter) / np.outer(length, length)).max() <= tolerance


@settings(max_examples=40, deadline=None)
@given(
    cuts=st.lists(st.integers(0, 300), max_size=8).map(sorted),
    order=st.randoms(use_true_random=False),
    offset=st.sampled_from([0.0, 1e4, -1e4]),
)
def test_any_split_and_any_merge_order_give_the_same_moments(cuts, order, offset):
    rows = ROWS.astype(np.float64) + offset
    workers = [of(block) for block in np.split(rows, cuts)]
    while len(workers) > 1:
        order.shuffle(workers)
        workers[0].merge(workers.pop())
    assert_same(workers[0], rows)


def test_one_worker_block_by_block():
    moments = Moments(WIDTHS)
    for start in range(0, 300, 7):
        moments.update(ROWS[start : start + 7])
    assert_same(moments, ROWS)


def test_a_block_longer_than_the_chunks_of_the_package():
    rows = np.random.default_rng(2).standard_normal((5000, 17)) + np.arange(17) * 1e4
    assert_same(of(rows), rows)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("layout", ["C", "F"])
def test_floating_types_and_layouts(dtype, layout):
    rows = np.asarray(ROWS, dtype=dtype, order=layout)
    assert_same(of(rows), rows)


def test_scatter_is_exactly_symmetric_and_covariance_is_that_of_numpy():
    moments = Moments(WIDTHS)
    for block in np.split(ROWS, 3):
        moments.update(block)
    assert np.array_equal(moments.scatter_, moments.scatter_.T)
    expected = np.cov(ROWS.astype(np.float64), rowvar=False)
    np.testing.assert_allclose(moments.covariance(), expected, atol=1e-12)
    np.testing.assert_array_equal(moments.cross_covariance(0, 2), moments.covariance()[:3, 8:])
    np.testing.assert_array_equal(moments.cross_covariance(2, 0), moments.covariance()[8:, :3])
    np.testing.assert_array_equal(moments.mean_of(1), moments.mean_[3:8])


def test_members_chosen_later_are_bit_for_bit_members_seen_alone():
    chosen = of(ROWS).select([0, 2])
    alone = of(np.delete(ROWS, slice(3, 8), axis=1), (3, 9))
    assert (chosen.widths, chosen.n_) == (alone.widths, alone.n_)
    assert np.array_equal(chosen.mean_, alone.mean_)
    assert np.array_equal(chosen.scatter_, alone.scatter_)


def test_a_selection_is_a_copy():
    moments = of(ROWS)
    moments.select([0, 1]).update(ROWS[:, :8])
    assert_same(moments, ROWS)


def test_nothing_seen_yet():
    moments = Moments(WIDTHS)
    moments.update(ROWS[:0])
    moments.merge(Moments(WIDTHS))
    assert moments.n_ == 0
    with pytest.raises(ChainError, match="at least two residues; found 0"):
        moments.covariance()
    moments.merge(of(ROWS))
    assert_same(moments, ROWS)


@pytest.mark.parametrize(
    ("block", "message"),
    [
        (ROWS[:, :16], r"shape \(rows, 17\).*found \(300, 16\)"),
        (ROWS[0], r"found \(17,\)"),
        (ROWS.astype(int), "floating point numbers; found int64"),
        (np.where(np.arange(300)[:, None] == 250, np.nan, ROWS), "row 250 .* NaN or infinity"),
        (np.where(np.arange(300)[:, None] == 7, np.inf, ROWS), "row 7 .* NaN or infinity"),
    ],
)
def test_refused_blocks_leave_the_moments_as_they_were(block, message):
    moments = of(ROWS)
    with pytest.raises(InputError, match=message):
        moments.update(block)
    assert_same(moments, ROWS)


def test_the_bad_row_is_named_beyond_the_first_chunk():
    rows = np.zeros((5000, 17))
    rows[4321, 5] = np.nan
    with pytest.raises(InputError, match="row 4321 "):
        Moments(WIDTHS).update(rows)


def test_refused_widths_merges_and_selections():
    with pytest.raises(InputError, match=r"found widths \[\]"):
        Moments([])
    with pytest.raises(InputError, match=r"found widths \[3, 0\]"):
        Moments([3, 0])
    with pytest.raises(InputError, match=r"\[3, 5, 9\].*\[17\]"):
        of(ROWS).merge(of(ROWS, (17,)))
    for chosen in ([2, 0], [0, 0], [3], [-1]):
        with pytest.raises(InputError, match="increasing positions"):
            of(ROWS).select(chosen)
