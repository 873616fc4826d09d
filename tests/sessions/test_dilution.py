"""How much of the sessions lies before the exposure: counted, and said once it is much."""

from __future__ import annotations

import time

import pytest
from laboratory import Laboratory

import ldinstrument as ld
from ldinstrument.diagnostics import diagnostics
from ldinstrument.ledger import ledger
from ldinstrument.sessions.dilution import ENOUGH, THIN, EndedSession, note_ended, note_unseen


def test_the_share_before_the_exposure_is_counted(
    lab: Laboratory, caplog: pytest.LogCaptureFixture
) -> None:
    """By the name of the session; said once when effects show much thinner."""
    before = whole = 0.0
    for number in range(22):
        with ld.session(f"u-{number}", client=lab.client, name="visit") as s:
            began = time.perf_counter()
            s.interaction()
            time.sleep(0.01)
            s.interaction()
            before += time.perf_counter() - began
            lab.expose(f"u-{number}")
            s.interaction()
            whole += time.perf_counter() - began
    for number in range(3):  # exposed before it began, and never
        with ld.session(f"u-{number}", client=lab.client) as s:
            s.interaction()
    with ld.session("u-nobody", client=lab.client) as s:
        s.interaction()

    sessions = ld.stats().sessions
    visits, others = sessions["visit"], sessions["session"]
    assert (visits.ended, visits.exposed, visits.diluted) == (22, 22, 22)
    assert visits.share_before == pytest.approx(before / whole, abs=0.05)
    assert (others.ended, others.exposed, others.diluted, others.share_before) == (4, 3, 0, 0.0)
    assert ("diluted", "visit") in ld.stats().warnings
    assert (
        len(
            [
                record
                for record in caplog.records
                if "evaluate the flag when" in record.msg % record.args
            ]
        )
        == 1
    )


def ended(
    name: str = "visit", *, before: float | None = 25.0, exposed: bool = True
) -> EndedSession:
    return EndedSession(name, exposed, 100.0, before)


def said() -> list[str]:
    """The kinds of warnings so far."""
    return [name for name, _ in diagnostics.counts()]


def test_a_few_sessions_may_be_chance() -> None:
    """It is said at the twentieth, once, when at least a quarter lies before."""
    for _ in range(ENOUGH - 1):
        note_ended(ended())
    assert said() == []
    note_ended(ended())
    note_ended(ended())
    assert said() == ["diluted"]
    sessions = ledger.sessions("visit")
    assert (sessions.ended, sessions.exposed, sessions.share_before) == (21, 21, THIN)


@pytest.mark.parametrize(
    "session", [ended(before=24.0), ended(before=None), ended(before=None, exposed=False)]
)
def test_little_before_the_exposure_is_not_said(session: EndedSession) -> None:
    """Nor sessions that began with it, or never saw one; they are counted."""
    for _ in range(2 * ENOUGH):
        note_ended(session)
    assert said() == []
    assert ledger.sessions("visit").ended == 2 * ENOUGH


def test_exposures_that_were_learned_of_too_late_are_counted_and_said_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """With what to do; none is nothing."""
    note_unseen("visit", 0)
    assert said() == []
    note_unseen("visit", 2)
    note_unseen("visit", 1)
    assert ledger.sessions("visit").unseen == 3
    assert len(caplog.messages) == 1
    assert "rollup='each'" in caplog.text
