"""What sends: payloads that wait or fly, the gate they leave by, a few posting threads, and what an
answer means.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from .. import sdk
from ..backoff import Backoff, Disposition, disposition, retry_after
from ..diagnostics import log_internal_error, log_once
from ..ledger import ledger
from .backlog import Backlog
from .deferred import Chores, Verdicts
from .options import Options
from .payloads import Payload
from .transport import CONNECTIONS, PAYLOAD_ID, Answer, Outstanding, transport_of
from .undelivered import origin_of, orphanage

IDLE_POSTER = 5.0
SMALL = 256 * 1024
_BOUNDS = {"backlog_full": "more than max_bytes wait", "too_old": "they have waited for max_age"}


class Sender:
    """Posts payloads until each has met its fate. Methods that say so need the engine's lock.

    Args:
        config: the SDK's configuration; its key is read anew for each POST.
        options: bounds and seams.
        lock: the engine's, re-entrant.
        chores: what is to be written to the spool.
        verdicts: what is to be told without the lock.
        answered: called with each answer, the lock held.
    """

    def __init__(
        self,
        config: Any,
        options: Options,
        lock: threading.RLock,
        chores: Chores,
        verdicts: Verdicts,
        answered: Callable[[Answer], None],
    ) -> None:
        self._config = config
        self._options = options
        self._lock = lock
        self._work = threading.Condition(lock)
        self._chores = chores
        self._verdicts = verdicts
        self._answered = answered
        self.backlog = Backlog(options.max_bytes, options.max_age)
        self.flying: set[Payload] = set()
        self.gate = Backoff(options.first_pause, options.longest_pause)
        self.dropped = 0
        self.closed = False
        self._posters = self._idle = 0
        self._transport = (options.transport or transport_of)(config)
        self._ready_now: Callable[[], bool] = getattr(self._transport, "ready", bool)
        self._headers: tuple[str | None, dict[str, str], dict[str, str]] = (None, {}, {})

    @property
    def origin(self) -> str:
        """A digest of where the events belong: the address and the key that the configuration has
        now.
        """
        return origin_of(self._config.events_uri, self._config.sdk_key)

    # -- with the engine's lock -------------------------------------------------------------------
    def ready_at(self) -> float:
        """When the next payload may leave (`time.monotonic`)."""
        return self.gate.ready_at(self._config.sdk_key)

    def add(self, payloads: list[Payload]) -> None:
        """Queue *payloads*; what no longer fits, or has waited too long, is given up by name."""
        for payload in payloads:
            payload.state = "waiting"
            self._queue(payload)
        if len(self.backlog) > len(payloads):  # something waited before
            self.give_up("too_old", self.backlog.expired())

    def _queue(self, payload: Payload, *, first: bool = False) -> None:
        gone = self.backlog.add(payload, first=first)
        if gone:
            self.give_up("backlog_full", gone)

    def give_up(self, reason: str, payloads: Iterable[Payload]) -> None:
        """Drop *payloads*, counted by *reason*."""
        gone = list(payloads)
        if gone:
            self._chores.note(lambda spool: spool.forget(gone))
        for payload in gone:
            payload.state = "dropped"
            self.dropped += payload.custom
            if payload.custom:
                self._verdicts.note(partial(ledger.dropped, reason, payload.custom))
        if gone and reason in _BOUNDS:
            message = f"events that could not be delivered are dropped: {_BOUNDS[reason]}; see stats().events.dropped"
            self._verdicts.note(partial(log_once, reason, "", message))

    def leave(self) -> None:
        """Leave what waits to the spool, or to the next processor for the same place."""
        homeless = []
        for payload in self.backlog.clear():
            if not payload.stored:
                homeless.append(payload)
            elif (
                payload.custom
            ):  # no longer this process's to count; whoever adopts it counts it as emitted
                self._verdicts.note(partial(ledger.dropped, "spooled", payload.custom))
        if homeless:
            refused = self.gate.refused_key == self._config.sdk_key
            self.give_up(
                "backlog_full",
                orphanage.leave(self.origin, self._config.events_uri, refused, homeless),
            )

    def rouse(self) -> bool:
        """Wake idle posters; whether they are enough for what waits and may leave."""
        self._work.notify(len(self.backlog))
        return self._idle >= len(self.backlog) and self.ready_at() <= time.monotonic()

    def end(self) -> None:
        """No further POST is begun; what flies ends by itself."""
        self.closed = True
        self._work.notify_all()

    def resend_mine(self) -> None:
        """Let another thread send what this very thread is sending: a signal handler flushes what
        it has interrupted.

        The id is the same, so LaunchDarkly counts one of the two.
        """
        me = threading.get_ident()
        for payload in [one for one in self.flying if one.sender == me]:
            payload.sender = None
            payload.state = "waiting"
            self._queue(payload, first=True)

    # -- without it -------------------------------------------------------------------------------
    def close(self) -> None:
        """Close idle connections."""
        self._transport.close()

    def staff(self) -> None:
        """Wake or start posters for what may leave; where no thread can start any more (at exit),
        post right here.
        """
        with self._lock:
            shut = self.closed or self.ready_at() > time.monotonic()
            wanted = 0 if shut else min(len(self.backlog), CONNECTIONS)
            self._work.notify(wanted)
            missing = min(wanted - self._idle, CONNECTIONS - self._posters)
        for _ in range(missing):
            with self._lock:
                self._posters += 1
            try:
                thread("post", self._post_all)
            except RuntimeError:
                with self._lock:
                    self._posters -= 1
                    payload = self._ready()
                if payload is not None:
                    self._attempt(payload)

    def prompt(self) -> bool:
        """Whether `send_here` would find an open connection."""
        return self._ready_now()

    def send_here(self, deadline: float) -> None:
        """Post the one small payload that waits on the calling thread, which would otherwise wait
        for two others.

        Nothing is begun that could outlast *deadline* (`time.monotonic`): it takes a connection
        that is open already, and an answer that is late is left to a thread.
        """
        with self._lock:
            few = not self.closed and len(self.backlog) == 1 and self.backlog.bytes <= SMALL
            payload = self._ready() if few else None
        if payload is not None:
            payload.sender = threading.get_ident()
            self._attempt(payload, deadline)

    def _post_all(self) -> None:
        try:
            while (payload := self._next()) is not None:
                _contained(partial(self._attempt, payload))
        finally:
            with self._lock:
                self._posters -= 1

    def _next(self) -> Payload | None:
        """Wait for a payload that may leave now; None when this thread was idle for long, or must
        end.
        """
        idle_until = time.monotonic() + IDLE_POSTER
        with self._lock:
            while not self.closed:
                if (payload := self._ready()) is not None:
                    return payload
                if (patience := idle_until - time.monotonic()) <= 0:
                    return None
                self._idle += 1
                self._work.wait(patience)
                self._idle -= 1
        return None

    def _ready(self) -> Payload | None:
        """The payload that may leave now, marked as flying; one probe at a time while the server
        fails.
        """
        if not self.backlog or (self.gate.failures and self.flying):
            return None
        if self.ready_at() > time.monotonic():
            return None
        payload = self.backlog.take()
        payload.state = "flying"
        payload.attempts += 1
        payload.flights += 1
        self.flying.add(payload)
        return payload

    def _attempt(self, payload: Payload, deadline: float | None = None) -> None:
        """Post once; without *deadline*, wait for as long as the configuration allows."""
        key = self._config.sdk_key
        answer: Answer | Outstanding | None = Answer(0, error="interrupted", lost=True)
        try:
            answer = self._post(payload, key, deadline)
        except Exception as error:
            log_internal_error("delivery", error)
            answer = Answer(0, error=type(error).__name__)
        finally:  # also when a signal handler raises in here: what it interrupted must not fly for ever
            payload.sender = None
            if isinstance(answer, Outstanding):
                self._follow(payload, answer, key)
            elif answer is None:
                self._put_back(payload)
            else:
                self._take_in(payload, answer, key)

    def _post(
        self, payload: Payload, key: str, deadline: float | None
    ) -> Answer | Outstanding | None:
        known, plain, zipped = self._headers
        if known != key:
            plain = sdk.event_headers(self._config)
            zipped = {**plain, "Content-Encoding": "gzip"}
            self._headers = (key, plain, zipped)
        headers = zipped if payload.zipped else plain
        if deadline is None:
            return self._transport.post(payload, {**headers, PAYLOAD_ID: payload.id})
        found: Answer | Outstanding | None = self._transport.post_by(payload, headers, deadline)  # type: ignore[attr-defined]
        return found

    def _follow(self, payload: Payload, late: Outstanding, key: str) -> None:
        """Wait for a *late* answer on a thread of its own."""

        def wait() -> None:
            self._take_in(payload, late.wait(), key)

        try:
            thread("post", partial(_contained, wait))
        except RuntimeError:  # the interpreter is going
            self._take_in(payload, Answer(0, error="TimeoutError"), key)

    def _put_back(self, payload: Payload) -> None:
        """It was never sent after all."""
        with self._lock:
            payload.attempts -= 1
            payload.flights -= 1
            self.flying.discard(payload)
            payload.state = "failed" if payload.attempts else "waiting"
            self._queue(payload, first=True)
            if self.closed:
                self.leave()

    def _take_in(self, payload: Payload, answer: Answer, key: str) -> None:
        try:
            self._receipt(payload, answer)
        finally:  # the host's callback may end its thread, not our count
            halves = _halves(payload) if answer.status == 413 else ()
            with self._lock:
                payload.flights -= 1
                if not payload.flights:
                    self.flying.discard(payload)
                if self._counts(payload, answer):
                    self._digest(payload, answer, key, halves)
                if self.closed:
                    self.leave()
                self._answered(answer)
            self._verdicts.pronounce()
            self._chores.do()

    def _counts(self, payload: Payload, answer: Answer) -> bool:
        """Whether *answer* decides: not when the payload was sent twice (see `resend_mine`) and the
        other may.
        """
        if payload.state == "flying" and not payload.flights:
            return True
        if not answer.accepted or payload.settled or payload.state == "split":
            return False
        return payload.state == "flying" or self.backlog.discard(payload)

    def _digest(
        self, payload: Payload, answer: Answer, key: str, halves: tuple[Payload, ...] | None
    ) -> None:
        status = answer.status
        payload.bad_requests += status == 400
        meaning = disposition(status, payload.bad_requests)
        if meaning is Disposition.DELIVERED:
            self.gate.succeeded()
            payload.state = "delivered"
            self._verdicts.note(partial(ledger.delivered, payload.custom))
            self._chores.note(lambda spool: spool.forget([payload]))
        elif meaning is Disposition.SPLIT:
            self._split(payload, halves)
        elif meaning is Disposition.DROP:
            self.give_up("http_400", [payload])
        else:
            if meaning is Disposition.REFUSED_KEY:
                self._refuse_key(status, key)
            else:
                self._back_off(answer)
            payload.state = "failed"
            self._queue(payload)

    def _back_off(self, answer: Answer) -> None:
        self.gate.failed(
            retry_after=retry_after(answer.headers.get("Retry-After")), lost=answer.lost
        )
        if self.gate.failures == 2:  # one alone may be a connection that was closed under us
            what = f"HTTP {answer.status}" if answer.status else answer.error
            message = (
                f"LaunchDarkly does not take events ({what}): they are kept within bounds and "
                f"sent again; check "
                "events_uri (LAUNCHDARKLY_EVENTS_URI), the network and the proxy"
            )
            self._verdicts.note(partial(log_once, "outage", what, message))

    def _refuse_key(self, status: int, key: str) -> None:
        self.gate.refused(key)
        self._chores.note(lambda spool: spool.refused())
        message = (
            f"LaunchDarkly refuses the SDK key (HTTP {status}): nothing is sent until the key "
            f"changes; "
            "check LAUNCHDARKLY_SDK_KEY"
        )
        self._verdicts.note(partial(log_once, "refused", str(status), message))

    def _split(self, payload: Payload, halves: tuple[Payload, ...] | None) -> None:
        if halves is None:
            self.give_up("not_json", [payload])
        elif halves:
            payload.split(halves)
            self._chores.note(lambda spool: spool.replace(payload, halves))
            for half in reversed(halves):
                self._queue(half, first=True)
        else:
            key = payload.first_key()
            self._verdicts.note(
                partial(log_once, "too_large", key, f"{key}: too large for LaunchDarkly (HTTP 413)")
            )
            self.give_up("too_large", [payload])

    def _receipt(self, payload: Payload, answer: Answer) -> None:
        if self._options.on_receipt is None:
            return
        from .reports import Receipt

        what = (payload.id, payload.events, payload.custom, len(payload.body))
        try:
            self._options.on_receipt(
                Receipt(*what, answer.status, payload.attempts, answer.seconds, answer.error)
            )
        except (Exception, SystemExit) as error:
            log_internal_error("on_receipt", error)


def _halves(payload: Payload) -> tuple[Payload, ...] | None:
    """Its halves, made while nobody waits for the lock; None of a body that cannot be read, out of
    a damaged spool.
    """
    try:
        return payload.halves()
    except (ValueError, OSError):
        return None


def _contained(work: Callable[[], None]) -> None:
    """Do *work* on a thread of ours, which whatever the host's callbacks raise does not end."""
    try:
        work()
    except BaseException as error:
        log_internal_error("delivery", error)


def thread(name: str, work: Callable[[], None]) -> threading.Thread:
    """Start a daemon thread of delivery's."""
    started = threading.Thread(target=work, name=f"ldinstrument.delivery.{name}", daemon=True)
    started.start()
    return started
