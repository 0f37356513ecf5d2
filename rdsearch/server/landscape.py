"""A map of two dimensions: a query, its hits, and other proteins of the index around them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rdsearch.space import unit

if TYPE_CHECKING:
    from rdsearch.hits import Hit
    from rdsearch.index import Index

__all__ = ["OTHERS", "places"]

#: Other proteins that a map shows, spread evenly over the index's rows.
OTHERS = 200


def places(
    index: Index, tier: str, query: NDArray[np.float32], hits: Sequence[Hit], most: int
) -> dict[str, Any]:
    """Places on the plane of the leading components.

    The vectors are those that cosines are taken of, of unit length, up to a tier. The plane is that
    of the two leading principal components of the query, its hits and the others, centred at the
    query: what lies near it on the map is not always near, what lies far is.

    Parameters
    ----------
    index : Index
    tier : str
    query : ndarray, shape (at least dims of the tier,), float32
        In the index's space.
    hits : sequence of Hit
    most : int
        Hits that are placed, the best ones.

    Returns
    -------
    dict
        ``query``, ``hits`` and ``others``: places ``[x, y]``; ``explained``: the share of the
        variance that the plane shows.
    """
    stored = index.tier(tier)
    rows = np.array([hit.row for hit in hits[:most]], dtype=np.int64)
    spread = np.unique(np.linspace(0, index.n_rows - 1, OTHERS).astype(np.int64))
    others = np.setdiff1d(spread, rows)
    own = unit(query[None, : stored.dims])
    points = np.concatenate([own, unit(stored.vectors(np.concatenate([rows, others])))])
    points = points.astype(np.float64)
    _, sizes, components = np.linalg.svd(points - points.mean(axis=0), full_matrices=False)
    leading = components[:2]
    # The sign of a component means nothing: it is fixed, so that the same search looks the same.
    signs = np.sign(leading[np.arange(len(leading)), np.abs(leading).argmax(axis=1)])
    flat = (points - points[0]) @ (leading * signs[:, None]).T
    if flat.shape[1] < 2:
        flat = np.pad(flat, ((0, 0), (0, 2 - flat.shape[1])))
    total = float((sizes**2).sum())
    # JSON has no use for more digits; -0.0 would be one.
    shown = (np.round(flat, 4) + 0.0).tolist()
    return {
        "query": shown[0],
        "hits": shown[1 : 1 + len(rows)],
        "others": shown[1 + len(rows) :],
        "explained": round(float((sizes[:2] ** 2).sum()) / total, 4) if total > 0 else 0.0,
    }
