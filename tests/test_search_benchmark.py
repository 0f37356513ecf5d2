"""The search benchmark: made vectors, exact answers, every side, the command. No timings."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[1] / "examples" / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import measure  # noqa: E402
import report  # noqa: E402
from made import Made, energies  # noqa: E402
from vectors import Vectors  # noqa: E402

TIERS = {"a": 16, "b": 32, "c": 64}
WIDTHS = tuple(TIERS.values())
ROWS, K = 700, 5


@pytest.fixture(scope="module")
def vectors(tmp_path_factory) -> Vectors:
    made = Made(ROWS, WIDTHS, seed=3)
    folder = tmp_path_factory.mktemp("made") / "vectors"
    sets = (made.queries(12), made.queries(6, part=1))
    written = Vectors.write(folder, "few", TIERS, ROWS, made.blocks(), made.mean, *sets)
    written.answer(K)
    return written


def cosines(vectors: Vectors) -> np.ndarray:
    """Of every query and row, centred; an oracle of its own."""
    rows = np.concatenate(list(Made(ROWS, WIDTHS, seed=3).blocks())).astype(np.float64)
    a, b = vectors.queries - vectors.mean, rows - vectors.mean
    return (a @ b.T) / np.outer(np.sqrt((a**2).sum(1)), np.sqrt((b**2).sum(1)))


def test_made_vectors_have_the_shape_of_the_design():
    made = Made(3000, (320, 480, 640, 1280), seed=1)
    x = np.concatenate(list(made.blocks())).astype(np.float64)
    assert x.shape == (3000, 1280)
    centred = x - made.mean
    total = (centred**2).sum()
    shares = [(centred[:, a:b] ** 2).sum() / total for a, b in ((0, 320), (320, 480), (480, 640))]
    assert shares == pytest.approx([0.68, 0.32 * 4 / 7, 0.32 * 2 / 7], abs=0.01)
    assert (x.mean(0) ** 2).sum() / (x**2).sum(1).mean() > 0.9
    assert sum(energies((1, 2, 3, 4))) == pytest.approx(1)
    sizes = np.bincount(made.family_of)
    assert sizes.min() == 1 < sizes.mean() < sizes.max() <= 60
    assert (np.diff(made.family_of) != 0).mean() > 0.9  # families do not lie together


def test_made_families_are_near_and_others_far():
    made = Made(1500, WIDTHS, seed=2)
    x = np.concatenate(list(made.blocks())) - made.mean
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    same = made.family_of[:, None] == made.family_of
    scores = x @ x.T
    np.fill_diagonal(same, False)
    apart = ~same & ~np.eye(len(x), dtype=bool)
    assert scores[same].mean() > 0.5
    assert abs(scores[apart].mean()) < 0.1


def test_made_vectors_come_from_the_seed_alone():
    first, again, other = (list(Made(1200, WIDTHS, seed).blocks()) for seed in (5, 5, 6))
    assert [len(block) for block in first] == [1000, 200]
    np.testing.assert_array_equal(np.concatenate(first), np.concatenate(again))
    assert not np.allclose(first[0], other[0])
    made = Made(1200, WIDTHS, seed=5)
    np.testing.assert_array_equal(made.queries(3), Made(1200, WIDTHS, seed=5).queries(3))
    assert not np.allclose(made.queries(3), made.queries(3, part=1))
    distances = ((np.concatenate(first)[None] - made.queries(3)[:, None]) ** 2).sum(-1)
    assert distances.min() > 0.01  # a query is no row


def test_exact_answers(vectors):
    expected = -np.sort(-cosines(vectors), axis=1)[:, :K]
    np.testing.assert_allclose(vectors.truth, expected, atol=1e-6)
    np.testing.assert_array_equal(Vectors(vectors.folder).truth, vectors.truth)


def test_recall(vectors):
    best = np.argsort(-cosines(vectors), axis=1)
    assert vectors.recall(best[:, :K]) == 1
    assert vectors.recall(best[:, K : 2 * K]) == 0
    assert vectors.recall(best[:, K - 1 : 2 * K - 1]) == pytest.approx(1 / K)
    assert vectors.recall(best[3:5, :K], first=3) == 1
    twice = best[:, [0, 0, 0, 0, 1]]
    assert vectors.recall(twice) == pytest.approx(2 / K)
    missing = np.where(np.arange(K) < 2, best[:, :K], -1)
    assert vectors.recall(missing) == pytest.approx(2 / K)


def test_recall_counts_ties(tmp_path):
    rows = np.eye(6, 4, dtype=np.float32)
    rows[4:] = rows[0]
    queries = np.array([[1, 0.1, 0, 0]], np.float32)
    tied = Vectors.write(tmp_path / "v", "ties", {"t": 4}, 6, [rows], np.zeros(4), queries, queries)
    tied.answer(2)  # rows 0, 4 and 5 share the best score
    assert tied.recall(np.array([[5, 4]])) == 1
    assert tied.recall(np.array([[5, 1]])) == 0.5


@pytest.mark.parametrize("name", measure.SIDES)
def test_side(name, vectors, tmp_path):
    """Built, opened and asked with the most effort, each side finds nearly all."""
    side_class = measure.SIDES[name]
    pytest.importorskip(side_class.library)
    side = side_class(tmp_path / "side", memory=1e9)
    built = measure.build(side, vectors, {"threads": 1})
    assert built["disk_bytes"] > 0
    assert built["build_seconds"] > 0
    opened = side_class(side.folder, memory=1e9)
    opened.use_threads(1)
    opened.open()
    effort = opened.ladders()[-1][-1]
    queries = measure.seen_by(opened, vectors, vectors.queries)
    before = queries.copy()
    found = opened.search(queries, K, effort)
    assert (found.shape, found.dtype) == ((len(queries), K), np.int64)
    assert vectors.recall(found) > 0.95
    one = np.concatenate([opened.search(queries[i : i + 1], K, effort) for i in range(3)])
    assert vectors.recall(one) > 0.9
    np.testing.assert_array_equal(queries, before)
    touched = opened.touched(queries, K, effort)
    assert touched is None or 0 < touched < 4 * 64 * 4 * ROWS


def test_a_funnel_begins_with_the_scan_file(vectors, tmp_path, monkeypatch):
    pytest.importorskip("faiss")
    side_class = measure.SIDES["rdsearch balanced"]
    own = tmp_path / "own.toml"
    own.write_text(
        '[codecs]\nfirst="flat"\nmiddle="flat"\nlast="flat"\n[shortlists]\nfirst=50\nlast=50\n'
        '[scan]\ncodec="rabitq"\nleast_dims=32\nshortlist=50\n'
    )
    monkeypatch.setattr(side_class, "recipe", str(own))
    side = side_class(tmp_path / "side", memory=1e9)
    measure.build(side, vectors, {"threads": 1})
    assert side_class.expected_bytes(vectors) == ROWS * (4 * sum(WIDTHS) + 32 / 8)
    side.open()
    assert {effort["tiers"] for ladder in side.ladders() for effort in ladder} == {
        ("a", "c"),
        ("b", "c"),
    }
    effort = {"tiers": ("b", "c"), "shortlists": (ROWS // 2,), "probes": None}
    assert vectors.recall(side.search(vectors.queries, K, effort)) > 0.95
    # RaBitQ: a bit a dimension and three float32 constants a row; where it ends, the tier itself.
    touched = side.touched(vectors.queries, K, effort)
    assert touched - ROWS // 2 * 4 * 64 < ROWS * (32 / 8 + 13)
    alone = {"tiers": ("b",), "shortlists": (), "probes": None}
    assert side.touched(vectors.queries, K, alone) == ROWS * 4 * 32


def test_streamed_scan_equals_the_scan_in_memory(vectors, tmp_path, monkeypatch):
    peers = pytest.importorskip("peers")
    pytest.importorskip("faiss")
    monkeypatch.setattr(peers, "_STREAMED", 130)
    scan = peers.FlatIP(tmp_path / "flat", memory=1e9)
    measure.build(scan, vectors, {"threads": 1})
    streamed = peers.FlatIP(scan.folder, memory=0)
    queries = vectors.unit(vectors.queries)
    scan.open()
    streamed.open()
    np.testing.assert_array_equal(streamed.search(queries, K, {}), scan.search(queries, K, {}))
    assert streamed.touched(queries, K, {}) == scan.touched(queries, K, {}) == 4 * 64 * ROWS


def test_tuning_takes_the_fastest_effort_with_the_recall(vectors, tmp_path, monkeypatch):
    pytest.importorskip("faiss")
    side = measure.SIDES["FAISS IVF-Flat"](tmp_path / "side", memory=1e9)
    measure.build(side, vectors, {"threads": 1})
    job = {"threads": 1, "k": K, "target": 0.9, "seconds": 1}
    cost = {n: 2.0**i for i, n in enumerate((1, 2, 4, 8, 16, 32, 64, 128, 256))}
    monkeypatch.setattr(measure, "one_by_one", lambda s, q, k, effort, t: [cost[effort["nprobe"]]])
    tuned = measure.tune(side, vectors, job)
    *short, last = tuned["tried"]
    assert tuned["reached"]
    assert tuned["effort"] == last["effort"]
    assert last["recall"] >= 0.9 > max(one["recall"] for one in short)
    monkeypatch.setattr(side, "ladders", lambda: [[{"nprobe": 64}], [{"nprobe": 32}]])
    assert measure.tune(side, vectors, job)["effort"] == {"nprobe": 32}
    monkeypatch.setattr(side, "ladders", lambda: [[{"nprobe": 1}]])
    assert not measure.tune(side, vectors, job)["reached"]


def timed(seconds: list[float], size: float, reached: bool = True, mapped: float = 0) -> dict:
    runs = [{"seconds": s, "anon_bytes": size, "file_bytes": mapped} for s in seconds]
    recall = 1.0 if reached else 0.95
    return {"single": runs, "batched": runs, "reached": reached, "recall": recall}


def test_targets_are_judged_on_ratios_of_the_same_round():
    sides = {
        report.EXACT: timed([10, 40, 20], 100),
        "rdsearch balanced": timed([1, 2, 2], 2, mapped=8),
        "fast but short": timed([0.1, 0.1, 0.1], 1, reached=False),
        "peer": timed([3, 3, 3], 50),
        "slow peer": timed([9, 9, 9], 1),
        "other": {"left_out": "not installed"},
    }
    result = {"vectors": "v", "rows": 10, "made": True, "sides": sides}
    grown = {**sides, "rdsearch balanced": timed([8, 8, 8], 30)}
    lines = list(report.targets([result, {**result, "rows": 40, "sides": grown}]))
    assert lines[0] == "v, rdsearch balanced:"
    assert lines[1] == "  single: 10.0 × the exact scan (met)"
    assert lines[2] == (
        "  single: 1.5 × the best peer (peer) (NOT met), with 0.20 of its resident memory (met); "
        "without mapped files 0.04 (met)"
    )
    assert "  single: 2.5 × the exact scan (NOT met)" in lines
    assert any("with 0.60 of its resident memory (NOT met)" in line for line in lines)
    short = {name: sides[name] for name in (report.EXACT, "rdsearch balanced", "fast but short")}
    lines_short = list(report.targets([{**result, "sides": short}]))
    assert lines_short[2].startswith("  single: 0.1 × the best peer (fast but short, recall 0.950)")
    growth = next(line for line in lines if line.startswith("rdsearch balanced: 2000.00 ms"))
    assert growth.endswith("rows to the power 1.00 (NOT met)")


@pytest.mark.slow
def test_command(tmp_path, mini_store, mini_chain):
    """Made vectors and a store, two sides, everything that comes out."""
    chain = tmp_path / "chain.safetensors"
    mini_chain.save(chain)
    stores = ["--store", str(mini_store.path), "--query-store", str(mini_store.path)]
    command = [sys.executable, str(BENCHMARKS / "search.py"), "--sizes", "600", *stores]
    command += ["--chain", str(chain), "--boundaries", "16,32,64", "--rounds", "2"]
    command += ["--sides", "FlatIP,balanced,HNSWFlat", "--queries", "15", "-k", "3"]
    command += ["--threads", "1", "--seconds", "0.2", "--graphs-up-to", "300"]
    scratch, output = tmp_path / "scratch", tmp_path / "out"
    scratch.mkdir()
    done = subprocess.run(
        [*command, "--folder", str(scratch), "-o", str(output)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        cwd=BENCHMARKS.parents[1],
    )
    assert done.returncode == 0, done.stderr
    about = json.loads((output / "search.json").read_text())
    assert about["threads"] == {"single": 1, "batched": 1, "building": 1}
    made, stored = about["results"]
    assert (made["rows"], made["dims"], made["made"], made["queries"]) == (600, 64, True, 15)
    assert (stored["rows"], stored["made"]) == (mini_store.n_rows, False)
    assert list(stored["tiers"]) == list(mini_store.tiers)
    assert "--graphs-up-to" in made["sides"]["FAISS IndexHNSWFlat"]["left_out"]
    for result in (made, stored):
        exact, ours = (result["sides"][n] for n in (report.EXACT, "rdsearch balanced"))
        assert exact["recall"] == 1
        assert ours["recall"] >= 0.99
        assert len(ours["single"]) == len(ours["batched"]) == 2
        assert exact["disk_bytes"] == 128 + 4 * result["rows"] * result["dims"]
    for words in ("recall@3 ≥ 0.99", "single 1, batched 1", "× the exact scan", "to the power"):
        assert (words in done.stdout) == (words != "to the power")  # one made size: no growth
    assert not any(scratch.iterdir())
    pytest.importorskip("matplotlib")
    assert (output / "search.png").read_bytes().startswith(b"\x89PNG")
