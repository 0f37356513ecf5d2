"""End writers of an index at every durable step and at random moments.

Whatever the moment: the index opens, everything in it is sound, its content is exactly that before
the change or that after it, and the next writer succeeds and clears away.
"""

from __future__ import annotations

import os
import random
import shutil

import pytest

from tests.killing import AFTER, BEFORE, CHANGES, SPARE, Server, without

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


class Workshop:
    """An index in a known state, of which every trial gets a copy."""

    def __init__(self, folder, server):
        self.folder, self.server = folder, server
        self.kills = 0
        self._settled = {}
        server("prepare", folder)

    def trial(self):
        shutil.rmtree(self.folder / "now", ignore_errors=True)
        return shutil.copytree(self.folder / "trial", self.folder / "now")

    def settled(self, change):
        if change not in self._settled:
            self._settled[change] = self.server("settle", change, self.trial(), self.folder)
        return self._settled[change]

    def kill(self, change, **when):
        """Kill a change; the state it left."""
        trial = self.trial()
        killed = self.server("run", change, trial, self.folder, **when)
        self.kills += killed
        expected = self.settled(change)
        found = self.server("aftermath", change, trial, self.folder)
        assert found["state"] in ({expected["old"], expected["new"]} if killed else
                                  {expected["new"]}), (change, when)  # fmt: skip
        if found["state"] == expected["new"] or change == "merge":
            assert found["next"] == expected["next"], (change, when)
        else:
            assert found["next"] == self.before_next, (change, when)
        assert found["leftovers"] == [], (change, when)
        # After a random time it may be killed before it can write its name.
        assert not found["unsaid"] or "after" in when, (change, when)
        return found["state"]

    @property
    def before_next(self):
        """The state where only the next writer did something: `compact` changes nothing else."""
        return self.settled("compact")["next"]


@pytest.fixture(scope="module")
def workshop(tmp_path_factory):
    with Server() as server:
        yield Workshop(tmp_path_factory.mktemp("kills"), server)


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_that_nothing_disturbs(workshop, change):
    settled = workshop.settled(change)
    assert settled["proteins"] == AFTER[change]
    same = AFTER[change] == BEFORE
    assert (settled["old"] == settled["new"]) == same
    assert settled["steps"][-1].startswith("sync")
    assert len(settled["steps"]) > 10
    assert (settled["next"] == workshop.before_next) == same
    assert SPARE in AFTER[change]
    assert without(BEFORE, SPARE) != BEFORE


@pytest.mark.parametrize("change", CHANGES)
def test_killed_at_some_steps(workshop, change):
    """One in the middle, those around the publication, and the last."""
    settled = workshop.settled(change)
    steps = settled["steps"]
    published = [at for at, step in enumerate(steps) if step.startswith("replace")]
    # Called before the step and after it. What `gc` does replaces nothing.
    after = published[-1] if published else len(steps) - 2
    chosen = (len(steps) // 3, after - 1, after, len(steps) - 1)
    assert [workshop.kill(change, at=at) for at in chosen] == [
        *(settled["old"], settled["old"]),
        *(settled["new"], settled["new"]),
    ]


@pytest.mark.slow
def test_killed_at_every_step_and_at_random_moments(workshop):
    workshop.kills = 0
    for change in CHANGES:
        settled = workshop.settled(change)
        states = [workshop.kill(change, at=at) for at in range(len(settled["steps"]))]
        # First the old one, and from one moment on the new one.
        assert states == sorted(states, key=[settled["old"], settled["new"]].index), change
        assert {states[0], states[-1]} == {settled["old"], settled["new"]}
    steps = workshop.kills
    assert steps == sum(len(workshop.settled(change)["steps"]) for change in CHANGES)
    rng = random.Random(0)
    latest = dict.fromkeys(CHANGES, 0.05)
    while workshop.kills < max(200, steps + 70):
        for change in CHANGES:
            before = workshop.kills
            workshop.kill(change, after=rng.uniform(0, latest[change]))
            # Later, as long as the moments come before the end; earlier, where they come after.
            latest[change] *= 1.1 if workshop.kills > before else 0.8
    assert workshop.kills >= 200
