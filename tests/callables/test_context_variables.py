"""Context variables: ours pickle by name, and nobody else's are changed by that."""

from __future__ import annotations

import contextvars
import copy
import importlib
import pickle
import sys
import types

import pytest

from ldinstrument.callables import context_variables
from ldinstrument.callables.context_variables import pickle_by_name
from ldinstrument.sessions.current import current_variable


def test_only_our_context_variable_pickles() -> None:
    """Another one fails as it does without us, for pickle and for copy."""
    other: contextvars.ContextVar[int] = contextvars.ContextVar("other")
    importlib.import_module("ldinstrument.tasks.wrapper")
    assert pickle.loads(pickle.dumps(current_variable)) is current_variable
    for attempt in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="cannot pickle"):
            attempt(other)


mine: contextvars.ContextVar[int] = contextvars.ContextVar("mine")


def test_a_variable_of_ours_is_the_very_one_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """By module and name, for pickle and for copy; in a context it keeps its value."""
    monkeypatch.setitem(sys.modules, "the_module", types.SimpleNamespace(mine=mine))
    pickle_by_name(mine, "the_module", "mine")
    for again in (pickle.loads(pickle.dumps(mine)), copy.copy(mine), copy.deepcopy(mine)):
        assert again is mine


def test_whoever_pickled_context_variables_before_us_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Another library's way is asked for the others."""
    other: contextvars.ContextVar[int] = contextvars.ContextVar("other")
    monkeypatch.setattr(context_variables, "_reduced_before", lambda variable: (str, ("theirs",)))
    assert pickle.loads(pickle.dumps(other)) == "theirs"
    assert pickle.loads(pickle.dumps(current_variable)) is current_variable
