"""Principal components kept, and directions, from covariances."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from rdsearch.pcr import leading_directions, regress, significant

from . import oracle
from .synthetic import residues


@pytest.mark.parametrize(
    ("eigenvalues", "n"),
    [
        (np.array([50.0, 20, 3, 1, 1, 0.9, 0.8, 0.8]), 100),
        (np.array([9.0, 0.3, 0.2, 0, 0]), 20),
        (0.97 ** np.arange(300), 500),
    ],
)
def test_johnstone_threshold(eigenvalues, n):
    kept, threshold, _ = significant(eigenvalues, n)
    expected = oracle.johnstone(eigenvalues, n)
    assert (kept, threshold) == (expected[0], pytest.approx(expected[1], rel=1e-12))
    assert 0 < kept < len(eigenvalues)


def test_where_no_component_passes_95_percent_are_kept_with_a_warning(caplog):
    with caplog.at_level(logging.WARNING, logger="rdsearch"):
        kept, threshold, sigma2 = significant(np.array([1.3, 1.2, 1.1, 1.0] + [0.05] * 2), 10)
    # By hand: edge (1 + sqrt .6)^2 = 3.149; all six below; median 1.05; cumulated 98.9 % at four.
    assert (kept, sigma2) == (4, pytest.approx(1.05))
    assert threshold == pytest.approx(1.05 * (1 + np.sqrt(0.6)) ** 2)
    assert "kept the 4 of 6" in caplog.text


def test_directions_have_their_largest_entry_positive():
    matrix = np.cov(residues(0, 500, (20,))[0], rowvar=False)
    V = leading_directions(matrix, 20)
    assert (np.take_along_axis(V, np.abs(V).argmax(axis=0)[None], axis=0) > 0).all()
    values = np.diag(V.T @ matrix @ V)
    assert (np.diff(values) < 0).all()


@pytest.mark.parametrize("matrix", [np.zeros((30, 30)), np.eye(30), np.diag([1.0] * 5 + [0] * 25)])
def test_directions_are_orthonormal_at_any_rank(matrix):
    V = leading_directions(matrix, 12)
    np.testing.assert_allclose(V.T @ V, np.eye(12), atol=1e-12)
    assert np.trace(V.T @ matrix @ V) == pytest.approx(min(12, np.trace(matrix)))


def test_a_component_below_the_rounding_of_the_base_is_not_used():
    base = np.diag([1.0, 1e-9, 1e-12, 1e-12, 1e-12])
    cross = np.array([[1.0], [1e-6], [0.0], [0.0], [0.0]])
    near = regress(base, cross, 10**6, np.zeros(5))
    np.testing.assert_allclose(near.weights_[:2], [[1.0], [1e3]], rtol=1e-9)
    # Far from zero, float32 is too coarse for the variance of the second dimension.
    far = regress(base, cross, 10**6, np.array([0.0, 1e3, 0.0, 0.0, 0.0]))
    assert (near.n_components_, far.n_components_) == (2, 1)
    np.testing.assert_allclose(far.weights_[:2], [[1.0], [0.0]], atol=1e-12)
