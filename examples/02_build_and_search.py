"""Build an index from a FASTA file and search it.

    python examples/02_build_and_search.py [FOLDER]

Uses the bundled mini family, which is weak as a homology model: it shows the way, not quality.
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

# Without mini's largest member this takes well under a minute.
MEMBERS = ["0.1M", "0.5M", "1.2M"]
folder = Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp(prefix="rdsearch-"))

sample = itertools.islice(fasta.read(samples.CHAIN_SAMPLE), 100)
chain = fit_chain(sample, Embedder(family.get("mini"), MEMBERS))

report = rdsearch.build(
    samples.PROTEINS, chain, folder / "proteins", metadata=[samples.METADATA], recipe="balanced"
)
for joined in report.metadata:
    print(joined)

with rdsearch.open(folder / "proteins") as index:
    print(index)
    print("funnel:", index.plan())
    for query, hits in index.search(samples.QUERIES, k=3):
        print(query.accession, query.protein_name)
        for hit in hits:
            print(f"  {hit.rank} {hit.accession:>10} {hit.score:.3f} {hit.protein_name}")
