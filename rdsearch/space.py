"""The scoring space: the affine map of rd embeddings before tiers take cosines.

On real ESM-2 embeddings the common mean holds 92–97 % of the squared length, so that a cosine of
raw rd vectors is a cosine of means. A space therefore subtracts the mean, and may scale:

    centred       y = x - mean
    standardised  y = (x - mean) / standard deviation, dimension by dimension
    whitened      y = L⁻¹ (x - mean), L L' = covariance + shrinkage · largest eigenvalue · I

The Cholesky factor L is lower triangular, so that the first k dimensions of a whitened vector are
the whitened first k dimensions: one factor serves every tier. (Any other root of the covariance
gives the same cosines at the last tier and none of the nesting.) Each tier normalises its own
prefix of y. Both maps are FAISS transforms inside the tier file: a plain
``faiss.read_index(file).search(prefix, k)`` scores as rdsearch does.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rdsearch import _faiss, durable
from rdsearch.errors import IndexDamagedError, InputError

__all__ = ["KINDS", "SHRINKAGE", "Space", "unit"]

KINDS = ("centred", "standardised", "whitened")

#: Added to the diagonal of the covariance, as a share of its largest eigenvalue: directions that
#: the indexed proteins hardly use would otherwise be blown up to the length of all others. From
#: 1e-3 to 1e-2 the sensitivity on SCOPe is the same within its error (README), and the more, the
#: larger the part of the cosine that the first tier sees.
SHRINKAGE = 3e-3

_Floats = NDArray[np.float64]


def unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows scaled to length one, to the bit as a tier file scales them; zeros stay zeros.

    Parameters
    ----------
    vectors : ndarray, shape (n, dims), float32

    Returns
    -------
    ndarray, shape (n, dims), float32
        A new, contiguous array.
    """
    # FAISS scales the queries of a search; scores of chosen rows are to be the same numbers.
    scaled = np.array(vectors, dtype=np.float32, order="C")
    _faiss.load().normalize_L2(scaled)
    return scaled


