"""Errors: the tree in the docstring is the one in the code, and each says what to do."""

from __future__ import annotations

import inspect
import pickle
import re

import pytest

from ldinstrument import errors
from ldinstrument.errors import ApiError, LDInstrumentError, RateLimited, missing_extra

CLASSES = {
    name: kind for name, kind in vars(errors).items() if isinstance(kind, type)
}  # all of them are errors
LINES = re.findall(r"^((?:│   |    )*)[├└]── (\w+)(?: \((\w+)\))?", errors.__doc__ or "", re.M)


def test_the_tree_that_is_drawn_is_the_one_that_is_there() -> None:
    """Every class, below its own base, with the built-in one that it also is."""
    above = {0: "LDInstrumentError"}
    for indent, name, also in LINES:
        depth = len(indent) // 4
        above[depth + 1] = name
        bases = [base.__name__ for base in CLASSES[name].__bases__]
        assert bases == [above[depth], *([also] if also.endswith("Error") else [])], name
    assert {name for _, name, _ in LINES} == set(CLASSES) - {"LDInstrumentError"}


@pytest.mark.parametrize("kind", CLASSES.values(), ids=CLASSES)
def test_one_except_catches_them_all(kind: type[Exception]) -> None:
    """And each has a sentence of its own."""
    assert issubclass(kind, LDInstrumentError)
    assert "__doc__" in vars(kind)
    assert inspect.cleandoc(kind.__doc__ or "")[-1] in ".)"


def test_an_answer_of_the_api_says_all_that_is_known_of_it() -> None:
    """Message first; what is not known is left out, and no answer is said so."""
    error = ApiError(
        "key is taken",
        status=409,
        code="optimistic_locking_error",
        request="POST /api/v2/metrics/default",
        support_id="a-1",
    )
    assert str(error) == (
        "key is taken (409, optimistic_locking_error, POST /api/v2/metrics/default, id a-1)"
    )
    assert str(ApiError("connection refused")) == "connection refused (no answer)"
    assert (error.message, error.status, error.support_id) == ("key is taken", 409, "a-1")


def test_too_many_calls_say_how_long_to_wait() -> None:
    """Nothing, until LaunchDarkly has said it."""
    assert RateLimited("slow down", status=429).retry_after == 0.0


def test_a_missing_library_is_one_line_with_the_command() -> None:
    """An ImportError, as whoever looks for one expects."""
    error = missing_extra("redis", "redis-py")
    assert isinstance(error, ImportError)
    assert str(error) == "redis-py is not installed; type: pip install 'ldinstrument[redis]'"


@pytest.mark.parametrize("kind", [errors.DefinitionError, errors.StrictError, ApiError])
def test_an_error_survives_the_way_between_processes(kind: type[Exception]) -> None:
    """As a pool of processes sends it back."""
    assert str(pickle.loads(pickle.dumps(kind("because")))) == str(kind("because"))
