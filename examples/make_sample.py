"""Make the sample of UniProt proteins that comes with the package.

    python examples/make_sample.py uniprot-20k.fasta.gz swissprot50-1000.fasta.gz -o sample/

writes ``proteins.fasta.gz`` (what `make demo` builds an index from), ``queries.fasta`` (kept out
of it, with homologs left in), ``metadata.tsv`` and ``chain-sample.fasta.gz`` (copied). The same
input gives the same files. rdsearch/data/sample/README.md says where the input comes from.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import random
import re
import shutil
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import dnaio

# Proteins that a biologist knows, each with relatives in several organisms.
QUERIES = {
    "P41238": "C->U-editing enzyme APOBEC-1, human",
    "Q96P15": "serpin B11, human",
    "Q4R4X8": "tubulin beta-4A chain, crab-eating macaque",
    "Q9V771": "cytochrome P450 6a23, fruit fly",
    "P01389": "long neurotoxin 1, Anchieta's cobra",
    "P0C0N7": "60 kDa chaperonin (GroEL), Staphylococcus epidermidis",
    "A1BHJ1": "triosephosphate isomerase, Chlorobium phaeobacteroides",
    "Q74FE1": "50S ribosomal protein L9, Geobacter sulfurreducens",
}

SHORT = range(40, 501)  # residues; short proteins keep the demo quick
LONG = range(1023, 1501)  # longer than ESM-2's 1,022 residues: embedded in windows
N_LONG = 3
N_TWINS = 6  # pairs with one sequence under two accessions
UNREVIEWED_SHARE = 0.15
NO_METADATA_SHARE = 0.01
HOMOLOGS_PER_QUERY = 40

# Homologs share at least three words of K residues more than ten times the number by chance:
# 9 for two proteins of 300 residues, which at 40 % identity share about as many.
K = 4
MIN_SHARED = 3
OVER_CHANCE = 10

# Average masses of amino acid residues in Da (a protein has one water more).
RESIDUE_MASS = {
    "A": 71.0788,
    "C": 103.1388,
    "D": 115.0886,
    "E": 129.1155,
    "F": 147.1766,
    "G": 57.0519,
    "H": 137.1411,
    "I": 113.1594,
    "K": 128.1741,
    "L": 113.1594,
    "M": 131.1926,
    "N": 114.1038,
    "P": 97.1167,
    "Q": 128.1307,
    "R": 156.1875,
    "S": 87.0782,
    "T": 101.1051,
    "V": 99.1326,
    "W": 186.2132,
    "Y": 163.1760,
}
WATER_MASS = 18.0153

_HEADER = re.compile(
    r"(?P<db>sp|tr)\|(?P<accession>\w+)\|\S+ (?P<name>.+?) OS=(?P<organism>.+?)(?= [A-Z]{2}=|$)"
)
_NO_GENUS = re.compile(
    r"virus|phage|viroid|phytoplasma|symbiont|uncultured|unidentified|synthetic", re.I
)


@dataclass(frozen=True, slots=True)
class Protein:
    """One entry of UniProt: its header line and its sequence."""

    header: str
    accession: str
    reviewed: bool
    name: str
    organism: str
    sequence: str

    @property
    def family(self) -> str:
        """The protein name without what differs between relatives' entries."""
        return self.name.removesuffix(" (Fragment)").casefold()


def read(path: Path) -> Iterator[Protein]:
    """Proteins of a FASTA file with UniProt's headers."""
    with dnaio.open(path) as records:
        for record in records:
            found = _HEADER.match(record.name)
            if found is None:
                raise SystemExit(f"{path}: not a UniProt header: {record.name!r}")
            yield Protein(
                record.name.rstrip(),
                found["accession"],
                found["db"] == "sp",
                found["name"],
                found["organism"],
                record.sequence,
            )


def kmers(sequence: str) -> set[str]:
    """The distinct words of `K` residues in a sequence."""
    return {sequence[i : i + K] for i in range(len(sequence) - K + 1)}


def homologs(query: Protein, proteins: list[Protein]) -> list[Protein]:
    """Proteins that share many words or the name with the query, most similar first."""
    words = kmers(query.sequence)
    scored = []
    for protein in proteins:
        shared = len(words & kmers(protein.sequence))
        by_chance = len(query.sequence) * len(protein.sequence) / 20**K
        if shared >= MIN_SHARED + OVER_CHANCE * by_chance or protein.family == query.family:
            scored.append((-shared, protein.accession, protein))
    return [protein for _, _, protein in sorted(scored)[:HOMOLOGS_PER_QUERY]]


