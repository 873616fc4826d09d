"""Sessions as events tell them: which tasks are in which, and what is missing."""

from __future__ import annotations

import json

from ldinstrument.devserver.page.timelines import SHOWN, timelines

START = 1_000_000


def custom(key: str, at: int, value: float | None = None, unit: str = "u", **data: object) -> str:
    context = {"kind": "user", "key": unit}
    found = {"kind": "custom", "key": key, "creationDate": START + at, "context": context}
    return json.dumps({**found, "metricValue": value, "data": data or None})


def test_tasks_of_the_same_context_in_its_time_are_in_a_session():
    """Others' and earlier ones are not."""
    events = [
        custom("task.duration", 50, 10.0),
        custom("task.duration", 50, 10.0, unit="somebody else"),
        custom("too.early", -1_000, 1.0),
        custom("session.duration", 100, 100.0, sessionId="s", endReason="ended", successes=1),
        custom("session.interactions", 100, 1.0, sessionId="s"),
        custom("too.late", 5_000, 1.0),
    ]
    (session,) = timelines(events)
    assert (session.id, session.name, session.who) == ("s", "session", "user:u")
    assert (session.milliseconds, session.reason, session.interactions) == (100.0, "ended", (1, 0))
    (mark,) = session.marks
    assert (mark.key, mark.start, mark.length) == ("task.duration", 0.4, 0.1)


def test_a_session_without_a_duration_is_shown_without():
    """Its other numbers are known."""
    (session,) = timelines([custom("session.interactions", 5, 0.0, sessionId="s")])
    assert (session.milliseconds, session.marks) == (None, ())


def test_the_newest_sessions_come_first_and_only_some():
    """A page has an end."""
    events = [custom("session.duration", i, 1.0, sessionId=f"s{i}") for i in range(SHOWN + 5)]
    found = timelines(events)
    assert [session.id for session in found[:2]] == [f"s{SHOWN + 4}", f"s{SHOWN + 3}"]
    assert len(found) == SHOWN


def test_strange_events_are_no_sessions():
    """And stop nothing."""
    strange = [
        '{"kind": "custom", "data": 7}',
        '{"kind": "custom", "data": {"sessionId": 3}}',
        '{"kind": "feature"}',
        '{"kind": "custom", "key": {"a": 1}, "data": {"sessionId": "s"}, "creationDate": "x"}',
    ]
    (session,) = timelines(strange)
    assert (session.id, session.over, session.who) == ("s", 0, "")
