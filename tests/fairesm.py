"""fair-esm's own models and loop: the oracle of the embedding tests."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import esm
import torch
from safetensors.torch import load_file

from rdsearch.family import Member


def packaged(member: Member) -> esm.ESM2:
    """A mini member in fair-esm's class."""
    model = esm.ESM2(member.layers, member.width, member.heads, "ESM-1b", True)
    state = {name: tensor.float() for name, tensor in load_file(member.packaged_path).items()}
    left = model.load_state_dict(state, strict=False)
    assert not left.unexpected_keys
    return model.eval()


def random(member: Member, seed: int = 0) -> esm.ESM2:
    """A model of the member's shape whose layers, norms and biases all matter."""
    torch.manual_seed(seed)
    model = esm.ESM2(member.layers, member.width, member.heads, "ESM-1b", True)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                torch.nn.init.normal_(parameter, std=parameter.shape[1] ** -0.5)
            else:
                parameter += 0.1 * torch.randn_like(parameter)
    return model.eval()


def content(model: esm.ESM2) -> dict[str, Any]:
    """What fair-esm's checkpoint of the model holds."""
    options = Namespace(
        encoder_layers=model.num_layers,
        encoder_embed_dim=model.embed_dim,
        encoder_attention_heads=model.attention_heads,
        token_dropout=model.token_dropout,
    )
    state = {
        f"encoder.{'' if name.startswith('lm_head') else 'sentence_encoder.'}{name}": tensor
        for name, tensor in model.state_dict().items()
        if not name.startswith("contact_head")
    }
    return {"cfg": {"model": options}, "model": state}


def save(model: esm.ESM2, path: Path) -> Path:
    """Write the model in fair-esm's checkpoint format."""
    torch.save(content(model), path)
    return path


def tokens(sequences: Sequence[str]) -> torch.Tensor:
    """fair-esm's own tokens of a padded batch."""
    convert = esm.Alphabet.from_architecture("ESM-1b").get_batch_converter()
    return convert([("", sequence) for sequence in sequences])[2]


def representations(model: esm.ESM2, sequences: Sequence[str]) -> list[torch.Tensor]:
    """Residue embeddings of each sequence, each run alone."""
    last = model.num_layers
    with torch.no_grad():
        return [
            model(tokens([sequence]), repr_layers=[last])["representations"][last][0, 1:-1]
            for sequence in sequences
        ]
