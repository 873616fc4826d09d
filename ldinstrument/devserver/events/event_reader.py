"""What has arrived, to be read: events as they were sent, POSTs, counts and dates."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any

from ..database import Database
from .bodies import is_event, split_array
from .parsing import BIGGEST
from .received import Post, ReceivedEvent

KEPT = """
SELECT b.first_event, b.events, b.body, p.payload_id, p.received
FROM bodies b JOIN posts p ON p.id = b.post
WHERE b.first_event + b.events - 1 > ? {and_key} ORDER BY b.first_event
"""
NEWEST = """
SELECT b.first_event, b.body, p.payload_id, p.received FROM bodies b JOIN posts p ON p.id = b.post
WHERE b.first_event < ? {and_key} ORDER BY b.first_event DESC LIMIT 1
"""
LAST_EVENT = "SELECT first_event + events - 1 FROM bodies ORDER BY first_event DESC LIMIT 1"
WITH_KEY = "AND b.post IN (SELECT post FROM post_keys WHERE key = ?)"
WITH_KIND = "AND b.post IN (SELECT post FROM post_keys WHERE kind = ?)"


class EventReader:
    """Lists and counts what `EventLog` has recorded."""

    def __init__(self, database: Database):
        self.database = database

    def events(
        self, *, since: int = 0, limit: int = -1, key: str | None = None, kind: str | None = None
    ) -> list[ReceivedEvent]:
        """Return events with ids above *since*, oldest first, of every kind or of one."""
        found = self._kept(since, limit, key, kind)
        return [
            ReceivedEvent(event, id, payload_id, received)
            for id, event, _, payload_id, received in found
        ]

    def event_texts(
        self, *, since: int = 0, limit: int = -1, key: str | None = None, kind: str | None = None
    ) -> list[tuple[int, str, str, int]]:
        """Return the same as id, JSON text, payload id and time of receipt."""
        found = self._kept(since, limit, key, kind)
        return [(id, text, payload_id, received) for id, _, text, payload_id, received in found]

    def _kept(
        self, since: int, limit: int, key: str | None, kind: str | None
    ) -> Iterator[tuple[int, dict[str, Any], str, str, int]]:
        """Go through the bodies, filter, and stop at the limit (below 0: none)."""
        left = limit
        for first, body, payload_id, received in self.bodies(since, key, kind):
            for id, (event, text) in numbered(first, body):
                if left == 0:
                    return
                if id > since and _fits(event, key, kind):
                    left -= 1
                    yield id, event, text, payload_id, received

    def bodies(
        self, since: int, key: str | None, kind: str | None
    ) -> Iterator[tuple[int, bytes, str, int]]:
        """Yield bodies that may hold what is asked for, some at a time."""
        condition, parameters = _condition(key, kind)
        sql = KEPT.replace("{and_key}", condition) + " LIMIT 16"
        while found := self.database.rows(sql, (since, *parameters)):
            for first, events, body, payload_id, received in found:
                yield first, body, payload_id, received
                since = max(since, first + events - 1)

    def newest(self, limit: int, key: str | None = None) -> list[tuple[int, str, str, int]]:
        """Return the newest events, oldest of them first, as `event_texts` does."""
        condition, parameters = _condition(key, None)
        sql = NEWEST.replace("{and_key}", condition)
        found: list[list[tuple[int, str, str, int]]] = []
        before, left = BIGGEST, limit
        while left > 0 and (rows := self.database.rows(sql, (before, *parameters))):
            before, body, payload_id, received = rows[0]
            texts = [
                (id, text, payload_id, received)
                for id, (event, text) in numbered(before, body)
                if _fits(event, key, None)
            ]
            found.append(texts)
            left -= len(texts)
        return [*chain.from_iterable(reversed(found))][-limit:] if limit else []

    def count(self, kind: str | None = None, key: str | None = None) -> int:
        """Return how many events were accepted, of one kind and key or of all."""
        sql = (
            "SELECT coalesce(sum(events), 0) FROM post_keys "
            "WHERE (? IS NULL OR kind = ?) AND (? IS NULL OR key = ?)"
        )
        return int(self.database.rows(sql, (kind, kind, key, key))[0][0])

    def last_event(self) -> int:
        """Return the id of the newest event, 0 when there is none."""
        found = self.database.rows(LAST_EVENT)
        return int(found[0][0]) if found else 0

    def last_seen(self, event_key: str) -> int | None:
        """Return when the last event of this key was received, in epoch milliseconds."""
        sql = "SELECT last_seen FROM event_keys WHERE key = ?"
        found = self.database.rows(sql, (event_key,))
        return int(found[0][0]) if found else None

    def last_evaluated(self, flag: str) -> int | None:
        """Return when a flag was last evaluated, in epoch milliseconds."""
        found = self.database.rows("SELECT last FROM evaluations WHERE flag = ?", (flag,))
        return int(found[0][0]) if found else None

    def posts(self) -> list[Post]:
        """Return every POST that reached the intake, in the order of arrival."""
        found = self.database.rows(
            "SELECT route, payload_id, status, bytes, events, duplicate, received, agent, fault, "
            "error, wrapper FROM posts ORDER BY id"
        )
        return [
            Post(route, id, status, size, events, bool(duplicate), received, *rest)
            for route, id, status, size, events, duplicate, received, *rest in found
        ]


def numbered(first: int, body: bytes) -> Iterator[tuple[int, tuple[dict[str, Any], str]]]:
    """Yield the events of a body with their ids, each also as its text."""
    return enumerate((item for item in split_array(body) if is_event(item[0])), first)


def _condition(key: str | None, kind: str | None) -> tuple[str, list[str]]:
    if key is not None:
        return WITH_KEY, [key]
    return (WITH_KIND, [kind]) if kind is not None else ("", [])


def _fits(event: dict[str, Any], key: str | None, kind: str | None) -> bool:
    return (key is None or event.get("key") == key) and (kind is None or event["kind"] == kind)
