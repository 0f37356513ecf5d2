"""What an index is, for people and programs."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rdsearch.layout import tier_file
from rdsearch.manifest import Manifest

if TYPE_CHECKING:
    from rdsearch.calibration import Calibration
    from rdsearch.index import Index

__all__ = ["describe"]

_SOURCES = {"indexed": "the indexed vectors", "chain": "the chain"}


def describe(index: Index) -> dict[str, Any]:
    """Facts about an opened index.

    Parameters
    ----------
    index : Index

    Returns
    -------
    dict
        What JSON can hold. ``guarantee`` and ``calibration`` are None until `rdsearch tune` and
        `rdsearch calibrate` gave one.
    """
    manifest = index.manifest
    guarantee, calibration = manifest.guarantee, manifest.calibration
    return {
        "path": str(index.path),
        "generation": manifest.generation,
        "operation": manifest.operation,
        "created": manifest.created,
        "rdsearch": manifest.rdsearch,
        "family": manifest.family,
        "chain": manifest.chain_hash,
        "chain_residues": index.chain.n_residues,
        "rows": index.n_rows,
        "accessions": index.n_accessions,
        "space": manifest.space,
        "space_from": _SOURCES[index.space.source],
        "recipe": manifest.recipe.name,
        "funnel": str(manifest.funnel),
        "guarantee": None if guarantee is None else asdict(guarantee),
        "calibration": None if calibration is None else _summary(calibration),
        "tiers": [
            {
                "name": tier.name,
                "dims": tier.dims,
                "codec": tier.codec,
                "cells": tier.cells,
                "bytes": _tier_bytes(manifest, tier.name),
            }
            for tier in manifest.stored
        ],
        "segments": [
            {
                "name": segment.name,
                "rows": segment.rows,
                "hidden": segment.hidden,
                "accessions": segment.accessions,
                "removed": segment.removed,
            }
            for segment in manifest.segments
        ],
        "columns": index.columns,
        "bytes": sum(file.size for file in manifest.all_files()),
        "embedding": manifest.embedding,
    }


def _summary(calibration: Calibration) -> dict[str, Any]:
    """A calibration without the curves of its tiers."""
    facts = calibration.as_dict()
    for tier in facts["tiers"]:
        for curve in ("scores", "probabilities", "false_positives"):
            del tier[curve]
    return facts


def _tier_bytes(manifest: Manifest, name: str) -> int:
    ending = "/" + tier_file(name)
    return sum(
        file.size
        for segment in manifest.segments
        for file in segment.files
        if file.path.endswith(ending)
    )
