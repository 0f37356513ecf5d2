"""Paths of the proteins that come with the package (UniProt, CC BY 4.0; data/sample/README.md)."""

from __future__ import annotations

from pathlib import Path

__all__ = ["CHAIN_SAMPLE", "METADATA", "PROTEINS", "QUERIES"]

_FOLDER = Path(__file__).parent / "data" / "sample"

#: About 2,000 proteins to build an index from.
PROTEINS = _FOLDER / "proteins.fasta.gz"

#: A few proteins that are not among `PROTEINS`, with homologs there.
QUERIES = _FOLDER / "queries.fasta"

#: A metadata table for `PROTEINS`.
METADATA = _FOLDER / "metadata.tsv"

#: 1,000 diverse Swiss-Prot proteins to fit a chain on.
CHAIN_SAMPLE = _FOLDER / "chain-sample.fasta.gz"
