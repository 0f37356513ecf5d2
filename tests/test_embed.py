"""Any sequences through a member: the same vectors whatever the batches, windows and accidents."""

from __future__ import annotations

import gc
import itertools
import logging
import random
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rdsearch import family
from rdsearch.batches import Window, coverage, pack, size, windows
from rdsearch.devices import Model, dtype_named, out_of_memory
from rdsearch.embed import Embedder
from rdsearch.errors import EmbeddingError, InputError
from rdsearch.esm2 import Encoder
from rdsearch.family import Family, Member
from tests import fairesm

MEMBER = family.MINI.members[1]
_DRAW = random.Random(11)


def protein(length: int) -> str:
    return "".join(_DRAW.choices("ACDEFGHIKLMNPQRSTVWY", k=length))


SEQUENCES = [protein(n) for n in (1, 2, 30, 31, 33, 64, 65, 120, 121, 122, 123, 200, 300)]
# Another batch is another order of additions in float32, on values of order 1 to 10.
ROUNDING = 1e-5


def embedder(**options) -> Embedder:
    return Embedder(family.MINI, device="cpu", dtype="float32", **options)


@pytest.fixture(scope="module")
def theirs():
    return fairesm.packaged(MEMBER)


@pytest.fixture(scope="module")
def expected(theirs) -> np.ndarray:
    """Pooled vectors by fair-esm, in the order of SEQUENCES."""
    return np.stack([h.mean(0).numpy() for h in fairesm.representations(theirs, SEQUENCES)])


@pytest.mark.parametrize("tokens_per_batch", [1, 300, 4096])
@pytest.mark.parametrize("stream_layers", [False, True])
def test_pooled_vectors_are_fair_esms(expected, tokens_per_batch, stream_layers):
    runs = embedder(tokens_per_batch=tokens_per_batch, stream_layers=stream_layers)
    found = runs.pool(MEMBER, SEQUENCES)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=ROUNDING)


def test_order_does_not_matter_and_repetition_gives_the_same_bits():
    runs = embedder(tokens_per_batch=300)
    first = runs.pool(MEMBER, SEQUENCES)
    order = np.random.default_rng(0).permutation(len(SEQUENCES))
    shuffled = runs.pool(MEMBER, [SEQUENCES[i] for i in order])
    np.testing.assert_allclose(shuffled, first[order], atol=ROUNDING)
    assert np.array_equal(runs.pool(MEMBER, SEQUENCES), first)
    assert np.array_equal(embedder(tokens_per_batch=300).pool(MEMBER, SEQUENCES), first)


def test_streamed_layers_give_the_same_bits():
    streamed = embedder(tokens_per_batch=300, stream_layers=True).pool(MEMBER, SEQUENCES)
    assert np.array_equal(embedder(tokens_per_batch=300).pool(MEMBER, SEQUENCES), streamed)


def test_no_sequences():
    assert embedder().pool(MEMBER, []).shape == (0, MEMBER.width)


