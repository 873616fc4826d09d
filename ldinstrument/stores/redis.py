"""RedisStore: sessions on a Redis (or Valkey) server; the workers of a whole fleet share them.

One script per verb: atomic, and one round trip. The time is the server's. Keys carry a hash tag per
shard, so a cluster will do as well; each script stays within one shard.
"""

from __future__ import annotations

import json
import math
import random
import re
import threading
import time
import zlib
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any

from ..diagnostics import log_once, one_line
from ..errors import DefinitionError
from ..ledger import ledger
from .compaction import compact
from .deltas import compact_json, segments_text, utf8
from .lua import scripts
from .protocol import Delta, Ended, Holdings, Merged, Operation, Rules, Sealed, today
from .records import MOST_LINES, readable
from .redis_client import LazyCluster, decodes, is_cluster

SHARDS_OF_A_CLUSTER = 16
OPERATIONS = 512
"""Merges of one worker whose numbers share a key on the server: as many as Redis packs into two
bytes each.
"""


_PASSING_STATES = re.compile(
    r"\b(OOM|READONLY|NOREPLICAS|LOADING|MISCONF|BUSY|CLUSTERDOWN|MASTERDOWN|TRYAGAIN|NOAUTH|NOPERM"
    r"|WRONGTYPE)\b"
)
"""Errors that a server may get over. Redis 6 wraps these words of a command in an error of the
script around it.
"""
MOST_KNOWN = 20_000
"""Reported sessions that a process remembers, its own and others', for a server that comes back
older.
"""
SEARCH_INTERVAL = 300.0
"""Seconds, at least, between two searches through the keys of a server that evicts."""
OWNER = 16
"""Characters of an owner, with which the text of an ended session begins in Redis."""


