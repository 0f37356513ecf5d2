"""Made-up residue embeddings that are related as a family's members are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rdsearch.family import Member


def residues(
    seed: int, n: int, widths: Sequence[int], *, noise: float = 0.1, offset: float = 2.0
) -> list[NDArray[np.float32]]:
    """Embeddings of the same n residues by members of these widths.

    All members look at the same hidden factors of decaying size; wider members see more of them.
    """
    rng = np.random.default_rng(seed)
    factors = rng.standard_normal((n, max(widths))) * 0.97 ** np.arange(max(widths))
    members = []
    for width in widths:
        seen = max(2, (2 * width) // 3)
        mixing = rng.standard_normal((seen, width)) / np.sqrt(seen)
        mean = offset * rng.standard_normal(width)
        values = factors[:, :seen] @ mixing + noise * rng.standard_normal((n, width)) + mean
        members.append(values.astype(np.float32))
    return members


def members(widths: Sequence[int], targets: Sequence[int | None] | None = None) -> list[Member]:
    """Members m0, m1 … of these widths."""
    wanted = [None] * len(widths) if targets is None else targets
    return [
        Member(f"m{i}", f"checkpoint_{i}", 1, width, 1, target=target)
        for i, (width, target) in enumerate(zip(widths, wanted, strict=True))
    ]