@dataclass(frozen=True, slots=True, eq=False)
class Space:
    """An affine map whose prefixes are the maps of the tiers.

    Parameters
    ----------
    kind : str
        One of `KINDS`.
    mean : ndarray, shape (dims,), float64
        What is subtracted.
    factor : ndarray, shape (dims, dims), float32, optional
        Lower triangular; what the centred vector is multiplied with. None in a centred space.
    source : str, optional
        Where mean and covariance come from: ``"indexed"`` vectors, or the ``"chain"``.
    """

    kind: str
    mean: _Floats
    factor: NDArray[np.float32] | None = None
    source: str = "indexed"

    def __post_init__(self) -> None:
        _check_kind(self.kind)
        if self.mean.ndim != 1 or not np.isfinite(self.mean).all():
            raise InputError("the mean of a space must be one finite vector")
        if (self.factor is None) != (self.kind == "centred"):
            raise InputError(f"a {self.kind} space has a factor unless it is centred")
        if self.factor is not None and (
            self.factor.shape != (self.dims, self.dims)
            or not np.isfinite(self.factor).all()
            or np.triu(self.factor, 1).any()
        ):
            raise InputError(
                f"the factor of a space of {self.dims} dimensions must be a finite lower "
                f"triangular matrix of that side; found shape {self.factor.shape}"
            )

    @property
    def dims(self) -> int:
        """Dimensions of the last tier."""
        return int(self.mean.shape[0])

    @classmethod
    def fit(
        cls, kind: str, mean: _Floats, covariance: _Floats, shrinkage: float = SHRINKAGE
    ) -> Space:
        """A space from the moments of pooled rd vectors.

        Parameters
        ----------
        kind : str
            One of `KINDS`.
        mean : ndarray, shape (dims,), float64
        covariance : ndarray, shape (dims, dims), float64
        shrinkage : float, optional
            Added to the diagonal as a share of the largest eigenvalue; for a standardised space
            to the variances, as a share of the largest variance.

        Returns
        -------
        Space

        Raises
        ------
        InputError
            Unknown kind, or vectors that do not vary at all.
        """
        _check_kind(kind)
        variances = np.diag(covariance)
        if not variances.max() > 0:
            raise InputError(
                f"the vectors do not vary: a {kind} space needs at least two different ones. "
                "Take the space from elsewhere (--space centred --space-from chain)"
            )
        factor: _Floats | None = None
        if kind == "standardised":
            factor = np.diag(1 / np.sqrt(variances + shrinkage * variances.max()))
        elif kind == "whitened":
            from scipy.linalg import eigvalsh, solve_triangular

            last = len(covariance) - 1
            largest = eigvalsh(covariance, subset_by_index=[last, last])[0]
            root = np.linalg.cholesky(covariance + shrinkage * largest * np.eye(last + 1))
            factor = np.tril(solve_triangular(root, np.eye(last + 1), lower=True))
        rounded = None if factor is None else factor.astype(np.float32)
        return cls(kind, np.asarray(mean, dtype=np.float64), rounded)

    def prefix(self, dims: int) -> Space:
        """The space of the tier with so many dimensions."""
        factor = None if self.factor is None else self.factor[:dims, :dims]
        return Space(self.kind, self.mean[:dims], factor, self.source)

    def transform(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Map rd embeddings, or prefixes of them, into the space.

        Parameters
        ----------
        vectors : ndarray, shape (n, k), float32
            k up to `dims`. Not changed.

        Returns
        -------
        ndarray, shape (n, k), float32
            Not normalised: its prefix of a tier's length, normalised, is what that tier scores.
        """
        k = vectors.shape[1]
        centred = (vectors - self.mean[:k]).astype(np.float32)
        if self.factor is None:
            return centred
        return centred @ self.factor[:k, :k].T

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
            Takes rd prefixes, scores cosines in this space.
        """
        faiss = _faiss.load()
        unit_length = faiss.NormalizationTransform(self.dims, 2.0)
        centre = faiss.CenteringTransform(self.dims)
        faiss.copy_array_to_vector(self.mean.astype(np.float32), centre.mean)
        centre.is_trained = True
        transforms = [unit_length, centre]
        if self.factor is not None:
            linear = faiss.LinearTransform(self.dims, self.dims, False)
            faiss.copy_array_to_vector(self.factor.ravel(), linear.A)
            linear.is_trained = True
            transforms.insert(1, linear)
        wrapped = faiss.IndexPreTransform(codec)
        for transform in transforms:
            wrapped.prepend_transform(transform)
        wrapped.own_fields = True
        for owned in (codec, *transforms):
            owned.this.disown()
        return wrapped

    def save(self, path: Path) -> None:
        """Write the space: a safetensors file with ``mean`` and, unless centred, ``factor``."""
        from safetensors.numpy import save

        arrays: dict[str, NDArray[np.floating]] = {"mean": self.mean}
        if self.factor is not None:
            arrays["factor"] = np.ascontiguousarray(self.factor)
        # `save_file` would make a file that only its owner can read.
        durable.replace(path, save(arrays, {"kind": self.kind, "source": self.source}))

    @classmethod
    def load(cls, path: Path) -> Space:
        """Read a space.

        Raises
        ------
        IndexDamagedError
            Not a file that `save` wrote.
        """
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(str(path), framework="numpy") as file:
                facts = file.metadata() or {}
                arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return cls(facts["kind"], arrays["mean"], arrays.get("factor"), facts["source"])
        except (SafetensorError, OSError, KeyError, ValueError, InputError) as error:
            raise IndexDamagedError(
                f"{path}: it cannot be read as a scoring space ({error}). Restore the file or "
                "build again",
                path=path,
            ) from error


def _check_kind(kind: str) -> None:
    if kind not in KINDS:
        raise InputError(f"there is no space {kind!r}; choose from {', '.join(KINDS)}")