class RedisStore:
    """A store on a server.

    Args:
        client: a `redis.Redis` or `redis.RedisCluster`; give it short time-outs and no retries
            (`connect` does), and not `decode_responses`.
        rules: when a session is over; the same in every worker.
        prefix: of every key; environments that share a server need one each.
        shards: over how many hash tags the visitors are spread; the same in every worker.

    Raises:
        DefinitionError: a client that decodes its responses, for payloads are bytes; or a prefix
            that a cluster cannot use.
    """

    shared = True

    def __init__(
        self,
        client: Any,
        rules: Rules | None = None,
        *,
        prefix: str = "ldinstrument",
        shards: int | None = None,
    ) -> None:
        if decodes(client):
            raise DefinitionError(
                "RedisStore: give it a client of its own, without decode_responses=True"
            )
        self._prefix = prefix
        if is_cluster(client):
            self._check_prefix()
        self.rules = rules or Rules()
        self._client = client
        self._shards = shards or (SHARDS_OF_A_CLUSTER if is_cluster(client) else 1)
        self._tags = [f"{{{prefix}{shard or ''}}}:" for shard in range(self._shards)]
        self._lock = threading.Lock()
        self._begin()

    def _begin(self) -> None:
        """Know nothing yet of what this process has claimed and reported."""
        self._claimed: dict[str, tuple[str, tuple[str, ...]]] = {}
        self._reported: dict[str, None] = {}
        self._lives: dict[str, str] = {}
        self._heard: dict[str, int] = {}
        self._evicted: dict[str, int] = {}
        self._searched_at = -math.inf

    # -- open sessions ---------------------------------------------------------------------------
    def merge(self, key: str, delta: Delta) -> Merged | None:
        """Add *delta* to the open session of *key*, or open the next one when that is over.

        One round trip; three when the record has become long.
        """
        rules, tag = self.rules, self._tag_of(key)
        times = _ms(rules.idle), _ms(rules.maximum), _ms(rules.remember)
        text, name = delta_text(delta), _operation(delta.operation)
        segments = delta.segments or segments_text(delta)
        answer = self._run("merge", tag, key, text, segments, *times, *name)
        if answer is None:
            return None
        id, previous, opened, context, length = answer
        if length > MOST_LINES:
            self._compact(tag, key)
        return Merged(id.decode(), previous.decode(), bool(opened), json.loads(context))

    def _compact(self, tag: str, key: str) -> None:
        """Fold the record of *key*, unless another worker changes it at the same time."""
        text = self._run("held", tag, key)
        record = None if text is None else readable(text.decode())
        if record is not None:
            parts = [part.text() for part in compact(record)]
            self._run("compact", tag, key, text, record.text(), *parts)

    def end(
        self, key: str, reason: str, *, over: int | None = None, active: bool = False
    ) -> str | None:
        """End the open session of *key* now; return its record, None when none is open."""
        rules = self.rules
        times = _ms(rules.remember), int(active), _ms(rules.idle), _ms(rules.maximum)
        date = today() if over is None else over
        text = self._run("end", self._tag_of(key), key, reason, date, *times)
        return None if text is None else str(text.decode())

    # -- ended sessions --------------------------------------------------------------------------
    def claim(self, limit: int, lease: float, owner: str, *, early: bool = True) -> list[Ended]:
        """Hand out sessions that are over, of one batch of one shard."""
        times = _ms(lease), _owner(owner), _ms(self.rules.remember), int(early)
        for tag in self._any_order():
            if found := self._claim_in(tag, limit, *times):
                return found
        return []

    def _claim_in(self, tag: str, *arguments: Any) -> list[Ended]:
        while True:
            known, heard = self._lives.get(tag, ""), self._heard.get(tag, 0)
            answer = self._run("claim", tag, *arguments, known, heard)
            vanished, found, life, evicted, again, news = answer
            if vanished:
                _say_evicted(vanished, 0)
            if evicted:
                self._find_lost(tag, int(evicted))
            if known and life and life.decode() != known:
                self._tell(tag)
                self._heard[tag] = 0
            if news:
                self._remember(digest.decode() for digest in news[::2])
                self._heard[tag] = int(news[-1])
            if life:
                self._lives[tag] = life.decode()
            if again:
                _say_older(again)
            if found or not again:
                pairs = zip(found[::2], found[1::2], strict=True)
                return [Ended(f"{tag} {place.decode()}", text.decode()) for place, text in pairs]

    def _tell(self, tag: str) -> None:
        """Tell a server that was restarted, and may have come back as it was earlier, what was
        reported, as far as this process knows.
        """
        with self._lock:
            digests = list(self._reported)
        for start in range(0, len(digests), 1000):
            self._run("tell", tag, *digests[start : start + 1000])

    def _find_lost(self, tag: str, evicted: int) -> None:
        """Look for sessions that nobody would sweep, if the server has evicted anything since."""
        is_known = evicted == self._evicted.get(tag, 0)
        if is_known or time.monotonic() < self._searched_at + SEARCH_INTERVAL:
            return
        self._searched_at, self._evicted[tag] = time.monotonic(), evicted
        pattern, cursor, found = re.sub(r"([*?\[\]\\])", r"\\\1", tag) + "*", b"0", 0
        while True:
            times = _ms(self.rules.idle), _ms(self.rules.maximum)
            cursor, more = self._run("find", tag, cursor, pattern, *times)
            found += more
            if int(cursor) == 0:
                break
        if found:
            _say_found(found)

    def end_silent(self) -> int:
        """End every session that is over by these rules; return how many."""
        return sum(map(self._end_silent_in, self._tags))

    def _end_silent_in(self, tag: str) -> int:
        rules, total, start = self.rules, 0, 0
        seen: int
        ended: int
        times = _ms(rules.remember), _ms(rules.idle), _ms(rules.maximum)
        while True:
            seen, ended = self._run("end_silent", tag, start, 500, *times)
            total, start = total + ended, start + seen - ended
            if not seen:
                return total

    def seal(
        self, places: Sequence[str], sealed: Sequence[Sealed], lease: float, owner: str
    ) -> list[str]:
        """Put *sealed* in the place of the claimed sessions *places*, all or nothing; return those
        that were lost.
        """
        if not places:
            return []
        tag = places[0].partition(" ")[0]
        numbers = [place.partition(" ")[2] for place in places]
        lost = self._run(
            "seal", tag, _owner(owner), _ms(lease), len(numbers), *numbers, *_fields(sealed)
        )
        if not lost:
            self._know(tag, sealed)
        return [f"{tag} {number.decode()}" for number in lost]

    # -- sealed payloads -------------------------------------------------------------------------
    def claim_sealed(self, limit: int, lease: float, owner: str) -> list[Sealed]:
        """Hand out up to *limit* sealed payloads whose time has come."""
        for tag in self._any_order():
            evicted, rows = self._run("claim_sealed", tag, limit, _ms(lease))
            if evicted:
                _say_evicted(0, evicted)
            found = [
                Sealed(
                    id.decode(),
                    body,
                    int(events),
                    zipped == b"1",
                    attempts,
                    age / 1000,
                    tuple(sessions.decode().split()),
                )
                for id, body, events, zipped, attempts, age, sessions in rows
            ]
            if found:
                self._know(tag, found)
                return found
        return []

    def acknowledge(self, payload_id: str) -> None:
        """Forget a payload."""
        for tag in self._tags_of(payload_id):
            self._run("acknowledge", tag, payload_id, MOST_KNOWN)
        with self._lock:
            _, sessions = self._claimed.pop(payload_id, ("", ()))
        self._remember(sessions)

    def _remember(self, digests: Iterable[str]) -> None:
        """Note sessions as reported, and forget the oldest."""
        with self._lock:
            self._reported |= dict.fromkeys(digests)
            for oldest in list(islice(self._reported, max(0, len(self._reported) - MOST_KNOWN))):
                del self._reported[oldest]

    def postpone(self, payload_id: str, delay: float) -> None:
        """Let a payload be claimed again after *delay* seconds."""
        for tag in self._tags_of(payload_id):
            self._run("postpone", tag, payload_id, _ms(delay))

    def replace(self, payload_id: str, halves: Sequence[Sealed]) -> None:
        """Put *halves* in the place of a payload that was too large."""
        for tag in self._tags_of(payload_id):
            self._run("replace", tag, payload_id, *_fields(halves))
            self._know(tag, halves)

    # -- what may happen once --------------------------------------------------------------------
    def once(self, key: str, ttl: float) -> bool:
        """Take *key* for *ttl* seconds; False when somebody has it already."""
        name = f"{self._tag_of(key)}taken:{key}"
        return bool(self._client.set(name, b"1", nx=True, px=max(1, _ms(ttl))))

    # -- life ------------------------------------------------------------------------------------
    def holdings(self) -> Holdings:
        """Return what the store holds now."""
        counts = [self._run("holdings", tag) for tag in self._tags]
        return Holdings(*map(sum, zip(*counts, strict=True)))

    def end_unshared(self, reason: str) -> int:
        """Return 0: other processes see these sessions."""
        return 0

    def _check_prefix(self) -> None:
        if not re.fullmatch(r"[^{}]+", self._prefix):
            raise DefinitionError(
                "redis: on a cluster, ?prefix= is a text without braces: it becomes the hash tag "
                "that keeps the keys of a script in one hash slot"
            )

    def check(self) -> None:
        """Log what about the server may cost numbers; one that is away is no error.

        Raises:
            DefinitionError: the server runs no scripts, or not these; says its reason.
        """
        from redis.exceptions import RedisClusterException, RedisError, ResponseError

        try:
            self._run("holdings", self._tags[0])
            self._check_server()
        except ResponseError as error:
            if not _PASSING_STATES.search(str(error)):
                raise DefinitionError(
                    f"redis: this server cannot keep sessions ({one_line(str(error), 200)}); it "
                    "has to run Lua scripts by EVALSHA and EVAL, each within one hash slot"
                ) from None
        except (RedisError, RedisClusterException, OSError):
            return
        finally:
            self.close()

    def _check_server(self) -> None:
        """Check what the server says of itself, if this user may ask for it."""
        from redis.exceptions import NoPermissionError

        try:
            if self._client.info("cluster").get("cluster_enabled"):
                self._check_prefix()
            _say_policy(self._client.info("memory"))
        except NoPermissionError:
            return

    def refuses(self, error: BaseException) -> bool:
        """Tell whether *error* is about what was given, not a server that is full, read-only and
        the like.
        """
        from redis.exceptions import DataError, ResponseError

        if type(error) is ResponseError:
            text = str(error)
            return _PASSING_STATES.search(text) is None and "unknown command" not in text
        return isinstance(error, (DataError, TypeError, ValueError, LookupError))

    def pause(self) -> None:
        """Do nothing before a fork: the client opens its own connections in the child."""

    def resume(self) -> None:
        """Do nothing in the parent after a fork."""

    def forked(self) -> None:
        """Leave the parent's connections alone, in the child after a fork."""
        self._lock = threading.Lock()
        self._begin()
        if isinstance(self._client, LazyCluster):
            self._client.forked()

    def close(self) -> None:
        """Close the connections; the next call opens new ones."""
        self._client.close()

    # -- where things are ------------------------------------------------------------------------
    def _tag_of(self, key: str) -> str:
        return self._tags[zlib.crc32(key.encode()) % self._shards]

    def _any_order(self) -> list[str]:
        """Return the shards in random order: sweepers that come at the same moment do not queue
        at the first.
        """
        return random.sample(self._tags, len(self._tags))

    def _know(self, tag: str, payloads: Sequence[Sealed]) -> None:
        with self._lock:
            self._claimed |= {payload.id: (tag, payload.sessions) for payload in payloads}

    def _tags_of(self, payload_id: str) -> list[str]:
        with self._lock:
            claimed = self._claimed.get(payload_id)
        return self._tags if claimed is None else [claimed[0]]

    # -- scripts ---------------------------------------------------------------------------------
    def _run(self, verb: str, tag: str, *arguments: Any) -> Any:
        from redis.exceptions import NoScriptError

        script, anchor, window = scripts()[verb], tag + "open", _ms(self.rules.window)
        try:
            return self._client.evalsha(script.sha1, 1, anchor, tag, window, *arguments)
        except NoScriptError:
            return self._client.eval(script.text, 1, anchor, tag, window, *arguments)


