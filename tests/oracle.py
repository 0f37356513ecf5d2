"""Each calculation once more: slow, in plain NumPy, on stored data, without the package.

Nothing here imports rdsearch. Where the package works on moments or in blocks, this works on the
whole matrix of residues.
"""

from __future__ import annotations

from typing import Any

import numpy as np

# --- moments and chain ---------------------------------------------------------------------


def moments(rows: np.ndarray) -> tuple[int, np.ndarray, np.ndarray]:
    """Count, mean and centred cross products, in extended precision."""
    values = np.asarray(rows, dtype=np.longdouble)
    mean = values.sum(axis=0) / len(values)
    centred = values - mean
    return len(values), mean, centred.T @ centred


def johnstone(eigenvalues: np.ndarray, n: int) -> tuple[int, float]:
    """Components above the Johnstone threshold, and the threshold."""
    p = len(eigenvalues)
    edge = (1 + np.sqrt(p / n)) ** 2
    noise = [value for value in eigenvalues if value / np.mean(eigenvalues) < edge]
    threshold = np.median(noise) * edge
    kept = sum(1 for value in eigenvalues if value > threshold)
    if kept == 0:
        share = 0.0
        while share < 0.95:
            share += eigenvalues[kept] / np.sum(eigenvalues)
            kept += 1
    return kept, float(threshold)


def distil(members: list[np.ndarray], boundaries: list[int]) -> list[dict[str, Any]]:
    """Reverse distillation of stored residues, one singular value decomposition after another.

    Returns, for each member: the accumulated embedding A, and from the second member on the
    regression W, the residual R, the directions V, the components kept, and the R².
    """
    data = []
    for values, boundary in zip(members, boundaries, strict=True):
        values = np.asarray(values, dtype=np.float64)
        if boundary < values.shape[1]:
            centred = values - values.mean(axis=0)
            values = centred @ _right_singular_vectors(centred)[:, :boundary]
        data.append(values)
    base = data[0]
    steps: list[dict[str, Any]] = [{"A": base}]
    for values, boundary in zip(data[1:], boundaries[1:], strict=True):
        n, k = base.shape
        centred = base - base.mean(axis=0)
        target = values - values.mean(axis=0)
        singular, vectors = np.linalg.svd(centred, full_matrices=False)[1:]
        kept, threshold = johnstone(singular**2 / (n - 1), n)
        scores = centred @ vectors[:kept].T
        coefficients = np.linalg.lstsq(scores, target, rcond=None)[0]
        W = vectors[:kept].T @ coefficients
        R = target - centred @ W
        V = _right_singular_vectors(R)[:, : boundary - k]
        base = np.concatenate([base, R @ V], axis=1)
        steps.append(
            {
                "A": base,
                "W": W,
                "R": R,
                "V": V,
                "kept": kept,
                "threshold": threshold,
                "r2": 1 - (R**2).sum() / (target**2).sum(),
                "captured": ((R @ V) ** 2).sum() / (R**2).sum(),
            }
        )
    return steps


def _right_singular_vectors(matrix: np.ndarray) -> np.ndarray:
    """Right singular vectors as columns, the largest entry of each positive."""
    vectors = np.linalg.svd(matrix, full_matrices=True)[2].T
    for column in vectors.T:
        if column[np.argmax(np.abs(column))] < 0:
            column *= -1
    return vectors


# --- search -----------------------------------------------------------------------------------


def centred_cosine(query: np.ndarray, targets: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Cosines of one query with every target after the mean is taken off both."""
    left = query.astype(np.float64) - mean
    right = targets.astype(np.float64) - mean
    return right @ left / (np.linalg.norm(right, axis=1) * np.linalg.norm(left))


def exhaustive_search(
    targets: np.ndarray, mean: np.ndarray, queries: np.ndarray, k: int
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The k best rows of each query: by falling cosine, equal cosines by row."""
    rows, scores = [], []
    for query in queries:
        cosines = centred_cosine(query, targets, mean)
        # Equal vectors get equal cosines only up to the last bits of a float64.
        order = np.lexsort((np.arange(len(targets)), -np.round(cosines, 12)))[:k]
        rows.append(order)
        scores.append(cosines[order])
    return rows, scores
