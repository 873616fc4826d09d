"""A session's id in W3C baggage: bounded when it arrives, exact when it leaves."""

from __future__ import annotations

import pytest
from opentelemetry.baggage import get_all
from opentelemetry.baggage.propagation import W3CBaggagePropagator

import ldinstrument as ld
from ldinstrument.sessions.baggage import arrived_id, leaving_header
from ldinstrument.stores import open_store


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("session.id=visit-7", "visit-7"),
        ("tenant=a%20b , session.id = visit-7;ttl=3, x=y", "visit-7"),
        ("session.id=a%3Ab", "a:b"),
        ("session.id=first,session.id=last", "last"),
        ("xsession.id=a", None),
        ("session.id", None),
        ("", None),
        (None, None),
        (b"session.id=a", None),
        ("session.id=" + "a" * 129, None),
        ("session.id=a%0Ab", None),
        ("session.id=%3Cscript%3E", None),
        ("session.id=a," + "x=y," * 3000, None),
    ],
)
def test_what_arrives(header: object, expected: str | None) -> None:
    """The last `session.id`, if it looks like one; anything else is nothing."""
    assert arrived_id(header) == expected


def test_what_leaves_is_what_opentelemetry_reads() -> None:
    """Beside what the host has put there, and instead of an id from further away."""
    with ld.session("u-1", id="chat/9 ö") as session:
        header = leaving_header(session, "tenant=a,session.id=old")
        assert get_all(W3CBaggagePropagator().extract({"baggage": header})) == {
            "tenant": "a",
            "session.id": "chat/9 ö",
        }


def test_what_does_not_leave() -> None:
    """Nobody's, and a stored visit's, whose id the store gives when the request ends."""
    assert leaving_header(None, "a=b") is None
    with open_store("memory://") as store, ld.session("u-1", store=store) as session:
        assert leaving_header(session) is None


def test_an_id_that_was_given_stays() -> None:
    """What arrived replaces a random id only."""
    with ld.session("u-1") as session:
        session.adopt_id("far-1")
        assert session.id == "far-1"
    with ld.session("u-1", id="mine") as session:
        session.adopt_id("far-1")
        assert session.id == "mine"
