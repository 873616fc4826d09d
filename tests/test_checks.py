"""Argument checks: what passes comes back, what does not is refused in one wording."""

from __future__ import annotations

import math
from typing import Any

import pytest

from ldinstrument import checks
from ldinstrument.errors import DefinitionError


@pytest.mark.parametrize("value", [0.001, 1, 3.5, math.inf])
def test_a_number_above_zero_comes_back(value: float) -> None:
    """Unchanged, infinity included: a bound may be lifted."""
    assert checks.above_zero("x: timeout=", value) is value
    assert checks.from_zero("x: timeout=", value) is value


@pytest.mark.parametrize("value", [0, -1, -0.5, math.nan, True, "1", None, [1]])
def test_what_is_no_number_above_zero_is_refused(value: Any) -> None:
    """Booleans and NaN, too."""
    with pytest.raises(DefinitionError, match=r"x: timeout= is a number of seconds above 0, not"):
        checks.above_zero("x: timeout=", value)


@pytest.mark.parametrize("value", [-1, math.nan, False, "0", None])
def test_what_is_no_number_from_zero_is_refused(value: Any) -> None:
    """Zero itself is allowed."""
    assert checks.from_zero("x: wait=", 0, "bytes") == 0
    with pytest.raises(DefinitionError, match=r"x: wait= is a number of bytes from 0 up, not"):
        checks.from_zero("x: wait=", value, "bytes")


@pytest.mark.parametrize("value", [0, -3, 1.0, True, "2", None])
def test_what_is_no_whole_number_is_refused(value: Any) -> None:
    """Also 1.0."""
    assert checks.whole_above_zero("x: limit=", 2) == 2
    with pytest.raises(DefinitionError, match="x: limit= is a whole number above 0"):
        checks.whole_above_zero("x: limit=", value)


def test_seconds_are_read_from_text() -> None:
    """As they stand in a URL."""
    assert checks.seconds_from_text("?timeout=", "0.25") == 0.25
    for text in ("", "soon", "0", "-1", "nan"):
        with pytest.raises(DefinitionError, match=r"\?timeout= is a number of seconds above 0"):
            checks.seconds_from_text("?timeout=", text)


def test_what_cannot_be_called_is_refused() -> None:
    """None stands for nothing to call."""
    assert checks.callable_or_none("x: on_receipt=", None) is None
    assert checks.callable_or_none("x: on_receipt=", print) is print
    with pytest.raises(DefinitionError, match="x: on_receipt= is something to call, or None"):
        checks.callable_or_none("x: on_receipt=", 3)


def test_a_choice_names_what_there_is() -> None:
    """And what was given."""
    assert checks.one_of("x: mode=", "a", ("a", "b")) == "a"
    with pytest.raises(DefinitionError, match="x: mode= is 'a' or 'b', not 'c'"):
        checks.one_of("x: mode=", "c", ("a", "b"))


def test_a_refusal_shows_no_text_of_the_users() -> None:
    """A text in the place of a number could be a secret."""
    with pytest.raises(DefinitionError) as refused:
        checks.above_zero("x: timeout=", "sdk-12345678")
    assert "sdk-12345678" not in str(refused.value)
