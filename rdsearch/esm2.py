"""ESM-2's encoder as a function of its parameters (Lin et al., Science 2023).

The same numbers as fair-esm's ``ESM2.forward(tokens, repr_layers=[last])``, without the language
model head and without attention maps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from rdsearch.weights import Checkpoint

__all__ = ["LETTERS", "Encoder", "Layer", "stream", "tokenise"]

# The ESM-1b alphabet that ESM-2 uses: special tokens, then residues by frequency, then the mask.
_RESIDUES = "LAGVSERTIDPKQNFYMHWCXBUZO"
#: Letters that have a token.
LETTERS = frozenset(_RESIDUES)
_BOS, _PAD, _EOS, _UNKNOWN = range(4)
_LOOKUP = np.full(256, _UNKNOWN, dtype=np.int64)
_LOOKUP[list(_RESIDUES.encode())] = 4 + np.arange(len(_RESIDUES))

# Token dropout in training masks 80 % of 15 % of the residues and scales the rest up; without a
# mask in the input the scale is this.
_UNMASKED = 1 - 0.15 * 0.8


def tokenise(sequences: Sequence[str]) -> Tensor:
    """Tokens of a batch.

    Parameters
    ----------
    sequences : sequence of str
        Of `LETTERS`.

    Returns
    -------
    Tensor, shape (n, longest + 2), int64
        BOS, residues, EOS, then padding.
    """
    longest = max(map(len, sequences))
    tokens = np.full((len(sequences), longest + 2), _PAD, dtype=np.int64)
    tokens[:, 0] = _BOS
    for line, sequence in zip(tokens, sequences, strict=True):
        line[1 : len(sequence) + 1] = _LOOKUP[np.frombuffer(sequence.encode(), dtype=np.uint8)]
        line[len(sequence) + 1] = _EOS
    return torch.from_numpy(tokens)


class Layer:
    """One transformer layer: attention and feed-forward, each behind a norm.

    The norms and what is handed from layer to layer are float32 whatever the dtype: that halves
    the error of bfloat16.

    Parameters
    ----------
    parameters : mapping of str to Tensor
        By fair-esm's names inside the layer; copied.
    heads : int
        Attention heads.
    device, dtype
        Where, and in what attention and products are computed.
    """

    def __init__(
        self,
        parameters: Mapping[str, Tensor],
        heads: int,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        def join(*names: str, dtype: torch.dtype = dtype) -> tuple[Tensor, Tensor]:
            weight = torch.cat([parameters[f"{name}.weight"] for name in names])
            bias = torch.cat([parameters[f"{name}.bias"] for name in names])
            return weight.to(device, dtype), bias.to(device, dtype)  # cat has copied

        self.heads = heads
        # One product for queries, keys and values.
        self._qkv = join("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
        self._out = join("self_attn.out_proj")
        self._before_attention = join("self_attn_layer_norm", dtype=torch.float32)
        self._before_forward = join("final_layer_norm", dtype=torch.float32)
        self._fc1 = join("fc1")
        self._fc2 = join("fc2")

    def __call__(self, x: Tensor, mask: Tensor | None, rotary: tuple[Tensor, Tensor]) -> Tensor:
        """Apply to x, shape (batch, tokens, width), float32, in place."""
        batch, tokens, width = x.shape
        normed = self._normed(x, *self._before_attention)
        qkv = functional.linear(normed, *self._qkv).view(batch, tokens, 3, self.heads, -1)
        query, key, value = (part.transpose(1, 2) for part in qkv.unbind(2))
        attended = functional.scaled_dot_product_attention(
            _rotate(query, *rotary), _rotate(key, *rotary), value, attn_mask=mask
        )
        joined = attended.transpose(1, 2).reshape(batch, tokens, width)
        x += functional.linear(joined, *self._out)
        normed = self._normed(x, *self._before_forward)
        x += functional.linear(functional.gelu(functional.linear(normed, *self._fc1)), *self._fc2)
        return x

    def _normed(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return functional.layer_norm(x, x.shape[-1:], weight, bias).to(self._fc1[0].dtype)


class _Ends:
    """What comes before the first and after the last layer."""

    def __init__(self, checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype) -> None:
        ends = checkpoint.ends()
        embedding, *self._norm = (end.to(device, torch.float32, copy=True) for end in ends)
        self._embedding = embedding * _UNMASKED
        self._head_width = checkpoint.member.width // checkpoint.member.heads
        self.device, self.dtype = device, dtype

    def begin(self, tokens: Tensor) -> tuple[Tensor, Tensor | None, tuple[Tensor, Tensor]]:
        """Embedded tokens, attention mask (None without padding), rotary tables."""
        tokens = tokens.to(self.device)
        real = tokens != _PAD
        x = functional.embedding(tokens, self._embedding) * real.unsqueeze(-1)
        mask = None if bool(real.all()) else real[:, None, None, :]
        return x, mask, self._rotary(tokens.shape[1])

    def end(self, x: Tensor) -> Tensor:
        """The norm after the last layer."""
        weight, bias = self._norm
        return functional.layer_norm(x, x.shape[-1:], weight, bias)

    def _rotary(self, tokens: int) -> tuple[Tensor, Tensor]:
        """Cosines and sines of the rotary position embedding (Su et al., arXiv 2104.09864)."""
        exponents = torch.arange(0, self._head_width, 2, device=self.device) / self._head_width
        positions = torch.arange(tokens, device=self.device, dtype=torch.float32)
        # As fair-esm rounds it: a last bit of the frequency times 1,000 positions would show.
        angles = torch.outer(positions, 1.0 / 10000**exponents)
        return angles.cos().to(self.dtype), angles.sin().to(self.dtype)


class Encoder:
    """A member in memory.

    Parameters
    ----------
    checkpoint : Checkpoint
        Its parameters.
    device, dtype
        Where and in what it computes.
    """

    def __init__(self, checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype) -> None:
        member = checkpoint.member
        self._ends = _Ends(checkpoint, device, dtype)
        self._layers = [
            Layer(checkpoint.layer(i), member.heads, device, dtype) for i in range(member.layers)
        ]

    def __call__(self, tokens: Tensor) -> Tensor:
        """Representations of the last layer.

        Parameters
        ----------
        tokens : Tensor, shape (batch, length), int64
            From `tokenise`.

        Returns
        -------
        Tensor, shape (batch, length, width), float32
            BOS, EOS and padding included.
        """
        with torch.inference_mode():
            x, mask, rotary = self._ends.begin(tokens)
            for layer in self._layers:
                x = layer(x, mask, rotary)
            return self._ends.end(x)


def stream(
    checkpoint: Checkpoint, batches: Sequence[Tensor], device: torch.device, dtype: torch.dtype
) -> list[Tensor]:
    """Representations of the last layer with one layer in memory at a time.

    Every layer is read once and applied to all batches, so that a member larger than memory runs
    in the memory of a layer and of the batches' activations.

    Parameters
    ----------
    checkpoint : Checkpoint
    batches : sequence of Tensor, shape (batch, length), int64
    device, dtype
        Where and in what it computes.

    Returns
    -------
    list of Tensor, shape (batch, length, width), float32
        Equal to ``Encoder(checkpoint, …)(tokens)`` for each batch.
    """
    member = checkpoint.member
    with torch.inference_mode():
        ends = _Ends(checkpoint, device, dtype)
        begun = [ends.begin(tokens) for tokens in batches]
        for i in range(member.layers):
            layer = Layer(checkpoint.layer(i), member.heads, device, dtype)
            for x, mask, rotary in begun:
                layer(x, mask, rotary)
            del layer  # before the next one is read
        return [ends.end(x) for x, _, _ in begun]


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate the pairs (i, i + half) of the last dimension by the angle of their position."""
    half = x.shape[-1] // 2
    low, high = x[..., :half], x[..., half:]
    rotated = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    torch.mul(low, cos, out=rotated[..., :half]).addcmul_(high, sin, value=-1)
    torch.mul(high, cos, out=rotated[..., half:]).addcmul_(low, sin)
    return rotated
