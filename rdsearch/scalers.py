"""Read the scalers that the authors of reverse distillation published.

A scaler is one step, ``rd-scaler-8M-35M-pcr-incremental-1k.npz``: from ESM-2 8M to 35M. A chain
needs one for each step. The imported chain gives the numbers of the authors' ``rdScaler.step``.

Its numbers are not those of `Chain.fit`: the authors' training fits each regression on the raw
embeddings of the member before, and applies it to the accumulated embedding. From the second step
on the regression thus sees another base than it was fitted on, whose dimensions after the first
block are residual directions and not the member's own. Algorithm 3 of the paper, and `Chain.fit`,
use the accumulated embedding for both. Their directions come from a randomised or incremental
PCA, ours from the residual's covariance.
"""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rdsearch.chain import Chain
from rdsearch.errors import ChainError
from rdsearch.family import ESM2, Member
from rdsearch.steps import Step

__all__ = ["import_scalers"]

_NAME = re.compile(r"rd-scaler-([^-]+)-([^-]+)-")
_NEEDED = (
    "regressor__coef_",
    "regressor__intercept_",
    "regressor__input_mean_",
    "regressor__output_mean_",
    "regressor__input_components_",
    "regressor__n_significant_pcs_",
    "pca__mean_",
    "pca__components_",
)
_OPTIONAL = ("regressor__johnstone_threshold_", "regressor__sigma_sq_")

_Floats = NDArray[np.float64]


def import_scalers(paths: Iterable[str | Path]) -> Chain:
    """Make a chain of the ESM-2 family from the authors' scaler files.

    Parameters
    ----------
    paths : iterable of path
        One npz file per step, in any order. Each must begin with the member that another ends
        with. Members are told by their widths; a file name that names others is refused.

    Returns
    -------
    Chain
        `n_residues` is 0, and `r2_` and `captured_` of its steps are None: the files do not say.
        Its tier means follow from the means in the files.

    Raises
    ------
    ChainError
        A file cannot be read without pickle, lacks an array, holds arrays that do not fit each
        other or ESM-2, or the files do not make one chain. The message names the file.
    """
    read = [(*_members(path, arrays), path, arrays) for path, arrays in map(_read, paths)]
    if not read:
        raise ChainError("a chain needs at least one scaler file; found none")
    read.sort(key=lambda entry: entry[0].width)
    for (_, end, path, _), (start, _, other, _) in pairwise(read):
        if start != end:
            raise ChainError(
                f"{other} begins with member {start.name}, but {path} ends with {end.name}: give "
                "exactly one file for each step, from the smallest member to the largest",
                path=str(other),
                expected=end.name,
                found=start.name,
            )
    members = [read[0][0], *(end for _, end, _, _ in read)]
    steps = [_step(arrays) for _, _, _, arrays in read]
    mean = read[0][3]["regressor__input_mean_"]
    for step, (_, _, _, arrays) in zip(steps, read, strict=True):
        # Affine, so the mean of the new part is the part of the means.
        part = step.exact(mean[None], arrays["regressor__output_mean_"][None])
        mean = np.concatenate([mean, part[0]])
    return Chain(ESM2.name, members, 0, mean, steps)


def _step(arrays: dict[str, _Floats]) -> Step:
    """One scaler as a step, its constants gathered in the mean that is subtracted."""
    kept = int(arrays["regressor__n_significant_pcs_"])
    axes = arrays["regressor__input_components_"][:, :kept]
    threshold, sigma2 = (float(arrays[key]) if key in arrays else None for key in _OPTIONAL)
    return Step(
        input_mean_=arrays["regressor__input_mean_"],
        output_mean_=arrays["regressor__output_mean_"]
        + arrays["regressor__intercept_"]
        + arrays["pca__mean_"],
        weights_=axes @ arrays["regressor__coef_"].T,
        directions_=arrays["pca__components_"].T,
        n_components_=kept,
        threshold_=threshold,
        sigma2_=sigma2,
    )


def _members(path: Path, arrays: dict[str, _Floats]) -> tuple[Member, Member]:
    """The members that a scaler leads from and to, by the widths of its arrays."""
    by_width = {member.width: member for member in ESM2.members}
    k, d = (arrays[f"regressor__{end}_mean_"].size for end in ("input", "output"))
    kept = arrays["regressor__n_significant_pcs_"]
    columns = arrays["regressor__input_components_"].size // max(k, 1)
    if k not in by_width or d not in by_width or k >= d:
        raise _unusable(path, f"no step between ESM-2 members leads from {k} to {d} dimensions")
    if kept.size != 1 or kept != np.round(kept) or not 0 < kept <= columns:
        raise _unusable(path, f"{kept} of {columns} components cannot be kept")
    expected = {
        "regressor__coef_": (d, int(kept)),
        "regressor__intercept_": (d,),
        "regressor__input_mean_": (k,),
        "regressor__output_mean_": (d,),
        "regressor__input_components_": (k, columns),
        "pca__mean_": (d,),
        "pca__components_": (d - k, d),
    }
    for key, shape in expected.items():
        if arrays[key].shape != shape:
            raise _unusable(path, f"{key} must have shape {shape}, found {arrays[key].shape}")
    start, end = by_width[k], by_width[d]
    named = _NAME.match(path.name)
    if named and named.groups() != (start.name, end.name):
        raise _unusable(
            path,
            f"its name says {named[1]} to {named[2]}, its arrays lead from {start.name} to "
            f"{end.name}",
        )
    return start, end


def _read(path: str | Path) -> tuple[Path, dict[str, _Floats]]:
    """The arrays of one file that a chain needs, without unpickling anything."""
    path = Path(path)
    if not path.is_file():
        raise ChainError(f"{path}: there is no scaler file here", path=str(path))
    arrays = {}
    try:
        loaded = np.load(path, allow_pickle=False)
        if not isinstance(loaded, np.lib.npyio.NpzFile):
            raise ValueError("it holds a single array, not named ones")
        with loaded as archive:
            missing = [key for key in _NEEDED if key not in archive]
            if missing:
                raise ValueError(
                    f"no array {', '.join(missing)}; only scalers with principal component "
                    "regression (pcr) carry all that a chain needs"
                )
            for key in (*_NEEDED, *_OPTIONAL):
                if key in archive:
                    arrays[key] = archive[key].astype(np.float64)
    except (ValueError, TypeError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise _unusable(path, str(error)) from error
    broken = [key for key, array in arrays.items() if not np.isfinite(array).all()]
    if broken:
        raise _unusable(path, f"{', '.join(broken)} hold NaN or infinity")
    return path, arrays


def _unusable(path: Path, reason: str) -> ChainError:
    """An error for a file that is not one of the authors' scalers."""
    return ChainError(
        f"{path}: not a usable rd scaler: {reason}. Expected one of the authors' published files, "
        "such as rd-scaler-8M-35M-pcr-incremental-1k.npz",
        path=str(path),
    )
