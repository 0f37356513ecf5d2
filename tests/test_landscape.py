"""The map: what lies in a plane is shown as it lies there."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="needs rdsearch[server]")

from rdsearch.server import landscape


class Stored:
    """An index of one tier whose vectors are given."""

    def __init__(self, vectors: np.ndarray) -> None:
        self._vectors = vectors.astype(np.float32)
        self.n_rows, self.dims = vectors.shape

    def tier(self, name: str) -> Stored:
        return self

    def vectors(self, rows: np.ndarray) -> np.ndarray:
        return self._vectors[rows]


def hits(*rows: int) -> list[SimpleNamespace]:
    return [SimpleNamespace(row=row) for row in rows]


def test_distances_in_a_plane_stay():
    rng = np.random.default_rng(3)
    # Unit vectors of one great circle lie in a plane.
    angles = rng.uniform(0, 2, 40)
    basis = np.linalg.qr(rng.normal(size=(16, 2)))[0].T
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1) @ basis
    query = vectors[5].astype(np.float32) * 3
    found = landscape.places(Stored(vectors), "8M", query, hits(7, 5, 9, 11), 3)
    assert found["query"] == [0, 0]
    assert found["explained"] == pytest.approx(1, abs=1e-4)
    assert len(found["hits"]) == 3
    assert len(found["others"]) == 37
    expected = np.linalg.norm(vectors[[7, 5, 9]] - vectors[5], axis=1)
    np.testing.assert_allclose(np.linalg.norm(found["hits"], axis=1), expected, atol=2e-4)


def test_few_rows_and_no_hits():
    found = landscape.places(Stored(np.eye(3)[:1]), "8M", np.eye(3, dtype=np.float32)[0], [], 9)
    assert found == {"query": [0, 0], "hits": [], "others": [[0, 0]], "explained": 0.0}