def test_windows_are_averaged_where_they_overlap(theirs):
    """Once more by hand: windows of 100 with 30 in common, each residue counted once."""
    sequence = protein(333)
    count = -(-(333 - 30) // (100 - 30))
    starts = [(333 - 100) * i // (count - 1) for i in range(count)]
    assert len(starts) == 5
    parts = [sequence[s : s + 100] for s in starts]
    total, seen = np.zeros((333, MEMBER.width)), np.zeros((333, 1))
    for start, hidden in zip(starts, fairesm.representations(theirs, parts), strict=True):
        total[start : start + 100] += hidden.numpy()
        seen[start : start + 100] += 1
    residues = total / seen

    runs = embedder(window=100, overlap=30)
    sequences = [protein(50), sequence, protein(100)]
    embedded = dict(runs.residues(MEMBER, sequences))
    np.testing.assert_allclose(embedded[1], residues, atol=ROUNDING)
    assert [len(embedded[i]) for i in range(3)] == [50, 333, 100]
    assert embedded[1].dtype == np.float32
    pooled = runs.pool(MEMBER, sequences)
    for i, rows in embedded.items():
        np.testing.assert_allclose(pooled[i], rows.mean(0), atol=ROUNDING)


def test_residues_are_fair_esms(theirs):
    expected = fairesm.representations(theirs, SEQUENCES)
    for i, rows in embedder().residues(MEMBER, SEQUENCES):
        np.testing.assert_allclose(rows, expected[i].numpy(), atol=ROUNDING)


def test_windows_of_one_residue(theirs):
    sequence = protein(5)
    alone = torch.cat(fairesm.representations(theirs, list(sequence))).mean(0)
    found = embedder(window=1, overlap=0).pool(MEMBER, [sequence])[0]
    np.testing.assert_allclose(found, alone, atol=ROUNDING)


def test_progress_counts_each_sequence_once():
    told = []
    sequences = [*SEQUENCES, protein(500)]
    runs = embedder(window=100)
    runs.pool(MEMBER, sequences, progress=lambda n, residues: told.append((n, residues)))
    assert sum(n for n, _ in told) == len(sequences)
    assert sum(residues for _, residues in told) == sum(map(len, sequences))


def test_statistics():
    runs = embedder(tokens_per_batch=100)
    runs.pool(MEMBER, [protein(n) for n in (10, 30, 31)])
    # 31 and 30 share a batch of two lines of 33 tokens; 10 is too short for it.
    assert runs.statistics.batches == 2
    assert runs.statistics.tokens == 2 * 33 + 12
    assert runs.statistics.padding == 1
    assert runs.statistics.padded_share == 1 / 78


def test_one_member_in_memory_at_a_time(monkeypatch):
    runs = embedder()
    runs.pool(family.MINI.members[0], ["MK"])
    first = weakref.ref(next(iter(runs._loaded.values()))[0])
    alive = []

    def load(*arguments):
        gc.collect()
        alive.append(first() is not None)
        return Encoder(*arguments)

    monkeypatch.setattr("rdsearch.devices.Encoder", load)
    runs.pool(family.MINI.members[1], ["MK"])
    assert alive == [False]  # gone before the second is read


def test_members_that_stay_are_loaded_once_for_all_who_share_them(monkeypatch):
    loaded = []

    def load(*arguments):
        loaded.append(arguments[0].member.name)
        return Encoder(*arguments)

    monkeypatch.setattr("rdsearch.devices.Encoder", load)
    models: dict = {}
    one, other = embedder(models=models), embedder(models=models)
    expected = [embedder().pool(member, SEQUENCES) for member in family.MINI.members[:2]]
    loaded.clear()
    for _ in range(2):
        for runs in (one, other):
            for member, vectors in zip(family.MINI.members, expected, strict=False):
                np.testing.assert_array_equal(runs.pool(member, SEQUENCES), vectors)
    assert loaded == ["0.1M", "0.5M"]


def test_signature_tells_what_determines_the_numbers():
    plain = embedder().signature
    assert plain["dtype"] == "float32"
    assert {name for name in plain if name.startswith("weights ")} == {
        f"weights {name}" for name in family.MINI.names
    }
    assert embedder(window=500).signature != plain
    assert embedder(overlap=10).signature != plain
    assert Embedder(family.MINI, device="cpu", dtype="bfloat16").signature != plain
    assert embedder(tokens_per_batch=64, stream_layers=True).signature == plain


# -- accidents -----------------------------------------------------------------------------------


def failing(monkeypatch, limit: int, error: Exception) -> list[int]:
    """Let the model fail above `limit` tokens at once; returns the sizes it was given."""
    run, sizes = Model.run, []

    def limited(self, tokens):
        sizes.append(sum(t.numel() for t in tokens))
        if sizes[-1] > limit:
            raise error
        return run(self, tokens)

    monkeypatch.setattr(Model, "run", limited)
    return sizes


CPU_FULL = RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried …")


@pytest.mark.parametrize(
    "error", [MemoryError(), CPU_FULL, torch.OutOfMemoryError("CUDA out of memory")], ids=repr
)
@pytest.mark.parametrize("stream_layers", [False, True])
def test_out_of_memory_halves_the_batches(monkeypatch, caplog, expected, error, stream_layers):
    sizes = failing(monkeypatch, 400, error)
    runs = embedder(tokens_per_batch=1500, stream_layers=stream_layers)
    with caplog.at_level(logging.WARNING):
        found = runs.pool(MEMBER, SEQUENCES)
    np.testing.assert_allclose(found, expected, atol=ROUNDING)
    budget = 1500 * (16 if stream_layers else 1)
    halvings = 0
    while budget > 400:
        budget, halvings = budget // 2, halvings + 1
    messages = [r.message for r in caplog.records if "out of memory; going on" in r.message]
    assert 1 <= len(messages) <= halvings
    # Groups under way at a halving fail once more; after that nothing is above the limit.
    assert sum(size > 400 for size in sizes) <= 2 * halvings
    assert runs.statistics.tokens < 1.5 * sum(len(s) + 2 for s in SEQUENCES)  # each counted once


def test_no_memory_for_one_window(monkeypatch):
    failing(monkeypatch, 100, CPU_FULL)
    with pytest.raises(EmbeddingError, match=r"0\.5M.*one window of 200 residues.*--window"):
        embedder().pool(MEMBER, [protein(200), protein(50)])


def test_no_memory_for_the_member(monkeypatch):
    def full(*_):
        raise CPU_FULL

    monkeypatch.setattr("rdsearch.devices.Encoder", full)
    with pytest.raises(EmbeddingError, match=r"0\.5M.*--stream-layers"):
        embedder().pool(MEMBER, ["MK"])


def test_other_errors_are_not_taken_for_memory(monkeypatch):
    failing(monkeypatch, 0, RuntimeError("shapes differ"))
    with pytest.raises(RuntimeError, match="shapes differ"):
        embedder().pool(MEMBER, ["MK"])
    assert not out_of_memory(ValueError())


TINY = Family("tiny", (Member("tiny", "tiny", 2, 32, 2),))


def saved(folder: Path, scale: float) -> Path:
    """A model whose first layer's products are `scale` times larger."""
    model = fairesm.random(TINY.members[0])
    with torch.no_grad():
        model.layers[0].fc1.weight *= scale
        model.layers[0].fc2.weight *= scale
    return fairesm.save(model, folder / "tiny.pt")


def test_half_precision_that_overflows_is_computed_in_float32(tmp_path, caplog):
    path = saved(tmp_path, 1e4)
    exact = Embedder(TINY, weights=path, device="cpu", dtype="float32")
    half = Embedder(TINY, weights=path, device="cpu", dtype="float16")
    member = TINY.members[0]
    expected = exact.pool(member, SEQUENCES)
    assert np.isfinite(expected).all()
    with caplog.at_level(logging.WARNING):
        found = half.pool(member, SEQUENCES)
    assert np.array_equal(found, expected)
    assert "member tiny" in caplog.text
    assert "not finite in float16; computed again in float32" in caplog.text


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_not_finite_in_float32_is_an_error(tmp_path, dtype):
    path = saved(tmp_path, float("nan"))
    runs = Embedder(TINY, weights=path, device="cpu", dtype=dtype)
    with pytest.raises(EmbeddingError, match=r"member tiny .* not finite in float32.*tiny\.pt"):
        runs.pool(TINY.members[0], ["MK"])


# -- devices -------------------------------------------------------------------------------------


def test_shared_out_over_devices_the_numbers_are_the_same(monkeypatch):
    """Two models on the CPU stand for two devices."""
    plain = embedder(tokens_per_batch=130).pool(MEMBER, SEQUENCES)
    shared = embedder(tokens_per_batch=130)
    monkeypatch.setattr(shared, "_devices", [torch.device("cpu")] * 2)
    assert np.array_equal(shared.pool(MEMBER, SEQUENCES), plain)
    assert [len(models) for models in shared._loaded.values()] == [2]


@pytest.mark.skipif(torch.cuda.device_count() < 1, reason="needs a CUDA device")
@pytest.mark.parametrize("devices", ["auto", "cuda", "all"])
def test_cuda(expected, devices):
    if devices == "all":
        devices = ",".join(f"cuda:{i}" for i in range(torch.cuda.device_count()))
    runs = Embedder(family.MINI, device=devices, dtype="float32", tokens_per_batch=300)
    np.testing.assert_allclose(runs.pool(MEMBER, SEQUENCES), expected, atol=1e-3)


def test_auto_takes_the_cpu_without_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert Embedder(family.MINI, device="auto").pool(MEMBER, ["MK"]).shape == (1, 96)


@pytest.mark.parametrize(
    ("flags", "dtype"),
    [
        ("fma avx2", torch.float32),
        ("avx2 avx512_bf16", torch.bfloat16),
        ("amx_bf16", torch.bfloat16),
    ],
)
def test_auto_dtype_follows_the_processor(monkeypatch, flags, dtype):
    monkeypatch.setattr(Path, "read_text", lambda *_: f"processor: 0\nflags\t: fpu {flags}\n")
    assert dtype_named("auto", [torch.device("cpu")]) == dtype


# -- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": 0}, "window 0"),
        ({"window": 1023}, "window 1023"),
        ({"window": 100, "overlap": 100}, "overlap 100"),
        ({"overlap": -1}, "overlap -1"),
        ({"tokens_per_batch": 0}, "at least one token; found 0"),
        ({"members": ["9M"]}, "no member '9M'"),
    ],
)
def test_options_that_make_no_sense(options, message):
    with pytest.raises(InputError, match=message):
        embedder(**options)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("dtype", "int8"),
        ("device", "tpu:x"),
        ("device", "meta"),
        ("device", "cpu,cpu"),
        ("device", "cuda:99"),
    ],
)
def test_devices_and_dtypes_that_are_not_there(name, value):
    with pytest.raises(InputError, match=value):
        Embedder(family.MINI, **{"dtype": "float32", name: value})


