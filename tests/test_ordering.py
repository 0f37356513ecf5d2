"""One sort in place of two keys."""

from __future__ import annotations

import numpy as np
import pytest

from rdsearch.ordering import best_first


@pytest.mark.parametrize("seed", range(5))
def test_equal_to_a_sort_by_two_keys(seed):
    rng = np.random.default_rng(seed)
    rows = rng.permutation(2**32 - 1 - np.arange(1000)) if seed else rng.permutation(1000)
    scores = rng.choice(
        np.array([-1, -0.5, -1e-40, -0.0, 0.0, 1e-40, 0.25, 0.25000003, 1, 3e38], np.float32), 1000
    )
    before = rows.copy(), scores.copy()
    found, values = best_first(rows, scores)
    order = np.lexsort((rows, -scores))
    np.testing.assert_array_equal(found, rows[order])
    np.testing.assert_array_equal(values, scores[order])
    assert (found.dtype, values.dtype) == (np.int64, np.float32)
    np.testing.assert_array_equal(rows, before[0])
    np.testing.assert_array_equal(scores, before[1])


def test_many_lines_at_once_and_none():
    scores = np.random.default_rng(0).standard_normal((7, 50)).astype(np.float32)
    rows = np.broadcast_to(np.arange(50), scores.shape)
    found, values = best_first(rows, scores)
    np.testing.assert_array_equal(found, np.argsort(-scores, axis=1))
    np.testing.assert_array_equal(values, -np.sort(-scores, axis=1))
    nothing = best_first(np.empty(0, np.int64), np.empty(0, np.float32))
    assert [array.shape for array in nothing] == [(0,), (0,)]
