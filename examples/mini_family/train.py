"""Train a model of the mini family: masked language modelling on Swiss-Prot.

    python examples/mini_family/train.py swissprot50.fasta.gz -o mini_t2_64.safetensors \
        --layers 2 --width 64 --heads 2 --steps 4000

The same command after an interruption goes on from the last checkpoint and ends with the
weights that an uninterrupted run gives. README.md beside this file has the recipe.

    python examples/mini_family/train.py proteins.fasta.gz --evaluate mini_t2_64.safetensors

prints the perplexity of a trained model.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import math
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import model as mini
import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence

from rdsearch import fasta
from rdsearch.errors import RdsearchError

# Options that count something, and those that make a run what it is.
COUNTS = ("layers", "width", "heads", "steps", "batch", "crop", "validation", "report_every")
IDENTITY = (*COUNTS[:-1], "seed", "warmup", "learning_rate", "dtype")

SELECTED_SHARE = 0.15  # of the residues: 80 % become <mask>, 10 % another residue, 10 % stay


@dataclass(frozen=True, slots=True)
class Proteins:
    """Tokenised proteins, end to end; protein i is ``tokens[starts[i]:starts[i + 1]]``."""

    tokens: Tensor
    starts: Tensor

    def __len__(self) -> int:
        return len(self.starts) - 1

    def crop(self, index: int, length: int, generator: torch.Generator) -> Tensor:
        """At most `length` residues in a row of one protein, at random.

        CLS and EOS mark the protein's own ends, not the crop's, as in ESM-2's training (Lin et
        al. 2023): the model can tell a whole protein from a piece.
        """
        first, last = int(self.starts[index]), int(self.starts[index + 1])
        start = first
        if last - first > length:
            start += int(torch.randint(last - first - length + 1, (), generator=generator))
        stop = min(last, start + length)
        pieces = [self.tokens[start:stop]]
        if start == first:
            pieces.insert(0, torch.tensor([mini.CLS], dtype=torch.uint8))
        if stop == last:
            pieces.append(torch.tensor([mini.EOS], dtype=torch.uint8))
        return torch.cat(pieces).long()

    def digest(self) -> str:
        """A checksum, so that a run is not continued on other proteins."""
        content = hashlib.sha256(self.tokens.numpy().data)
        content.update(self.starts.numpy().data)
        return content.hexdigest()


def read(path: Path) -> Proteins:
    """Tokenise a FASTA file; the reader leaves no letters but the alphabet's."""
    table = np.zeros(256, np.uint8)
    table[list(mini.LETTERS.encode())] = mini.FIRST_LETTER + np.arange(len(mini.LETTERS))
    pieces = [
        table[np.frombuffer(record.sequence.encode(), np.uint8)] for record in fasta.read(path)
    ]
    starts = np.cumsum([0] + [len(piece) for piece in pieces])
    return Proteins(torch.from_numpy(np.concatenate(pieces)), torch.from_numpy(starts))


@dataclass(frozen=True, slots=True)
class Batch:
    """Masked crops: what the model sees, where it is asked, and what is true there."""

    tokens: Tensor  # (B, T) int64
    selected: Tensor  # (B, T) bool
    truth: Tensor  # (selected positions,) int64


def make_batch(
    proteins: Proteins, indices: Tensor, length: int, generator: torch.Generator
) -> Batch:
    """Crop, pad and mask the proteins with these indices."""
    crops = [proteins.crop(int(index), length, generator) for index in indices]
    tokens = pad_sequence(crops, batch_first=True, padding_value=mini.PAD)

    def amino_acid(t: Tensor) -> Tensor:
        return (t >= mini.FIRST_LETTER) & (t < mini.FIRST_LETTER + mini.N_AMINO_ACIDS)

    selected = amino_acid(tokens) & (torch.rand(tokens.shape, generator=generator) < SELECTED_SHARE)
    truth = tokens[selected]
    fate = torch.rand(truth.shape, generator=generator)
    others = torch.randint(mini.N_AMINO_ACIDS, truth.shape, generator=generator)
    seen = torch.where(fate < 0.8, mini.MASK, truth)
    seen = torch.where(fate >= 0.9, others + mini.FIRST_LETTER, seen)
    tokens[selected] = seen
    return Batch(tokens, selected, truth)


