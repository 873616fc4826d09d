"""Context kinds, and which of them experiments may randomize by."""

from __future__ import annotations

import pytest

from ldinstrument.devserver.api.context_kinds import ContextKinds
from ldinstrument.devserver.responses import RefusedRequest

from ..recorded_events import Server


@pytest.fixture(name="kinds")
def _kinds():
    server = Server()
    yield ContextKinds(server.database, ("user", "request"))
    server.database.close()


def test_a_kind_is_made_and_renamed_with_a_version(kinds):
    """The two kinds that are always there come first."""
    kinds.put_kind("p", "session", {"name": "Session"})
    kinds.put_kind("p", "session", {"name": "Visit", "archived": True})
    found = {kind["key"]: kind for kind in kinds.kinds("p")}
    assert list(found) == ["user", "request", "session"]
    made = found["session"]
    assert (made["name"], made["version"], made["archived"]) == ("Visit", 2, True)
    assert [kind["key"] for kind in kinds.kinds("other")] == ["user", "request"]


@pytest.mark.parametrize("key", ["multi", "kind", "a b", "", "x" * 65])
def test_a_key_that_no_context_can_have_is_refused(kinds, key):
    """As the SDKs refuse such a kind."""
    with pytest.raises(RefusedRequest):
        kinds.put_kind("p", key, {"name": "X"})


def test_the_default_unit_comes_first_and_the_list_is_replaced_whole(kinds):
    """The first is what a metric without units is analysed by."""
    assert kinds.available("p") == ["user", "request"]
    units = [{"randomizationUnit": "user"}, {"randomizationUnit": "request", "default": True}]
    kinds.put_units("p", {"randomizationUnits": units})
    assert kinds.available("p") == ["request", "user"]
    kinds.put_units("p", {"randomizationUnits": units[1:]})
    assert kinds.available("p") == ["request"]


@pytest.mark.parametrize(
    "units",
    [
        [],
        None,
        [7],
        [{"randomizationUnit": "nobody", "default": True}],
        [{"randomizationUnit": "user"}],
        [
            {"randomizationUnit": "user", "default": True},
            {"randomizationUnit": "request", "default": True},
        ],
    ],
)
def test_units_without_one_default_or_of_unknown_kinds_are_refused(kinds, units):
    """With 400, as every wrong body."""
    with pytest.raises(RefusedRequest) as refused:
        kinds.put_units("p", {"randomizationUnits": units})
    assert refused.value.status == 400
