"""What one event says: its units, its value and its date, in every shape that SDKs have sent."""

from __future__ import annotations

import pytest

from ldinstrument.devserver.events.parsing import (
    BIGGEST,
    LARGEST,
    date_of,
    measured,
    number,
    only_unit,
    parsed,
    text_of,
    units_of,
    whole_of,
)


@pytest.mark.parametrize(
    ("event", "units"),
    [
        ({"context": {"kind": "user", "key": "u"}}, {"user": "u"}),
        ({"context": {"key": "u"}}, {"user": "u"}),
        (
            {"context": {"kind": "multi", "user": {"key": "u"}, "org": {"key": "o"}, "x": 3}},
            {"user": "u", "org": "o"},
        ),
        ({"context": {"kind": "multi", "user": {"key": ""}}}, {}),
        ({"context": {"kind": 7, "key": "u"}}, {}),
        ({"contextKeys": {"user": "u", "org": 3}}, {"user": "u"}),
        ({"user": {"key": "old"}}, {"user": "old"}),
        ({"userKey": "older"}, {"user": "older"}),
        ({"context": {"kind": "user", "key": "a\ud800"}}, {"user": "a?"}),
        ({}, {}),
    ],
)
def test_the_units_of_every_shape_of_context(event, units):
    """Of one kind, of several, of an old user, and of what is none."""
    assert units_of(parsed(event)) == units


@pytest.mark.parametrize("kind", ["user", "org"])
def test_a_plain_context_is_read_at_once_and_no_other(kind):
    """Several kinds, no kind and what needs an escape are read the longer way."""
    assert only_unit(parsed({"context": {"kind": kind, "key": "k"}})) == (kind, "k")
    for context in ({"kind": "multi", "user": {"key": "k"}}, {"key": "k"}, {"kind": kind}, None):
        assert only_unit(parsed({"context": context})) is None
    assert only_unit(parsed({"context": {"kind": kind, "key": "ü"}})) is None


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (3, 3.0),
        (0, 0.0),
        (-2.5, -2.5),
        (True, None),
        ("7", None),
        (None, None),
        (10**400, None),
        (float("inf"), None),
        (1e200, LARGEST),
        (-1e200, -LARGEST),
    ],
)
def test_a_value_is_a_finite_number_that_can_be_squared(value, found):
    """Booleans, text and infinity are none; a larger one is cut."""
    assert measured(parsed({"metricValue": value})) == found
    assert number(value) is None or found is not None


@pytest.mark.parametrize(
    ("event", "date"),
    [
        ({"creationDate": 5}, 5),
        ({"creationDate": 5.9}, 5),
        ({"creationDate": "yesterday"}, 99),
        ({"creationDate": True}, 99),
        ({"creationDate": 2**70}, 99),
        ({"startDate": 7}, 7),
        ({}, 99),
    ],
)
def test_an_event_without_a_date_is_dated_when_it_came(event, date):
    """So is one with an impossible date."""
    assert date_of(parsed(event), 99) == date
    assert abs(date_of(parsed(event), 99)) < BIGGEST


def test_text_that_no_database_can_hold_and_what_is_no_text():
    """Half a surrogate pair becomes a question mark."""
    assert text_of("plain ü") == "plain ü"
    assert text_of("half \udfff") == "half ?"
    assert text_of(["x"]) == ""
    assert whole_of("x", 4) == 4
    assert parsed("no object") == "no object"
