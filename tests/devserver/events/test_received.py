"""An event as it was sent, with what the server knows beside it."""

from __future__ import annotations

import dataclasses
import json

import pytest

from ldinstrument.devserver.events.received import Post, ReceivedEvent


def test_an_event_is_the_very_document_that_was_sent():
    """What the server knows is no part of it."""
    sent = {"kind": "custom", "key": "area.key", "id": "theirs", "received": "theirs"}
    event = ReceivedEvent(sent, 7, "p-1", 99)
    assert event == sent
    assert json.loads(json.dumps(event)) == sent
    assert (event.id, event.payload_id, event.received) == (7, "p-1", 99)
    assert event is not sent
    with pytest.raises(AttributeError):
        event.else_where = 1


def test_a_post_is_a_value():
    """Without more it has no agent, no fault and no error."""
    post = Post("/bulk", "p-1", 202, 10, 1, False, 99)
    assert post == Post("/bulk", "p-1", 202, 10, 1, False, 99, "", "", "", "")
    with pytest.raises(dataclasses.FrozenInstanceError):
        post.status = 500
