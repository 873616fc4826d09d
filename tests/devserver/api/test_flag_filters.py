"""Which flags a list over REST asks for."""

from __future__ import annotations

from typing import Any

import pytest

from ldinstrument.devserver.api.flag_filters import filter_fields, filters
from ldinstrument.devserver.flags.environment import REST
from ldinstrument.devserver.responses import RefusedRequest


def flag(key: str, **rest: Any) -> dict[str, Any]:
    return {"key": key, REST: rest}


FLAGS = [
    flag("dark-mode", name="Dark mode", tags=["beta", "web"]),
    flag("new-cart", name="Cart in the DARK", tags=["beta"]),
    flag("retired", archived=True),
    {"key": "plain"},
]


def passing(**asked: str) -> list[str]:
    """The keys of the flags that pass what is asked for."""
    tests = filters(asked)
    return [flag["key"] for flag in FLAGS if all(test(flag) for test in tests)]


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({}, ["dark-mode", "new-cart", "plain"]),
        ({"filter": ""}, ["dark-mode", "new-cart", "plain"]),
        ({"filter": "query:dark"}, ["dark-mode", "new-cart"]),
        ({"filter": "query:dark,tags:beta+web"}, ["dark-mode"]),
        ({"filter": " tags : beta , query : CART "}, ["new-cart"]),
        ({"filter": "key:plain"}, ["plain"]),
        ({"filter": "state:archived"}, ["retired"]),
        ({"filter": "archived:true"}, ["retired"]),
        ({"filter": "archived:false"}, ["dark-mode", "new-cart", "plain"]),
        ({"archived": "true"}, ["retired"]),
        ({"tag": "web"}, ["dark-mode"]),
        ({"filter": "filterEnv:production"}, ["dark-mode", "new-cart", "plain"]),
    ],
)
def test_a_list_holds_what_it_is_asked_for(asked: dict[str, str], expected: list[str]) -> None:
    """Without another word the archived ones are not in it."""
    assert passing(**asked) == expected


@pytest.mark.parametrize("text", ["maintainer:ana", "query:x,nonsense", "x"])
def test_a_field_that_does_not_exist_is_refused(text: str) -> None:
    """By its name."""
    with pytest.raises(RefusedRequest, match=r"filter: there is no (maintainer|nonsense|x)"):
        filters({"filter": text})


def test_fields_are_read_from_one_text() -> None:
    """A value may hold a colon; empty parts are none."""
    asked = {"filter": "query:a:b,,tags:"}
    assert filter_fields(asked) == {"query": "a:b", "tags": ""}
    assert filter_fields({}) == {}