def _say_policy(memory: dict[str, Any]) -> None:
    policy = memory.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        log_once(
            "eviction_policy",
            policy,
            "the Redis server evicts keys when its memory is full, sessions and their reports "
            f"too (maxmemory-policy {policy}); set noeviction, so that it refuses instead and the "
            "workers' numbers wait",
        )


def _say_evicted(sessions: int, events: int) -> None:
    """Count what the server threw away: *sessions* not yet sealed, *events* in sealed payloads."""
    for _ in range(sessions):
        ledger.evicted()
    ledger.count(emitted=events)
    ledger.dropped("store_evicted", events)
    log_once(
        "evicted",
        "RedisStore",
        "the Redis server has evicted sessions before they were reported; give it more memory, "
        "or maxmemory-policy noeviction, so that it refuses instead and the workers' numbers wait",
    )


def _say_older(sessions: int) -> None:
    log_once(
        "store_older",
        "RedisStore",
        "the Redis server was restarted and has come back as it was earlier: what was reported "
        f"since is left out ({sessions} sessions and more), what was merged since is lost; set "
        "appendfsync always, or a replica that takes over up to date",
    )


def _say_found(entries: int) -> None:
    log_once(
        "index_evicted",
        "RedisStore",
        f"the Redis server has evicted an index of ours: {entries} sessions and payloads that "
        "nobody would have reported are found again; set maxmemory-policy noeviction, so that it "
        "refuses instead",
    )


