"""The scoring space: what a tier does to an rd prefix before it takes a cosine.

On real ESM-2 embeddings the common mean holds 92–97 % of the squared length, so that a cosine
of raw rd vectors is a cosine of means. Each tier therefore subtracts the mean of its prefix and
normalises what is left. Both steps are FAISS transforms inside the tier file: a plain
``faiss.read_index(file).search(prefix, k)`` scores exactly as rdsearch does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rdsearch import _faiss
from rdsearch.errors import InputError

__all__ = ["KINDS", "Space"]

KINDS = ("centred",)


@dataclass(frozen=True, slots=True)
class Space:
    """The affine map of one tier.

    Parameters
    ----------
    kind : str
        One of `KINDS`. ``"centred"``: ``x - mean``, then unit length.
    mean : ndarray, shape (dims,), float64
        Mean of the tier's prefix: ``chain.mean(tier)``.
    """

    kind: str
    mean: NDArray[np.float64]

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise InputError(f"there is no space {self.kind!r}; choose from {', '.join(KINDS)}")
        if self.mean.ndim != 1 or not np.isfinite(self.mean).all():
            raise InputError("the mean of a space must be one finite vector")

    def wrap(self, codec: Any) -> Any:
        """Put this space before a FAISS index.

        Parameters
        ----------
        codec : faiss.Index
            An inner product index over ``dims`` dimensions, trained or not. FAISS takes it
            over: it lives as long as the result.

        Returns
        -------
        faiss.IndexPreTransform
            Takes rd prefixes, scores cosines of centred prefixes.
        """
        faiss = _faiss.load()
        dims = self.mean.shape[0]
        centre = faiss.CenteringTransform(dims)
        faiss.copy_array_to_vector(self.mean.astype(np.float32), centre.mean)
        centre.is_trained = True
        unit = faiss.NormalizationTransform(dims, 2.0)
        wrapped = faiss.IndexPreTransform(codec)
        wrapped.prepend_transform(unit)
        wrapped.prepend_transform(centre)
        wrapped.own_fields = True
        for owned in (codec, centre, unit):
            owned.this.disown()
        return wrapped