def learning_rate_factor(step: int, steps: int, warmup: int) -> float:
    """Warm up, stay constant, then fall linearly over the second half."""
    return min(1.0, (step + 1) / (warmup + 1), 2 * (steps - step) / steps)


@torch.no_grad()
def perplexity(
    model: mini.MiniESM2, proteins: Proteins, indices: Tensor, options: argparse.Namespace
) -> float:
    """Perplexity over one masked crop of each protein, always the same crops and masks."""
    generator = torch.Generator().manual_seed(options.seed)
    loss, count = 0.0, 0
    for some in indices.split(options.batch):
        batch = make_batch(proteins, some, options.crop, generator)
        logits = model(batch.tokens, batch.selected)
        loss += float(cross_entropy(logits.float(), batch.truth, reduction="sum"))
        count += len(batch.truth)
    if not count:
        raise SystemExit("no residue was masked; evaluate on more or longer proteins")
    return math.exp(loss / count)


def split(proteins: Proteins, options: argparse.Namespace) -> tuple[Tensor, Tensor]:
    """Indices for training and of the proteins held out, chosen by the seed."""
    generator = torch.Generator().manual_seed(options.seed)
    shuffled = torch.randperm(len(proteins), generator=generator)
    if options.evaluate:
        return shuffled[:0], shuffled[: options.validation]
    if options.validation >= len(proteins):
        raise SystemExit(
            f"holding out {options.validation} of {len(proteins)} proteins leaves none to train "
            "on; lower --validation"
        )
    return shuffled[options.validation :], shuffled[: options.validation]


