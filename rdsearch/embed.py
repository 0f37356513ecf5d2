"""Sequences to vectors: each member's residue embeddings, and their means.

Long sequences are cut into overlapping windows and put together again: every residue counts once.
"""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterable, Iterator, MutableMapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from rdsearch.batches import (
    DEFAULT_OVERLAP,
    LONGEST_WINDOW,
    Statistics,
    Window,
    coverage,
    pack,
    size,
    windows,
)
from rdsearch.devices import DTYPES, Model, devices_named, dtype_named, out_of_memory
from rdsearch.errors import EmbeddingError, InputError
from rdsearch.esm2 import LETTERS, tokenise
from rdsearch.family import Family, Member
from rdsearch.weights import Checkpoint

__all__ = ["DTYPES", "Embedder", "Statistics"]

_LOGGER = logging.getLogger(__name__)

TOKENS_PER_BATCH = 4096
#: Batches' worth of tokens that go through a streamed layer together: enough work for each
#: reading of the checkpoint, and activations (1.3 GB for the 15B member) below a few layers.
STREAM_BATCHES = 16

Progress = Callable[[int, int], None]
_Floats = NDArray[np.float32]
_Result = TypeVar("_Result")
# What goes through the model at once: one batch, or many where layers are streamed.
_Group = list[list[Window]]


