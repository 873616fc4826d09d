"""Recording what arrives: each payload once, counts by key, and bodies up to a size."""

from __future__ import annotations

import json

import pytest

from ldinstrument.devserver.database import Database
from ldinstrument.devserver.events.bodies import parse_array
from ldinstrument.devserver.events.event_log import EventLog
from ldinstrument.devserver.events.post_rows import rows_of_post
from ldinstrument.devserver.events.received import Post
from ldinstrument.devserver.server import SCHEMA

from ..recorded_events import Server, event, exposure


@pytest.fixture(name="server")
def _server():
    server = Server()
    yield server
    server.database.close()


def record(event_log: EventLog, payload_id: str, *events: dict, received: int = 99) -> bool:
    body = json.dumps(events).encode()
    batch = rows_of_post(body, parse_array(body), received, event_log.filters())
    return event_log.record(Post("/bulk", payload_id, 202, 0, len(events), False, received), batch)


def test_a_payload_counts_once(server):
    """However often it arrives, and whatever else is in it then; one without an id each time."""
    assert not record(server.event_log, "p", event("a"))
    assert record(server.event_log, "p", event("a"), event("b"))
    assert not record(server.event_log, "", event("c"))
    assert not record(server.event_log, "", event("c"))
    assert server.event_log.reader.count() == 3
    assert len(server.event_log.reader.posts()) == 4


def test_a_post_without_events_is_a_post(server):
    """A refused one, or an empty list: its payload id is free for the next try."""
    server.event_log.record(Post("/bulk", "p", 400, 5, 0, False, 99, error="no array"))
    assert not record(server.event_log, "p", event("a"))
    assert [post.status for post in server.event_log.reader.posts()] == [400, 202]
    record(server.event_log, "q")
    assert server.event_log.reader.last_event() == 1


def test_totals_by_key_grow_with_each_post(server):
    """Events, those with a number, their sum, the last receipt, and the kinds of their contexts."""
    record(server.event_log, "p", event("a", 2.0), event("a", "no number"), received=50)
    record(server.event_log, "q", event("b", 3.0), exposure("b", 1, at=4), received=40)
    rows = server.database.rows
    assert rows("SELECT * FROM event_keys") == [("latency", 3, 2, 5.0, 50)]
    assert rows("SELECT kinds, events FROM key_kinds WHERE key = 'latency'") == [("user", 3)]
    assert rows("SELECT * FROM evaluations") == [("f", 4)]
    assert [
        (flag, n, json.loads(value)) for flag, n, value in rows("SELECT * FROM variations")
    ] == [("f", 1, "v1")]


def test_the_oldest_bodies_go_and_the_numbers_stay():
    """A quarter at once; the newest is always kept."""
    database = Database(schema=SCHEMA)
    one = len(json.dumps([event("u-00")]).encode())
    event_log = EventLog(database, max_body_bytes=8 * one)
    for number in range(9):
        record(event_log, f"p{number}", event(f"u-{number:02}"))
    kept = [found["context"]["key"] for found in event_log.reader.events()]
    assert kept == [f"u-{number:02}" for number in range(3, 9)]
    assert event_log.reader.count("custom") == 9
    record(event_log, "large", *[event(f"v-{number:02}") for number in range(20)])
    assert len(event_log.reader.events()) == 20
    assert event_log.reader.last_event() == 29
    database.close()


def test_a_database_that_was_filled_before_knows_its_size(tmp_path):
    """Bodies of an earlier process count."""
    path = str(tmp_path / "ld.db")
    one = len(json.dumps([event("u-0")]).encode())
    for process in range(2):
        database = Database(path, SCHEMA)
        event_log = EventLog(database, max_body_bytes=4 * one)
        for number in range(3):
            record(event_log, f"{process}-{number}", event(f"u-{number}"))
        size = sum(len(body) for _, body, *_ in event_log.reader.bodies(0, None, None))
        assert size <= 4 * one
        database.close()


def test_forgetting_leaves_nothing(server):
    """Events get the ids of a fresh start, and a payload id is free again."""
    record(server.event_log, "p", event("a"), exposure("a"))
    server.event_log.forget()
    assert (server.event_log.reader.count(), server.event_log.reader.posts()) == (0, [])
    assert not record(server.event_log, "p", event("b"))
    assert [found.id for found in server.event_log.reader.events()] == [1]
