"""Slots: the call of a model that running code is in, made when somebody asks for it."""

from __future__ import annotations

from typing import Any

import pytest

import ldinstrument as ld
from ldinstrument.ai import current_call
from ldinstrument.ai.call_slots import Slot, call_in, current_slot, leave, live, surround
from ldinstrument.testing import RecordingClient


def slot(name: str, outer: Slot | None = None) -> Slot:
    """A slot whose call is its name, made when it is asked for."""
    return [None, lambda session, started: f"{name} {session} {started}", "session", 1.5, outer]


def test_a_call_is_made_once_when_it_is_asked_for() -> None:
    """Of what its slot holds for that."""
    made = slot("call")
    assert made[0] is None
    assert call_in(made) == "call session 1.5"
    made[1] = lambda *given: pytest.fail("it was made again")
    assert call_in(made) == "call session 1.5"


def test_a_call_that_is_over_is_in_nobodys_way() -> None:
    """The nearest one around it that goes on counts; where none does there is none."""
    outer = slot("outer")
    inner = slot("inner", slot("middle", outer))
    assert live(inner) is inner
    leave(inner)
    assert live(inner) is inner[4]
    leave(inner[4])
    assert live(inner) is outer
    leave(outer)
    assert live(inner) is live(None) is None


def test_the_current_call_is_that_of_the_context() -> None:
    """The innermost one that was entered there and is not over."""
    entered = slot("entered")
    token = current_slot.set(entered)
    try:
        found: Any = current_call()
        assert found == "entered session 1.5"
        leave(entered)
        assert current_call() is None
    finally:
        current_slot.reset(token)


def test_a_function_is_the_current_call(ld_events: RecordingClient) -> None:
    """While it runs; the one around it afterwards."""
    seen: list[Any] = []

    def key() -> str | None:
        call = current_call()
        return None if call is None else call.key

    @ld.track_ai("function")
    def function() -> str:
        seen.append(key())
        with ld.track_ai("block"):
            seen.append(key())
        seen.append(key())
        return "x"

    with ld.session("u-1"), ld.track_ai("around"):
        seen.append(key())
        function()
        seen.append(key())
    assert seen == ["around", "function", "block", "function", "around"]
    assert key() is None


def test_a_slot_is_never_inside_itself() -> None:
    """A task that a generator has started may ask that very generator for more."""
    outer, inner, other = slot("outer"), slot("inner"), slot("other")
    surround(inner, outer)
    surround(outer, inner)
    surround(outer, outer)
    assert (inner[4], outer[4]) == (outer, None)
    surround(inner, other)
    assert inner[4] is other
    for over in (inner, outer, other):
        leave(over)
        assert live(over) is None or live(over) is not over
