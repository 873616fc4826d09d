"""The messages of the second data system: what a client is told for the state that it has."""

from __future__ import annotations

import pytest

from ldinstrument.devserver.flags.data_system import FlagPayload, delete_object, put_object

PAYLOAD = FlagPayload("abc", 7)
OBJECTS = [put_object("flag", "f", 3, {"key": "f"}), delete_object("segment", "s", 4)]


def intent(messages) -> tuple[str, str]:
    name, data = messages[0]
    (payload,) = data["payloads"]
    assert (name, payload["id"], payload["target"]) == ("server-intent", "abc", 7)
    return payload["intentCode"], payload["reason"]


def test_a_client_that_is_up_to_date_is_told_so():
    """One message, and nothing is transferred."""
    messages = list(PAYLOAD.nothing())
    assert intent(messages) == ("none", "up-to-date")
    assert len(messages) == 1


@pytest.mark.parametrize(
    ("transfer", "expected"),
    [
        (PAYLOAD.everything, ("xfer-full", "payload-missing")),
        (PAYLOAD.changes, ("xfer-changes", "stale")),
    ],
)
def test_a_transfer_is_announced_and_ended(transfer, expected):
    """Its end names the state that the client then has, also of one without objects."""
    messages = list(transfer(OBJECTS))
    assert intent(messages) == expected
    assert messages[1:-1] == OBJECTS
    assert messages[-1] == ("payload-transferred", {"state": "(p:abc:7)", "version": 7})
    assert len(list(transfer([]))) == 2


def test_objects_are_put_and_deleted_by_kind_and_key():
    """With the version that each then has."""
    assert OBJECTS == [
        ("put-object", {"version": 3, "kind": "flag", "key": "f", "object": {"key": "f"}}),
        ("delete-object", {"version": 4, "kind": "segment", "key": "s"}),
    ]