def optimizers(model: mini.MiniESM2, rate: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the layers, AdamW for everything else."""
    if not hasattr(torch.optim, "Muon"):
        raise SystemExit(f"training needs torch 2.9 or newer, found {torch.__version__}")
    matrices: list[Tensor] = []
    others: list[Tensor] = []
    for name, value in model.named_parameters():
        in_layers = name.startswith("layers.") and value.ndim == 2
        (matrices if in_layers else others).append(value)
    return [
        torch.optim.Muon(matrices, lr=rate, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=rate, weight_decay=0.01, betas=(0.9, 0.98)),
    ]


def bfloat16_is_fast() -> bool:
    """Whether this processor multiplies bfloat16 matrices in hardware."""
    # Where torch has no public word for it, an emulated bfloat16 would be slower than float32.
    capabilities: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def half_precision(choice: str) -> contextlib.AbstractContextManager[Any]:
    """The autocast that ``--dtype`` asks for."""
    return (
        torch.autocast("cpu", torch.bfloat16) if choice == "bfloat16" else contextlib.nullcontext()
    )


@dataclass
class Training:
    """Everything that changes from step to step, and so belongs into a checkpoint."""

    model: mini.MiniESM2
    optimizers: list[torch.optim.Optimizer]
    generator: torch.Generator
    step: int = 0
    n_tokens: int = 0

    def save(self, path: Path, identity: dict[str, Any]) -> None:
        """Replace the checkpoint as a whole: a crash leaves the old one or the new one."""
        state = {
            "identity": identity,
            "model": self.model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "generator": self.generator.get_state(),
            "step": self.step,
            "n_tokens": self.n_tokens,
        }
        temporary = path.with_name(f".{path.name}.partial")
        with temporary.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)

    def load(self, path: Path, identity: dict[str, Any]) -> None:
        """Go back to a checkpoint of the same run."""
        state = torch.load(path, weights_only=True)
        differing = [k for k, v in identity.items() if state["identity"].get(k) != v]
        if differing:
            raise SystemExit(
                f"{path} is the checkpoint of another run: {', '.join(differing)} differ. "
                "Give the options it was started with, or delete it"
            )
        self.model.load_state_dict(state["model"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.generator.set_state(state["generator"])
        self.step, self.n_tokens = state["step"], state["n_tokens"]


def steps(
    training: Training, proteins: Proteins, train: Tensor, options: argparse.Namespace
) -> Iterator[float]:
    """Train; yields the loss of each step."""
    while training.step < options.steps:
        chosen = torch.randint(len(train), (options.batch,), generator=training.generator)
        batch = make_batch(proteins, train[chosen], options.crop, training.generator)
        factor = learning_rate_factor(training.step, options.steps, options.warmup)
        with half_precision(options.dtype):
            logits = training.model(batch.tokens, batch.selected)
        loss = cross_entropy(logits.float(), batch.truth)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(training.model.parameters(), 1.0)
        for optimizer in training.optimizers:
            optimizer.param_groups[0]["lr"] = options.learning_rate * factor
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        training.step += 1
        training.n_tokens += int((batch.tokens != mini.PAD).sum())
        yield loss.item()


def train(proteins: Proteins, options: argparse.Namespace) -> None:
    """Train from the start or from the checkpoint, write the model, print its perplexity."""
    output: Path = options.output
    if output.exists():
        raise SystemExit(f"{output} exists already; delete it to train anew")
    learnt, held_out = split(proteins, options)
    generator = torch.Generator().manual_seed(options.seed)
    model = mini.MiniESM2(options.layers, options.width, options.heads)
    model.initialise(generator)
    training = Training(model, optimizers(model, options.learning_rate), generator)

    checkpoint = output.with_suffix(".checkpoint")
    identity = {name: getattr(options, name) for name in IDENTITY} | {"proteins": proteins.digest()}
    if checkpoint.exists():
        training.load(checkpoint, identity)
        print(f"going on from step {training.step}", file=sys.stderr)

    recent, since = [], time.monotonic()
    for loss in steps(training, proteins, learnt, options):
        recent.append(loss)
        if training.step % options.report_every and training.step < options.steps:
            continue
        training.save(checkpoint, identity)
        pace = len(recent) / (time.monotonic() - since)
        print(
            f"step {training.step} of {options.steps}: loss {sum(recent) / len(recent):.4f}, "
            f"{training.n_tokens / 1e6:.2f} M tokens seen, {pace:.2f} steps a second, validation "
            f"perplexity {perplexity(model, proteins, held_out, options):.2f}",
            file=sys.stderr,
        )
        recent, since = [], time.monotonic()

    mini.save(model, output)
    checkpoint.unlink(missing_ok=True)
    # Of the file, so after rounding to float16.
    print(f"validation perplexity {perplexity(mini.load(output), proteins, held_out, options):.2f}")


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The options; the defaults are those of mini_t2_64."""
    parser = argparse.ArgumentParser(
        description="Train a small model of ESM-2's architecture, or evaluate one.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("proteins", type=Path, help="FASTA, compressed or not")
    parser.add_argument("-o", "--output", type=Path, help="safetensors file to write")
    parser.add_argument("--evaluate", type=Path, metavar="FILE", help="print FILE's perplexity")
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--heads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--batch", type=int, default=64, help="sequences a batch")
    parser.add_argument("--crop", type=int, default=190, help="residues of a sequence")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--warmup", type=int, default=100, help="steps")
    parser.add_argument("--learning-rate", type=float, default=4e-3)
    parser.add_argument("--validation", type=int, default=512, help="proteins held out")
    parser.add_argument("--report-every", type=int, default=100, help="and checkpoint: steps")
    parser.add_argument("--threads", type=int, help="of torch; by default as many as cores")
    parser.add_argument("--dtype", choices=["auto", "float32", "bfloat16"], default="auto")
    options = parser.parse_args(arguments)
    if (options.output is None) == (options.evaluate is None):
        parser.error("give either --output or --evaluate")
    for name in COUNTS:
        if getattr(options, name) < 1:
            parser.error(f"--{name.replace('_', '-')} must be at least 1")
    if options.dtype == "auto":  # resolved here, so that a checkpoint remembers the answer
        options.dtype = "bfloat16" if bfloat16_is_fast() else "float32"
    return options


def main() -> None:
    """Train or evaluate."""
    options = parse()
    if options.threads:
        torch.set_num_threads(options.threads)
    try:
        proteins = read(options.proteins)
    except RdsearchError as error:
        raise SystemExit(str(error)) from None
    if options.evaluate:
        _, chosen = split(proteins, options)
        result = perplexity(mini.load(options.evaluate), proteins, chosen, options)
        print(f"perplexity {result:.2f} on {len(chosen)} proteins")
    else:
        train(proteins, options)


if __name__ == "__main__":
    main()