class Embedder:
    """Runs the members of a family, one at a time.

    Parameters
    ----------
    family : Family
    members : iterable of str, optional
        Any of the family's; all where it is not given.
    weights : Path, optional
        Folder with checkpoints, or one checkpoint; see `rdsearch.weights.locate`.
    device : str, optional
        ``"cpu"``, ``"cuda"``, ``"cuda:0,cuda:1"`` (batches are shared out), or ``"auto"``: the
        GPU where there is one.
    dtype : str, optional
        One of `DTYPES`. ``"auto"``: bfloat16 where the processor computes in it (AMX or
        AVX512-BF16, most GPUs), else float32. Vectors are float32 always.
    tokens_per_batch : int, optional
        BOS, EOS and padding included. Halved by itself when memory runs out.
    window, overlap : int, optional
        Residues the model sees at once, and shared by neighbouring windows.
    stream_layers : bool, optional
        Keep one layer in memory at a time, for members larger than memory.
    models : mapping, optional
        Where loaded members stay; embedders that share it share them. Without one a member is
        freed when the next is loaded.

    Attributes
    ----------
    statistics : Statistics

    Raises
    ------
    InputError
        Options that make no sense.
    """

    def __init__(
        self,
        family: Family,
        members: Iterable[str] | None = None,
        *,
        weights: str | Path | None = None,
        device: str = "auto",
        dtype: str = "auto",
        tokens_per_batch: int = TOKENS_PER_BATCH,
        window: int = LONGEST_WINDOW,
        overlap: int | None = None,
        stream_layers: bool = False,
        models: MutableMapping[Hashable, list[Model]] | None = None,
    ) -> None:
        if overlap is None:
            overlap = min(DEFAULT_OVERLAP, window // 4)
        if not 1 <= window <= LONGEST_WINDOW or not 0 <= overlap < window:
            raise InputError(
                f"a window has 1 to {LONGEST_WINDOW} residues and the overlap is shorter than it; "
                f"found window {window}, overlap {overlap}"
            )
        if tokens_per_batch < 1:
            raise InputError(f"a batch needs at least one token; found {tokens_per_batch}")
        self.family = family
        self.members = family.select(members)
        self.statistics = Statistics()
        self._weights = None if weights is None else Path(weights)
        self._devices = devices_named(device)
        self._dtype = dtype_named(dtype, self._devices)
        self._tokens_per_batch = tokens_per_batch
        self._window = window
        self._overlap = overlap
        self._stream = stream_layers
        self._checkpoints: dict[str, Checkpoint] = {}
        self._kept = models is not None
        self._loaded: MutableMapping[Hashable, list[Model]] = {} if models is None else models

    @property
    def signature(self) -> dict[str, str | int]:
        """Every option that determines the numbers, and which weights they come from."""
        fingerprints = {
            f"weights {member.name}": self._checkpoint(member).fingerprint
            for member in self.members
        }
        return {
            "dtype": str(self._dtype).removeprefix("torch."),
            "window": self._window,
            "overlap": self._overlap,
            **fingerprints,
        }

    def pool(
        self, member: Member, sequences: Sequence[str], *, progress: Progress | None = None
    ) -> _Floats:
        """Mean residue embedding of each sequence.

        Parameters
        ----------
        member : Member
            Loaded at its first use; the member before it is freed.
        sequences : sequence of str
            Letters of `rdsearch.esm2.LETTERS`, at least one each.
        progress : callable, optional
            Told of sequences and residues done.

        Returns
        -------
        ndarray, shape (n, width), float32
            In the order of the sequences; the same call gives the same bits.

        Raises
        ------
        EmbeddingError
            Values that are not finite in float32, or no memory for a single window.
        InputError
            A sequence that is empty or has other letters.
        WeightsError
        """
        cut = self._cut(sequences)
        weights = {i: coverage(len(sequences[i]), parts) for i, parts in _long(cut)}
        sums = np.zeros((len(sequences), member.width), dtype=np.float64)
        waiting = {i: len(parts) for i, parts in enumerate(cut)}

        def reduce(batch: Sequence[Window], hidden: torch.Tensor) -> NDArray[np.float64]:
            """Weighted sums over residues, shape (batch, width)."""
            scale = np.zeros(hidden.shape[:2], dtype=np.float32)
            for line, part in zip(scale, batch, strict=True):
                chosen = weights.get(part.sequence)
                line[1 : len(part) + 1] = 1 if chosen is None else chosen[part.start : part.stop]
            scales = torch.from_numpy(scale).to(hidden.device)
            summed = torch.bmm(scales.unsqueeze(1), hidden).squeeze(1)
            return summed.cpu().numpy().astype(np.float64)

        for batch, summed in self._run(member, sequences, cut, reduce):
            for part, values in zip(batch, summed, strict=True):
                sums[part.sequence] += values
                waiting[part.sequence] -= 1
                if progress is not None and waiting[part.sequence] == 0:
                    progress(1, len(sequences[part.sequence]))
        lengths = np.array([len(sequence) for sequence in sequences], dtype=np.float64)
        return (sums / lengths[:, None]).astype(np.float32)

    def residues(
        self, member: Member, sequences: Sequence[str], *, progress: Progress | None = None
    ) -> Iterator[tuple[int, _Floats]]:
        """Embedding of every residue, without BOS and EOS.

        Parameters
        ----------
        member, sequences, progress
            As in `pool`.

        Yields
        ------
        position : int
            Of the sequence in the input; sequences come as they are finished.
        embedding : ndarray, shape (length, width), float32
            Residues in several windows are averaged.

        Raises
        ------
        EmbeddingError, InputError, WeightsError
            As `pool`.
        """
        cut = self._cut(sequences)
        weights = {i: coverage(len(sequences[i]), parts) for i, parts in _long(cut)}
        partial: dict[int, _Floats] = {}
        waiting = Counter({i: len(parts) for i, parts in _long(cut)})

        def whole(batch: Sequence[Window], hidden: torch.Tensor) -> list[_Floats]:
            rows = hidden.cpu().numpy()
            return [row[1 : len(part) + 1].copy() for part, row in zip(batch, rows, strict=True)]

        for batch, embedded in self._run(member, sequences, cut, whole):
            for part, values in zip(batch, embedded, strict=True):
                i, length = part.sequence, len(sequences[part.sequence])
                if i in weights:
                    total = partial.setdefault(i, np.zeros((length, member.width), np.float32))
                    inside = slice(part.start, part.stop)
                    total[inside] += values * weights[i][inside, None]
                    waiting[i] -= 1
                    if waiting[i]:
                        continue
                    values = partial.pop(i)
                if progress is not None:
                    progress(1, length)
                yield i, values

    def _cut(self, sequences: Sequence[str]) -> list[list[Window]]:
        for i, sequence in enumerate(sequences):
            if not sequence:
                raise InputError(f"sequence {i} is empty: a protein has at least one residue")
            foreign = set(sequence) - LETTERS
            if foreign:
                raise InputError(
                    f"sequence {i} has {', '.join(map(repr, sorted(foreign)))}: expected letters "
                    f"of {''.join(sorted(LETTERS))}. rdsearch.fasta.read cleans sequences"
                )
        return [
            windows(i, len(sequence), self._window, self._overlap)
            for i, sequence in enumerate(sequences)
        ]

    def _run(
        self,
        member: Member,
        sequences: Sequence[str],
        cut: Sequence[Sequence[Window]],
        use: Callable[[Sequence[Window], torch.Tensor], _Result],
    ) -> Iterator[tuple[list[Window], _Result]]:
        """Run the model over all windows; yields what `use` makes of each batch, in order.

        The next group is tokenised while the devices compute.
        """
        groups = deque(self._groups(part for parts in cut for part in parts))
        models = self._models(member)
        free: SimpleQueue[Model] = SimpleQueue()
        for model in models:
            free.put(model)

        def work(group: _Group, tokens: list[torch.Tensor]) -> list[_Result] | None:
            """Results of each batch; None when memory ran out, with all that took it let go."""
            model = free.get()
            try:
                hidden = self._finite(member, model, tokens)
                return [use(batch, states) for batch, states in zip(group, hidden, strict=True)]
            except (MemoryError, RuntimeError) as error:
                if not out_of_memory(error):
                    raise
                return None
            finally:
                free.put(model)

        with ThreadPoolExecutor(len(models)) as threads:
            running: deque[tuple[_Group, Future[list[_Result] | None]]] = deque()
            while groups or running:
                while groups and len(running) <= len(models):
                    group = groups.popleft()
                    tokens = [_tokens(sequences, batch) for batch in group]
                    running.append((group, threads.submit(work, group, tokens)))
                group, future = running.popleft()
                results = future.result()
                if results is None:
                    self._shrink(member, group)
                    left = [part for group in (group, *groups) for batch in group for part in batch]
                    groups = deque(self._groups(left))
                    continue
                self.statistics.count(group)
                yield from zip(group, results, strict=True)

    def _groups(self, parts: Iterable[Window]) -> Iterator[_Group]:
        """One batch a group; where layers are streamed, as many as the group's budget holds."""
        group: _Group = []
        for batch in pack(list(parts), self._tokens_per_batch):
            if group and size([*group, batch]) > self._tokens_per_group:
                yield group
                group = []
            group.append(batch)
        if group:
            yield group

    @property
    def _tokens_per_group(self) -> int:
        return self._tokens_per_batch * (STREAM_BATCHES if self._stream else 1)

    def _shrink(self, member: Member, group: _Group) -> None:
        """Halve the budget after a group that memory did not hold."""
        if sum(map(len, group)) == 1:
            raise EmbeddingError(
                f"member {member.name}: there is not enough memory for one window of "
                f"{len(group[0][0])} residues. Use a smaller --window, a smaller member, or "
                "--stream-layers",
                member=member.name,
            )
        # A larger one was under way when the budget was halved before.
        if size(group) <= self._tokens_per_group:
            self._tokens_per_batch = max(1, self._tokens_per_batch // 2)
            _LOGGER.warning(
                "member %s: out of memory; going on with %d tokens a batch",
                member.name,
                self._tokens_per_batch,
            )

    def _finite(
        self, member: Member, model: Model, tokens: list[torch.Tensor]
    ) -> list[torch.Tensor]:
        """Run the model; in half precision a batch that is not finite once more in float32."""
        hidden = model.run(tokens)
        for i, states in enumerate(hidden):
            if bool(states.sum().isfinite()):
                continue
            if model.dtype != torch.float32:
                _LOGGER.warning(
                    "member %s: a batch of %d sequences is not finite in %s; computed again in "
                    "float32",
                    member.name,
                    len(states),
                    str(model.dtype).removeprefix("torch."),
                )
                states = hidden[i] = model.run_exact(tokens[i])
            if not bool(states.sum().isfinite()):
                raise EmbeddingError(
                    f"member {member.name} gives values that are not finite in float32: its "
                    "weights are damaged or diverged. Check the checkpoint "
                    f"{self._checkpoint(member).path}",
                    member=member.name,
                )
        return hidden

    def _checkpoint(self, member: Member) -> Checkpoint:
        if member.name not in self._checkpoints:
            self._checkpoints[member.name] = Checkpoint.open(member, self._weights)
        return self._checkpoints[member.name]

    def _models(self, member: Member) -> list[Model]:
        """The member on each device; where none are kept the one before it is freed first."""
        checkpoint = self._checkpoint(member)
        key = (checkpoint.path, tuple(self._devices), self._dtype, self._stream)
        if key not in self._loaded:
            if not self._kept:
                self._loaded.clear()
            try:
                self._loaded[key] = [
                    Model(checkpoint, device, self._dtype, self._stream) for device in self._devices
                ]
            except (MemoryError, RuntimeError) as error:
                if not out_of_memory(error):
                    raise
                raise EmbeddingError(
                    f"there is not enough memory for member {member.name} "
                    f"({checkpoint.path}). Use --stream-layers, which keeps one layer in memory",
                    member=member.name,
                ) from error
        return self._loaded[key]


def _long(cut: Sequence[Sequence[Window]]) -> Iterator[tuple[int, Sequence[Window]]]:
    """Sequences of more than one window."""
    return ((i, parts) for i, parts in enumerate(cut) if len(parts) > 1)


def _tokens(sequences: Sequence[str], batch: Sequence[Window]) -> torch.Tensor:
    return tokenise([sequences[part.sequence][part.start : part.stop] for part in batch])