def delta_text(delta: Delta) -> str:
    """Return all of a delta but its segments as the script reads it; what is empty is left out."""
    fields: dict[str, Any] = {"i": delta.id, "n": delta.name, "o": delta.now}
    fields |= {"a": delta.started_ago, "l": delta.last_ago}
    fields["b"] = delta.began
    optional: dict[str, Any] = {
        "m": ",".join(delta.metrics),
        "c": utf8(delta.context),
        "k": utf8(delta.becomes),
        "v": delta.overlap,
        "d": delta.data,
        "x": delta.exposures,
        "g": delta.names,
        "j": int(delta.joins),
        "e": delta.ends,
    }
    fields |= {name: value for name, value in optional.items() if value}
    return compact_json(fields)


def _operation(operation: Operation | None) -> tuple[str, int]:
    if operation is None:
        return "", 0
    return f"{operation.worker}:{operation.number // OPERATIONS}", operation.number % OPERATIONS


def _owner(owner: str) -> str:
    return owner[:OWNER].ljust(OWNER, "-")


def _fields(payloads: Sequence[Sealed]) -> list[Any]:
    return [
        field
        for payload in payloads
        for field in (
            payload.id,
            payload.body,
            payload.events,
            int(payload.zipped),
            int(payload.age * 1000),
            " ".join(payload.sessions),
        )
    ]


def _ms(seconds: float) -> int:
    return int(seconds * 1000)
