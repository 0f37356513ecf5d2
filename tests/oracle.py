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


def space_cosines(
    vectors: np.ndarray, queries: np.ndarray, dims: int, kind: str, whole: int
) -> np.ndarray:
    """Cosines of queries and vectors under the inverse of the (shrunk) covariance.

    The inverse itself, where the package multiplies with a Cholesky factor of it.
    """
    data = vectors[:, :whole].astype(np.float64)
    centred = data - data.mean(axis=0)
    covariance = centred.T @ centred / (len(data) - 1)
    if kind == "standardised":
        covariance = np.diag(np.diag(covariance))
    shrunk = covariance + 3e-3 * np.linalg.eigvalsh(covariance).max() * np.eye(whole)
    inverse = np.linalg.inv(shrunk[:dims, :dims])
    left = (queries[:, :dims] - data.mean(axis=0)[:dims]).astype(np.float64)
    right = centred[:, :dims]
    lengths = np.sqrt(np.einsum("id,de,ie->i", left, inverse, left))
    others = np.sqrt(np.einsum("id,de,ie->i", right, inverse, right))
    return (left @ inverse @ right.T) / lengths[:, None] / others


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


# --- evaluation -------------------------------------------------------------------------------


def homologs(labels: dict[str, str], rankings: dict[str, list[str]]) -> dict[str, dict[str, Any]]:
    """The SCOPe protocol on names and label strings, target by target.

    Per level: the share of true positives before the first false positive, averaged over the
    queries that have all three kinds (``all``), with the denominators of Foldseek's script
    (``script``), and over the queries that have this kind (``any``); Hit@1, Hit@10, MAP.
    """

    def kind(query: str, target: str) -> str:
        left, right = labels[query].split("."), labels[target].split(".")
        for length, name in ((4, "family"), (3, "superfamily"), (2, "fold")):
            if left[:length] == right[:length]:
                return name
        return "false"

    levels = ("family", "superfamily", "fold")
    kinds = {q: [kind(q, t) for t in labels if t != q] for q in labels}
    results: dict[str, dict[str, Any]] = {}
    for place, level in enumerate(levels):
        nearer = levels[:place]
        lists: dict[str, list[float]] = {
            name: [] for name in ("all", "script", "any", "hit1", "hit10", "map")
        }
        for query in labels:
            total = kinds[query].count(level)
            if total == 0:
                continue
            seen = [kind(query, t) for t in rankings[query] if t != query and t in labels]
            found = 0
            for one in seen:
                if one == "false":
                    break
                found += one == level
            lists["any"].append(found / total)
            if all(kinds[query].count(other) for other in levels):
                lists["all"].append(found / total)
                lists["script"].append(found / (total if level == "family" else total + 1))
            considered = [one for one in seen if one not in nearer]
            lists["hit1"].append(float(level in considered[:1]))
            lists["hit10"].append(float(level in considered[:10]))
            precision, right = 0.0, 0
            for rank, one in enumerate(considered, start=1):
                if one == level:
                    right += 1
                    precision += right / rank
            lists["map"].append(precision / total)
        results[level] = {name: sum(v) / len(v) if v else None for name, v in lists.items()}
        results[level]["queries"] = len(lists["any"])
    return results


def composition_ranking(sequences: list[str]) -> list[list[int]]:
    """All against all by standardised amino-acid composition, one cosine after another."""
    letters = "ACDEFGHIKLMNPQRSTVWY"
    table = []
    for sequence in sequences:
        counts = [sequence.count(letter) for letter in letters]
        table.append([count / max(1, sum(counts)) for count in counts])
    columns = list(zip(*table, strict=True))
    means = [sum(column) / len(column) for column in columns]
    spreads = [
        (sum((value - mean) ** 2 for value in column) / len(column)) ** 0.5
        for column, mean in zip(columns, means, strict=True)
    ]
    scaled = [
        [(v - m) / s if s > 0 else 0.0 for v, m, s in zip(line, means, spreads, strict=True)]
        for line in table
    ]

    def cosine(left: list[float], right: list[float]) -> float:
        dot = sum(a * b for a, b in zip(left, right, strict=True))
        length = (sum(a * a for a in left) * sum(b * b for b in right)) ** 0.5
        return round(dot / length, 9) if length > 0 else 0.0

    return [
        sorted(range(len(scaled)), key=lambda j: (-cosine(line, scaled[j]), j)) for line in scaled
    ]


def recall_at_k(true: np.ndarray, returned: list[list[int]], k: int) -> float:
    """Recall with ties from the whole matrix of true scores, shape (queries, rows)."""
    shares = []
    for scores, rows in zip(true, returned, strict=True):
        threshold = sorted(scores, reverse=True)[k - 1]
        shares.append(sum(1 for row in rows[:k] if scores[row] >= threshold - 1e-6) / k)
    return sum(shares) / len(shares)
