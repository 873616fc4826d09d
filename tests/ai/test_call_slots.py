"""Slots: the call of a model that running code is in, made when somebody asks for it."""

from __future__ import annotations

from typing import Any

import pytest

import ldinstrument as ld
from ldinstrument.ai import current_call
from ldinstrument.ai.call_slots import Slot, call_in, current_slot, innermost_slot, leave, live
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


def test_the_innermost_slot_is_the_one_that_was_entered_last() -> None:
    """Without a tracked function on the stack it is that of the context."""
    entered = slot("entered")
    token = current_slot.set(entered)
    try:
        assert (lambda: innermost_slot())() is entered
        leave(entered)
        assert (lambda: innermost_slot())() is None
    finally:
        current_slot.reset(token)


def test_a_function_on_the_stack_is_further_inside(ld_events: RecordingClient) -> None:
    """It enters nothing: it is found by its frame, until something inside it is entered."""
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
