"""Fit a chain, embed a protein, and see that the embedding nests.

    python examples/01_fit_and_transform.py

Uses the bundled mini family, which is weak as a homology model: it shows the way, not quality.
"""

from __future__ import annotations

import itertools

import numpy as np

from rdsearch import family, fasta, samples
from rdsearch.embed import Embedder
from rdsearch.fitting import fit_chain

# 1. A chain is fitted on the residues of a sample; 100 proteins are enough for mini's 256 dims.
embedder = Embedder(family.get("mini"))
proteins = list(itertools.islice(fasta.read(samples.CHAIN_SAMPLE), 100))
chain = fit_chain(proteins, embedder)
print(f"chain {chain.hash[:12]} on {chain.n_residues:,} residues")
for tier, step in zip(chain.tiers[1:], chain.steps, strict=True):
    print(f"  {tier:>5}: {step.n_components_} components kept, R² {step.r2_:.3f}")

# 2. Every step is affine, so pooled vectors go through the same chain.
queries = list(fasta.read(samples.QUERIES))
pooled = [embedder.pool(member, [q.sequence for q in queries]) for member in chain.members]
rd = chain.transform(pooled)
print(f"{len(queries)} proteins, rd embeddings of {rd.shape[1]} dimensions")

# 3. The first dimensions are the shorter chain's output, bit for bit.
for tier in chain.tiers:
    shorter = chain.upto(tier)
    short = shorter.transform(pooled[: len(shorter.members)])
    same = np.array_equal(short, rd[:, : chain.dim(tier)])
    print(f"  first {chain.dim(tier):>3} dimensions = tier {tier}: {same}")
