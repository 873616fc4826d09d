"""What closed processors left goes to the next one for the same place."""

from __future__ import annotations

from deadlines import until_settled
from ldclient import Context

from ldinstrument.delivery import flush
from ldinstrument.delivery.event_json import Payload
from ldinstrument.delivery.memory_spool import MemorySpool, origin_of
from ldinstrument.ledger import ledger

BARE = Context.create("u-1")


def test_payloads_go_to_their_own_place_only():
    """Same address and same key; or, once the key was refused, same address."""
    left = MemorySpool()
    here, elsewhere = origin_of("http://a/bulk", "k1"), origin_of("http://a/bulk", "k2")
    kept, refused = Payload(b"x", 1, 1), Payload(b"y", 1, 1)
    left.add(here, "http://a/bulk", False, [kept])
    left.add(here, "http://a/bulk", True, [refused])
    assert left.take(elsewhere, "http://b/bulk") == []
    assert left.take(elsewhere, "http://a/bulk") == [refused]
    assert left.take(here, "http://a/bulk") == [kept]
    assert left.left == []
    assert "k1" not in here


def test_closing_hands_what_is_left_to_the_next_client(server, make):
    """`ldclient.set_config` makes the new client first: what the old one could not deliver, the new
    one does.
    """
    server.answer(status=503, times=1, headers={"Retry-After": "60"})
    first = make(close_timeout=0.1, flush_interval=3600)
    first.track("a", BARE)
    flush(30.0, first)
    second = make(flush_interval=3600)
    first.close()
    until_settled(second)  # whose flush may find it delivered already, or not handed over yet
    assert ledger.stats().events.delivered == 1
    assert (server.keys(), set(server.posts_per_payload().values())) == ({"a": 1}, {2})


def test_another_environment_takes_nothing(server, make):
    """Events recorded with one key are not delivered with another, unless LaunchDarkly had refused
    the first.
    """
    server.answer(status=503, times=1, headers={"Retry-After": "60"})
    first = make(close_timeout=0.1, flush_interval=3600)
    first.track("a", BARE)
    flush(30.0, first)
    second = make(key="sdk-other", flush_interval=3600)
    first.close()
    assert flush(1.0, second).delivered == 0
    assert server.keys() == {}
