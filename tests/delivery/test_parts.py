"""The parts of delivery by themselves: gate, backlog, payload, orphanage."""

from __future__ import annotations

import gzip
import json
import time
from email.utils import formatdate

import pytest

from ldinstrument.backoff import LONGEST_RETRY_AFTER, Backoff, retry_after
from ldinstrument.delivery.backlog import Backlog
from ldinstrument.delivery.payloads import Payload, join
from ldinstrument.delivery.undelivered import Orphanage, origin_of

KEY = "sdk-key"


def _texts(count: int) -> list[str]:
    return [
        json.dumps({"kind": "custom", "key": f"e.{n}"}, separators=(",", ":")) for n in range(count)
    ]


def test_back_off_doubles_with_jitter_up_to_the_longest():
    """1, 2, 4 ... times 0.5 to 1.0; never more than the longest pause."""
    gate = Backoff(first_pause=1.0, longest_pause=10.0)
    for number in range(40):
        gate.failed()
        wanted = min(10.0, 2.0**number)
        pause = gate.not_before - time.monotonic()
        assert wanted * 0.5 - 1 < pause <= wanted
    gate.succeeded()
    assert gate.ready_at(KEY) == 0.0


def test_a_fleet_does_not_come_back_in_step():
    """Pauses differ, between half and the whole of what they are."""
    pauses = []
    for _ in range(100):
        gate = Backoff(first_pause=1000.0, longest_pause=10_000.0)
        gate.failed()
        pauses.append(gate.not_before - time.monotonic())
    assert len({round(pause) for pause in pauses}) > 10
    assert min(pauses) < 900
    assert max(pauses) <= 1000


def test_a_broken_connection_is_tried_again_at_once():
    """A kept-alive connection that the server closed is nobody's failure; a second time it is."""
    gate = Backoff()
    gate.failed(lost=True)
    assert gate.not_before <= time.monotonic()
    gate.failed(lost=True)
    assert gate.not_before > time.monotonic()


def test_retry_after_is_respected_and_not_hurried():
    """A flush shortens a back-off, never what the server asked for; nobody waits longer than an
    hour.
    """
    gate = Backoff()
    gate.failed(retry_after=30)
    gate.shorten()
    assert gate.not_before > time.monotonic() + 25
    gate.failed(retry_after=10**9)
    assert gate.not_before <= time.monotonic() + LONGEST_RETRY_AFTER
    for _ in range(10):
        gate.failed()
    gate.shorten()
    assert gate.not_before <= time.monotonic() + 0.5


def test_retry_after_never_shortens_the_back_off():
    """0, or a date that the server's slow clock put into the past, is no invitation to hammer."""
    for asked in (0.0, 0.001):
        gate = Backoff(first_pause=1000.0, longest_pause=1000.0)
        gate.failed(retry_after=asked)
        assert gate.not_before >= time.monotonic() + 400


def test_a_refused_key_closes_the_gate_until_it_changes():
    """Infinity for the refused key, now for another."""
    gate = Backoff()
    gate.refused(KEY)
    assert gate.ready_at(KEY) == float("inf")
    assert gate.ready_at("sdk-new") == 0.0
    assert gate.ready_at(KEY) == 0.0  # the refusal is forgotten with the key that was refused


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("3", 3.0), ("0.5", 0.5), ("-4", None), (None, None), ("", None), ("soon", None)],
)
def test_retry_after_header(header, seconds):
    """Seconds; nonsense is no instruction."""
    assert retry_after(header) == seconds


def test_retry_after_header_as_a_date():
    """An HTTP date; one in the past means now."""
    ahead = retry_after(formatdate(time.time() + 60, usegmt=True))
    assert ahead is not None
    assert 50 < ahead <= 61
    assert retry_after(formatdate(time.time() - 60, usegmt=True)) == 0.0


def test_the_backlog_lets_the_oldest_go():
    """Bounded by bytes; the newest always fits."""
    backlog = Backlog(max_bytes=25, max_age=60)
    payloads = [Payload(b"x" * 10, 1, 1) for _ in range(4)]
    gone = [dropped for payload in payloads for dropped in backlog.add(payload)]
    assert gone == payloads[:2]
    assert (len(backlog), backlog.bytes) == (2, 20)
    assert backlog.add(Payload(b"x" * 100, 1, 1)) == payloads[2:]


def test_the_backlog_lets_the_old_go():
    """Bounded by age."""
    backlog = Backlog(max_bytes=100, max_age=10)
    old, new = Payload(b"x", 1, 1, age_from=time.monotonic() - 11), Payload(b"x", 1, 1)
    backlog.add(old)
    backlog.add(new)
    assert backlog.expired() == [old]
    assert list(backlog) == [new]


@pytest.mark.parametrize("zipped", [False, True])
def test_a_split_loses_nothing_and_makes_new_ids(zipped):
    """Halves, until single events remain."""
    payload = join(_texts(5), zipped)
    leaves, splitting = [], [payload]
    while splitting:
        one = splitting.pop(0)
        heirs = one.halves()
        if heirs:
            one.split(heirs)
        splitting += heirs
        if not heirs:
            leaves.append(one)
    keys = [
        json.loads(gzip.decompress(one.body) if zipped else one.body)[0]["key"] for one in leaves
    ]
    assert keys == [f"e.{n}" for n in range(5)]
    assert len({one.id for one in [payload, *leaves]}) == 6
    assert [one.custom for one in leaves] == [1] * 5
    assert list(payload.lineage()) == leaves


def test_halves_are_as_old_as_what_they_were():
    """Splitting is no new beginning: what has waited for a day is a day old, in memory and in a
    spool.
    """
    payload = Payload(join(_texts(4), False).body, 4, 4, sealed_at=1_000.0, age_from=2_000.0)
    assert [(half.sealed_at, half.age_from) for half in payload.halves()] == [
        (1_000.0, 2_000.0)
    ] * 2


def test_orphans_go_to_their_own_place_only():
    """Same address and same key; or, once the key was refused, same address."""
    orphanage = Orphanage()
    here, elsewhere = origin_of("http://a/bulk", "k1"), origin_of("http://a/bulk", "k2")
    kept, refused = Payload(b"x", 1, 1), Payload(b"y", 1, 1)
    orphanage.leave(here, "http://a/bulk", False, [kept])
    orphanage.leave(here, "http://a/bulk", True, [refused])
    assert orphanage.adopt(elsewhere, "http://b/bulk") == []
    assert orphanage.adopt(elsewhere, "http://a/bulk") == [refused]
    assert orphanage.adopt(here, "http://a/bulk") == [kept]
    assert len(orphanage) == 0
    assert "k1" not in here
