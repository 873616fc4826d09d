"""The newest values of event keys: few of each, of not too many keys, also after a restart."""

from __future__ import annotations

from ldinstrument.devserver.events import newest_values

from ..recorded_events import Server, event


def test_the_newest_of_each_key_are_kept_in_order_of_size(monkeypatch):
    """Over many POSTs."""
    monkeypatch.setattr(newest_values, "KEPT", 3)
    server = Server()
    newest = server.event_log.newest
    newest.add({"a": [9.0, 1.0], "b": [5.0]})
    newest.add({"a": [4.0, 2.0]})
    assert (newest.of("a"), newest.of("b"), newest.of("c")) == ([1.0, 2.0, 4.0], [5.0], [])
    newest.forget()
    assert newest.of("a") == []


def test_keys_beyond_the_most_have_none(monkeypatch):
    """Whoever makes an event key of each request does not fill the memory."""
    monkeypatch.setattr(newest_values, "MOST_KEYS", 2)
    server = Server()
    server.post(*[event("u", float(i), key=f"k{i}") for i in range(4)])
    assert [server.event_log.newest.of(f"k{i}") for i in range(4)] == [[0.0], [1.0], [], []]


def test_a_database_that_is_opened_again_has_them_still(tmp_path):
    """Of the events themselves: not of a filtered series, and each event once."""
    path = str(tmp_path / "ld.db")
    server = Server(path)
    server.define()
    wanted = {"type": "eventProperty", "attribute": "ok", "op": "in", "values": [True]}
    server.define(key="filtered", filters=wanted)
    two = {"kind": "multi", "user": {"key": "u"}, "request": {"key": "r"}}
    server.post(event("u", 2.0, ok=True), {**event("u", 1.0), "context": two})
    server.reader.read()
    server.database.close()
    again = Server(path)
    assert again.event_log.newest.of("latency") == [1.0, 2.0]
    again.database.close()


def test_what_is_sent_twice_counts_once():
    """The second POST of a payload adds nothing."""
    server = Server()
    server.post(event("u", 1.0))
    server.posts -= 1
    server.post(event("u", 1.0))
    assert server.event_log.newest.of("latency") == [1.0]
