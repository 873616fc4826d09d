"""Contexts: whoever is meant becomes a valid one; two of them agree, or speak of others."""

from __future__ import annotations

from enum import Enum
from typing import Any

import pytest
from ldclient import Context
from session_values import multi, value

import ldinstrument as ld
from ldinstrument.sessions.contexts import (
    agree,
    as_context,
    context_of_keys,
    evaluated_context,
    is_function,
    json_of_keys,
    keys_of,
    kinds,
    knows_more,
    only_kinds,
    same,
    united,
    units_of,
)
from ldinstrument.sessions.registry import stats
from ldinstrument.testing import RecordingClient


@pytest.mark.parametrize(
    "who", ["", 7, object(), True, {"kind": "user"}, Context.create(""), {"key": 3}]
)
def test_an_invalid_context_costs_identity_only(
    ld_events: RecordingClient, caplog: pytest.LogCaptureFixture, who: Any
) -> None:
    """The block runs; the values are counted; the line says what a context is."""
    ld.catalog.add(value("in.value"))
    with ld.session(who) as s:
        s.record("in.value", 1)

    assert len(ld_events) == 0
    assert set(stats().values.discarded) == {"no_context"}
    assert "ldclient.Context" in caplog.text


def test_a_stand_in_is_taken_for_what_it_stands_for_now() -> None:
    """Flask's proxies and Django's lazy objects answer only within a request; an event may leave
    after it.
    """
    local = pytest.importorskip("werkzeug.local")
    functional = pytest.importorskip("django.utils.functional")
    now: list[Any] = ["u-1"]

    class Tier(str, Enum):
        FREE = "free"

    def current() -> Any:
        return now[0]

    client = RecordingClient()
    for proxy in (local.LocalProxy, functional.SimpleLazyObject):
        for who in ("u-1", Context.builder("u-2").kind("user").name("Ana").build()):
            now[:] = [who]
            with ld.session(proxy(current), client=client):
                now[:] = [None]
    with ld.session(Tier.FREE, client=client):
        pass

    contexts = [event.context for event in client.of("session.duration")]
    assert [type(context) for context in contexts] == [Context] * 5
    assert [(type(context.key), context.key, context.name) for context in contexts] == [
        (str, "u-1", None),
        (str, "u-2", "Ana"),
        (str, "u-1", None),
        (str, "u-2", "Ana"),
        (str, "free", None),
    ]


ANA = Context.builder("ana").name("Ana").build()
BARE = Context.create("ana")
ACME = Context.create("acme", "org")
BOTH = multi(user="ana", org="acme")


@pytest.mark.parametrize(
    ("who", "expected"),
    [
        ("ana", BARE),
        (ANA, ANA),
        ({"kind": "org", "key": "acme"}, ACME),
        ({"kind": "multi", "user": {"key": "ana"}, "org": {"key": "acme"}}, BOTH),
        (None, None),
    ],
)
def test_whoever_is_meant_becomes_a_context(who: Any, expected: Context | None) -> None:
    """A context, a key of kind `user`, or LaunchDarkly's JSON; nobody stays nobody."""
    assert as_context(who) == expected


def test_a_wrong_context_is_said_once_by_its_type(caplog: pytest.LogCaptureFixture) -> None:
    """With what to give, and the SDK's reason where it has one; never with what was given."""
    for _ in range(2):
        assert as_context({"kind": "spaces are wrong", "key": "ana-secret"}) is None
        assert as_context(7) is None
    assert len(caplog.messages) == 2
    assert "str(user_id)" in caplog.messages[1]
    assert "ana-secret" not in caplog.text


def test_a_context_by_its_kinds() -> None:
    """Its keys, its units, its parts, for one kind and for several."""
    assert keys_of(ANA) == {"user": "ana"}
    assert keys_of(BOTH) == {"user": "ana", "org": "acme"}
    assert set(units_of(BOTH)) == {"ana", "org:acme"}
    assert kinds(BOTH) == {"user": BARE, "org": ACME}
    assert only_kinds(BOTH, ["org"]) == ACME
    assert only_kinds(BOTH, ["org", "user", "device"]) is BOTH


@pytest.mark.parametrize("context", [BARE, ACME, BOTH])
def test_keys_make_a_context_again(context: Context) -> None:
    """In LaunchDarkly's JSON form, which its SDK reads; without keys there is none."""
    assert context_of_keys(keys_of(context)) == context
    assert Context.from_dict(json_of_keys(keys_of(context)) or {}) == context
    assert (json_of_keys({}), context_of_keys({})) == (None, None)


@pytest.mark.parametrize(
    ("one", "other", "agreeing", "sharing"),
    [
        (ANA, BARE, True, True),
        (BOTH, ACME, True, True),
        (ANA, ACME, True, False),
        (BOTH, multi(user="ben", org="acme"), False, False),
        (BARE, Context.create("ben"), False, False),
    ],
)
def test_two_contexts_agree_or_speak_of_others(
    one: Context, other: Context, agreeing: bool, sharing: bool
) -> None:
    """By the kinds that they share; sharing none, they agree and are not the same."""
    for pair in ((one, other), (other, one)):
        assert agree(*pair) is agreeing
        assert same(*pair) is sharing


def test_uniting_widens_and_forgets_no_attribute() -> None:
    """A bare part never replaces one that knows a name; another key does."""
    assert united(ANA, ACME) == Context.create_multi(ANA, ACME)
    assert united(ANA, BOTH) == Context.create_multi(ANA, ACME)
    assert united(BARE, ANA) == ANA
    assert united(ANA, Context.create("ben")) == Context.create("ben")


def test_what_is_more_than_a_key() -> None:
    """A name, an attribute, or that it is anonymous, in any of its kinds."""
    assert not knows_more(BOTH)
    for rich in (
        ANA,
        Context.builder("ana").set("plan", "pro").build(),
        Context.builder("ana").anonymous(True).build(),
        Context.create_multi(ACME, ANA),
    ):
        assert knows_more(rich)


def test_an_evaluation_for_nobody_valid_is_none() -> None:
    """Hooks also see what the SDK refuses, and whatever a host evaluates with."""
    assert evaluated_context(ANA) is ANA
    assert evaluated_context(Context.create("")) is None
    assert evaluated_context("ana") is None
    assert evaluated_context(None) is None


def test_a_function_is_called_and_a_context_is_not() -> None:
    """Also a framework's stand-in for a function; never one for a key."""
    local = pytest.importorskip("werkzeug.local")
    assert is_function(lambda: "ana")
    assert is_function(local.LocalProxy(lambda: len))
    for given in ("ana", ANA, {"key": "ana"}, None, local.LocalProxy(lambda: "ana")):
        assert not is_function(given)
