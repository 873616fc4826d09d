"""Any nesting of sessions, identities and evaluations: values go to who recorded them, and folds
cross no exposure.
"""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from ldclient import Context

import ldinstrument as ld
from ldinstrument import testing
from ldinstrument.sessions import exposure
from ldinstrument.sessions.session import Session

WHO = st.sampled_from(["ana", "ben"])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("open"), st.sampled_from(["request", "chat"]), st.none() | WHO),
        st.tuples(st.just("close")),
        st.tuples(st.just("evaluate"), st.sampled_from(["f", "g"]), WHO, st.booleans()),
        st.tuples(st.just("identify"), st.integers(0, 3), WHO),
    ),
    min_size=4,
    max_size=14,
)
DEEPEST = 4


class Detail:
    """What an evaluation answers."""

    def __init__(self, *, exposed: bool) -> None:
        self.reason = {"kind": "FALLTHROUGH", "inExperiment": exposed}


class Visit:
    """Plays the steps, and notes what must be true of what comes out: the n-th value is the n-th
    power of two.

    After each step every session that is open records something, so that there is always something
    to be torn apart.
    """

    def __init__(self) -> None:
        self.scopes: list[Any] = []
        self.stays: list[Session] = []
        self.recorded: list[tuple[Session, str | None]] = []
        self.seen: set[tuple[int, str, str]] = set()
        self.borders: list[tuple[Session, int]] = []

    def open(self, name: str, who: str | None) -> None:
        if len(self.scopes) < DEEPEST:
            scope = ld.session(who, name=name)
            self.stays.append(scope.__enter__())
            self.scopes.append(scope)

    def close(self) -> None:
        if self.scopes:
            self.scopes.pop().__exit__(None, None, None)
            self.stays.pop()

    def record(self) -> None:
        for session in dict.fromkeys(self.stays):
            session.record("r.sum", 2 ** len(self.recorded))
            self.recorded.append((session, session.context.key if session.context else None))

    def evaluate(self, flag: str, who: str, exposed: bool) -> None:
        for one in self.stays:
            if (one.context is None or one.context.key == who) and (
                id(one),
                flag,
                who,
            ) not in self.seen:
                self.seen.add((id(one), flag, who))
                self.borders.append((one, len(self.recorded)))
        exposure.before(flag, Context.create(who))
        exposure.after(Context.create(who), Detail(exposed=exposed))

    def identify(self, depth: int, who: str) -> None:
        if depth < len(self.stays):
            self.stays[depth].identify(who)

    def check(self, events: testing.RecordingClient) -> None:
        arrived = 0
        for event in events.of("r.sum"):
            parts = [n for n in range(len(self.recorded)) if int(event.value or 0) >> n & 1]
            assert arrived & int(event.value or 0) == 0, "a value arrived twice"
            arrived |= int(event.value or 0)
            (session,) = {self.recorded[n][0] for n in parts}
            assert {self.recorded[n][1] for n in parts} <= {None, event.context.key}
            crossed = [
                at for one, at in self.borders if one is session and parts[0] < at <= parts[-1]
            ]
            assert not crossed, "a fold crosses an exposure"
        for n, (session, who) in enumerate(self.recorded):
            if not arrived >> n & 1:
                assert who is None
                assert session.context is None


@settings(max_examples=300)
@given(STEPS)
def test_values_go_to_their_people_and_folds_cross_no_exposure(
    steps: list[tuple[Any, ...]],
) -> None:
    """Joined, nested, adopted and identified sessions in any order; every value once."""
    testing.reset()
    ld.catalog.add(
        ld.Metric("r.sum", unit="items", success_criteria="HigherThanBaseline", aggregation="sum")
    )
    visit = Visit()
    with testing.recording() as events:
        for step, *arguments in steps:
            getattr(visit, step)(*arguments)
            visit.record()
        while visit.scopes:
            visit.close()
        visit.check(events)
    read = ld.stats().values
    assert read.open == 0
    assert read.recorded == read.emitted + sum(read.discarded.values())
