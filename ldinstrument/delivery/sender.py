"""Post payloads, and post them again later, until LaunchDarkly takes them or a bound drops them.

Here they wait or are in flight; here is decided when they may leave, and here are the threads that
post them. Nobody else opens a connection: name resolution cannot be interrupted, so whoever flushes
waits for these threads, with a deadline.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from functools import partial
from math import inf
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from ..backoff import Backoff, Disposition, disposition, retry_after
from ..diagnostics import log_internal_error, log_once
from ..ledger import ledger
from ..process import start_thread
from .event_json import UNSETTLED, Payload
from .flush_report import Receipt
from .memory_spool import memory_spool, origin_of
from .options import Options
from .spool_writes import SpoolWrites
from .transport import CONNECTIONS, PostHeaders, PostResult, transport_of
from .unlocked_calls import UnlockedCalls

if TYPE_CHECKING:
    from .spool import Spool


IDLE_POSTER = 5.0
NEVER = float("inf")
_REPORTED = (*UNSETTLED, "delivered")


class Flush:
    """What one flush waits for: events that are in no payload yet, and payloads without an answer.

    Changed under the sender's lock.

    Args:
        wake: called once, when there is nothing left to wait for; must not wait.
        deadline: `time.monotonic` seconds; nothing that can only happen later is waited for.
    """

    __slots__ = ("batched", "deadline", "over", "payloads", "wake")

    def __init__(self, wake: Callable[[], object], deadline: float) -> None:
        self.wake = wake
        self.deadline = deadline
        self.batched = False
        """Whether everything that was recorded before it is in a payload."""
        self.payloads: list[Payload] = []
        self.over = False
        """Whether nothing more can happen before its deadline."""


class Sender:
    """Post payloads until each is delivered or dropped.

    Args:
        config: the SDK's configuration; its key is read anew for each POST.
        options: bounds and seams.
        spool: keeps payloads on disk; None without one.
        wake: asks the worker's thread to look after what waits; must not wait.
    """

    def __init__(
        self,
        config: Any,
        options: Options,
        spool: SpoolWrites | None,
        wake: Callable[[], None],
    ) -> None:
        self._config = config
        self._options = options
        self._spool = spool
        self._wake = wake
        # Re-entrant: a signal handler may flush what it has interrupted.
        self.lock = threading.RLock()
        self._work = threading.Condition(self.lock)
        self.calls = UnlockedCalls()
        """What `run_deferred` has to do."""
        self._waiting: deque[Payload] = deque()
        self._bytes = 0
        self._in_flight: set[Payload] = set()
        self.flushes: list[Flush] = []
        self._backoff = Backoff(options.first_pause, options.longest_pause)
        self._dropped = 0
        self._posters = self._idle = 0
        self._transport = (options.transport or transport_of)(config)
        self._headers = PostHeaders(config)
        self.last_accepted: PostResult | None = None
        """LaunchDarkly's last answer that it took a payload: its date bounds debug events."""
        self.needs_posters = False
        """Whether more waits than there are threads that wait for it."""
        self.closed = False
        self.tells_each_answer = False
        """Whether the worker is woken by every answer, not only while other payloads wait."""

    # -- what there is -----------------------------------------------------------------------------
    @property
    def origin(self) -> str:
        """A digest of where the events belong: the address and the key that it has now."""
        return origin_of(self._config.events_uri, self._config.sdk_key)

    @property
    def busy(self) -> bool:
        """Whether a payload waits or is in flight."""
        return bool(self._waiting or self._in_flight)

    @property
    def is_idle(self) -> bool:
        """Whether no payload waits."""
        return not self._waiting

    @property
    def room(self) -> int:
        """How many bytes may still wait."""
        return self._options.max_bytes - self._bytes

    def takes(self, size: int) -> bool:
        """Tell whether payloads of *size* bytes push no others out, nor what is tracked while they
        are made; they may once LaunchDarkly does not answer.
        """
        return size <= self.fitting or not self._waiting

    @property
    def fitting(self) -> float:
        """How many bytes of payloads may come that push no others out; any, once LaunchDarkly does
        not answer.
        """
        return self._options.max_bytes // 2 - self._bytes if self._backoff.healthy else inf

    def next_attempt(self) -> float:
        """Return when a payload that waits may leave (`time.monotonic`); infinity when none waits
        for its time.
        """
        with self.lock:
            ready_at = self._ready_at()
            return ready_at if self._waiting and ready_at > time.monotonic() else NEVER

    def _ready_at(self) -> float:
        return self._backoff.ready_at(self._config.sdk_key)

    # -- payloads come -----------------------------------------------------------------------------
    def add(self, payloads: Iterable[Payload], batched: Iterable[Flush] = ()) -> None:
        """Queue *payloads*; what no longer fits, or has waited too long, is dropped by name.

        The caller then calls `run_deferred`, without the lock.

        Args:
            payloads: new ones, which every flush covers that waits for events to be batched.
            batched: flushes for which these are the last.
        """
        with self.lock:
            if self._waiting:
                self._drop_expired()
            for payload in payloads:
                payload.state = "waiting"
                self._bytes += len(payload.body)
                self._waiting.append(payload)
                if self._bytes > self._options.max_bytes:
                    self._drop_surplus()

            for flush in self.flushes:
                if not flush.batched:
                    flush.payloads += payloads
            for flush in batched:
                flush.batched = True
            if self.closed:
                self._leave()
            self.calls.queued.extend(self._over())

            waiting = len(self._waiting)
            self._work.notify(waiting)
            self.needs_posters = waiting > self._idle or not self._backoff.healthy

    def _drop_surplus(self) -> None:
        gone = []
        while self._bytes > self._options.max_bytes and len(self._waiting) > 1:
            gone.append(min(self._waiting, key=attrgetter("age_from")))
            self._take_out(gone[-1])
        self._drop("backlog_full", gone)

    def _drop_expired(self) -> None:
        horizon = time.monotonic() - self._options.max_age
        gone = [payload for payload in self._waiting if payload.age_from < horizon]
        for payload in gone:
            self._take_out(payload)
        self._drop("too_old", gone)

    def without_waiting(self, payloads: Iterable[Payload]) -> list[Payload]:
        """Return those of *payloads* that do not wait here; with the lock."""
        waiting = set(map(id, self._waiting))
        return [payload for payload in payloads if id(payload) not in waiting]

    def _take_out(self, payload: Payload) -> None:
        self._waiting.remove(payload)
        self._bytes -= len(payload.body)

    def count_dropped(self, reason: str, events: int) -> None:
        """Count *events* `track` events that were dropped before they were in a payload."""
        ledger.dropped(reason, events)
        with self.lock:
            self._dropped += events

    def run_deferred(self) -> None:
        """Make the calls that were queued under the lock; the caller must not hold it."""
        if self.calls.queued:
            self.calls.run()
        if self._spool is not None:
            self._spool.run()

    # -- flushes wait ------------------------------------------------------------------------------
    def open_flush(self, flush: Flush) -> None:
        """Let *flush* cover every payload here, and shorten the pause between attempts."""
        with self.lock:
            if not self._backoff.healthy:
                self._backoff.shorten()
            flush.payloads += [*self._in_flight, *self._waiting]
            if self.flushes:  # without those that a signal's handler kept from being closed
                left = [known for known in self.flushes if not (known.over and known.batched)]
                self.flushes[:] = left
            self.flushes.append(flush)
            if self.closed:  # nobody batches, nobody posts any more
                flush.batched = True
                self.calls.queued.extend(self._over())
        if self.closed:
            self.run_deferred()

    def close_flush(self, flush: Flush, counts: Counter[str], unbatched: Callable[[], int]) -> None:
        """Stop waiting, and add the events of *flush* to *counts*.

        Those from `track` by the state of their payload, those of other kinds that are not
        delivered under `others`, and under `dropped` what was dropped since the last report. (The
        halves of a payload that was split are among those of the flush, too.)

        Args:
            flush: is over, or has waited long enough.
            counts: by state.
            unbatched: returns how many events are in no payload yet; called with the lock.
        """
        with self.lock:
            if flush in self.flushes:  # not after a fork
                self.flushes.remove(flush)
            for payload in flush.payloads:
                if payload.state in _REPORTED:
                    counts[payload.state] += payload.custom
                if payload.state not in ("delivered", "split"):
                    counts["others"] += payload.events - payload.custom
            if not flush.batched:
                counts["waiting"] += unbatched()
            counts["dropped"] += self._dropped
            self._dropped = 0

    def forget_flush(self, flush: Flush) -> None:
        """Drop *flush*, for which nobody waits after all."""
        with self.lock:
            if flush in self.flushes:
                self.flushes.remove(flush)

    def _over(self) -> list[Callable[[], object]]:
        """Return what wakes the flushes for which nothing more can happen before their deadline."""
        wakes: list[Callable[[], object]] = []
        next_attempt = 0.0 if self._backoff.healthy else self._ready_at()
        if self.closed:
            next_attempt = NEVER
        for flush in self.flushes:
            left = [payload.state for payload in flush.payloads if payload.state in UNSETTLED]
            goes_on = left and ("in_flight" in left or next_attempt <= flush.deadline)
            if flush.batched and not flush.over and not goes_on:
                flush.over = True
                wakes.append(flush.wake)
        return wakes

    # -- payloads leave ----------------------------------------------------------------------------
    def start_posters(self, *, here: bool = True) -> None:
        """Wake or start threads for what may leave now.

        Args:
            here: where no thread can start any more, as at exit, post on this one.
        """
        with self.lock:
            shut = self.closed or self._ready_at() > time.monotonic()
            wanted = 0 if shut else min(len(self._waiting), CONNECTIONS)
            self._work.notify(wanted)
            missing = min(wanted - self._idle, CONNECTIONS - self._posters)
        for _ in range(missing):
            if not self._start_poster() and here and (payload := self._next(0)) is not None:
                self._attempt(payload)

    def _start_poster(self) -> bool:
        with self.lock:
            self._posters += 1
        if start_thread("delivery.post", self._post_all) is None:
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

    def _next(self, timeout: float = IDLE_POSTER) -> Payload | None:
        """Take the payload that may leave now, one at a time while the server fails.

        Args:
            timeout: how many seconds to wait for one.

        Returns:
            None when there was none, or nothing may be sent any more.
        """
        idle_until = time.monotonic() + timeout
        with self.lock:
            while not self.closed:
                if self._waiting and (self._backoff.healthy or self._may_try()):
                    payload = self._waiting.popleft()
                    self._bytes -= len(payload.body)
                    payload.state = "in_flight"
                    payload.attempts += 1
                    self._in_flight.add(payload)
                    return payload
                left = idle_until - time.monotonic()
                if left <= 0:
                    return None
                self._idle += 1
                self._work.wait(left)
                self._idle -= 1
        return None

    def _may_try(self) -> bool:
        """Tell whether a server that fails may be tried again now."""
        probing = self._backoff.failures and self._in_flight
        return not probing and self._ready_at() <= time.monotonic()

    def _attempt(self, payload: Payload) -> None:
        key = self._config.sdk_key
        result = None
        try:
            result = self._transport.post(payload, self._headers.of(payload.id, payload.zipped))
        except Exception as error:
            log_internal_error("delivery", error)
            result = PostResult(0, error=type(error).__name__)
        finally:  # also when a signal handler raises in here: nothing may stay in flight for ever
            self._settle(payload, result or PostResult(0, error="interrupted", lost=True), key)

    # -- answers come ------------------------------------------------------------------------------
    def _settle(self, payload: Payload, result: PostResult, key: str) -> None:
        """Note what became of *payload*, and wake the flushes that have waited for it."""
        try:
            if self._options.on_receipt is not None:
                self._give_receipt(payload, result)
        finally:  # the host's callback may end its thread, not our count
            if result.accepted:
                # The ledger knows before a flush is woken, and without our lock: a signal handler
                # that has interrupted the ledger may wait for it.
                self.last_accepted = result
                ledger.count(delivered=payload.custom, exposures_delivered=payload.exposures)
            else:
                self._reject(payload, result, key)

            with self.lock:
                if result.accepted:
                    self._in_flight.discard(payload)
                    payload.state = "delivered"
                    if not self._backoff.healthy:
                        self._backoff.succeeded()
                    if self._spool is not None:
                        self._spool.add(partial(_forget, [payload]))
                if self.closed:
                    self._leave()
                elif self._waiting or self.tells_each_answer:
                    self._wake()  # the worker's thread keeps the time of the next attempt
                wakes = self._over()
                if self.calls.queued or self.calls.runner:  # the ledger waits for them
                    self.calls.queued.extend(wakes)
                    wakes = []
            for wake in wakes:
                wake()
            if self.calls.queued or self._spool is not None:
                self.run_deferred()

    def _reject(self, payload: Payload, result: PostResult, key: str) -> None:
        payload.bad_requests += result.status == 400
        meaning = disposition(result.status, payload.bad_requests)
        halves = _halves(payload) if meaning is Disposition.SPLIT else ()
        with self.lock:
            self._in_flight.discard(payload)
            if meaning is Disposition.SPLIT:
                self._split(payload, halves)
            elif meaning is Disposition.DROP:
                self._drop("http_400", [payload])
            else:
                self._keep(payload, result, key, meaning)

    def _keep(self, payload: Payload, result: PostResult, key: str, meaning: Disposition) -> None:
        if meaning is Disposition.REFUSED_KEY:
            self._refuse_key(result.status, key)
        else:
            self._back_off(result)
        payload.state = "failed"
        self._waiting.append(payload)
        self._bytes += len(payload.body)
        self._drop_surplus()

    def _back_off(self, result: PostResult) -> None:
        asked = retry_after(result.headers.get("Retry-After"))
        self._backoff.failed(retry_after=asked, lost=result.lost)
        if self._backoff.failures == 2:  # one alone may be a connection that was closed under us
            what = f"HTTP {result.status}" if result.status else result.error
            message = (
                f"LaunchDarkly does not take events ({what}): they are kept within bounds and sent "
                "again; check events_uri (LAUNCHDARKLY_EVENTS_URI), the network and the proxy"
            )
            self.calls.add(partial(log_once, "outage", what, message))

    def _refuse_key(self, status: int, key: str) -> None:
        self._backoff.refused(key)
        if self._spool is not None:
            self._spool.add(lambda spool: spool.refused())
        message = (
            f"LaunchDarkly refuses the SDK key (HTTP {status}): nothing is sent until the key "
            "changes; check LAUNCHDARKLY_SDK_KEY"
        )
        self.calls.add(partial(log_once, "refused", str(status), message))

    def _split(self, payload: Payload, halves: tuple[Payload, ...] | None) -> None:
        if halves is None:
            self._drop("not_json", [payload])
        elif halves:
            payload.state = "split"
            for flush in self.flushes:
                if payload in flush.payloads:
                    flush.payloads += halves
            if self._spool is not None:
                self._spool.add(lambda spool: spool.replace(payload, halves))
            self._waiting.extendleft(reversed(halves))
            self._bytes += sum([len(half.body) for half in halves])
            self._drop_surplus()
        else:
            key = payload.first_key()
            message = (
                f"{key}: an event is too large for LaunchDarkly (HTTP 413) and was dropped; give "
                "it less data"
            )
            self.calls.add(partial(log_once, "too_large", key, message))
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
        if self._spool is not None:
            self._spool.add(partial(_forget, gone))
        for payload in gone:
            payload.state = "dropped"
            self._dropped += payload.custom
            self.calls.add(partial(_count_dropped, reason, payload))
        if (why := self._bound(reason)) is not None:
            message = (
                f"events are dropped: {why}; stats().events.dropped and stats().exposures.dropped "
                "count them"
            )
            self.calls.add(partial(log_once, reason, "", message))

    def _bound(self, reason: str) -> str | None:
        if reason == "too_old":
            return "they have waited for max_age without an answer of LaunchDarkly's"
        if reason != "backlog_full":
            return None
        if not self._backoff.healthy:
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
            self.calls.queued.extend(self._over())
        self.run_deferred()

    def _leave(self) -> None:
        in_memory = []
        left, self._bytes = list(self._waiting), 0
        self._waiting.clear()
        for payload in left:
            if payload.stored:
                # No longer this process's to count; whoever takes it over counts it as emitted.
                self.calls.add(partial(_count_dropped, "spooled", payload))
            else:
                in_memory.append(payload)
        if in_memory:
            refused = self._backoff.refused_key == self._config.sdk_key
            uri = self._config.events_uri
            gone = memory_spool.add(self.origin, uri, refused, in_memory)
            self._drop("backlog_full", gone)
            self.calls.add(memory_spool.notify)

    def close(self) -> None:
        """Close idle connections."""
        self._transport.close()


def _forget(payloads: list[Payload], spool: Spool) -> None:
    spool.forget(payloads)


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
