"""Accounts: whose a session's totals are, and what they say."""

from __future__ import annotations

import pytest

from ldinstrument.errors import DefinitionError
from ldinstrument.sessions.accounts import (
    Accounts,
    Piece,
    checked_metrics,
)
from ldinstrument.sessions.emission import session_totals
from ldinstrument.sessions.outcomes import Tallies
from ldinstrument.sessions.parts import Segment

ALL = ("duration", "success_rate", "interactions", "successes", "unfinished")


def segment(tallies: Tallies, last: int, *, exposed: bool = False) -> Segment:
    return Segment({}, last, last, tallies, (), 0.0, float(last), exposed)


def told(
    metrics: tuple[str, ...], tallies: Tallies, pieces: list[Piece], reason: str
) -> list[object]:
    events = session_totals(
        "chat", metrics, tallies, 250.0, pieces, 900, id="s-1", data={}, reason=reason
    )
    return [(event.event_key.removeprefix("chat."), event.value, event.at) for event in events]


def test_another_key_of_a_kind_ends_that_kinds_account_only() -> None:
    """The organisation goes on with its past; the user's is a new one."""
    accounts = Accounts({"user": "A", "org": "acme"}, 0.0)
    accounts.add(segment((9, 0, 0, 0), 5))
    (ended,) = accounts.identify({"user": "B", "org": "acme"}, 7.0)
    accounts.add(segment((0, 1, 0, 0), 8))

    assert (ended.keys, ended.tallies) == ({"user": "A"}, (9, 0, 0, 0))
    assert [(account.keys, account.began, account.tallies) for account in accounts.open] == [
        ({"org": "acme"}, 0.0, (9, 1, 0, 0)),
        ({"user": "B"}, 7.0, (0, 1, 0, 0)),
    ]


def test_who_becomes_known_takes_along_what_came_before() -> None:
    """Nobody's account is theirs from the start."""
    accounts = Accounts({}, 0.0)
    accounts.add(segment((2, 0, 0, 0), 5))
    assert accounts.identify({"user": "A"}, 7.0) == []

    assert [(account.keys, account.began) for account in accounts.open] == [({"user": "A"}, 0.0)]


def test_a_kind_that_is_known_before_anything_happens_shares_the_account() -> None:
    """Afterwards it has one of its own, from then on."""
    accounts = Accounts({"user": "A"}, 0.0)
    accounts.identify({"user": "A", "org": "acme"}, 1.0)
    accounts.add(segment((1, 0, 0, 0), 5))
    accounts.identify({"user": "A", "org": "acme", "request": "r"}, 6.0)

    assert [(account.keys, account.began) for account in accounts.open] == [
        ({"user": "A", "org": "acme"}, 0.0),
        ({"request": "r"}, 6.0),
    ]


def test_interactions_before_an_exposure_are_a_piece_of_their_own() -> None:
    """Also when nothing lies between two exposures."""
    accounts = Accounts({"user": "A"}, 0.0)
    accounts.add(segment((2, 1, 0, 0), 5, exposed=True))
    accounts.add(segment((0, 0, 0, 0), 6, exposed=True))
    accounts.add(segment((1, 0, 0, 0), 8))

    (account,) = accounts.open
    assert account.pieces == [Piece(3, 2, 5)]
    assert told(ALL, account.tallies, account.pieces, "ended") == [
        ("duration", 250.0, 900),
        ("success_rate", 75.0, 900),
        ("interactions", 3, 5),
        ("interactions", 1, 900),
        ("successes", 2, 5),
        ("successes", 1, 900),
        ("unfinished", 0, 900),
    ]


def test_interactions_before_another_identity_keep_their_date_at_an_exposure() -> None:
    """Which may have the date of the exposure that widened the identity just before."""
    accounts = Accounts({"user": "A"}, 0.0)
    accounts.add(segment((2, 0, 0, 0), 5))
    accounts.identify({"user": "A", "device": "d"}, 7.0)
    accounts.add(segment((0, 0, 0, 0), 9, exposed=True))

    assert [account.pieces for account in accounts.open] == [[Piece(2, 2, 5)], []]


def test_an_abandoned_session_has_neither_duration_nor_rate() -> None:
    """They would be cut short; counts and `unfinished` tell."""
    assert told(ALL, (1, 0, 0, 2), [], "abandoned") == [
        ("interactions", 1, 900),
        ("successes", 1, 900),
        ("unfinished", 1, 900),
    ]


def test_only_what_is_asked_for_is_told() -> None:
    """An unknown suffix is refused where it is written."""
    assert told(("unfinished",), (1, 0, 0, 0), [], "ended") == [("unfinished", 0, 900)]
    with pytest.raises(DefinitionError, match="not one of duration"):
        checked_metrics(["durations"])
    with pytest.raises(DefinitionError, match="give suffixes"):
        checked_metrics(5)  # type: ignore[arg-type]
