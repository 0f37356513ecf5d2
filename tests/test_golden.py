"""Indexes that earlier versions wrote are opened, and answer as they did then."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import numpy as np
import pytest

import rdsearch
from rdsearch import changes, merging
from rdsearch.errors import IndexDamagedError
from rdsearch.manifest import FORMAT_VERSION, MANIFEST
from tests import living
from tests.golden import make

ARCHIVES = sorted(make.FOLDER.glob("format-*.tar.xz"))


@pytest.fixture(params=ARCHIVES, ids=lambda path: path.name.partition(".")[0])
def golden(request, tmp_path):
    with tarfile.open(request.param) as archive:
        archive.extractall(tmp_path, filter="data")
    answers = request.param.with_name(request.param.name.replace(".tar.xz", ".json"))
    return tmp_path / "index", json.loads(answers.read_text(encoding="utf-8"))


def check(path: Path, expected: dict) -> None:
    found = json.loads(json.dumps(make.answers(path)))
    for funnel, rankings in expected.pop("found").items():
        for one, other in zip(found["found"][funnel], rankings, strict=True):
            assert one["rows"] == other["rows"]
            # Sums of float32 in another order, on another processor.
            np.testing.assert_allclose(one["scores"], other["scores"], atol=1e-6)
    del found["found"]
    assert found == expected


def test_this_format_has_golden_data():
    assert f"format-{FORMAT_VERSION}.tar.xz" in [path.name for path in ARCHIVES]


def test_it_answers_as_it_did(golden):
    path, expected = golden
    rdsearch.verify(path)
    check(path, expected)


def test_it_can_be_changed(golden, tmp_path):
    path, expected = golden
    before = [name for row in expected["rows"] for name in row]
    changes.add(path, living.store(tmp_path / "more", [living.record("NEW", "ACDEFGHIKLM")]))
    changes.remove(path, ["NEW"])
    merging.compact(path)
    rdsearch.verify(path)
    with rdsearch.open(path) as index:
        proteins = index.catalog.proteins(range(index.n_rows))
        assert [one["accession"] for row in proteins.values() for one in row] == before
    rdsearch.rollback(path, expected["generation"])
    check(path, {**expected, "generation": expected["generation"] + 4})


def test_formats_that_are_not_known_are_named(golden):
    path, _ = golden
    manifest = path / MANIFEST
    table = json.loads(manifest.read_text(encoding="utf-8"))
    for version, step in ((FORMAT_VERSION + 1, "Install a newer rdsearch"), (1, "Build it again")):
        manifest.write_text(json.dumps({**table, "format_version": version}), encoding="utf-8")
        with pytest.raises(IndexDamagedError, match=f"format version {version}.*{step}"):
            rdsearch.open(path)
