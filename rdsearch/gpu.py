"""The first tiers of a funnel on a GPU, where FAISS was built for one."""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np

from rdsearch import _faiss
from rdsearch.tiers import Tier

__all__ = ["LONGEST_SHORTLIST", "available", "device_number", "on_gpu"]

_LOGGER = logging.getLogger(__name__)

#: Rows that FAISS's GPU indexes return at most; longer shortlists are made on the CPU.
LONGEST_SHORTLIST = 2048

# Rows that are decoded and sent to the GPU together.
_BLOCK_ROWS = 65_536


def device_number(device: str) -> int | None:
    """The first GPU that a device string names; None for the CPU and for ``auto``.

    Raises
    ------
    InputError
        There is no such device on this machine.
    """
    if not device.startswith("cuda"):
        return None
    from rdsearch.devices import devices_named

    return devices_named(device)[0].index or 0


@cache
def available() -> bool:
    """Whether this FAISS searches on GPUs; said once where it does not."""
    faiss = _faiss.load()
    if hasattr(faiss, "StandardGpuResources") and faiss.get_num_gpus() > 0:
        return True
    _LOGGER.info(
        "FAISS has no GPU support here: queries are embedded on the GPU and searched on the CPU. "
        "For both install rdsearch[gpu] in place of rdsearch[cpu]"
    )
    return False


def on_gpu(tier: Tier, device: int) -> Tier:
    """A tier whose vectors are on a GPU, as 16-bit floats.

    FAISS's GPU indexes know neither RaBitQ nor filters: the codes are decoded, so that a scan
    ranks by the decoded vectors; filtered searches stay on the CPU.

    Parameters
    ----------
    tier : Tier
    device : int

    Returns
    -------
    Tier
    """
    faiss = _faiss.load()
    options = faiss.GpuIndexFlatConfig()
    options.device, options.useFloat16 = device, True
    resources: Any = faiss.StandardGpuResources()
    index = faiss.GpuIndexFlatIP(resources, tier.dims, options)
    for start in range(0, tier.n_rows, _BLOCK_ROWS):
        index.add(tier.vectors(np.arange(start, min(start + _BLOCK_ROWS, tier.n_rows))))
    return replace(tier, codec=index, owner=(index, resources))
