"""What has arrived, to be read: in order, by kind and key, from either end, and how many."""

from __future__ import annotations

import pytest

from ..recorded_events import Server, event, exposure


@pytest.fixture(name="server")
def _server():
    server = Server()
    yield server
    server.database.close()


def letters(found) -> str:
    """The context keys of events, in order."""
    return "".join(event["context"]["key"] for event in found)


def test_events_are_listed_in_the_order_of_their_arrival(server):
    """With ids that grow by one over all POSTs, each with its POST's payload id."""
    server.post(event("a"), exposure("b"))
    server.post(event("c", key="other"))
    found = server.event_log.reader.events()
    assert letters(found) == "abc"
    assert [(event.id, event.payload_id, event.received) for event in found] == [
        (1, "p1", 99),
        (2, "p1", 99),
        (3, "p2", 99),
    ]
    assert server.event_log.reader.last_event() == 3


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({}, "abcde"),
        ({"since": 2}, "cde"),
        ({"since": 9}, ""),
        ({"limit": 2}, "ab"),
        ({"limit": 0}, ""),
        ({"since": 1, "limit": 2}, "bc"),
        ({"key": "latency"}, "abe"),
        ({"key": "latency", "since": 1, "limit": 1}, "b"),
        ({"key": "f"}, "c"),
        ({"kind": "feature"}, "c"),
        ({"kind": "custom", "key": "other"}, "d"),
        ({"kind": "feature", "key": "latency"}, ""),
        ({"key": "nobodys"}, ""),
    ],
)
def test_events_are_asked_for_by_place_kind_and_key(server, asked, expected):
    """Also in the middle of a POST; the texts are those of the same events."""
    server.post(event("a"), event("b"), exposure("c"))
    server.post(event("d", key="other"), event("e"))
    found = server.event_log.reader.events(**asked)
    assert letters(found) == expected
    texts = server.event_log.reader.event_texts(**asked)
    assert [id for id, *_ in texts] == [event.id for event in found]
    assert all(
        f'"{event["context"]["key"]}"' in text
        for event, (_, text, *_) in zip(found, texts, strict=True)
    )


@pytest.mark.parametrize("size", [1, 2])
def test_more_posts_than_are_read_at_once_lose_none(server, size):
    """Bodies are read some at a time, whether they hold one event or several."""
    for number in range(40):
        server.post(*(event(f"u{number}") for _ in range(size)))
    found = server.event_log.reader.events(since=3)
    assert [event.id for event in found] == list(range(4, 40 * size + 1))


@pytest.mark.parametrize(
    ("limit", "key", "expected"),
    [
        (2, None, [4, 5]),
        (9, None, [1, 2, 3, 4, 5]),
        (2, "latency", [2, 5]),
        (0, None, []),
        (3, "no", []),
    ],
)
def test_the_newest_are_found_from_the_end(server, limit, key, expected):
    """Oldest of them first."""
    server.post(event("a"), event("b"), exposure("c"))
    server.post(event("d", key="other"), event("e"))
    assert [id for id, *_ in server.event_log.reader.newest(limit, key)] == expected


def test_events_are_counted_by_kind_and_key(server):
    """Of a key that nobody sent there are none."""
    server.post(event("a"), event("b", key="other"), exposure("c"))
    counts = server.event_log.reader.count
    assert (counts(), counts("custom"), counts("custom", "other"), counts(key="f")) == (3, 2, 1, 1)
    assert (counts("index"), counts(key="nobodys")) == (0, 0)


def test_dates_of_the_last_event_and_evaluation_are_known(server):
    """By the time of receipt and that of the evaluation; None where there was none."""
    reader = server.event_log.reader
    assert (reader.last_event(), reader.last_seen("latency")) == (0, None)
    assert reader.last_evaluated("f") is None
    server.post(event("a"), exposure("b", at=7), exposure("b", at=5))
    assert (reader.last_seen("latency"), reader.last_evaluated("f")) == (99, 7)


def test_every_post_is_listed(server):
    """A repetition, too, which brings no events."""
    server.post(event("a"))
    server.posts = 0
    server.post(event("a"))
    first, again = server.event_log.reader.posts()
    assert (first.payload_id, first.duplicate, again.duplicate) == ("p1", False, True)
    assert letters(server.event_log.reader.events()) == "a"
