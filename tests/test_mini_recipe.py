"""The recipe of the mini family trains, resumes exactly, and makes models that embed."""

from __future__ import annotations

import importlib
import math
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from safetensors import safe_open  # noqa: E402

from rdsearch import fasta, samples  # noqa: E402
from rdsearch.family import MINI, Family, Member  # noqa: E402

FOLDER = Path(__file__).parents[1] / "examples" / "mini_family"
SHAPE = ["--layers", "1", "--width", "16", "--heads", "2"]
SIZE = ["--batch", "8", "--crop", "40", "--validation", "20", "--threads", "1"]
needs_muon = pytest.mark.skipif(
    not hasattr(torch.optim, "Muon"), reason="training needs torch 2.9 or newer (Muon)"
)


@pytest.fixture(scope="module")
def recipe():
    """The modules `train` and `model` of the example."""
    sys.path.insert(0, str(FOLDER))
    try:
        yield importlib.import_module("train"), importlib.import_module("model")
    finally:
        sys.path.remove(str(FOLDER))
        for name in ("train", "model"):
            sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def proteins(tmp_path_factory) -> Path:
    """100 short proteins."""
    records = [r for r in fasta.read(samples.CHAIN_SAMPLE) if len(r.sequence) < 200][:100]
    path = tmp_path_factory.mktemp("recipe") / "proteins.fasta"
    path.write_text("".join(f">{r.id}\n{r.sequence}\n" for r in records))
    return path


def command(proteins: Path, output: Path, *options: str) -> list[str]:
    script = str(FOLDER / "train.py")
    return [sys.executable, script, str(proteins), "-o", str(output), *SHAPE, *SIZE, *options]


