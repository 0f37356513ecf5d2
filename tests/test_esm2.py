"""The encoder gives fair-esm's numbers."""

from __future__ import annotations

import random

import pytest
import torch

from rdsearch import family
from rdsearch.esm2 import LETTERS, Encoder, stream, tokenise
from rdsearch.weights import Checkpoint
from tests import fairesm

CPU = torch.device("cpu")
ESM2_8M = family.ESM2.member("8M")
_DRAW = random.Random(5)
SEQUENCES = [
    "M",
    "".join(sorted(LETTERS)),
    *("".join(_DRAW.choices("ACDEFGHIKLMNPQRSTVWY", k=n)) for n in (2, 37, 90, 230)),
]
# As long as a window can be: positions are where rounding shows.
LONGEST = "".join(_DRAW.choices("ACDEFGHIKLMNPQRSTVWY", k=1022))
# Both sides compute in float32 and add in another order; values after the last norm are of
# order 1 to 10.
PARITY = 1e-5


@pytest.fixture(scope="module", params=[*family.MINI.names, "8M"])
def both(request, tmp_path_factory):
    """A member here and, from the same file, in fair-esm."""
    if request.param == "8M":
        theirs = fairesm.random(ESM2_8M)
        # By path, under a name that is not the member's.
        path = fairesm.save(theirs, tmp_path_factory.mktemp("weights") / "trained.pt")
        checkpoint = Checkpoint.open(ESM2_8M, path)
    else:
        member = family.MINI.member(request.param)
        theirs = fairesm.packaged(member)
        checkpoint = Checkpoint.open(member, member.packaged_path)
    return checkpoint, Encoder(checkpoint, CPU, torch.float32), theirs


def real(tokens: torch.Tensor, hidden: torch.Tensor, sequences: list[str]) -> list[torch.Tensor]:
    assert hidden.shape[:2] == tokens.shape
    return [row[1 : len(s) + 1] for row, s in zip(hidden, sequences, strict=True)]


def assert_parity(found: list[torch.Tensor], expected: list[torch.Tensor]) -> None:
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.dtype == torch.float32
        assert ours.shape == theirs.shape
        assert (ours - theirs).abs().max() <= PARITY
        assert theirs.std() > 0.3  # numbers that could differ


def test_representations_are_those_of_fair_esm(both):
    _, encoder, theirs = both
    expected = fairesm.representations(theirs, [*SEQUENCES, LONGEST])
    alone = [encoder(tokenise([s]))[0, 1:-1] for s in [*SEQUENCES, LONGEST]]
    assert_parity(alone, expected)
    for order in ([0, 1, 2, 3, 4, 5], [5, 4, 3, 2, 1, 0], [3, 0, 5, 1, 4, 2]):
        batch = [SEQUENCES[i] for i in order]
        tokens = tokenise(batch)
        assert_parity(real(tokens, encoder(tokens), batch), [expected[i] for i in order])


def test_ends_are_those_of_fair_esm(both):
    _, encoder, theirs = both
    tokens = tokenise(SEQUENCES[:4])
    last = theirs.num_layers
    with torch.no_grad():
        expected = theirs(tokens, repr_layers=[last])["representations"][last]
    kept = tokens != 1
    assert (encoder(tokens) - expected)[kept].abs().max() <= PARITY


def test_streamed_layers_give_the_same_bits(both):
    checkpoint, encoder, _ = both
    batches = [tokenise(SEQUENCES[:3]), tokenise(SEQUENCES[4:5])]
    streamed = stream(checkpoint, batches, CPU, torch.float32)
    assert all(torch.equal(s, encoder(b)) for s, b in zip(streamed, batches, strict=True))


def test_tokens_are_those_of_fair_esm():
    assert torch.equal(tokenise(SEQUENCES), fairesm.tokens(SEQUENCES))


@pytest.mark.parametrize(
    ("dtype", "least"), [(torch.bfloat16, 0.9995), (torch.float16, 0.9999)], ids=str
)
def test_half_precision_keeps_directions(both, dtype, least):
    checkpoint, encoder, _ = both
    half = Encoder(checkpoint, CPU, dtype)
    exact, found = (
        torch.cat([run(tokenise([s]))[0, 1:-1] for s in SEQUENCES[3:]]) for run in (encoder, half)
    )
    assert found.dtype == torch.float32
    cosines = torch.cosine_similarity(found - exact.mean(0), exact - exact.mean(0))
    assert cosines.mean() > least


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_gives_the_numbers_of_the_cpu(both):
    checkpoint, encoder, _ = both
    tokens = tokenise(SEQUENCES)
    found = Encoder(checkpoint, torch.device("cuda"), torch.float32)(tokens).cpu()
    kept = tokens != 1
    assert (found - encoder(tokens))[kept].abs().max() < 1e-3  # TF32 stays off by default
