"""The first tier on a GPU; what needs one is skipped where there is none."""

from __future__ import annotations

from dataclasses import replace

import faiss
import numpy as np
import pytest

import rdsearch
from rdsearch import gpu
from rdsearch.errors import InputError

_HAS_GPU = hasattr(faiss, "StandardGpuResources") and faiss.get_num_gpus() > 0


def test_a_device_that_is_not_there_is_named(mini_index):
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    with pytest.raises(InputError, match="device cuda is not there"):
        rdsearch.open(mini_index, device="cuda")


@pytest.mark.skipif(not _HAS_GPU, reason="needs a GPU and FAISS built for it")
def test_the_gpu_finds_what_the_cpu_finds(mini_index, mini_store):
    vectors = mini_store.rd(slice(None))
    with rdsearch.open(mini_index) as cpu, rdsearch.open(mini_index, device="cuda") as index:
        funnel = cpu.plan(shortlists=60)
        for one, other in zip(
            cpu.rank(vectors, 5, funnel), index.rank(vectors, 5, funnel), strict=True
        ):
            np.testing.assert_array_equal(one.rows, other.rows)


def test_only_unfiltered_short_first_tiers_go_to_the_gpu(mini_index, mini_store, monkeypatch):
    asked = []

    def decoded(tier, device):
        asked.append((tier.name, device))
        codec = faiss.IndexFlatIP(tier.dims)
        codec.add(tier.vectors(np.arange(tier.n_rows)))
        return replace(tier, codec=codec)

    monkeypatch.setattr(gpu, "on_gpu", decoded)
    monkeypatch.setattr(gpu, "available", lambda: True)
    monkeypatch.setattr(gpu, "device_number", lambda device: 3)
    vectors = mini_store.rd(slice(0, 20))
    with rdsearch.open(mini_index) as index:
        long, short = index.plan(shortlists=2048), index.plan(shortlists=30)
        rows = np.arange(0, 120, 2)
        whole = index.rank(vectors, 5, long)
        index.rank(vectors, 5, short, rows=rows)
        assert asked == []
        found = index.rank(vectors, 5, short)
        assert asked == [("0.1M", 3)]
        assert [one.rows[0] for one in whole] == [one.rows[0] for one in found]