def choose(proteins: list[Protein], size: int, seed: int) -> tuple[list[Protein], list[Protein]]:
    """Queries, and the `size` proteins of the sample in the order of the input."""
    by_accession = {protein.accession: protein for protein in proteins}
    if missing := [name for name in QUERIES if name not in by_accession]:
        raise SystemExit(f"the input lacks the queries {', '.join(missing)}")
    queries = [by_accession[name] for name in QUERIES]
    query_sequences = {query.sequence for query in queries}
    pool = [protein for protein in proteins if protein.sequence not in query_sequences]

    rng = random.Random(seed)
    rng.shuffle(pool)
    chosen: dict[str, Protein] = {}

    def take(some: list[Protein]) -> None:
        chosen.update((protein.accession, protein) for protein in some)

    short = [protein for protein in pool if len(protein.sequence) in SHORT]
    modest = [protein for protein in pool if len(protein.sequence) <= 700]
    for query in queries:
        take(homologs(query, modest))

    take([p for p in pool if p.reviewed and len(p.sequence) in LONG][:N_LONG])

    twins: dict[str, list[Protein]] = defaultdict(list)
    for protein in short:
        twins[protein.sequence].append(protein)
    pairs = [two for two in twins.values() if len(two) == 2 and any(p.reviewed for p in two)]
    for pair in pairs[:N_TWINS]:
        take(pair)

    rest = [protein for protein in short if protein.accession not in chosen]
    unreviewed = [p for p in rest if not p.reviewed and not p.name.startswith("Uncharacterized")]
    take(unreviewed[: round(size * UNREVIEWED_SHARE)])
    reviewed = [protein for protein in rest if protein.reviewed]
    if len(chosen) + len(reviewed) < size:
        raise SystemExit(f"the input has too few proteins for a sample of {size}")
    take(reviewed[: size - len(chosen)])
    return queries, [protein for protein in proteins if protein.accession in chosen]


def mass(sequence: str) -> float | None:
    """Average mass in Da; None where a residue is ambiguous."""
    if not RESIDUE_MASS.keys() >= set(sequence):
        return None
    return round(sum(RESIDUE_MASS[residue] for residue in sequence) + WATER_MASS, 1)


def genus(organism: str) -> str | None:
    """The genus where the organism has a two-part name, None for viruses and the unnamed."""
    first, _, rest = organism.partition(" ")
    second = rest.partition(" ")[0]
    named = re.fullmatch(r"[A-Z][a-z]+", first) and re.fullmatch(r"[a-z]+|sp\.", second)
    if not named or _NO_GENUS.search(organism) or first.endswith("aceae"):
        return None
    if second.endswith(("bacterium", "archaeon", "division", "cluster")):
        return None  # "Gamma proteobacterium", "Lachnospiraceae bacterium"
    return first


def write_metadata(proteins: list[Protein], path: Path, seed: int) -> None:
    """A table of what header and sequence imply; a few proteins are left out of it."""
    left_out = random.Random(seed).sample(proteins, round(len(proteins) * NO_METADATA_SHARE))
    without = {protein.accession for protein in left_out}
    with path.open("w", newline="") as file:
        table = csv.writer(file, delimiter="\t", lineterminator="\n")
        table.writerow(["accession", "reviewed", "fragment", "mass", "genus"])
        for protein in proteins:
            if protein.accession in without:
                continue
            fragment = "(Fragment" in protein.name
            table.writerow(
                [
                    protein.accession,
                    str(protein.reviewed).lower(),
                    str(fragment).lower(),
                    mass(protein.sequence),  # of the entry's sequence: a fragment's is partial
                    genus(protein.organism),
                ]
            )


def fasta(proteins: list[Protein]) -> bytes:
    """FASTA with one line a sequence."""
    return "".join(f">{p.header}\n{p.sequence}\n" for p in proteins).encode()


def main() -> None:
    """Parse, choose, write."""
    parser = argparse.ArgumentParser(description="Make the sample that comes with rdsearch.")
    parser.add_argument("proteins", type=Path, help="FASTA with UniProt's headers")
    parser.add_argument("chain_sample", type=Path, help="gzipped FASTA that a chain is fitted on")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder to write to")
    parser.add_argument("--size", type=int, default=2000, help="proteins in the sample")
    parser.add_argument("--seed", type=int, default=1, help="of the random choice")
    arguments = parser.parse_args()

    queries, sample = choose(list(read(arguments.proteins)), arguments.size, arguments.seed)
    folder: Path = arguments.output
    folder.mkdir(parents=True, exist_ok=True)
    # mtime=0 keeps the clock out of the file.
    (folder / "proteins.fasta.gz").write_bytes(gzip.compress(fasta(sample), 9, mtime=0))
    (folder / "queries.fasta").write_bytes(fasta(queries))
    write_metadata(sample, folder / "metadata.tsv", arguments.seed)
    shutil.copyfile(arguments.chain_sample, folder / "chain-sample.fasta.gz")

    for query in queries:
        print(f"{query.accession}: {len(homologs(query, sample))} share words or its name")
    residues = sum(len(protein.sequence) for protein in sample)
    print(f"{len(sample)} proteins, {residues} residues")


if __name__ == "__main__":
    main()
