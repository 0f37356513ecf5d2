"""Calibrations as data: what they answer, and what they refuse to be."""

from __future__ import annotations

import copy
import json
import math

import numpy as np
import pytest

from rdsearch.calibration import Calibration, Cut, TierCalibration
from rdsearch.errors import CalibrationError, InputError
from rdsearch.manifest import Manifest


def made(**changes) -> Calibration:
    cut = Cut(0.5, 0.05, 30, 0.04, 0.5, 0.08, 0.6, 2.5)
    knots = ((0.0, 0.5, 1.0), (0.001, 0.4, 0.9))
    tiers = (
        TierCalibration("8M", "flat", cut, None, *knots, 0.01, 0.02),
        TierCalibration("35M", "sq8", None, cut, *knots, 0.01, 0.02),
    )
    values = {
        "chain_hash": "c" * 64,
        "space": "whitened",
        "space_sha256": "5" * 64,
        "level": "superfamily",
        "fdr": 0.1,
        "fnr": 0.4,
        "answered": False,
        "confidence": 0.9,
        "seed": 0,
        "labels": "scope.tsv",
        "groups": 30,
        "groups_held_out": 29,
        "rows": 1000,
        "rows_labelled": 900,
        "tiers": tiers,
    }
    return Calibration(**{**values, **changes})


def test_thresholds_belong_to_a_tier_and_a_rate():
    calibration = made()
    assert calibration.threshold("8M", 0.1) == calibration.threshold("8M", fdr=0.1) == 0.5
    assert calibration.threshold("35M", fnr=0.4) == 0.5
    for arguments, options, message in (
        (("8M", 0.2), {}, r"calibrated to fdr 0\.1, not to 0\.2.*calibrate INDEX.*--fdr 0\.2"),
        (("8M", 0.05), {}, r"not to 0\.05"),
        (("8M",), {"fnr": 0.3}, r"calibrated to fnr 0\.4, not to 0\.3.*--fnr 0\.3"),
        (("8M",), {"fnr": 0.4}, r"8M: no score could be certified for fnr 0\.4.*certified: 35M"),
        (("35M", 0.1), {}, r"35M: no score could be certified.*scope\.tsv.*certified: 8M"),
        (("650M", 0.1), {}, r"650M is not calibrated, only 8M, 35M.*--tier 650M"),
    ):
        with pytest.raises(CalibrationError, match=message):
            calibration.threshold(*arguments, **options)
    with pytest.raises(CalibrationError, match=r"calibrated to fnr none, not to 0\.4"):
        made(fnr=None).threshold("35M", fnr=0.4)
    for options in ({}, {"fdr": 0.1, "fnr": 0.4}):
        with pytest.raises(InputError, match="and not both"):
            calibration.threshold("8M", **options)


def test_probabilities_lie_between_their_knots():
    calibration = made()
    scores = np.array([[-1.0, 0.0, 0.25], [0.5, 0.75, 2.0]], dtype=np.float32)
    expected = [[0.001, 0.001, 0.2005], [0.4, 0.65, 0.9]]
    found = calibration.probability("8M", scores)
    assert found == pytest.approx(np.array(expected))
    assert found.dtype == np.float64
    assert (calibration.covers("8M"), calibration.covers("650M")) == (True, False)
    with pytest.raises(CalibrationError, match="650M is not calibrated"):
        calibration.probability("650M", scores)


def test_notes_say_when_the_rows_have_changed(mini_index):
    manifest = Manifest.read(mini_index)
    for rows, doubtful in ((1.0, False), (1.08, False), (0.93, False), (1.3, True), (0.7, True)):
        note = made(rows=round(rows * manifest.rows), rows_labelled=50).notes(manifest)
        assert (note is not None) == doubtful
    assert f"the index has {manifest.rows:,}" in note


@pytest.mark.parametrize(
    "changes",
    [
        {"level": "class"},
        {"fdr": 0.0},
        {"fnr": 1.0},
        {"confidence": 2.0},
        {"seed": -1},
        {"groups": 0},
        {"rows": 800},
        {"tiers": ()},
        {"labels": "a\nb"},
        {"chain_hash": ""},
    ],
)
def test_calibrations_that_make_no_sense_are_refused(changes):
    with pytest.raises(InputError):
        made(**changes)


def test_plain_values_bring_it_back():
    for calibration in (made(), made(fnr=None, answered=True)):
        table = json.loads(json.dumps(calibration.as_dict()))
        assert Calibration.from_dict(table) == calibration


def places(value, path=()):
    """Every place in nested plain values."""
    yield path
    inside = {dict: lambda: value.items(), list: lambda: enumerate(value)}.get(type(value), tuple)
    for key, one in inside():
        yield from places(one, (*path, key))


WRONG = (
    *(None, True, "x", "", "a\n", -1, 2, 10**400, math.nan, math.inf, -0.5, 1e9),
    *([], {}, [1.0], [[]], [math.nan] * 3, [0.5] * 3, [0.5] * 100_000, ["a"] * 3),
)


def test_no_value_from_outside_breaks_the_reader():
    table = json.loads(json.dumps(made().as_dict()))
    refused = 0
    for path in list(places(table))[1:]:
        for wrong in (*WRONG, "drop", "extra"):
            changed = copy.deepcopy(table)
            inside = changed
            for key in path[:-1]:
                inside = inside[key]
            if wrong == "drop":
                del inside[path[-1]]
            elif wrong == "extra" and isinstance(inside, dict):
                inside["extra"] = 1
            else:
                inside[path[-1]] = wrong
            try:
                read = Calibration.from_dict(changed)
            except InputError:
                refused += 1
            else:
                # What is let in makes sense: it can be asked.
                likely = read.probability("8M", np.array([-1, 0.3, 2])) if read.covers("8M") else 0
                assert np.all((likely >= 0) & (np.asarray(likely) < 1))
    assert refused > 500
