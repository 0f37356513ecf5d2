"""The affine pieces of a chain: a member's projection, and one step of reverse distillation.

How they are applied stands here once, for fitting, searching and storing alike.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rdsearch.errors import ChainError, InputError

__all__ = ["Projection", "Step", "finite_rows"]

# Rows computed at once: bounds the float64 copies to some hundred MB at ESM-2 15B's width.
_CHUNK_ROWS = 2048

_ARRAYS = ("input_mean", "output_mean", "weights", "directions")
_REPORT = ("n_components", "threshold", "sigma2", "r2", "captured")

_Floats = NDArray[np.float64]
_Part = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Projection:
    """A member on its leading principal components: ``(H - mean_) @ axes_``.

    Attributes
    ----------
    mean_ : ndarray, shape (width,), float64
    axes_ : ndarray, shape (width, target), float64
        Orthonormal columns.
    """

    mean_: _Floats
    axes_: _Floats

    def __post_init__(self) -> None:
        _freeze(self)
        _check_shape("projection axes", self.axes_, (*self.mean_.shape, -1))

    def apply(self, vectors: NDArray[np.floating]) -> _Floats:
        """Project rows, in float64, shape (n, target)."""
        return (vectors.astype(np.float64) - self.mean_) @ self.axes_

    def part(self, vectors: _Part) -> _Part:
        """Project rows and round to float32: the first part of a chain that begins so."""
        return _in_chunks(len(vectors), self.axes_.shape[1], lambda rows: self.apply(vectors[rows]))

    def pack(self, name: str) -> dict[str, _Floats]:
        """The arrays under the names that they have in a chain file, for the member `name`."""
        return {f"{name}.projection_mean": self.mean_, f"{name}.projection_axes": self.axes_}

    @classmethod
    def unpack(cls, arrays: Mapping[str, _Floats], name: str) -> Projection | None:
        """The projection that `pack` described, or None where there is none."""
        axes = arrays.get(f"{name}.projection_axes")
        return None if axes is None else cls(arrays[f"{name}.projection_mean"], axes)


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """What one member adds to the base that the smaller members made.

    The new part is ``(H - output_mean_ - (A - input_mean_) @ weights_) @ directions_`` with the
    member's embeddings H (projected first where there is a `projection_`) and the base A.

    Attributes
    ----------
    input_mean_ : ndarray, shape (k,), float64
        Mean of the base.
    output_mean_ : ndarray, shape (d,), float64
        Mean of the member; in an imported chain, with the constants of its regression and PCA.
    weights_ : ndarray, shape (k, d), float64
        W, the principal component regression of the member on the base.
    directions_ : ndarray, shape (d, new), float64
        V, leading directions of the residual, orthonormal columns.
    n_components_ : int
        Principal components of the base that the regression keeps.
    threshold_, sigma2_ : float or None
        Johnstone threshold and its noise variance; None where an imported chain does not say.
    r2_ : float or None
        Share of the member's variance that the base explains linearly.
    captured_ : float or None
        Share of the residual's variance that the new part holds.
    projection_ : Projection or None
    """

    input_mean_: _Floats
    output_mean_: _Floats
    weights_: _Floats
    directions_: _Floats
    n_components_: int
    threshold_: float | None = None
    sigma2_: float | None = None
    r2_: float | None = None
    captured_: float | None = None
    projection_: Projection | None = None

    def __post_init__(self) -> None:
        _freeze(self)
        _check_shape("weights", self.weights_, (*self.input_mean_.shape, *self.output_mean_.shape))
        _check_shape("directions", self.directions_, (*self.output_mean_.shape, -1))
        if self.projection_ is not None:
            _check_shape("projection axes", self.projection_.axes_, (-1, *self.output_mean_.shape))

    @property
    def shape(self) -> tuple[int, int, int]:
        """Dimensions of the member, of the base, and of the new part."""
        projection = self.projection_
        width = len(self.output_mean_ if projection is None else projection.mean_)
        return (width, *self.input_mean_.shape, self.directions_.shape[1])

    def report(self) -> dict[str, Any]:
        """What the fit reports of this step; a chain file says it in words."""
        return {key: getattr(self, f"{key}_") for key in _REPORT}

    def pack(self, name: str) -> dict[str, _Floats]:
        """The arrays under the names that they have in a chain file, for the member `name`."""
        arrays = {f"{name}.{key}": getattr(self, f"{key}_") for key in _ARRAYS}
        return arrays if self.projection_ is None else arrays | self.projection_.pack(name)

    @classmethod
    def unpack(cls, arrays: Mapping[str, _Floats], name: str, report: Mapping[str, Any]) -> Step:
        """The step that `pack` and `report` described."""
        learnt: dict[str, Any] = {f"{key}_": arrays[f"{name}.{key}"] for key in _ARRAYS}
        said = {f"{key}_": report[key] for key in _REPORT}
        return cls(**learnt, **said, projection_=Projection.unpack(arrays, name))

    def exact(self, base: NDArray[np.floating], vectors: NDArray[np.floating]) -> _Floats:
        """The new part before rounding.

        Parameters
        ----------
        base : ndarray, shape (n, k)
        vectors : ndarray, shape (n, width)

        Returns
        -------
        ndarray, shape (n, new), float64
        """
        if self.projection_ is None:
            member = vectors.astype(np.float64)
        else:
            member = self.projection_.apply(vectors)
        member -= self.output_mean_
        member -= (base.astype(np.float64) - self.input_mean_) @ self.weights_
        return member @ self.directions_

    def part(self, base: _Part, vectors: _Part) -> _Part:
        """The new part, computed in float64 and rounded to float32.

        Parameters
        ----------
        base : ndarray, shape (n, k), float32
            The parts of all smaller members, rounded as they are stored.
        vectors : ndarray, shape (n, width), float32

        Returns
        -------
        ndarray, shape (n, new), float32
        """
        return _in_chunks(
            len(vectors),
            self.directions_.shape[1],
            lambda rows: self.exact(base[rows], vectors[rows]),
        )


def finite_rows(values: ArrayLike, name: str, width: int) -> NDArray[np.float32]:
    """Check rows and round them to float32.

    Parameters
    ----------
    values : array, shape (n, width), any floating type
    name : str
        What they are, for the error.
    width : int

    Returns
    -------
    ndarray, shape (n, width), float32
        `values` itself where it is float32 already.

    Raises
    ------
    InputError
        Another shape, another kind of number, NaN or infinity.
    """
    rows = np.asarray(values)
    if rows.ndim != 2 or rows.shape[1] != width or rows.dtype.kind != "f":
        raise InputError(
            f"{name} must be floating point numbers of shape (rows, {width}); found {rows.dtype} "
            f"of shape {rows.shape}",
            expected=width,
            found=rows.shape,
        )
    with np.errstate(over="ignore"):
        rows = rows.astype(np.float32, copy=False)
    bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
    if bad.size:
        raise InputError(
            f"row {bad[0]} of {name} holds NaN or infinity: embed it again, in float32 if it was "
            "computed in half precision",
            row=int(bad[0]),
        )
    return rows


def _in_chunks(n: int, width: int, compute: Callable[[slice], _Floats]) -> _Part:
    """Compute rows chunk by chunk and round them."""
    part = np.empty((n, width), dtype=np.float32)
    for start in range(0, n, _CHUNK_ROWS):
        rows = slice(start, start + _CHUNK_ROWS)
        part[rows] = compute(rows)
    return part


def _freeze(piece: Projection | Step) -> None:
    """Make the arrays contiguous, so that the same product gives the same bits, and read-only."""
    for field in fields(piece):
        value = getattr(piece, field.name)
        if isinstance(value, np.ndarray):
            # A frozen copy, never the caller's array.
            array = np.array(value, dtype=np.float64, order="C")
            array.setflags(write=False)
            object.__setattr__(piece, field.name, array)


def _check_shape(name: str, array: _Floats, expected: tuple[int, ...]) -> None:
    """Refuse an array of another shape; -1 fits any length."""
    fits = array.ndim == len(expected) and all(
        want in (-1, have) for want, have in zip(expected, array.shape, strict=True)
    )
    if not fits:
        raise ChainError(
            f"the {name} of a step have shape {array.shape}, expected {expected} (-1: any length); "
            "fit the chain again",
            expected=expected,
            found=array.shape,
        )
