"""The sender: payloads that wait or are in flight, when they may leave, the threads that post them.

Nobody else opens a connection: name resolution cannot be interrupted, so whoever flushes waits for
these threads, with a deadline.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from .. import sdk
from ..backoff import Backoff, Disposition, disposition, retry_after
from ..diagnostics import log_internal_error, log_once
from ..ledger import ledger
from .backlog import Backlog
from .deferred import DeferredCalls
from .options import Options
from .payloads import Payload
from .reports import Receipt
from .spool_queue import SpoolQueue
from .transport import CONNECTIONS, PAYLOAD_ID, PostResult, transport_of
from .undelivered import origin_of, undelivered
from .waiters import FlushWaiter

IDLE_POSTER = 5.0
NEVER = float("inf")


class Sender:
    """Post payloads until each is delivered or dropped.

    Args:
        config: the SDK's configuration; its key is read anew for each POST.
        options: bounds and seams.
        spool: writes to the spool.
        on_result: called after each POST, without a lock, on the thread that made it.
    """

    def __init__(
        self,
        config: Any,
        options: Options,
        spool: SpoolQueue,
        on_result: Callable[[PostResult], None],
    ) -> None:
        self._config = config
        self._options = options
        self._spool = spool
        self._on_result = on_result
        # Re-entrant: a signal handler may flush what it has interrupted.
        self.lock = threading.RLock()
        self._work = threading.Condition(self.lock)
        self._calls = DeferredCalls()
        self._backlog = Backlog(options.max_bytes, options.max_age)
        self._in_flight: set[Payload] = set()
        self._waiters: list[FlushWaiter] = []
        self._backoff = Backoff(options.first_pause, options.longest_pause)
        self._dropped = 0
        self._posters = self._idle = 0
        self._transport = (options.transport or transport_of)(config)
        self._headers: tuple[str | None, dict[str, str], dict[str, str]] = (None, {}, {})
        self.closed = False

    # -- what there is -----------------------------------------------------------------------------
    @property
    def origin(self) -> str:
        """A digest of where the events belong: the address and the key that it has now."""
        return origin_of(self._config.events_uri, self._config.sdk_key)

    @property
    def waiting(self) -> int:
        """How many payloads wait to be sent."""
        return len(self._backlog)

    @property
    def busy(self) -> bool:
        """Whether a payload waits or is in flight."""
        return bool(self._backlog or self._in_flight)

    @property
    def room(self) -> int:
        """How many bytes may still wait."""
        return self._options.max_bytes - self._backlog.bytes

    @property
    def is_crowded(self) -> bool:
        """Whether more than half of what may wait does, though LaunchDarkly answers."""
        return not self.failing and self._backlog.bytes > self._options.max_bytes // 2

    @property
    def failing(self) -> bool:
        """Whether LaunchDarkly did not take the last payload, or refuses the key."""
        return bool(self._backoff.failures) or self._backoff.refused_key is not None

    def next_attempt(self) -> float:
        """Return when a payload that waits may leave (`time.monotonic`); infinity when none waits
        for its time.
        """
        with self.lock:
            ready_at = self._ready_at()
            return ready_at if self._backlog and ready_at > time.monotonic() else NEVER

    def _ready_at(self) -> float:
        return self._backoff.ready_at(self._config.sdk_key)

    # -- payloads come -----------------------------------------------------------------------------
    def add(self, payloads: Iterable[Payload], complete: Iterable[FlushWaiter] = ()) -> None:
        """Queue *payloads*; what no longer fits, or has waited too long, is dropped by name.

        The caller then calls `run_deferred`, without the lock.

        Args:
            payloads: new ones, which every flush covers that waits for events to be batched.
            complete: flushes for which these are the last.
        """
        new = list(payloads)
        with self.lock:
            for payload in new:
                payload.state = "waiting"
                self._queue(payload)
            if len(self._backlog) > len(new):  # something waited before
                self._drop("too_old", self._backlog.expired())
            for waiter in self._waiters:
                if not waiter.batched:
                    waiter.cover(new)
            for waiter in complete:
                waiter.batched = True
            if self.closed:
                self._leave()
            self._review()

    def _queue(self, payload: Payload, *, first: bool = False) -> None:
        gone = self._backlog.add(payload, first=first)
        if gone:
            self._drop("backlog_full", gone)

    def count_dropped(self, count: int) -> None:
        """Let the next report say that *count* `track` events were dropped elsewhere."""
        with self.lock:
            self._dropped += count

    def run_deferred(self) -> None:
        """Make the calls that were queued under the lock; the caller must not hold it."""
        self._calls.run()
        self._spool.run()

    # -- flushes wait ------------------------------------------------------------------------------
    def open_waiter(self, waiter: FlushWaiter) -> None:
        """Let *waiter* cover every payload here, and shorten the pause between attempts."""
        with self.lock:
            self._backoff.shorten()
            waiter.cover([*self._in_flight, *self._backlog])
            waiter.batched = self.closed
            self._waiters.append(waiter)
            self._review()
        self.run_deferred()

    def unbatched_waiters(self) -> list[FlushWaiter]:
        """Return the flushes that wait for events to be batched."""
        with self.lock:
            return [waiter for waiter in self._waiters if not waiter.batched]

    def close_waiter(self, waiter: FlushWaiter, counts: Counter[str]) -> None:
        """Stop waiting; add the events of *waiter* to *counts* by state.

        `dropped` are those since the last report.
        """
        with self.lock:
            if waiter in self._waiters:
                self._waiters.remove(waiter)
            waiter.count(counts)
            counts["dropped"] += self._dropped
            self._dropped = 0

    def _review(self) -> None:
        """Wake the flushes for which nothing more can happen before their deadline."""
        ready_at = NEVER if self.closed else self._ready_at()
        for waiter in [waiter for waiter in self._waiters if waiter.batched]:
            left = waiter.unsettled()
            too_late = ready_at > waiter.deadline
            if not left or (too_late and all(payload.state != "in_flight" for payload in left)):
                self._waiters.remove(waiter)
                self._calls.add(waiter.finish)

    # -- payloads leave ----------------------------------------------------------------------------
    def wake_posters(self) -> bool:
        """Wake idle threads; tell whether they are enough for what waits and may leave now."""
        with self.lock:
            self._work.notify(len(self._backlog))
            return self._idle >= len(self._backlog) and self._ready_at() <= time.monotonic()

    def start_posters(self, *, here: bool = True) -> None:
        """Wake or start threads for what may leave now.

        Args:
            here: where no thread can start any more, as at exit, post on this one.
        """
        with self.lock:
            shut = self.closed or self._ready_at() > time.monotonic()
            wanted = 0 if shut else min(len(self._backlog), CONNECTIONS)
            self._work.notify(wanted)
            missing = min(wanted - self._idle, CONNECTIONS - self._posters)
        for _ in range(missing):
            if not self._start_poster() and here:
                with self.lock:
                    payload = self._next_ready()
                if payload is not None:
                    self._attempt(payload)

    def _start_poster(self) -> bool:
        with self.lock:
            self._posters += 1
        try:
            start_thread("post", self._post_all)
        except RuntimeError:
            with self.lock:
                self._posters -= 1
            return False
        return True

    def _post_all(self) -> None:
        try:
            while (payload := self._next()) is not None:
                try:
                    self._attempt(payload)
                except BaseException as error:  # a callback of the host's ends no thread of ours
                    log_internal_error("delivery", error)
        finally:
            with self.lock:
                self._posters -= 1

    def _next(self) -> Payload | None:
        """Wait for a payload that may leave now; None when idle for long, or closed."""
        idle_until = time.monotonic() + IDLE_POSTER
        with self.lock:
            while not self.closed:
                if (payload := self._next_ready()) is not None:
                    return payload
                left = idle_until - time.monotonic()
                if left <= 0:
                    return None
                self._idle += 1
                self._work.wait(left)
                self._idle -= 1
        return None

    def _next_ready(self) -> Payload | None:
        """Take the payload that may leave now; one at a time while the server fails."""
        if not self._backlog or (self._backoff.failures and self._in_flight):
            return None
        if self._ready_at() > time.monotonic():
            return None
        payload = self._backlog.take()
        payload.state = "in_flight"
        payload.attempts += 1
        self._in_flight.add(payload)
        return payload

    def _attempt(self, payload: Payload) -> None:
        key = self._config.sdk_key
        result = PostResult(0, error="interrupted", lost=True)
        try:
            headers = {**self._standing_headers(key, payload.zipped), PAYLOAD_ID: payload.id}
            result = self._transport.post(payload, headers)
        except Exception as error:
            log_internal_error("delivery", error)
            result = PostResult(0, error=type(error).__name__)
        finally:  # also when a signal handler raises in here: nothing may stay in flight for ever
            self._settle(payload, result, key)

    def _standing_headers(self, key: str, zipped: bool) -> dict[str, str]:
        known, plain, with_gzip = self._headers
        if known != key:
            plain = sdk.event_headers(self._config)
            with_gzip = {**plain, "Content-Encoding": "gzip"}
            self._headers = (key, plain, with_gzip)
        return with_gzip if zipped else plain

    # -- answers come ------------------------------------------------------------------------------
    def _settle(self, payload: Payload, result: PostResult, key: str) -> None:
        try:
            self._give_receipt(payload, result)
        finally:  # the host's callback may end its thread, not our count
            halves = _halves(payload) if result.status == 413 else ()
            with self.lock:
                self._in_flight.discard(payload)
                self._decide(payload, result, key, halves)
                if self.closed:
                    self._leave()
                self._calls.add(partial(self._on_result, result))
                self._review()
            self.run_deferred()

    def _decide(
        self, payload: Payload, result: PostResult, key: str, halves: tuple[Payload, ...] | None
    ) -> None:
        payload.bad_requests += result.status == 400
        meaning = disposition(result.status, payload.bad_requests)
        if meaning is Disposition.DELIVERED:
            self._backoff.succeeded()
            payload.state = "delivered"
            self._calls.add(partial(_count_delivered, payload))
            self._spool.add(lambda spool: spool.forget([payload]))
        elif meaning is Disposition.SPLIT:
            self._split(payload, halves)
        elif meaning is Disposition.DROP:
            self._drop("http_400", [payload])
        else:
            if meaning is Disposition.REFUSED_KEY:
                self._refuse_key(result.status, key)
            else:
                self._back_off(result)
            payload.state = "failed"
            self._queue(payload)

    def _back_off(self, result: PostResult) -> None:
        asked = retry_after(result.headers.get("Retry-After"))
        self._backoff.failed(retry_after=asked, lost=result.lost)
        if self._backoff.failures == 2:  # one alone may be a connection that was closed under us
            what = f"HTTP {result.status}" if result.status else result.error
            message = (
                f"LaunchDarkly does not take events ({what}): they are kept within bounds and sent "
                "again; check events_uri (LAUNCHDARKLY_EVENTS_URI), the network and the proxy"
            )
            self._calls.add(partial(log_once, "outage", what, message))

    def _refuse_key(self, status: int, key: str) -> None:
        self._backoff.refused(key)
        self._spool.add(lambda spool: spool.refused())
        message = (
            f"LaunchDarkly refuses the SDK key (HTTP {status}): nothing is sent until the key "
            "changes; check LAUNCHDARKLY_SDK_KEY"
        )
        self._calls.add(partial(log_once, "refused", str(status), message))

    def _split(self, payload: Payload, halves: tuple[Payload, ...] | None) -> None:
        if halves is None:
            self._drop("not_json", [payload])
        elif halves:
            payload.split(halves)
            self._spool.add(lambda spool: spool.replace(payload, halves))
            for half in reversed(halves):
                self._queue(half, first=True)
        else:
            key = payload.first_key()
            message = (
                f"{key}: an event is too large for LaunchDarkly (HTTP 413) and was dropped; give "
                "it less data"
            )
            self._calls.add(partial(log_once, "too_large", key, message))
            self._drop("too_large", [payload])

    def drop(self, reason: str, payloads: Iterable[Payload]) -> None:
        """Drop *payloads* that never came here, counted by *reason*."""
        with self.lock:
            self._drop(reason, payloads)
        self.run_deferred()

    def _drop(self, reason: str, payloads: Iterable[Payload]) -> None:
        """Drop *payloads*, counted by *reason*."""
        gone = list(payloads)
        if not gone:
            return
        self._spool.add(lambda spool: spool.forget(gone))
        for payload in gone:
            payload.state = "dropped"
            self._dropped += payload.custom
            self._calls.add(partial(_count_dropped, reason, payload))
        if (why := self._bound(reason)) is not None:
            message = (
                f"events are dropped: {why}; stats().events.dropped and stats().exposures.dropped "
                "count them"
            )
            self._calls.add(partial(log_once, reason, "", message))

    def _bound(self, reason: str) -> str | None:
        if reason == "too_old":
            return "they have waited for max_age without an answer of LaunchDarkly's"
        if reason != "backlog_full":
            return None
        if self.failing:
            return "LaunchDarkly does not take them, and more than max_bytes wait"
        return "they come faster than LaunchDarkly takes them, and more than max_bytes wait"

    def _give_receipt(self, payload: Payload, result: PostResult) -> None:
        if self._options.on_receipt is None:
            return
        what = (payload.id, payload.events, payload.custom, len(payload.body))
        how = (result.status, payload.attempts, result.seconds, result.error)
        try:
            self._options.on_receipt(Receipt(*what, *how))
        except (Exception, SystemExit) as error:
            log_internal_error("on_receipt", error)

    # -- the end -----------------------------------------------------------------------------------
    def stop(self) -> None:
        """Begin no further POST; what is in flight ends by itself."""
        with self.lock:
            self.closed = True
            self._work.notify_all()

    def leave(self) -> None:
        """Leave what waits to the spool, or to the next processor for the same place."""
        with self.lock:
            self._leave()
            self._review()
        self.run_deferred()

    def _leave(self) -> None:
        in_memory = []
        for payload in self._backlog.clear():
            if payload.stored:
                # No longer this process's to count; whoever takes it over counts it as emitted.
                self._calls.add(partial(_count_dropped, "spooled", payload))
            else:
                in_memory.append(payload)
        if in_memory:
            refused = self._backoff.refused_key == self._config.sdk_key
            uri = self._config.events_uri
            gone = undelivered.add(self.origin, uri, refused, in_memory)
            self._drop("backlog_full", gone)
            self._calls.add(undelivered.notify)

    def close(self) -> None:
        """Close idle connections."""
        self._transport.close()


def _count_delivered(payload: Payload) -> None:
    ledger.delivered(payload.custom)
    if payload.exposures:
        ledger.exposures_delivered(payload.exposures)


def _count_dropped(reason: str, payload: Payload) -> None:
    if payload.custom:
        ledger.dropped(reason, payload.custom)
    if payload.exposures:
        ledger.exposures_dropped(reason, payload.exposures)


def _halves(payload: Payload) -> tuple[Payload, ...] | None:
    """Return its halves; None for a body that cannot be read, out of a damaged spool."""
    try:
        return payload.halves()
    except (ValueError, OSError):
        return None


def start_thread(name: str, work: Callable[[], None]) -> threading.Thread:
    """Start a daemon thread of delivery's.

    Raises:
        RuntimeError: no thread can be started, as at exit.
    """
    started = threading.Thread(target=work, name=f"ldinstrument.delivery.{name}", daemon=True)
    started.start()
    return started