def finish(started: list[str]) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(started, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.slow
@needs_muon
def test_trains_and_goes_on_where_it_was_killed(proteins, tmp_path):
    options = ["--steps", "60", "--warmup", "5", "--report-every", "10"]
    whole = finish(command(proteins, tmp_path / "whole.safetensors", *options))
    losses = [float(loss) for loss in re.findall(r"loss ([\d.]+)", whole.stderr)]
    assert len(losses) == 6
    assert losses[-1] < losses[0] - 0.3
    assert losses[0] < math.log(33) + 0.1  # a uniform guess over the alphabet
    assert 10 < float(re.fullmatch(r"validation perplexity ([\d.]+)\n", whole.stdout)[1]) < 33
    assert not (tmp_path / "whole.checkpoint").exists()

    cut = command(proteins, tmp_path / "cut.safetensors", *options)
    with subprocess.Popen(cut, stderr=subprocess.PIPE, text=True) as process:
        for line in process.stderr:
            if line.startswith("step 20 "):
                break
        os.kill(process.pid, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    resumed = finish(cut)
    step = int(re.search(r"going on from step (\d+)", resumed.stderr)[1])
    assert 20 <= step < 60
    assert resumed.stdout == whole.stdout
    # Tensors, not bytes: safetensors writes the header's metadata in any order.
    with safe_open(tmp_path / "whole.safetensors", "pt") as one:
        with safe_open(tmp_path / "cut.safetensors", "pt") as other:
            assert one.metadata() == other.metadata()
            assert one.keys() == other.keys()
            for name in one.keys():  # noqa: SIM118
                assert torch.equal(one.get_tensor(name), other.get_tensor(name))
        with safe_open(MINI.members[0].packaged_path, "pt") as packaged:
            assert one.metadata().keys() == packaged.metadata().keys()
            of_layer_0 = {name for name in packaged.keys() if "layers.1." not in name}  # noqa: SIM118
            assert set(one.keys()) == of_layer_0
            assert one.get_slice("lm_head.bias").get_dtype() == "F16"


@needs_muon
def test_refuses_the_checkpoint_of_another_run(proteins, recipe, tmp_path):
    train, _ = recipe
    options = ["x", "-o", str(tmp_path / "m.safetensors"), *SHAPE, *SIZE, "--steps", "2"]
    options[0] = str(proteins)
    some = train.read(proteins)
    parsed = train.parse(options)
    checkpoint = tmp_path / "m.checkpoint"
    train.train(some, parsed)
    model = recipe[1].load(parsed.output)
    identity = {name: getattr(parsed, name) for name in train.IDENTITY}
    state = train.Training(model, train.optimizers(model, 1e-3), torch.Generator())
    state.save(checkpoint, identity | {"proteins": some.digest(), "seed": 9})
    parsed.output.unlink()
    with pytest.raises(SystemExit, match="another run: seed differ"):
        train.train(some, parsed)


def test_representations_are_fair_esms(recipe):
    esm = pytest.importorskip("esm")
    _, model = recipe
    ours = model.MiniESM2(2, 32, 4)
    ours.initialise(torch.Generator().manual_seed(3))
    theirs = esm.ESM2(2, 32, 4, "ESM-1b", token_dropout=True).eval()
    state = ours.state_dict() | {"lm_head.weight": ours.embed_tokens.weight}
    missing = theirs.load_state_dict(state, strict=False).missing_keys
    assert all("contact_head" in name or "inv_freq" in name for name in missing)
    convert = theirs.alphabet.get_batch_converter()
    tokens = convert([("a", "MKT<mask>YIAKQR<mask>X"), ("b", "GAV<mask>")])[2]
    with torch.no_grad():
        expected = theirs(tokens, repr_layers=[2])
        found = ours.representations(tokens)
        logits = ours(tokens, tokens == model.MASK)
    real = tokens != model.PAD
    torch.testing.assert_close(
        found[real], expected["representations"][2][real], atol=1e-5, rtol=1e-5
    )
    torch.testing.assert_close(
        logits, expected["logits"][tokens == model.MASK], atol=1e-5, rtol=1e-5
    )


def test_saves_what_it_loads(recipe, tmp_path):
    _, model = recipe
    saved = model.MiniESM2(1, 16, 2)
    saved.initialise(torch.Generator().manual_seed(4))
    model.save(saved, tmp_path / "m.safetensors")
    loaded = model.load(tmp_path / "m.safetensors")
    assert loaded.shape == saved.shape
    for name, value in saved.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value.half().float()), name
    assert [path.name for path in tmp_path.iterdir()] == ["m.safetensors"]


def test_masks_as_bert_does(recipe, proteins):
    train, model = recipe
    some = train.read(proteins)
    generator = torch.Generator().manual_seed(0)
    indices = torch.arange(100).repeat(20)
    batch = train.make_batch(some, indices, 60, generator)
    residues = (batch.tokens >= model.FIRST_LETTER).sum()  # <mask> counts: it stands for one
    selected = batch.selected.sum()
    assert float(selected / residues) == pytest.approx(0.15, abs=0.005)
    seen = batch.tokens[batch.selected]
    masked, kept = seen == model.MASK, seen == batch.truth
    assert float(masked.float().mean()) == pytest.approx(0.8, abs=0.01)
    # A replacement is the residue itself once in twenty times.
    assert float(kept.float().mean()) == pytest.approx(0.105, abs=0.01)
    assert (batch.truth < model.FIRST_LETTER + model.N_AMINO_ACIDS).all()
    assert (batch.tokens[~batch.selected] != model.MASK).all()


def test_marks_only_the_proteins_own_ends(recipe, tmp_path):
    train, model = recipe
    path = tmp_path / "two.fasta"
    path.write_text(">short\nMKTAY\n>long\nACDEFGHIKLMNPQRSTVWY\n")
    some = train.read(path)
    generator = torch.Generator().manual_seed(0)
    tokens = [0, *(4 + model.LETTERS.index(letter) for letter in "MKTAY"), 2]
    assert some.crop(0, 10, generator).tolist() == tokens
    whole = some.crop(1, 20, generator).tolist()
    pieces = [some.crop(1, 10, generator).tolist() for _ in range(200)]
    starts = set()
    for piece in pieces:
        body = [token for token in piece if token >= model.FIRST_LETTER]
        start = whole.index(body[0]) - 1
        starts.add(start)
        assert body == whole[start + 1 : start + 11]
        assert (piece[0] == model.CLS, piece[-1] == model.EOS) == (start == 0, start == 10)
    assert starts == set(range(11))


def test_learning_rate(recipe):
    factors = [recipe[0].learning_rate_factor(step, 1000, 100) for step in range(1000)]
    assert factors[:100] == sorted(factors[:100])
    assert factors[0] > 0
    assert set(factors[100:501]) == {1.0}
    assert factors[750] == pytest.approx(0.5)
    assert factors[-1] == pytest.approx(0.002)


def test_evaluates_the_packaged_models(recipe):
    train, model = recipe
    some = train.read(samples.CHAIN_SAMPLE)
    for member in MINI.members[:2]:
        options = train.parse([str(samples.CHAIN_SAMPLE), "--evaluate", str(member.packaged_path)])
        _, chosen = train.split(some, options)
        assert len(chosen) == 512
        # 13.7 on the proteins held out in training; these are others.
        found = train.perplexity(model.load(options.evaluate), some, chosen, options)
        assert found == pytest.approx(13.9, abs=0.5)


@needs_muon
def test_writes_what_the_package_embeds_with(recipe, proteins, tmp_path):
    embed = pytest.importorskip("rdsearch.embed")
    train, model = recipe
    output = tmp_path / "mini_t1_16.safetensors"
    options = [str(proteins), "-o", str(output), *SHAPE, *SIZE, "--steps", "3"]
    some = train.read(proteins)
    train.train(some, train.parse(options))

    family = Family("mini", (Member("tiny", "mini_t1_16", 1, 16, 2),))
    embedder = embed.Embedder(family, weights=tmp_path, dtype="float32")
    sequences = ["MKTAYIAKQRQISFVK", "GAVLI"]
    found = embedder.pool(family.members[0], sequences)
    trained = model.load(output)
    for row, sequence in zip(found, sequences, strict=True):
        letters = [model.FIRST_LETTER + model.LETTERS.index(letter) for letter in sequence]
        tokens = torch.tensor([[model.CLS, *letters, model.EOS]])
        with torch.no_grad():
            expected = trained.representations(tokens)[0, 1:-1].mean(0)
        np.testing.assert_allclose(row, expected, atol=1e-5)
