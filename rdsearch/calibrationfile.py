"""Calibrations in files and in indexes: which fit together, and how one is stored."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from rdsearch import generations
from rdsearch.calibration import Calibration
from rdsearch.errors import CalibrationError, ChainMismatchError, InputError
from rdsearch.layout import SPACE
from rdsearch.manifest import Manifest

if TYPE_CHECKING:
    from rdsearch.index import Index

__all__ = ["check_fits", "load", "save", "store"]

_FORMAT = "rdsearch calibration"
_FORMAT_VERSION = 1
# Six tiers of 200 knots take 60 kB.
_LARGEST_FILE = 16 << 20


def check_fits(calibration: Calibration, manifest: Manifest, path: Path) -> None:
    """Refuse a calibration of other scores than an index's.

    Raises
    ------
    ChainMismatchError
        Another chain or another space.
    CalibrationError
        A tier that the index does not have, or keeps with another codec.
    """
    space = manifest.file(SPACE).sha256
    for name, expected, found in (
        ("chain", manifest.chain_hash, calibration.chain_hash),
        ("space", space, calibration.space_sha256),
    ):
        if expected != found:
            raise ChainMismatchError(
                f"the calibration was learnt with {name} {found[:12]}, the index {path} has {name} "
                f"{expected[:12]}: its scores are others. Calibrate it: rdsearch calibrate {path} "
                "LABELS.tsv",
                expected=expected,
                found=found,
            )
    codecs = {tier.name: tier.codec for tier in manifest.tiers}
    for tier in calibration.tiers:
        if codecs.get(tier.tier) != tier.codec:
            has = f"has {codecs[tier.tier]}" if tier.tier in codecs else "has no such tier"
            raise CalibrationError(
                f"the calibration was learnt on tier {tier.tier} with codec {tier.codec}, the "
                f"index {path} {has}. Calibrate it: rdsearch calibrate {path} LABELS.tsv",
                tier=tier.tier,
            )


def store(index: Index, calibration: Calibration) -> Manifest:
    """Make it the index's, in one atomic step.

    An index that is open keeps the manifest it was opened with.

    Raises
    ------
    ChainMismatchError, CalibrationError
        It does not fit (`check_fits`), or the index on disk is not the one that was opened any
        more; it stays as it is.
    """
    with generations.changing(index.path, "calibrate") as manifest:
        check_fits(calibration, manifest, index.path)
        if manifest != index.manifest:
            raise CalibrationError(
                f"{index.path} was changed while it was calibrated: the result belongs to the "
                "index before. Calibrate again"
            )
        text = f"calibrate: fdr {calibration.fdr:g}"
        calibrated = generations.successor(manifest, text, calibration=calibration)
        generations.publish(index.path, calibrated)
    return calibrated


def save(calibration: Calibration, path: str | Path) -> None:
    """Write a calibration for other indexes of the same chain and space, as JSON."""
    table = {"format": _FORMAT, "format_version": _FORMAT_VERSION, **calibration.as_dict()}
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")


def load(path: str | Path) -> Calibration:
    """Read what `save` wrote.

    Raises
    ------
    InputError
        The file cannot be read, or is no calibration.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST_FILE + 1)
        table = json.loads(content) if len(content) <= _LARGEST_FILE else None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read as JSON ({error})", path=path) from error
    if not isinstance(table, dict) or table.pop("format", None) != _FORMAT:
        raise InputError(
            f"{path}: expected a calibration that rdsearch calibrate --save wrote, found something "
            "else",
            path=path,
        )
    version = table.pop("format_version", None)
    if version != _FORMAT_VERSION:
        raise InputError(
            f"{path}: this rdsearch reads calibrations of format version {_FORMAT_VERSION}; found "
            f"{version!r}. Install a newer rdsearch, or calibrate again",
            path=path,
        )
    try:
        return Calibration.from_dict(table)
    except InputError as error:
        raise InputError(f"{path}: {error}", path=path) from error
