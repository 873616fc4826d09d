"""Argument checks: what passes comes back, what does not is refused in one wording. Classes of
values: equal, printed, copied and frozen by their fields.
"""

from __future__ import annotations

import copy
import dataclasses
import math
import pickle
import sys
from typing import Any

import pytest

from ldinstrument import values
from ldinstrument.errors import DefinitionError


@pytest.mark.parametrize("value", [0.001, 1, 3.5, math.inf])
def test_a_number_above_zero_comes_back(value: float) -> None:
    """Unchanged, infinity included: a bound may be lifted."""
    assert values.above_zero("x: timeout=", value) is value
    assert values.from_zero("x: timeout=", value) is value


@pytest.mark.parametrize("value", [0, -1, -0.5, math.nan, True, "1", None, [1]])
def test_what_is_no_number_above_zero_is_refused(value: Any) -> None:
    """Booleans and NaN, too."""
    with pytest.raises(DefinitionError, match=r"x: timeout= is a number of seconds above 0, not"):
        values.above_zero("x: timeout=", value)


@pytest.mark.parametrize("value", [-1, math.nan, False, "0", None])
def test_what_is_no_number_from_zero_is_refused(value: Any) -> None:
    """Zero itself is allowed."""
    assert values.from_zero("x: wait=", 0, "bytes") == 0
    with pytest.raises(DefinitionError, match=r"x: wait= is a number of bytes from 0 up, not"):
        values.from_zero("x: wait=", value, "bytes")


@pytest.mark.parametrize("value", [0, -3, 1.0, True, "2", None])
def test_what_is_no_whole_number_is_refused(value: Any) -> None:
    """Also 1.0."""
    assert values.whole_above_zero("x: limit=", 2) == 2
    with pytest.raises(DefinitionError, match="x: limit= is a whole number above 0"):
        values.whole_above_zero("x: limit=", value)


def test_seconds_are_read_from_text() -> None:
    """As they stand in a URL."""
    assert values.seconds_from_text("?timeout=", "0.25") == 0.25
    for text in ("", "soon", "0", "-1", "nan"):
        with pytest.raises(DefinitionError, match=r"\?timeout= is a number of seconds above 0"):
            values.seconds_from_text("?timeout=", text)


def test_what_cannot_be_called_is_refused() -> None:
    """None stands for nothing to call."""
    assert values.callable_or_none("x: on_receipt=", None) is None
    assert values.callable_or_none("x: on_receipt=", print) is print
    with pytest.raises(DefinitionError, match="x: on_receipt= is something to call, or None"):
        values.callable_or_none("x: on_receipt=", 3)


def test_a_choice_names_what_there_is() -> None:
    """And what was given."""
    assert values.one_of("x: mode=", "a", ("a", "b")) == "a"
    with pytest.raises(DefinitionError, match="x: mode= is 'a' or 'b', not 'c'"):
        values.one_of("x: mode=", "c", ("a", "b"))


def test_a_refusal_shows_no_text_of_the_users() -> None:
    """A text in the place of a number could be a secret."""
    with pytest.raises(DefinitionError) as refused:
        values.above_zero("x: timeout=", "sdk-12345678")
    assert "sdk-12345678" not in str(refused.value)


class Point(values.Fields):
    """A mutable value."""

    __slots__ = ("x", "y")

    def __init__(self, x: int, y: int = 0) -> None:
        self.x = x
        self.y = y


class Place(values.Frozen):
    """A frozen one."""

    __slots__ = ("name", "at")

    def __init__(self, name: str, at: tuple[int, ...] = ()) -> None:
        self._fill(name, at)


def test_fields_are_printed_and_compared() -> None:
    """As those of a dataclass are: by class and by value; what changes is no key of a dictionary."""
    assert repr(Point(1, 2)) == "Point(x=1, y=2)"
    assert Point(1) == Point(1, 0)
    assert Point(1) != Point(2)
    assert Place("a") != Point(1)
    with pytest.raises(TypeError, match="unhashable"):
        hash(Point(1))


def test_a_copy_takes_changes_by_field() -> None:
    """The rest stays, the original too; an unknown field is refused."""
    place = Place("a", (1,))

    assert place.replace(name="b") == Place("b", (1,))
    assert place == Place("a", (1,))
    if sys.version_info >= (3, 13):
        assert copy.replace(place, name="b") == Place("b", (1,))
    with pytest.raises(TypeError, match="colour"):
        place.replace(colour="red")


def test_a_frozen_value_never_changes() -> None:
    """Neither by assignment nor by deletion; equal ones are one key."""
    place = Place("a")
    with pytest.raises(dataclasses.FrozenInstanceError, match="cannot assign to field 'name'"):
        place.name = "b"
    with pytest.raises(dataclasses.FrozenInstanceError, match="cannot delete field 'name'"):
        del place.name

    assert {place: 1}[Place("a")] == 1


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_values_are_copied_and_pickled(protocol: int) -> None:
    """Without calling `__init__`, whose checks and warnings were for the first."""
    for value in (Place("a", (1, 2)), Point(3)):
        assert pickle.loads(pickle.dumps(value, protocol)) == value
        assert copy.deepcopy(value) == value
