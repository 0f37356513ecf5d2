"""What segments and compact do to scores where codecs round vectors.

All segments have the first one's learnt codecs, so that a row's code does not depend on when it
came. Codecs but RaBitQ encode what they decoded to the same code again: compact changes no score.
RaBitQ's codes, and those in cells, are made again from the last tier's vectors: the scores of
their tiers change a little, those of the last tier do not.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

import rdsearch
from rdsearch import changes, merging, recipe, tiers
from rdsearch.builder import build
from rdsearch.chain import Chain
from rdsearch.codecs import load_learnt
from rdsearch.funnel import Funnel
from rdsearch.generations import publish, successor
from rdsearch.guarantee import Guarantee
from rdsearch.imported import store_from_vectors
from rdsearch.layout import learnt_file
from rdsearch.manifest import Manifest
from rdsearch.moments import Moments
from rdsearch.recipe import Cells, Recipe, Scan
from rdsearch.rowsources import copied
from rdsearch.space import unit
from rdsearch.store import Store
from tests.described import calibration
from tests.living import record
from tests.synthetic import members, residues

WIDTHS, NAMES = (16, 32, 64), ("m0", "m1", "m2")
# Rows of the first segment and of all, of which every seventh is removed; queries.
FIRST, ALL, QUERIES = 1000, 1400, 30
SHOWN = np.array([i for i in range(ALL) if i % 7])
FULL, ALONE = Funnel(NAMES, (10**6, 10**6)), Funnel(NAMES[-1:], ())
SHORT = Funnel(NAMES, (150, 60))
# Begins with the scan file, where there is one.
WIDE = Funnel(NAMES[1:], (10**6,))
PROMISED = Guarantee(0.9, 0.9, 3, 5, 0.95, "sample", 0)


def with_cells(name: str, above: int) -> Recipe:
    """A recipe with few cells from `above` rows on."""
    cells = Cells(above, 0.4, 4)
    return dataclasses.replace(recipe.load(name), name=name, cells=cells, scan=Scan("pq4", 32, 150))


RECIPES = {
    "exact": recipe.load("exact"),
    "balanced": recipe.load("balanced"),
    "compact": recipe.load("compact"),
    "balanced with cells": with_cells("balanced", 900),
    "compact with cells": with_cells("compact", 900),
    "balanced with a scan": with_cells("balanced", 10**6),
}


@pytest.fixture(autouse=True, scope="module")
def no_sync():
    """Nothing here is about a crash."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)
        patch.setattr("rdsearch.durable._sync_data", lambda handle: None, raising=False)
        yield


@pytest.fixture(scope="module")
def chain() -> Chain:
    moments = Moments(list(WIDTHS))
    moments.update(np.concatenate(residues(0, 3000, WIDTHS), axis=1))
    return Chain.fit(moments, "made", members(WIDTHS))


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    """Clusters whose first dimensions say most; the last rows are queries."""
    rng = np.random.default_rng(1)
    centres, n = rng.standard_normal((150, WIDTHS[-1])), ALL + QUERIES
    made = centres[rng.integers(len(centres), size=n)] + rng.standard_normal((n, WIDTHS[-1]))
    return (made * 0.95 ** np.arange(WIDTHS[-1]) + 1).astype(np.float32)


def stored(folder: Path, rows, chain: Chain, vectors: np.ndarray) -> Store:
    """A store of these rows."""
    texts = ["".join("ACDEFGHIKL"[int(digit)] for digit in f"{row:05}") for row in rows]
    records = [record(f"p{row}", text) for row, text in zip(rows, texts, strict=True)]
    names = [one.accession for one in records]
    return store_from_vectors(folder, records, names, vectors[rows], chain)


