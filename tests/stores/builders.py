"""Deltas as requests would make them; `conftest` lends this module to the tests by its name."""

from __future__ import annotations

import json
import os
import time
from collections import Counter

from ldinstrument.sessions.rollups import Group
from ldinstrument.sessions.scopes import open_session
from ldinstrument.stores import Delta, MemoryStore, Rules, end_request
from ldinstrument.stores.deltas import StoredSegment, encoded, keys_of, mark_of
from ldinstrument.stores.protocol import today
from ldinstrument.stores.records import readable
from ldinstrument.stores.replay import events_of, segments_of
from ldinstrument.testing import RecordingClient


def delta(
    id="s-1",
    *,
    context=None,
    exposures=None,
    tallies=(1, 0, 0, 0),
    groups=None,
    started_ago=0,
    last_ago=0,
    now=None,
    **fields,
):
    """A delta of one segment, with groups of values by group key."""
    now, ages = today() if now is None else now, (started_ago, min(last_ago, started_ago))
    values = {key: Group(None, *fields) for key, fields in (groups or {}).items()}
    names: dict[str, str] = {}
    segment = StoredSegment(keys_of(context or {}), now - ages[0], now - ages[1], tallies, values)
    known = {mark_of(name): date for name, date in (exposures or {}).items()}
    return Delta(
        id,
        context=context or {},
        started_ago=ages[0],
        last_ago=ages[1],
        now=now,
        segments=encoded([segment], names),
        names=names,
        exposures=known,
        **fields,
    )


def revenue(total, *, at=None, count=1, data=""):
    """A sum of one or several values, recorded at one date."""
    at = today() if at is None else at
    return {f"s1revenue.impact\n{data}": (total, count, at, at, None, None)}


def tallies_of(record):
    """All interactions of a record, by outcome."""
    segments = segments_of(record)
    return [sum(column) for column in zip(*(segment.tallies for segment in segments), strict=True)]


def values_of(record, event_key, rules):
    """The values of the events that a record becomes under a key, with their dates."""
    events = events_of(record, rules)
    return [
        (event.value, event.at)
        for event, _ in [*events.values, *events.totals]
        if event.event_key == event_key
    ]


ONE_WINDOW = 1_000_000.0
"""Seconds: what ends while a test runs is one batch; no test meets the end of such a window."""


def ended(store):
    """Everything that is over, claimed and forgotten, as records."""
    found = []
    while claimed := store.claim(100, 60.0, "the-test", early=True):
        found += [readable(session.text) for session in claimed]
        assert store.seal([session.place for session in claimed], [], 60.0, "the-test") == []
    return found


def end(store, key, reason="ended", *, active=False):
    """End the open session of a key now."""
    return store.end(key, reason, over=today(), active=active)


def visit(store, visitor="v-1", *, money=1.0, client=None):
    opened = open_session("ana", client=client if client is not None else RecordingClient())
    opened.interaction()
    opened.revenue(money)
    return end_request(opened, store, visitor)


def over(store, count, first=0):
    for number in range(first, first + count):
        store.merge(f"session:{number}", delta(f"s-{number}", context={"user": "ana"}))
        end(store, f"session:{number}")


def reported(ld):
    return Counter(event["data"]["sessionId"] for event in ld.custom_events("session.interactions"))


def until(condition, timeout=100.0):
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.01)


class Failing(MemoryStore):
    """A store in memory that fails on demand, like a server that is away."""

    def __init__(self):
        super().__init__(Rules())
        self.away, self.calls = False, 0

    def merge(self, key, delta):
        self.calls += 1
        if self.away:
            raise ConnectionError("redis://:secret@10.0.0.1 refused")
        return super().merge(key, delta)

    def refuses(self, error):
        return not isinstance(error, ConnectionError)


def in_child(work):
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.write(writing, json.dumps(work()).encode())
            status = 0
        finally:
            os._exit(status)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        answer = pipe.read()
    assert os.waitpid(child, 0)[1] == 0
    return json.loads(answer)
