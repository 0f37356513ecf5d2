"""How much of the exact search does the funnel keep, tier by tier?

    python examples/03_tiers_and_recall.py [FOLDER]

Recall@10 is the share of the exact last tier's ten best rows that a search finds. Uses the
bundled mini family.
"""

from __future__ import annotations

import itertools
import sys
import tempfile
from pathlib import Path

import rdsearch
from rdsearch import family, fasta, samples
from rdsearch.embed import Embedder
from rdsearch.fitting import fit_chain

K = 10
# Without mini's largest member this takes well under a minute.
MEMBERS = ["0.1M", "0.5M", "1.2M"]
folder = Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp(prefix="rdsearch-"))

sample = itertools.islice(fasta.read(samples.CHAIN_SAMPLE), 100)
chain = fit_chain(sample, Embedder(family.get("mini"), MEMBERS))
rdsearch.embed_proteins(samples.PROTEINS, chain, folder / "vectors")
for recipe in ("exact", "balanced"):
    rdsearch.build(folder / "vectors", chain, folder / recipe, recipe=recipe)

# Queries: proteins that the chain has not seen, from its own sample file.
queries = list(itertools.islice(fasta.read(samples.CHAIN_SAMPLE), 200, 300))
with rdsearch.open(folder / "exact") as exact:
    everything = exact.n_rows
    vectors = exact.embed([query.sequence for query in queries], chain.tiers[-1])
    truth = exact.search_vectors(queries, vectors, K, exact.plan(shortlists={}))


def recall(found: list[rdsearch.QueryHits]) -> float:
    """Share of the true rows that were found."""
    kept = sum(
        len({hit.row for hit in a.hits} & {hit.row for hit in b.hits})
        for a, b in zip(truth, found, strict=True)
    )
    return kept / sum(len(a.hits) for a in truth)


print(f"recall@{K} of {len(queries)} queries on {everything} proteins")
for recipe in ("exact", "balanced"):
    with rdsearch.open(folder / recipe) as index:
        for tier in index.tiers:
            plan = index.plan(to_tier=tier, shortlists={})
            found = index.search_vectors(queries, vectors[:, : chain.dim(tier)], K, plan)
            print(f"  {recipe:>8}, tier {tier:>4} alone: {recall(found):.3f}")
        for size in (50, 200, 1000):
            plan = index.plan(shortlists=size)
            found = index.search_vectors(queries, vectors, K, plan)
            print(f"  {recipe:>8}, {plan}: {recall(found):.3f}")
