"""An index after any changes equals one that was built at once, and a model in plain Python.

`tests.trial` makes the changes and compares; `tests.living` has the model.
"""

from __future__ import annotations

import contextlib
import itertools
import os

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests import living
from tests.living import NAMES, SEQUENCES
from tests.trial import QUERIES, Trial

S = SEQUENCES


@pytest.fixture(autouse=True)
def no_sync(monkeypatch):
    """Nothing here is about a crash, and a busy disk takes most of the time."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)
    monkeypatch.setattr("rdsearch.durable._sync_data", lambda handle: None, raising=False)


def test_equal_scores_are_ties_and_nothing_else_is():
    """What the comparisons with an oracle of other precision, and of shortlists, stand on."""
    texts = [*SEQUENCES, *(query.sequence for query in QUERIES)]
    for ties in (False, True):
        seen = {text.rstrip(living.UNSEEN) if ties else text for text in texts}
        vectors = living.vectors(sorted(seen)) - living.CHAIN.mean("c")
        for dims in living.CHAIN.boundaries:
            unit = vectors[:, :dims] / np.linalg.norm(vectors[:, :dims], axis=1, keepdims=True)
            scores = np.sort(unit @ unit.T, axis=1)
            assert np.diff(scores, axis=1).min() > 1.5e-5


@pytest.mark.slow
def test_one_change_after_another():
    first = {"Q00": (S[0], 0), "Q01": (S[3], 1), "Q02": (S[0], 2), "Q03": (S[9], 2)}
    with contextlib.closing(Trial(first, ("note", 0))) as trial:
        # Sequences that are there, twice too, and a column that is not.
        new = {"Q04": (S[3], 0), "Q05": (S[0], 1), "Q06": (S[4], 0), "Q07": (S[4], 1)}
        trial.add(new, ("mass", 1))
        trial.add({"Q08": (S[12], 0), "Q04": (S[3], 2), "Q09": (S[0], 2)}, ("lineage", 1))
        trial.check()
        trial.remove(["Q00"])  # its row stays for Q02
        trial.remove(["Q02", "Q01"])  # the shown ones of doubles
        trial.check()
        trial.update({"Q05": (S[9], 0), "Q03": (S[5], 0), "Q08": (S[13], 1)}, ("gene", 0))
        trial.check()
        trial.update_metadata(NAMES[4:20], ("mass", 0))
        trial.check()
        trial.add({"Q09": (S[1], 0)})  # another sequence
        trial.rollback(3)
        trial.check()
        trial.gc(3)
        trial.compact()
        trial.check()
        trial.add({"Q20": (S[21], 0), "Q21": (S[12], 0), "Q22": (S[22], 2)})
        other = {"Q30": (S[21], 0), "Q31": (S[18], 0), "Q03": (S[9], 1), "Q32": (S[18], 1)}
        trial.merge(other, ("mass", 0), less=1)
        trial.check()
        trial.remove_where("mass > 101")
        trial.remove(["absent"])
        trial.check()


def test_equal_vectors_of_several_segments():
    first = {name: (text, 0) for name, text in zip(NAMES, S[:9:2], strict=False)}
    with contextlib.closing(Trial(first, ties=True)) as trial:
        trial.add({"Q10": (S[1], 0), "Q11": (S[4], 0), "Q12": (S[3], 0), "Q13": (S[9], 0)})
        trial.add({"Q20": (S[5], 0), "Q21": (S[10], 0), "Q22": (S[11], 0), "Q23": (S[1], 0)})
        trial.check()
        trial.remove(["Q00", "Q10", "Q12"])
        trial.check()
        trial.compact()
        trial.check()


SOME = st.dictionaries(
    st.sampled_from(NAMES),
    st.tuples(st.sampled_from(SEQUENCES), st.integers(0, 2)),
    min_size=1,
    max_size=6,
)
TABLES = st.tuples(st.sampled_from(sorted(living.COLUMNS)), st.integers(0, 2))
PLACES = st.sets(st.integers(0, 30), min_size=1, max_size=5)


class Living(RuleBasedStateMachine):
    """Draws changes."""

    trial: Trial | None = None

    @initialize(drawn=SOME, described=st.none() | TABLES, ties=st.booleans())
    def build(self, drawn, described, ties):
        self.trial = Trial(drawn, described, ties=ties)

    def there(self, places) -> list[str]:
        """Accessions that the index has."""
        names = [protein.name for protein in self.trial.model]
        return sorted({names[place % len(names)] for place in places})

    @rule(drawn=SOME, described=st.none() | TABLES)
    def add(self, drawn, described):
        self.trial.add(self.trial.fitting(drawn) or drawn, described)

    @rule(drawn=SOME)
    def add_all(self, drawn):
        self.trial.add(drawn)

    @rule(places=PLACES, absent=st.booleans())
    def remove(self, places, absent):
        self.trial.remove([*self.there(places), *["absent"] * absent])

    @rule(expression=st.sampled_from(sorted(living.FILTERS)))
    def remove_where(self, expression):
        self.trial.remove_where(expression)

    @rule(places=PLACES, drawn=SOME, described=st.none() | TABLES)
    def update(self, places, drawn, described):
        facts = itertools.cycle(drawn.values())
        self.trial.update(dict(zip(self.there(places), facts)), described)  # noqa: B905

    @rule(names=st.sets(st.sampled_from(NAMES), min_size=3), described=TABLES)
    def update_metadata(self, names, described):
        self.trial.update_metadata(names, described)

    @rule()
    def compact(self):
        self.trial.compact()

    @rule(drawn=SOME, described=st.none() | TABLES, less=st.booleans())
    def merge(self, drawn, described, less):
        if fitting := self.trial.fitting(drawn):
            self.trial.merge(fitting, described, less=int(less and len(fitting) > 1))

    @precondition(lambda self: len(self.trial.known) > 1)
    @rule(back=st.integers(0, 30))
    def rollback(self, back):
        earlier = sorted(self.trial.known)[:-1]
        self.trial.rollback(earlier[-1 - back % len(earlier)])

    @rule(keep=st.integers(1, 4))
    def gc(self, keep):
        self.trial.gc(keep)

    @invariant()
    def equal(self):
        self.trial.check()

    def teardown(self):
        if self.trial is not None:
            self.trial.close()


def walk(examples: int, steps: int, **options) -> None:
    """Some random sequences of changes."""
    options = {"deadline": None, "suppress_health_check": list(HealthCheck), **options}
    run_state_machine_as_test(
        Living, settings=settings(max_examples=examples, stateful_step_count=steps, **options)
    )


def test_few_changes_equal_one_build():
    walk(2, 6, derandomize=True, phases=[Phase.generate])


@pytest.mark.slow
def test_many_changes_equal_one_build():
    walk(5, 15)
