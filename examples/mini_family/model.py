"""ESM-2 in training form: fair-esm's parameter names, fused attention, masked-residue logits.

The package's own forward pass (rdsearch/esm2.py) is for applying loaded weights; this one has
gradients, the initial values and the language-model head that training needs.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import gelu, linear, scaled_dot_product_attention

# fair-esm's alphabet "ESM-1b": 33 tokens, of which these letters start at 4.
LETTERS = "LAGVSERTIDPKQNFYMHWCXBUZO.-"
FIRST_LETTER = 4
CLS, PAD, EOS, MASK = 0, 1, 2, 32
N_TOKENS = 33
N_AMINO_ACIDS = 20  # the first twenty letters

MASKED_SHARE = 0.15 * 0.8  # of the tokens seen in training


class Attention(nn.Module):
    """Self-attention with rotary positions (Su et al. 2021)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)

    def forward(self, x: Tensor, present: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """(B, T, width) to the same; `present` (B, 1, 1, T) is False at padding."""

        def split(y: Tensor) -> Tensor:
            return y.unflatten(-1, (self.heads, -1)).transpose(1, 2)

        def rotate(y: Tensor) -> Tensor:
            first, second = y.chunk(2, dim=-1)
            return y * cos + torch.cat((-second, first), dim=-1) * sin

        value = split(self.v_proj(x))
        query = rotate(split(self.q_proj(x))).type_as(value)
        key = rotate(split(self.k_proj(x))).type_as(value)
        y = scaled_dot_product_attention(query, key, value, attn_mask=present)
        return self.out_proj(y.transpose(1, 2).flatten(2))


class Layer(nn.Module):
    """A pre-norm transformer layer."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.self_attn = Attention(width, heads)
        self.self_attn_layer_norm = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)
        self.final_layer_norm = nn.LayerNorm(width)

    def forward(self, x: Tensor, present: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """(B, T, width) to the same."""
        x = x + self.self_attn(self.self_attn_layer_norm(x), present, cos, sin)
        return x + self.fc2(gelu(self.fc1(self.final_layer_norm(x))))


class Head(nn.Module):
    """The language-model head; its last matrix is the embedding's."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.dense = nn.Linear(width, width)
        self.layer_norm = nn.LayerNorm(width)
        self.bias = nn.Parameter(torch.zeros(N_TOKENS))

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """(…, width) to logits (…, 33)."""
        return linear(self.layer_norm(gelu(self.dense(x))), embedding, self.bias)


class MiniESM2(nn.Module):
    """ESM-2 (Lin et al., Science 2023) without contact head.

    Parameters
    ----------
    layers, width, heads : int
        The shape; `width` divided by `heads` must be even.
    """

    frequencies: Tensor

    def __init__(self, layers: int, width: int, heads: int) -> None:
        super().__init__()
        if width % (2 * heads):
            raise SystemExit(f"width {width} must be a multiple of twice the {heads} heads")
        self.shape = {"num_layers": layers, "embed_dim": width, "attention_heads": heads}
        self.embed_tokens = nn.Embedding(N_TOKENS, width, padding_idx=PAD)
        self.layers = nn.ModuleList(Layer(width, heads) for _ in range(layers))
        self.emb_layer_norm_after = nn.LayerNorm(width)
        self.lm_head = Head(width)
        frequencies = 10000.0 ** -(torch.arange(0, width // heads, 2) * heads / width)
        self.register_buffer("frequencies", frequencies, persistent=False)

    def initialise(self, generator: torch.Generator) -> None:
        """Draw the initial values: matrices normal with deviation 0.02, biases zero."""
        for name, value in self.named_parameters():
            if value.ndim == 2:
                nn.init.normal_(value, std=0.02, generator=generator)
            elif name.endswith("bias"):
                nn.init.zeros_(value)

    def representations(self, tokens: Tensor) -> Tensor:
        """Last-layer representations of tokens.

        Parameters
        ----------
        tokens : Tensor of shape (B, T), int64
            With CLS first, EOS last, PAD after it.

        Returns
        -------
        Tensor of shape (B, T, width)
            After the last layer norm, as fair-esm gives them.
        """
        present = tokens != PAD
        masked = tokens == MASK
        # Token dropout: a masked embedding is zero, and the others make up for the mask's share.
        observed = masked.sum(1) / present.sum(1)
        scale = (1 - MASKED_SHARE) / (1 - observed)
        x = self.embed_tokens(tokens) * scale[:, None, None]
        x = x * (present & ~masked).unsqueeze(-1)

        angles = torch.arange(tokens.shape[1], device=tokens.device)[:, None] * self.frequencies
        angles = torch.cat((angles, angles), dim=-1)
        cos, sin = angles.cos(), angles.sin()
        for layer in self.layers:
            x = layer(x, present[:, None, None, :], cos, sin)
        return self.emb_layer_norm_after(x)

    def forward(self, tokens: Tensor, wanted: Tensor) -> Tensor:
        """Logits (n, 33) of the n positions where `wanted` (B, T) is True."""
        return self.lm_head(self.representations(tokens)[wanted], self.embed_tokens.weight)


def save(model: MiniESM2, path: Path) -> None:
    """Write a model as float16 safetensors, atomically, as the packaged mini family is."""
    metadata = {name: str(value) for name, value in model.shape.items()}
    metadata |= {"architecture": "ESM-2", "alphabet": "ESM-1b"}
    metadata |= {"token_dropout": "true", "dtype": "float16"}
    tensors = {k: v.detach().half().cpu().contiguous() for k, v in model.state_dict().items()}
    temporary = path.with_name(f".{path.name}.partial")
    save_file(tensors, temporary, metadata)
    temporary.replace(path)


def load(path: Path) -> MiniESM2:
    """Read a model that `save` wrote, or one of the packaged mini family, as float32."""
    with safe_open(path, "pt") as file:
        metadata = file.metadata() or {}
        try:
            shape = [int(metadata[k]) for k in ("num_layers", "embed_dim", "attention_heads")]
        except KeyError as missing:
            raise SystemExit(f"{path}: the header does not say {missing}") from None
        tensors = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
    model = MiniESM2(*shape)
    model.load_state_dict(tensors)
    return model
