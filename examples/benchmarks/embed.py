"""Residues per second against fair-esm's own loop, on the same weights and sequences.

    python examples/benchmarks/embed.py PROTEINS.fasta.gz --members 8M,35M --threads 1

Random weights of the members' shapes: speed does not depend on their values. Sequences of more
than 1,022 residues are left out on both sides: fair-esm's loop would cut them. One process; each
round runs all sequences on one side after the other; the ratio is the median of the rounds'. Few
sequences (``--sequences``) pad fair-esm's batches more and flatter the ratio. The centred cosine
compares the pooled vectors of the two sides, less their common mean; the smallest of all
sequences is shown.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import esm
import numpy as np
import torch
from machine import processor
from tabulate import tabulate

from rdsearch import family, fasta
from rdsearch.embed import LONGEST_WINDOW, Embedder
from rdsearch.family import Member

TOKENS_PER_BATCH = 4096


class FairEsm:
    """The loop of fair-esm's README and of its ``esm-extract``, with mean pooling."""

    def __init__(self, member: Member) -> None:
        torch.manual_seed(0)
        self.model = esm.ESM2(member.layers, member.width, member.heads, "ESM-1b", True).eval()
        with torch.no_grad():
            for parameter in self.model.parameters():
                # Every layer matters; at fair-esm's initial values attention is next to uniform.
                if parameter.ndim > 1:
                    torch.nn.init.normal_(parameter, std=parameter.shape[1] ** -0.5)
        self.tokens = self.padding = 0

    def save(self, path: Path) -> None:
        """Write fair-esm's checkpoint format."""
        options = argparse.Namespace(
            encoder_layers=self.model.num_layers,
            encoder_embed_dim=self.model.embed_dim,
            encoder_attention_heads=self.model.attention_heads,
            token_dropout=True,
        )
        state = {f"encoder.sentence_encoder.{k}": v for k, v in self.model.state_dict().items()}
        torch.save({"cfg": {"model": options}, "model": state}, path)

    def pool(self, sequences: Sequence[str]) -> np.ndarray:
        """Mean residue embeddings, shape (n, width)."""
        labels = [str(i) for i in range(len(sequences))]
        dataset = esm.FastaBatchedDataset(labels, list(sequences))
        batches = dataset.get_batch_indices(TOKENS_PER_BATCH, extra_toks_per_seq=1)
        loader = torch.utils.data.DataLoader(
            dataset,
            collate_fn=self.model.alphabet.get_batch_converter(LONGEST_WINDOW),
            batch_sampler=batches,
        )
        last = self.model.num_layers
        pooled = np.empty((len(sequences), self.model.embed_dim), np.float32)
        with torch.no_grad():
            for labels, strings, tokens in loader:
                hidden = self.model(tokens, repr_layers=[last])["representations"][last]
                for label, string, states in zip(labels, strings, hidden, strict=True):
                    pooled[int(label)] = states[1 : len(string) + 1].mean(0).numpy()
                self.tokens += tokens.numel()
                self.padding += int((tokens == self.model.padding_idx).sum())
        return pooled

    @property
    def padded_share(self) -> float:
        """Padding in all tokens."""
        return self.padding / self.tokens


def centred_cosine(found: np.ndarray, expected: np.ndarray) -> float:
    """The smallest cosine of two rows after the mean of `expected` is taken off both."""
    a, b = found - expected.mean(0), expected - expected.mean(0)
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return float(((a * b).sum(1) / norms).min())


def compare(member: Member, sequences: Sequence[str], rounds: int, dtypes: Sequence[str]) -> None:
    """Run both sides and print a table."""
    fair = FairEsm(member)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{member.checkpoint}.pt"
        fair.save(path)
        ours = {}
        for dtype in dtypes:
            e = Embedder(family.ESM2, [member.name], weights=path, device="cpu", dtype=dtype)
            computed = e.signature["dtype"]
            ours[f"rdsearch {dtype}" + (f" ({computed})" if dtype == "auto" else "")] = e
        sides: dict[str, Callable[[Sequence[str]], np.ndarray]] = {"fair-esm": fair.pool}
        for name, embedder in ours.items():
            sides[name] = lambda these, e=embedder: e.pool(member, these)
        seconds = {name: [] for name in sides}
        vectors = {}
        for pool in sides.values():  # the first call loads the model and warms up
            pool([sequence[:50] for sequence in sequences[:4]])
        for _ in range(rounds):
            for name, pool in sides.items():
                began = time.perf_counter()
                vectors[name] = pool(sequences)
                seconds[name].append(time.perf_counter() - began)

    residues = rounds * sum(map(len, sequences))
    shares = {"fair-esm": fair.padded_share}
    shares |= {name: e.statistics.padded_share for name, e in ours.items()}
    lines = []
    for name, times in seconds.items():
        ratios = [theirs / mine for theirs, mine in zip(seconds["fair-esm"], times, strict=True)]
        lines.append(
            (
                member.name,
                name,
                f"{residues / sum(times):,.0f}",
                f"{np.median(ratios):.2f}",
                f"{min(ratios):.2f} to {max(ratios):.2f}",
                f"{shares[name]:.2%}",
                f"{centred_cosine(vectors[name], vectors['fair-esm']):.6f}",
            )
        )
    headers = ("member", "side", "residues/s", "ratio", "rounds", "padded", "centred cosine")
    print(tabulate(lines, headers=headers, disable_numparse=True), flush=True)


def main() -> None:
    """Parse, compare each member."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("proteins", help="FASTA file")
    parser.add_argument("--members", default="8M,35M", help="of ESM-2")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dtypes", default="float32,auto", help="of rdsearch")
    parser.add_argument("--sequences", type=int, help="only the first so many")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    everything = [record.sequence for record in fasta.read(options.proteins)]
    fitting = [sequence for sequence in everything if len(sequence) <= LONGEST_WINDOW]
    sequences = fitting[: options.sequences]
    residues = sum(map(len, sequences))
    left_out = len(everything) - len(fitting)
    print(f"{len(sequences)} sequences, {residues:,} residues, {options.rounds} rounds")
    print(f"left out: {left_out} of more than {LONGEST_WINDOW:,} residues")
    print(f"{processor()}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    for name in options.members.split(","):
        compare(family.ESM2.member(name), sequences, options.rounds, options.dtypes.split(","))


if __name__ == "__main__":
    main()
