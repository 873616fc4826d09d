"""Parts: what a stay in a stored session has to say, and the exposures that may divide it."""

from __future__ import annotations

from ldclient import Context
from session_values import expose, multi

from ldinstrument.sessions.exposures import exposures
from ldinstrument.sessions.parts import Segment, units_in
from ldinstrument.sessions.scopes import open_session
from ldinstrument.testing import RecordingClient

ANA, BEN = {"user": "ana"}, {"user": "ben"}
EMPTY = Segment({}, 1, 2, (1, 2, 3, 4), (), 0.0, None, False)


def test_exposures_of_the_present_and_of_earlier_identities_are_told() -> None:
    """By name, with their dates; those of other people and other kinds are not."""
    session = open_session("ana", client=RecordingClient(), store=object())
    session.interaction()
    for flag, context in (
        ("now", Context.create("ben")),
        ("before", Context.create("ana")),
        ("nobodys", Context.create("eve")),
        ("org", Context.create("acme", "org")),
    ):
        expose(flag, context)
    session.identify("ben")
    part = session.hand_over()
    assert part is not None
    assert part.exposures == {
        exposure.name: exposure.date for unit in ("ana", "ben") for exposure in exposures.of([unit])
    }
    assert len(part.exposures) == 2


def test_units_of_a_stay_are_those_of_all_its_identities() -> None:
    """A segment of nobody names none."""
    segments = [EMPTY.replace(keys=ANA), EMPTY.replace(keys=BEN), EMPTY]
    assert units_in(segments, ["ben", "org:acme"]) == {"ana", "ben", "org:acme"}
    assert units_in([], ["ben"]) == {"ben"}


def test_a_part_tells_what_a_stay_was() -> None:
    """Its dates, its exposures, and a segment on either side of an exposure, once."""
    session = open_session(multi(user="ana", org="acme"), client=RecordingClient(), id="s-1")
    session.interaction()
    session.revenue(5)
    expose("flag", Context.create("ana"))
    session.revenue(7)
    part = session.hand_over()
    assert part is not None
    assert session.ended
    assert session.hand_over() is None
    assert (part.id, part.given_id, part.name) == ("s-1", "s-1", "session")
    assert part.started <= part.last <= part.over
    assert [segment.exposed for segment in part.segments] == [True, False]
    assert [group.total for _, group in part.segments[-1].groups] == [7]
    assert [segment.tallies for segment in part.segments] == [(1, 0, 0, 0), (0, 0, 0, 0)]
    assert len(part.exposures) == 1
