"""Any nesting of sessions, identities and evaluations: values go to who recorded them, and folds
cross no exposure.
"""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ldclient import Context

import ldinstrument as ld
from ldinstrument import testing
from ldinstrument.sessions import evaluations
from ldinstrument.sessions.exposures import MOST_LEFT, ExposureTable, exposures
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


class Program:
    """Plays the steps, and notes what must be true of what comes out: the n-th value is the n-th
    power of two.

    After each step every session that is open records something, so that there is always something
    to be torn apart.
    """

    def __init__(self) -> None:
        self.scopes: list[Any] = []
        self.entered: list[Session] = []
        self.recorded: list[tuple[Session, str | None]] = []
        self.seen: set[tuple[str, str]] = set()
        self.boundaries: list[tuple[Session, str, int]] = []

    def open(self, name: str, who: str | None) -> None:
        if len(self.scopes) < DEEPEST:
            scope = ld.session(who, name=name)
            self.entered.append(scope.__enter__())
            self.scopes.append(scope)

    def close(self) -> None:
        if self.scopes:
            self.scopes.pop().__exit__(None, None, None)
            self.entered.pop()

    def record(self) -> None:
        for session in dict.fromkeys(self.entered):
            session.record("r.sum", 2 ** len(self.recorded))
            self.recorded.append((session, session.context.key if session.context else None))

    def evaluate(self, flag: str, who: str, exposed: bool) -> None:
        if not exposed:
            return
        evaluations.exposed(flag, 1, Context.create(who), int(time.time() * 1000))
        if (flag, who) not in self.seen:
            self.seen.add((flag, who))
            self.boundaries += [(session, who, len(self.recorded)) for session in self.entered]

    def identify(self, depth: int, who: str) -> None:
        if depth < len(self.entered):
            self.entered[depth].identify(who)

    def check(self, events: testing.RecordingClient) -> None:
        arrived = 0
        for event in events.of("r.sum"):
            parts = [n for n in range(len(self.recorded)) if int(event.value or 0) >> n & 1]
            assert arrived & int(event.value or 0) == 0, "a value arrived twice"
            arrived |= int(event.value or 0)
            (session,) = {self.recorded[n][0] for n in parts}
            assert {self.recorded[n][1] for n in parts} <= {None, event.context.key}
            crossed = [
                at
                for known, who, at in self.boundaries
                if known is session and who == event.context.key and parts[0] < at <= parts[-1]
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
    program = Program()
    with testing.recording() as events:
        for step, *arguments in steps:
            getattr(program, step)(*arguments)
            program.record()
        while program.scopes:
            program.close()
        program.check(events)
    read = ld.stats().values
    assert read.open == 0
    assert read.recorded == read.emitted + sum(read.discarded.values())


# -- the table ----------------------------------------------------------------------------------


def test_an_exposure_is_noted_once_per_version_and_unit() -> None:
    """A context of several kinds is several units; a new version may be a new iteration."""
    table = ExposureTable()
    both = Context.create_multi(Context.create("u-1"), Context.create("r-1", "request"))
    for version, context in ((1, both), (1, both), (1, Context.create("u-1")), (2, both)):
        table.note("flag", version, context, 1000 + version)

    assert [found.name for found in table.of(["u-1"])] == ["flag 1 u-1", "flag 2 u-1"]
    assert [found.name for found in table.of(["request:r-1"])] == [
        "flag 1 request:r-1",
        "flag 2 request:r-1",
    ]
    assert table.of(["somebody"]) == []


def test_an_exposure_is_never_dated_before_an_earlier_one() -> None:
    """The wall clock was set back in between: repeated or new, it stays after the first."""
    table = ExposureTable()
    assert table.note("flag", 1, Context.create("u-1"), 5_000) == 5_000
    assert table.note("flag", 1, Context.create("u-1"), 1_000) == 5_000
    assert table.note("other", 1, Context.create("u-1"), 1_000) >= 5_000
    assert table.note("flag", 1, Context.create("u-2"), 1_000) == 1_000


def test_no_exposure_is_dated_before_what_has_left_of_its_units() -> None:
    """Nobody else's exposure is moved, unless the table has forgotten whose it was."""
    table = ExposureTable()
    table.note_left(["u-1", "request:r-1"], 9_000)
    table.note_left(["u-1"], 8_000)
    both = Context.create_multi(Context.create("u-1"), Context.create("d-1", "device"))

    assert table.note("flag", 1, both, 1_000) == 9_001
    assert table.note("flag", 1, Context.create("u-2"), 1_000) == 1_000
    assert table.note("flag", 1, Context.create("u-3"), 20_000) == 20_000
    for n in range(3 * MOST_LEFT):
        table.note_left([f"other-{n}"], 5_000)
    assert table.note("flag", 1, Context.create("u-4"), 1_000) == 9_001


def test_exposures_close_together_keep_their_order_when_the_clock_is_set_back() -> None:
    """What is recorded between the two is dated after the first, and so before the second."""
    table, now = ExposureTable(), int(time.time() * 1000)
    table.note("flag", 1, Context.create("u-1"), now)
    time.sleep(0.02)

    assert table.note("other", 1, Context.create("u-1"), now - 3_600_000) >= now + 20


def test_an_exposure_after_a_lost_one_is_dated_after_what_came_between() -> None:
    """The lost one counts for nothing, but dates were given by it."""
    table, now = ExposureTable(), int(time.time() * 1000)
    table.note("flag", 1, Context.create("u-1"), now)
    table.lost("flag", 1, Context.create("u-1"))
    assert table.of(["u-1"]) == []
    time.sleep(0.02)

    assert table.note("flag", 1, Context.create("u-1"), now - 3_600_000) >= now + 20
    assert [found.lost for found in table.of(["u-1"], lost=True)] == [True, False]


def test_the_table_is_bounded_and_says_what_it_may_have_forgotten() -> None:
    """Units that were exposed lately stay."""
    table = ExposureTable(most=10)
    for n in range(100):
        table.note("flag", 1, Context.create(f"u-{n}"), n)

    assert table.of(["u-99"])
    assert table.of(["u-0"]) == []
    assert 0 < table.forgotten < table.of(["u-99"])[0].read


def test_what_may_have_been_forgotten_travels_value_by_value(
    ld_events: testing.RecordingClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A session that did not fold for as long as the table remembers takes no chance."""
    monkeypatch.setattr(exposures, "_most", 5)
    with ld.session("u-1") as s:
        s.conversion(1)
        s.conversion(2)
        for n in range(20):
            evaluations.exposed("flag", 1, Context.create(f"other-{n}"), int(time.time() * 1000))
        s.conversion(4)
        s.conversion(8)

    assert sorted(value or 0 for value in ld_events.values("business.conversion")) == [1, 2, 12]
