"""The engine behind an event processor: one thread that seals, a few that post, all of them daemons.

Name resolution cannot be interrupted and a server may never answer, so nobody but these threads touches the network;
whoever waits, waits for them with a deadline.
"""

from __future__ import annotations

import os
import queue
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from .. import emission, sdk
from ..ledger import ledger
from .backlog import Backlog
from .chores import Chores
from .complaints import on_event_loop, say
from .gates import Gate, retry_after
from .options import Options
from .orphans import origin_of, orphanage
from .payloads import Payload, Sealer, custom_among
from .tickets import Ticket
from .transport import CONNECTIONS, Answer, PoolTransport
from .verdicts import Verdicts

EARLY_FLUSH = 1000
IDLE_POSTER = 5.0
ADOPT_EVERY = 30.0
LINGER = 0.01
FEW = 100
MOST_BAD_REQUESTS = 3


class Engine:
    """Takes events without waiting, delivers them, and knows what became of each.

    Args:
        config: the SDK's configuration; its key is read anew for each POST.
        options: bounds and seams.
    """

    def __init__(self, config: Any, options: Options) -> None:
        self.config = config
        self.options = options
        self._capacity: int = config.events_max_pending
        self._early = max(1, min(EARLY_FLUSH, self._capacity // 2))
        self._begin()

    def _begin(self) -> None:
        """Everything that a forked child needs afresh."""
        self._lock = threading.RLock()  # re-entrant: a signal handler may flush what it has interrupted
        self._work = threading.Condition(self._lock)
        self._recorded: deque[tuple[Any, bool]] = deque()
        self._bell: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._rung = False
        self._backlog = Backlog(self.options.max_bytes, self.options.max_age)
        self._flying: set[Payload] = set()
        self._gate = Gate(self.options.first_pause, self.options.longest_pause)
        self._tickets: list[Ticket] = []
        self._drafts: list[str] = []
        self._sealing, self._limbo = False, 0
        self._chores = Chores(self.options.spool, self.origin)
        self._verdicts = Verdicts()
        self._sealer_lock = threading.Lock()
        self._lost: deque[None] = deque()
        self._posters = self._idle = self._dropped = 0
        self._coordinator: threading.Thread | None = None
        self.closed = self._abandoned = self._adopting = False
        self._ends_at = float("inf")
        self._sealer = Sealer(self.config)
        self._transport = (self.options.transport or PoolTransport)(self.config)
        self._pid = os.getpid()

    @property
    def origin(self) -> str:
        """A digest of where the events belong: the address and the key that the configuration has now."""
        return origin_of(self.config.events_uri, self.config.sdk_key)

    # -- taking events: any thread, also in a forked child ----------------------------------------
    def accept(self, event: Any, *, ours: bool) -> None:
        """Queue *event*; never waits unless `wait_when_full` allows it, never raises."""
        if self._coordinator is None or self._pid != os.getpid():
            self.start()
        if self.closed:
            self._lose("closed", event)
        elif len(self._recorded) >= self._capacity and not self._room():
            self._lose("queue_full", event)
        else:
            self._recorded.append((event, ours))
            if not self._rung:
                if len(self._recorded) >= self._early:
                    self._ring()
                elif self._chores:
                    self._ring(seal=False)

    def start(self) -> None:
        """Start the coordinator unless it runs; in a forked child everything begins afresh."""
        self._renew()
        with self._lock:
            if self._coordinator is None and not self.closed:
                self._coordinator = _thread("coordinator", self._coordinate)

    def _renew(self) -> None:
        if self._pid != os.getpid():
            with _after_fork:
                if self._pid != os.getpid():
                    self._begin()

    def _lose(self, reason: str, event: Any) -> None:
        if sdk.is_custom(event):
            ledger.dropped(reason)
            self._lost.append(None)
        if reason == "queue_full":
            say(
                reason,
                "",
                f"events come faster than they can be sent: more than events_max_pending={self._capacity} wait; "
                "what does not fit is dropped and counted, see stats().events.dropped",
            )

    def _count_lost(self) -> int:
        """How many were lost on other threads since; appending is all that those may do without a lock."""
        count = len(self._lost)
        for _ in range(count):
            self._lost.popleft()
        return count

    def _room(self) -> bool:
        self._ring()
        patience = self.options.wait_when_full
        if patience <= 0 or on_event_loop():
            return False
        deadline = time.monotonic() + patience
        while len(self._recorded) >= self._capacity:
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.001)
        return True

    def _ring(self, seal: bool = True) -> None:
        self._rung = True
        self._bell.put(seal)  # re-entrant, unlike a Condition: a finaliser may come by here

    # -- sealing: the coordinator ------------------------------------------------------------------
    def _coordinate(self) -> None:
        flush_at = adopt_at = time.monotonic()
        forget_at = flush_at + self.config.context_keys_flush_interval
        flush_at += self.config.flush_interval
        while not self.closed:
            if self._adopting or time.monotonic() >= adopt_at:
                self._guarded(self._adopt)
                adopt_at = time.monotonic() + ADOPT_EVERY
            seal = self._rings(min(flush_at, forget_at, adopt_at, self._ends_at))
            now = time.monotonic()
            if now >= forget_at:
                with self._sealer_lock:
                    self._sealer.intake.forget_contexts()
                forget_at = now + self.config.context_keys_flush_interval
            if now >= flush_at:
                flush_at = now + self.config.flush_interval
                self._guarded(emission.settle)
                seal = True
            self._guarded(self._seal if seal else self._draft)
            self._guarded(self._staff)
            if self._abandoned and self._may_end():
                self.close()

    def _rings(self, until: float) -> bool:
        """Wait for the bell, the time *until*, or the opening of the gate; whether somebody wants things sealed."""
        with self._lock:
            opens = self._gate.opens_at(self.config.sdk_key)
            if self._backlog and opens > time.monotonic():  # an open gate is the posters' affair
                until = min(until, opens)
        try:
            seal = self._bell.get(timeout=max(0.0, until - time.monotonic()))
            if not seal and self._chores:  # a few events per transaction
                seal = self._bell.get(timeout=LINGER)
            while not self._bell.empty():
                seal = self._bell.get() or seal
        except queue.Empty:
            seal = False
        self._rung = False  # whoever records from now on rings again
        return seal

    @staticmethod
    def _guarded(work: Callable[[], object]) -> None:
        try:
            work()
        except Exception as error:
            ledger.failure("delivery", error)

    def _take(self) -> list[tuple[Any, bool]]:
        """Everything recorded so far; until `_sealing` is over, no ticket may call itself sealed."""
        with self._lock:
            self._sealing = True
            taken = [self._recorded.popleft() for _ in range(len(self._recorded))]
            self._limbo = _custom(taken)
        return taken

    def _draft(self) -> None:
        """With a spool: put what was recorded on disk, long before it is sealed and sent."""
        if self._chores:
            with self._sealer_lock:
                self._draft_now()

    def _draft_now(self) -> None:
        if not self._recorded:
            return
        texts = self._sealer.texts(self._take())
        with self._lock:
            self._drafts += texts
            self._dropped += self._limbo - custom_among(texts)
            self._sealing, self._limbo = False, 0
            self._chores.note(lambda spool: spool.draft(texts))
        self._chores.do()

    def _seal(self) -> None:
        """Make payloads of everything recorded so far."""
        with self._sealer_lock:
            self._seal_now()

    def _seal_here(self) -> None:
        """A few events only: seal them on the thread that waits for them, which saves waking another one first."""
        if not self._chores and len(self._recorded) <= FEW and self._sealer_lock.acquire(blocking=False):
            try:
                self._guarded(self._seal_now)
            finally:
                self._sealer_lock.release()

    def _seal_now(self) -> None:
        with self._lock:
            waiting = [ticket for ticket in self._tickets if not ticket.sealed]
        if self._chores:
            self._draft_now()
            payloads = self._join_drafts()
        else:
            payloads = self._sealed(self._take())
        with self._lock:
            self._dropped += self._count_lost()
            self._dropped += self._limbo - sum(payload.custom for payload in payloads)
            self._sealing, self._limbo = False, 0
            for payload in payloads:
                self._give_up("backlog_full", self._backlog.add(payload))
            self._give_up("too_old", self._backlog.expired())
            for ticket in self._tickets:
                if not ticket.sealed:
                    ticket.cover(payloads)
            for ticket in waiting:
                ticket.sealed = True
            self._review()
        self._verdicts.pronounce()
        self._chores.do()

    def _sealed(self, taken: list[tuple[Any, bool]]) -> list[Payload]:
        try:
            return self._sealer.seal(taken)
        except Exception as error:  # each event is guarded by itself, so this is a fault of ours: at least count it
            ledger.failure("delivery", error)
            ledger.dropped("internal", _custom(taken))
            return []

    def _join_drafts(self) -> list[Payload]:
        with self._lock:
            drafts, self._drafts = self._drafts, []
            self._sealing, self._limbo = True, custom_among(drafts)
        payloads = self._sealer.join(drafts)
        if payloads:
            self._chores.note(lambda spool: spool.seal(payloads))
            self._chores.do()
        return payloads

    def adopt_soon(self) -> None:
        """Somebody left something; have a look. Does not wait, takes no lock."""
        self._adopting = True
        self._bell.put(False)

    def _adopt(self) -> None:
        """Take over what closed processors of this process, or dead processes with our spool, left for our place."""
        self._adopting = False
        self._adopt_orphans()
        if not self._chores:
            return
        with self._lock:
            room = self.options.max_bytes - self._backlog.bytes
        found: list[Payload] = []
        self._chores.note(lambda spool: found.extend(spool.adopt(room, self.options.max_age)))
        self._chores.do()
        ledger.emitted(sum(payload.custom for payload in found))
        self._receive(found)

    def _adopt_orphans(self) -> None:
        if orphanage and not self.closed:
            self._receive(orphanage.adopt(self.origin, self.config.events_uri))

    def _receive(self, payloads: list[Payload]) -> None:
        if payloads:
            with self._lock:
                for payload in payloads:
                    payload.state = "waiting"
                    self._give_up("backlog_full", self._backlog.add(payload))
                if self.closed:
                    self._leave()
            self._verdicts.pronounce()
            self._bell.put(False)

    # -- posting: a few daemon threads -------------------------------------------------------------
    def _staff(self) -> None:
        """Wake or start posters for what may leave; where no thread can start any more (at exit), post right here."""
        with self._lock:
            shut = self.closed or self._gate.opens_at(self.config.sdk_key) > time.monotonic()
            wanted = 0 if shut else min(len(self._backlog), CONNECTIONS)
            self._work.notify(wanted)
            missing = min(wanted - self._idle, CONNECTIONS - self._posters)
        for _ in range(missing):
            with self._lock:
                self._posters += 1
            try:
                _thread("post", self._post_all)
            except RuntimeError:
                with self._lock:
                    self._posters -= 1
                    payload = self._ready()
                if payload is not None:
                    self._attempt(payload)

    def _post_all(self) -> None:
        try:
            while (payload := self._next()) is not None:
                self._attempt(payload)
        finally:
            with self._lock:
                self._posters -= 1

    def _next(self) -> Payload | None:
        """Wait for a payload that may leave now; None when this thread was idle for long, or must end."""
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
        """The payload that may leave now, marked as flying; one probe at a time while the server fails."""
        if not self._backlog or (self._gate.failures and self._flying):
            return None
        if self._gate.opens_at(self.config.sdk_key) > time.monotonic():
            return None
        payload = self._backlog.take()
        payload.state = "flying"
        payload.attempts += 1
        self._flying.add(payload)
        return payload

    def _attempt(self, payload: Payload) -> None:
        key = self.config.sdk_key
        try:
            headers = sdk.event_headers(self.config) | {"X-LaunchDarkly-Payload-ID": payload.id}
            if payload.zipped:
                headers["Content-Encoding"] = "gzip"
            answer = self._transport.post(payload, headers)
        except Exception as error:
            ledger.failure("delivery", error)
            answer = Answer(0, error=type(error).__name__)
        self._receipt(payload, answer)
        with self._lock:
            self._flying.discard(payload)
            self._digest(payload, answer, key)
            if self.closed:
                self._leave()
            self._review()
            more = (bool(self._backlog) or self._abandoned) and not self.closed
        self._verdicts.pronounce()
        self._chores.do()
        if more:
            self._bell.put(False)  # the coordinator keeps the time of the gate, and staffs

    def _digest(self, payload: Payload, answer: Answer, key: str) -> None:
        status = answer.status
        if 200 <= status < 300:
            self._gate.succeeded()
            self._sealer.intake.hear(answer)
            payload.state = "delivered"
            self._verdicts.note(partial(ledger.delivered, payload.custom))
            self._chores.note(lambda spool: spool.forget([payload]))
        elif status == 413:
            self._split(payload)
        elif status == 400 and payload.attempts >= MOST_BAD_REQUESTS:
            self._give_up("http_400", [payload])
        else:
            if status in (401, 403):
                self._refuse_key(status, key)
            else:
                self._gate.failed(retry_after=retry_after(answer.headers.get("Retry-After")), lost=answer.lost)
            payload.state = "failed"
            self._give_up("backlog_full", self._backlog.add(payload))

    def _refuse_key(self, status: int, key: str) -> None:
        self._gate.refused(key)
        self._chores.note(lambda spool: spool.refused())
        message = (
            f"LaunchDarkly refuses the SDK key (HTTP {status}): nothing is sent until the key changes; "
            "check LAUNCHDARKLY_SDK_KEY"
        )
        self._verdicts.note(partial(say, "refused", str(status), message))

    def _split(self, payload: Payload) -> None:
        heirs = payload.split()
        if heirs:
            self._chores.note(lambda spool: spool.replace(payload, heirs))
        else:
            key = payload.first_key()
            self._verdicts.note(partial(say, "too_large", key, f"{key}: too large for LaunchDarkly (HTTP 413)"))
            self._give_up("too_large", [payload])
        for heir in reversed(heirs):
            self._give_up("backlog_full", self._backlog.add(heir, first=True))

    def _give_up(self, reason: str, payloads: Iterable[Payload]) -> None:
        gone = list(payloads)
        if gone:
            self._chores.note(lambda spool: spool.forget(gone))
        for payload in gone:
            payload.state = "dropped"
            self._dropped += payload.custom
            if payload.custom:
                self._verdicts.note(partial(ledger.dropped, reason, payload.custom))

    def _receipt(self, payload: Payload, answer: Answer) -> None:
        if self.options.on_receipt is None:
            return
        from .reports import Receipt

        what = (payload.id, payload.events, payload.custom, len(payload.body))
        try:
            self.options.on_receipt(Receipt(*what, answer.status, payload.attempts, answer.seconds, answer.error))
        except Exception as error:
            ledger.failure("on_receipt", error)

    # -- waiting -----------------------------------------------------------------------------------
    def open_ticket(self, wake: Callable[[], None], deadline: float) -> Ticket:
        """Ask for everything to be sent now; *wake* is called when there is nothing left to wait for."""
        ticket = Ticket(wake, deadline)
        self.start()
        self._adopt_orphans()
        with self._lock:
            self._gate.hurry()
            ticket.cover([*self._flying, *self._backlog])
            ticket.sealed = self.closed or not (self._recorded or self._drafts or self._sealing)
            self._tickets.append(ticket)
            self._review()
        self._verdicts.pronounce()
        if not ticket.sealed:
            self._seal_here()
        with self._lock:
            shut = self._gate.opens_at(self.config.sdk_key) > time.monotonic()
            at_once = ticket.sealed and not shut and self._idle >= len(self._backlog)
            self._work.notify(len(self._backlog))
        if not at_once:
            self._bell.put(not ticket.sealed)
        return ticket

    def hurry(self) -> None:
        """Ask for everything to be sent now; does not wait."""
        self.start()
        self._ring()

    def close_ticket(self, ticket: Ticket) -> Counter[str]:
        """Stop waiting; the events of *ticket* by state, `dropped` being those since the last ticket."""
        with self._lock:
            if ticket in self._tickets:
                self._tickets.remove(ticket)
            counts = ticket.counts()
            counts["dropped"], self._dropped = self._dropped + self._count_lost(), 0
            if not ticket.sealed:
                counts["waiting"] += self._unsealed()
        return counts

    def _review(self) -> None:
        """Release the tickets that nothing more can happen to before their deadline."""
        if not self._tickets:
            return
        opens = float("inf") if self.closed else self._gate.opens_at(self.config.sdk_key)
        for ticket in [one for one in self._tickets if one.sealed]:
            left = ticket.unsettled()
            if not left or (opens > ticket.deadline and all(payload.state != "flying" for payload in left)):
                self._tickets.remove(ticket)
                self._verdicts.note(ticket.release)

    def _unsealed(self) -> int:
        return self._limbo + custom_among(self._drafts) + _custom(list(self._recorded))

    # -- ending ------------------------------------------------------------------------------------
    def close(self) -> None:
        """End the threads; what is still in the network ends by itself, what is left waits for another processor."""
        self._renew()
        with self._lock:
            self.closed = True
            self._work.notify_all()
        self._bell.put(False)
        if self._coordinator is not None and self._coordinator is not threading.current_thread():
            self._coordinator.join(0.2)
        if self._coordinator is None or not self._coordinator.is_alive():
            self._seal_the_rest()
        with self._lock:
            self._leave()
            self._review()
        self._verdicts.pronounce()
        self._guarded(self._transport.close)
        self._chores.note(lambda spool: spool.end())
        self._chores.do()
        orphanage.told()

    def _seal_the_rest(self) -> None:
        """What came between the last flush and the end; a signal handler may have interrupted another sealing."""
        if self._sealer_lock.acquire(timeout=0.2):
            try:
                self._guarded(self._seal_now)
            finally:
                self._sealer_lock.release()

    def wait_for_end(self, timeout: float) -> None:
        """Wait for an engine that closes itself; harmless for any other."""
        if self.closed and self._coordinator is not None:
            self._coordinator.join(timeout)

    def abandon(self) -> None:
        """The client let go of its processor without `stop()`, as `postfork()` does; send what there is, and end.

        A finaliser calls this: it takes no lock and does not wait.
        """
        if self._pid == os.getpid() and self._coordinator is not None:
            self._ends_at = time.monotonic() + self.options.close_timeout
            self._abandoned = True
            self._bell.put(True)

    def _may_end(self) -> bool:
        with self._lock:
            left = self._recorded or self._drafts or self._backlog or self._flying
        return not left or time.monotonic() >= self._ends_at

    def _leave(self) -> None:
        left = self._backlog.clear()
        if self._chores:
            self._give_up_to_disk(left)
        elif left:
            refused = self._gate.refused_key == self.config.sdk_key
            self._give_up("backlog_full", orphanage.leave(self.origin, self.config.events_uri, refused, left))

    def _give_up_to_disk(self, left: list[Payload]) -> None:
        """What stays in the spool is no longer this process's to count; whoever adopts it counts it as emitted."""
        for payload in left:
            if payload.custom:
                self._verdicts.note(partial(ledger.dropped, "spooled", payload.custom))

    def pause(self) -> None:
        """Before a fork."""
        if self._pid == os.getpid():
            self._chores.pause()

    def resume(self) -> None:
        """After it, in the parent."""
        if self._pid == os.getpid():
            self._chores.resume()


_after_fork = threading.Lock()


def forked() -> None:
    """In a forked child: nobody holds the lock that guards the new beginning."""
    global _after_fork
    _after_fork = threading.Lock()
    orphanage.forget()


def _thread(name: str, work: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=work, name=f"ldinstrument.delivery.{name}", daemon=True)
    thread.start()
    return thread


def _custom(recorded: Iterable[tuple[Any, bool]]) -> int:
    return len([event for event, _ in recorded if sdk.is_custom(event)])