@pytest.fixture(scope="module")
def stores(tmp_path_factory, chain, vectors) -> list[Store]:
    """The first segment's rows and those of two later ones."""
    folder = tmp_path_factory.mktemp("stores")
    bounds = (0, FIRST, (FIRST + ALL) // 2, ALL)
    return [
        stored(folder / str(start), np.arange(start, stop), chain, vectors)
        for start, stop in itertools.pairwise(bounds)
    ]


def grown(path: Path, stores: list[Store], chain: Chain, plan: Recipe, space: str) -> Path:
    """An index of three segments, with removed rows in all."""
    build(stores[0], chain, path, recipe=plan, space=space)
    for store in stores[1:]:
        changes.add(path, store)
    changes.remove(path, [f"p{row}" for row in range(0, ALL, 7)])
    return path


@pytest.fixture(scope="module", params=sorted(RECIPES))
def living(request, tmp_path_factory, chain, stores) -> Path:
    path = tmp_path_factory.mktemp("living") / "index"
    # Centred: a factor's matrix product rounds a row otherwise in each batch.
    return grown(path, stores, chain, RECIPES[request.param], "centred")


@pytest.fixture(scope="module")
def compacted(living, tmp_path_factory) -> Path:
    """The same in one segment."""
    path = shutil.copytree(living, tmp_path_factory.mktemp("compacted") / "index")
    before, after = Manifest.read(path), merging.compact(path)
    assert (after.tiers, after.funnel) == (before.tiers, before.funnel)
    assert (len(after.segments), after.tombstones, after.rows) == (1, None, len(SHOWN))
    rdsearch.verify(path)
    return path


def every_score(path: Path, asked: np.ndarray) -> dict[str, np.ndarray]:
    """Of each query and row at each tier."""
    with rdsearch.open(path) as index:
        rows = [np.arange(index.n_rows)] * len(asked)
        return {tier: np.stack(index.score_rows(asked, rows, tier)) for tier in index.tiers}


def answers(path: Path, asked: np.ndarray, funnel: Funnel, rows=None, exclude=None) -> list:
    with rdsearch.open(path) as index:
        found = index.rank(asked, 10, funnel, rows=rows, exclude=exclude)
        return [(one.rows.tolist(), one.scores[:, -1].tolist()) for one in found]


def recall(path: Path, asked: np.ndarray, funnel: Funnel) -> float:
    """Of the last tier's own best."""
    pairs = zip(answers(path, asked, ALONE), answers(path, asked, funnel), strict=True)
    return float(np.mean([len({*best} & {*found}) / 10 for (best, _), (found, _) in pairs]))


def test_segments_are_scored_as_one(living, vectors, tmp_path):
    """A row's code is what the first segment's codec makes of it, whichever segment it is in."""
    manifest, found = Manifest.read(living), every_score(living, vectors[ALL:])
    with rdsearch.open(living) as index:
        space = index.space
    mapped = space.transform(vectors[ALL:])
    for entry in manifest.tiers:
        learnt = load_learnt(living / learnt_file(manifest, entry.name), entry.dims)
        one, prefix = tmp_path / entry.name, np.ascontiguousarray(vectors[SHOWN, : entry.dims])
        tiers.write(one, space.prefix(entry.dims), learnt, [prefix])
        tier = tiers.read(one, entry.name, entry.dims, len(SHOWN))
        rows = [np.arange(len(SHOWN))] * QUERIES
        expected = np.stack(tier.scores(unit(mapped[:, : entry.dims]), rows))
        np.testing.assert_array_equal(found[entry.name], expected)


def test_compact_with_the_same_codecs_changes_no_final_score(living, compacted, vectors):
    asked = vectors[ALL:]
    for entry in Manifest.read(living).tiers:
        before, after = (every_score(path, asked)[entry.name] for path in (living, compacted))
        if copied(entry):
            np.testing.assert_array_equal(before, after)
        else:
            # Rounded once more: to 4 bits of a dimension, to 2 or to 1.
            closest = {"rabitq4": 0.998, "pq4": 0.99, "rabitq": 0.97}[entry.codec]
            assert np.corrcoef(before.ravel(), after.ravel())[0, 1] > closest
    some, out = np.arange(0, len(SHOWN), 3), list(range(QUERIES))
    for funnel in (FULL, WIDE, ALONE):
        for options in ({}, {"rows": some}, {"exclude": out}, {"rows": some, "exclude": out}):
            before, after = (answers(p, asked, funnel, **options) for p in (living, compacted))
            assert before == after


def test_segments_scan_the_cells_that_one_index_scans(living, compacted, vectors):
    """All rows of these cells go on: what a shortlist cuts off of equal codes is FAISS's choice."""
    entries, half = Manifest.read(living).tiers, len(SHOWN) // 2
    # More rows than are in the cells, and fewer than a filter leaves: the funnel is taken.
    for funnel in (Funnel(NAMES, (450, 450), 1), Funnel(NAMES[1:], (450,), 2)):
        if entries[0].cells is None:
            funnel = dataclasses.replace(funnel, shortlists=(len(SHOWN),) * len(funnel.shortlists))
        for rows in (None, np.arange(half, len(SHOWN)), np.arange(0, len(SHOWN), 2)):
            before, after = (answers(p, vectors[ALL:], funnel, rows) for p in (living, compacted))
            if entries[0].cells is None or entries[-1].codec == "sqfp16":
                assert before == after
            else:  # a row between two cells may go to the other one when 8 bits are left of it
                common = [
                    len({*a[0]} & {*b[0]}) / len(a[0]) for a, b in zip(before, after, strict=True)
                ]
                assert np.mean(common) > 0.97
            if entries[0].cells and rows is None:
                assert before != answers(living, vectors[ALL:], FULL)


def test_short_shortlists_find_as_much(living, compacted, vectors):
    """Codes of few dimensions tie where a shortlist ends, so that single rows may differ."""
    for funnel in (SHORT, dataclasses.replace(WIDE, shortlists=(60,))):
        before, after = (recall(path, vectors[ALL:], funnel) for path in (living, compacted))
        assert before > 0.5
        assert after == pytest.approx(before, abs=0.05)


def test_codecs_that_the_recipe_changes_are_learnt_anew(tmp_path, chain, vectors):
    """From 1,000 rows on there are product quantizers, above 1,100 this recipe has cells."""
    plan = with_cells("balanced", 1100)
    first, *later = np.split(np.arange(1200), [900, 1050])
    path, asked = tmp_path / "index", vectors[ALL:]
    build(stored(tmp_path / "s0", first, chain, vectors), chain, path, recipe=plan)
    seen = [Manifest.read(path)]

    def compact() -> None:
        manifest = Manifest.read(path)
        learnt = {"guarantee": PROMISED, "calibration": calibration(manifest, {"fdr": 0.5})}
        publish(path, successor(manifest, "tune", **learnt))
        before = {funnel: answers(path, asked, funnel) for funnel in (FULL, WIDE, ALONE)}
        seen.append(merging.compact(path))
        assert (seen[-1].guarantee, seen[-1].calibration) == (None, None)
        assert before == {funnel: answers(path, asked, funnel) for funnel in before}
        assert recall(path, asked, seen[-1].funnel) > 0.5
        rdsearch.verify(path)

    for number, rows in enumerate(later, start=1):
        changes.add(path, stored(tmp_path / f"s{number}", rows, chain, vectors))
        compact()
    changes.remove(path, [f"p{row}" for row in range(0, 1200, 5)])
    compact()
    assert [(one.tiers[0].codec, one.tiers[0].cells, one.funnel.probes) for one in seen] == [
        ("flat", None, None),
        ("pq4", None, None),
        ("pq4", 14, 4),
        ("flat", None, None),
    ]
    scans = [one.scan and (one.scan.name, one.scan.cells) for one in seen]
    assert scans == [None, ("m1.scan", None), ("m1.scan", 14), None]


def test_a_guarantee_is_of_the_codes_it_was_measured_on(living, tmp_path):
    path = shutil.copytree(living, tmp_path / "index")
    before = successor(Manifest.read(path), "tune", guarantee=PROMISED)
    publish(path, before)
    after = merging.compact(path)
    assert after.guarantee == (PROMISED if all(map(copied, before.stored)) else None)
    assert after.funnel == before.funnel


def test_a_whitened_space_stays_the_first_rows(tmp_path, chain, stores, vectors):
    """Exact scores in it are equal but for the rounding of a matrix product."""
    asked = vectors[ALL:]
    path = grown(tmp_path / "index", stores, chain, RECIPES["exact"], "whitened")
    at_once = tmp_path / "once"
    store = stored(tmp_path / "all", SHOWN, chain, vectors)
    build(store, chain, at_once, recipe="exact", space_from=path)
    before = every_score(path, asked)
    for tier, scores in every_score(at_once, asked).items():
        np.testing.assert_allclose(before[tier], scores, atol=1e-6)
    pairs = zip(answers(path, asked, FULL), answers(at_once, asked, FULL), strict=True)
    assert all(one[0] == other[0] for one, other in pairs)
    found = answers(path, asked, SHORT)
    merging.compact(path)
    for tier, scores in every_score(path, asked).items():
        np.testing.assert_array_equal(before[tier], scores)
    assert answers(path, asked, SHORT) == found
