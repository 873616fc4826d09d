"""`deltas`: what a request adds to a stored session."""

from __future__ import annotations

from ldinstrument.sessions.scopes import open_session
from ldinstrument.stores.deltas import delta_of
from ldinstrument.stores.records import OLDEST_EXPOSURE, decoded, mark_of
from ldinstrument.testing import RecordingClient


def part_of_two_identities():
    """Ana spent 5 and 7, then Ben came; they were here for two seconds, and nothing followed."""
    session = open_session("ana", client=RecordingClient(), data={"plan": "pro"})
    session.revenue(5)
    session.revenue(7)
    part = session.hand_over()
    (ana,) = part.segments
    ben = ana.replace(
        keys={"user": "ben"},
        first=part.over - 900,
        last=part.over - 500,
        began=ana.began - 0.9,
        active=ana.began - 0.5,
        groups=(),
    )
    return part.replace(age=2000, idle=500, segments=(ana, ben))


def test_a_part_becomes_a_delta():
    """Ages by the worker's clock, whose it was and became, its values counted, the end named."""
    part = part_of_two_identities()
    delta = delta_of(part, ends="logout")
    assert (delta.id, delta.context, delta.becomes) == (part.id, {"user": "ana"}, {"user": "ben"})
    assert (delta.values, delta.ends, delta.data) == (2, "logout", '{"plan":"pro"}')
    assert (delta.started_ago, delta.last_ago, delta.now) == (2000, 500, part.over)
    read = list(decoded(f"[0,{delta.segments}]", delta.names))
    assert [segment.keys for segment in read if segment.values] == [(("user", "ana"),)]
    assert [group.total for segment in read for group in segment.values.values()] == [12]


def test_what_was_exposed_longer_ago_than_a_session_lasts_is_left_out():
    """It divides nothing that is in it."""
    part = open_session("ana", client=RecordingClient()).hand_over()
    dates = {"old": part.over - OLDEST_EXPOSURE, "new": part.over - OLDEST_EXPOSURE + 1}
    assert delta_of(part.replace(exposures=dates)).exposures == {mark_of("new"): dates["new"]}
