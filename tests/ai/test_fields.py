"""Fields: read from whatever an SDK returns; no code of the host runs, and no mock becomes a number."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pydantic
import pytest

from ldinstrument.ai.fields import count, field, integer, is_known, items, package_of, path, text


class Answer(pydantic.BaseModel):
    """A model of a package that is not known."""

    model_config = pydantic.ConfigDict(extra="allow")
    model: str = "small"


class Slotted:
    """Its values are in slots, its limit in the class."""

    __slots__ = ("model",)
    limit = 5

    def __init__(self) -> None:
        self.model = "small"

    @property
    def usage(self) -> int:
        raise AssertionError("the host's code ran")

    def tokens(self) -> int:
        raise AssertionError("the host's code ran")


@dataclass
class Plain:
    """A value of the instance hides one of the class."""

    model: str = "small"


class Reason(str, enum.Enum):
    """As OpenAI's SDK names reasons."""

    STOP = "stop"


@pytest.mark.parametrize(
    "holder",
    [{"model": "small"}, SimpleNamespace(model="small"), Answer(), Slotted(), Plain()],
    ids=lambda holder: type(holder).__name__,
)
def test_a_field_is_found_in_any_holder(holder: Any) -> None:
    """Mappings, plain objects, pydantic models, slots and dataclasses; a missing one is None."""
    assert field(holder, "model") == "small"
    assert field(holder, "missing") is None


def test_what_pydantic_kept_without_declaring_it_is_a_field() -> None:
    """A provider's new field is there before the SDK knows it."""
    assert field(Answer(cost=5), "cost") == 5


def test_no_code_of_the_host_runs() -> None:
    """A property or a method of an unknown type is not read; a constant of its class is."""
    assert field(Slotted(), "usage") is None
    assert field(Slotted(), "tokens") is None
    assert field(Slotted(), "limit") == 5

    class Dynamic(dict[str, Any]):
        def __getattr__(self, name: str) -> Any:
            raise AssertionError("the host's code ran")

        def get(self, *_: Any) -> Any:
            raise AssertionError("the host's code ran")

    assert field(Dynamic(model="small"), "model") == "small"
    assert field(Dynamic(), "model") is None


def test_a_property_of_a_known_package_is_read_and_may_refuse() -> None:
    """An SDK's stream raises before its end: that is a field without a value."""

    class Known:
        text = property(lambda self: "Tents")
        usage = property(lambda self: 1 // 0)

    Known.__module__ = "openai.types"
    assert is_known(Known)
    assert (field(Known(), "text"), field(Known(), "usage")) == ("Tents", None)


def test_a_package_is_the_first_part_of_the_module() -> None:
    """Google's is known by two parts; a module that is no text is nobody's."""
    for module, package, known in (
        ("google.genai.types", "google", True),
        ("google.cloud", "google", False),
        ("openai_clone", "openai_clone", False),
    ):
        kind = type("Kind", (), {"__module__": module})
        assert (package_of(kind), is_known(kind)) == (package, known)
    assert package_of(type("Kind", (), {"__module__": None})) == ""


@pytest.mark.parametrize("value", [True, -1, 2.0, "2", None, mock.MagicMock()])
def test_only_a_whole_number_of_zero_or_more_is_one(value: Any) -> None:
    """The next name is asked instead; 0 counts."""
    assert integer({"input": value, "prompt": 0}, "input", "prompt") == 0
    assert integer({"input": value}, "input") is None
    assert integer(None, "input") is None


@pytest.mark.parametrize("value", ["", 5, None, mock.MagicMock(), b"x"])
def test_only_a_text_with_something_in_it_is_one(value: Any) -> None:
    """The next name is asked instead; an enum member counts as its value."""
    assert text({"model": value, "name": "m"}, "model", "name") == "m"
    assert text({"model": value}, "model") is None
    assert text(None, "model") is None
    assert text({"reason": Reason.STOP}, "reason") == "stop"


def test_a_chain_of_fields_ends_at_the_first_that_is_missing() -> None:
    """A list at its end is found; anything else there is an empty one."""
    answer = SimpleNamespace(response={"choices": [1, 2], "usage": {"input": 3}})
    assert path(answer, "response", "usage", "input") == 3
    assert path(answer, "missing", "usage") is None
    assert list(items(answer, "response", "choices")) == [1, 2]
    assert list(items(answer, "response", "usage")) == list(items(None, "choices")) == []
    assert list(items(mock.MagicMock(), "choices")) == []


def test_entries_are_counted_by_type() -> None:
    """Dictionaries and objects alike; entries without a type are none."""
    entries = [{"type": "tool_use"}, SimpleNamespace(type="text"), {"type": "call"}, "text", None]
    assert count(entries, "tool_use", "call") == 2
    assert count([], "tool_use") == 0