@pytest.mark.parametrize(
    ("sequence", "message"),
    [("", "sequence 1 is empty"), ("MKj", "sequence 1 has 'j'"), ("MÜ", "sequence 1 has 'Ü'")],
)
def test_sequences_that_are_not_clean(sequence, message):
    with pytest.raises(InputError, match=message):
        embedder().pool(MEMBER, ["MK", sequence])


# -- windows and batches -------------------------------------------------------------------------


@given(st.integers(1, 5000), st.integers(1, 1022), st.data())
def test_windows_cover_every_residue_once(length, window, data):
    overlap = data.draw(st.integers(0, window - 1))
    cut = windows(7, length, window, overlap)
    total, weights = np.zeros(length), coverage(length, cut)
    for part in cut:
        assert part.sequence == 7
        assert len(part) == min(window, length)
        total[part.start : part.stop] += weights[part.start : part.stop]
    np.testing.assert_allclose(total, 1, rtol=1e-5)
    for before, after in itertools.pairwise(cut):
        assert before.start < after.start
        assert before.stop - after.start >= overlap


@given(st.lists(st.integers(1, 400), max_size=60), st.integers(1, 2000))
def test_batches_hold_every_window_once_within_the_budget(lengths, budget):
    parts = [Window(i, 0, length) for i, length in enumerate(lengths)]
    batches = list(pack(parts, budget))
    assert sorted((p for b in batches for p in b), key=lambda p: p.sequence) == parts
    for batch in batches:
        assert len(batch) == 1 or size([batch]) <= budget
        tokens = sum(len(part) + 2 for part in batch)
        assert tokens >= 0.9 * size([batch])
