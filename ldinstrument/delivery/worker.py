"""The engine behind an event processor: a queue, one thread that seals, and a sender with a few
that post, all daemons.

Name resolution cannot be interrupted, so nobody but these threads opens a connection; whoever
waits, waits for them, or for an answer on an open connection, with a deadline.
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

from .. import sdk
from ..diagnostics import log_internal_error, log_once, on_event_loop
from ..ledger import ledger
from ..sessions import emission
from .deferred import Chores, Verdicts
from .options import Options
from .payloads import Payload, Recorded, Recorder, Sealer, custom_among, tracked_among
from .sender import Sender, thread
from .transport import Answer
from .undelivered import origin_of, orphanage


class Ticket:
    """What one flush covers: events not sealed yet, and payloads without an answer.

    The engine changes it under its lock, and calls *wake* when there is nothing left to wait for.

    Args:
        wake: called once; must not wait.
        deadline: `time.monotonic` seconds; nothing that can only happen later is waited for.
    """

    def __init__(self, wake: Callable[[], None], deadline: float) -> None:
        self._wake: Callable[[], None] | None = wake
        self.deadline = deadline
        self.payloads: list[Payload] = []
        self.sealed = False

    def cover(self, payloads: Iterable[Payload]) -> None:
        """Wait for *payloads*, too."""
        self.payloads.extend(payloads)

    def unsettled(self) -> list[Payload]:
        """What has no final answer yet."""
        return [part for payload in self.payloads for part in payload.lineage() if not part.settled]

    def release(self) -> None:
        """Wake whoever waits."""
        wake, self._wake = self._wake, None
        if wake is None:
            return
        try:
            wake()
        except RuntimeError:  # its event loop has been closed in the meantime
            return

    def count(self, counts: Counter[str]) -> None:
        """Add its custom events to *counts*, by the state of their payload."""
        for payload in self.payloads:
            payload.count(counts)


EARLY_FLUSH = 1000
ADOPT_EVERY = 30.0
LINGER = 0.01
FEW = 100


class Engine:
    """Takes events without waiting, delivers them, and knows what became of each.

    Args:
        config: the SDK's configuration; its key is read anew for each POST.
        options: bounds and seams.
    """

    def __init__(self, config: Any, options: Options) -> None:
        self.config = config
        self.options = options
        self.quiet = False
        """Whether the interpreter is going, and nobody wants to hear of it."""
        self._capacity: int = config.events_max_pending
        self._early = max(1, min(EARLY_FLUSH, self._capacity // 2))
        self._begin()

    def _begin(self) -> None:
        """Everything that a forked child needs afresh."""
        self._lock = (
            threading.RLock()
        )  # re-entrant: a signal handler may flush what it has interrupted
        self._recorded: deque[Recorded] = deque()
        self._recorder = Recorder(self.config, self._recorded)
        self._bell: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._rung = False
        self._tickets: list[Ticket] = []
        self._drafts: list[str] = []
        self._sealing = False
        self._limbo: tuple[list[Recorded], list[str]] = ([], [])
        self._chores = Chores(
            self.options.spool, origin_of(self.config.events_uri, self.config.sdk_key)
        )
        self._verdicts = Verdicts()
        self._sender = Sender(
            self.config, self.options, self._lock, self._chores, self._verdicts, self._answered
        )
        self._sealer_lock = threading.Lock()
        self._lost: deque[None] = deque()
        self._coordinator: threading.Thread | None = None
        self._finished = self._abandoned = self._adopting = False
        self._ends_at = float("inf")
        self._sealer = Sealer(self.config)
        self._pid = os.getpid()

    @property
    def closed(self) -> bool:
        """Whether nothing is taken, and no POST begun, any more."""
        return self._sender.closed

    # -- taking events: any thread, also in a forked child ----------------------------------------
    def accept(self, event: Any, *, ours: bool) -> None:
        """Queue *event*, or drop it by name; never waits unless `wait_when_full` allows it.

        Raises:
            Exception: nothing of ours, only what leaves no room for the call itself; then nothing
                was queued.
        """
        if self._coordinator is None or self._pid != os.getpid():
            self.start()
        if self.closed:
            self._lose("closed", event)
        elif len(self._recorded) >= self._capacity and not self._room():
            self._lose("queue_full", event)
        else:
            self._recorder.record(event, ours)
            try:
                self._announce()
            except (
                Exception
            ):  # such as a recursion that is too deep: it is queued, and found at the next interval
                return

    def _announce(self) -> None:
        if self._finished:
            self._too_late()
        elif not self._rung:
            if len(self._recorded) >= self._early:
                self._ring()
            elif self._chores:
                self._ring(seal=False)

    def start(self) -> None:
        """Start the coordinator unless it runs; in a forked child everything begins afresh."""
        self._renew()
        with self._lock:
            if self._coordinator is None and not self.closed:
                self._coordinator = thread("coordinator", self._coordinate)
                started()

    def _renew(self) -> None:
        if self._pid != os.getpid():
            with _after_fork:
                if self._pid != os.getpid():
                    self._begin()

    def _lose(self, reason: str, event: Any) -> None:
        if sdk.is_custom(event):
            ledger.dropped(reason)
            self._lost.append(None)
        if reason == "closed" and not self.quiet:
            log_once(
                reason,
                "",
                "events are tracked after client.close(): they are dropped, see "
                "stats().events.dropped; "
                "close the client when the program ends, and in AWS Lambda never",
            )
        if reason == "queue_full":
            log_once(
                reason,
                "",
                f"events come faster than they can be sent: more than events_max_pending={self._capacity} wait; "
                "what does not fit is dropped and counted, see stats().events.dropped",
            )

    def _too_late(self) -> None:
        """What was recorded while, or after, the engine came to its end."""
        while self._recorded:
            try:
                one = self._recorded.popleft()
            except IndexError:
                return
            if tracked_among([one]):
                ledger.dropped("closed")
                self._lost.append(None)

    def _count_lost(self) -> int:
        """How many were lost on other threads since; appending is all that those may do without a
        lock.
        """
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
                    self._recorder.forget_context()
                    self._sealer.intake.forget_contexts()
                forget_at = now + self.config.context_keys_flush_interval
            if now >= flush_at:
                flush_at = now + self.config.flush_interval
                self._guarded(emission.settle)
                seal = True
            self._guarded(self._seal if seal else self._draft)
            self._guarded(self._sender.staff)
            if self._abandoned and self._may_end():
                self.close()
        self._guarded(self._finish)

    def _rings(self, until: float) -> bool:
        """Wait for the bell, the time *until*, or the opening of the gate; whether somebody wants
        things sealed.
        """
        with self._lock:
            opens = self._sender.ready_at()
            if (
                self._sender.backlog and opens > time.monotonic()
            ):  # an open gate is the posters' affair
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
            log_internal_error("delivery", error)

    def _take(self) -> list[Recorded]:
        """Everything recorded so far; until `_sealing` is over, no ticket may call itself
        sealed.
        """
        with self._lock:
            self._sealing = True
            taken: list[Recorded] = []
            self._limbo = (taken, [])
            keep, take = taken.append, self._recorded.popleft
            for _ in range(len(self._recorded)):
                keep(take())
            self._recorder.large = False
        return taken

    def _put_back(self) -> None:
        """What was taken was not sealed: a signal handler raised. Whoever seals next finds it where
        it was.
        """
        with self._lock:
            taken, joining = self._limbo
            self._recorded.extendleft(reversed(taken))
            self._drafts = joining + self._drafts
            self._sealing, self._limbo = False, ([], [])
            self._recorder.forget_context()
            self._sealer.intake.forget_contexts()

    def _draft(self) -> None:
        """With a spool: put what was recorded on disk, long before it is sealed and sent."""
        if self._chores:
            with self._sealer_lock:
                self._draft_now()

    def _draft_now(self) -> None:
        if not self._recorded:
            return
        try:
            texts, _ = self._sealer.texts(self._take())
        except BaseException:
            self._put_back()
            raise
        with self._lock:
            self._drafts += texts
            self._sealed_all()
            self._chores.note(lambda spool: spool.draft(texts))
        self._chores.do()

    def _seal(self) -> None:
        """Make payloads of everything recorded so far."""
        with self._sealer_lock:
            self._seal_now()

    def _seal_here(self) -> list[Payload]:
        """A few events only: seal them on the thread that waits for them, which saves waking
        another one first.
        """
        few = 0 < len(self._recorded) <= FEW and not self._recorder.large and not self._chores
        if few and self._sealer_lock.acquire(blocking=False):
            try:
                return self._seal_now()
            except Exception as error:
                log_internal_error("delivery", error)
            finally:
                self._sealer_lock.release()
        return []

    def _seal_now(self) -> list[Payload]:
        with self._lock:
            waiting = [ticket for ticket in self._tickets if not ticket.sealed]
        if self._chores:
            self._draft_now()
        try:
            payloads = self._join_drafts() if self._chores else self._sealed(self._take())
        except BaseException:
            self._put_back()
            raise
        with self._lock:
            self._sealed_all()
            self._sender.add(payloads)
            for ticket in self._tickets:
                if not ticket.sealed:
                    ticket.cover(payloads)
            for ticket in waiting:
                ticket.sealed = True
            self._review()
        self._verdicts.pronounce()
        self._chores.do()
        return payloads

    def _sealed(self, taken: list[Recorded]) -> list[Payload]:
        try:
            return self._sealer.seal(taken)
        except Exception as error:  # each event is guarded by itself, so this is a fault of ours: at least count it
            log_internal_error("delivery", error)
            lost = tracked_among(taken)
            ledger.dropped("internal", lost)
            self._sealer.refused += lost
            return []

    def _sealed_all(self) -> None:
        """What was taken is sealed, or refused."""
        self._sender.dropped += self._count_lost() + self._sealer.refused
        self._sealer.refused = 0
        self._sealing, self._limbo = False, ([], [])

    def _join_drafts(self) -> list[Payload]:
        with self._lock:
            drafts, self._drafts = self._drafts, []
            self._sealing, self._limbo = True, ([], drafts)
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
        """Take over what closed processors of this process, or dead processes with our spool, left
        for our place.
        """
        self._adopting = False
        self._adopt_orphans()
        if not self._chores:
            return
        with self._lock:
            backlog = self._sender.backlog
            room, idle = self.options.max_bytes - backlog.bytes, not backlog
        found: list[Payload] = []
        self._chores.note(
            lambda spool: found.extend(spool.adopt(room, self.options.max_age, one_at_least=idle))
        )
        self._chores.do()
        ledger.emitted(sum(payload.custom for payload in found))
        self._receive(found)

    def _adopt_orphans(self) -> None:
        if orphanage and not self.closed:
            self._receive(orphanage.adopt(self._sender.origin, self.config.events_uri))

    def _receive(self, payloads: list[Payload]) -> None:
        if payloads:
            with self._lock:
                self._sender.add(payloads)
                if self.closed:
                    self._sender.leave()
            self._verdicts.pronounce()
            self._bell.put(False)

    # -- waiting -----------------------------------------------------------------------------------
    def flush_here(self, deadline: float, counts: Counter[str]) -> list[Payload] | None:
        """Seal and send on this thread, which waits anyway, what can be: few events, over an open
        connection.

        Returns:
            None when nothing is left to wait for: all is in *counts*, by state. Otherwise what the
            ticket that is needed now has to cover besides what it finds.
        """
        payloads: list[Payload] = []
        if self._pid == os.getpid() and not self.closed and self._sender.prompt():
            payloads = self._seal_here()
            if payloads:
                self._sender.send_here(deadline)
        with self._lock:
            sender = self._sender
            if (
                self._recorded
                or self._drafts
                or self._sealing
                or sender.flying
                or sender.backlog
                or orphanage
            ):
                return payloads
            for payload in payloads:
                payload.count(counts)
            self._count_dropped(counts)
        return None

    def open_ticket(
        self, wake: Callable[[], None], deadline: float, payloads: Iterable[Payload] = ()
    ) -> Ticket:
        """Ask for everything to be sent now; *wake* is called when there is nothing left to wait
        for.

        Args:
            wake: must not wait.
            deadline: `time.monotonic` seconds.
            payloads: what it covers besides what waits or flies.
        """
        ticket = Ticket(wake, deadline)
        if self._coordinator is None or self._pid != os.getpid():
            self.start()
        self._adopt_orphans()
        with self._lock:
            self._sender.gate.shorten()
            if self._sender.flying or self._sender.backlog:
                self._sender.resend_mine()
            ticket.cover({*payloads, *self._sender.flying, *self._sender.backlog})
            ticket.sealed = self.closed or not (self._recorded or self._drafts or self._sealing)
            self._tickets.append(ticket)
            if ticket.sealed:
                self._review()
        self._verdicts.pronounce()
        if not ticket.sealed:
            self._seal_here()
        with self._lock:
            if ticket in self._tickets and not (self._sender.rouse() and ticket.sealed):
                self._bell.put(not ticket.sealed)
        return ticket

    def shorten(self) -> None:
        """Ask for everything to be sent now; does not wait."""
        self.start()
        self._ring()

    def close_ticket(self, ticket: Ticket, counts: Counter[str]) -> None:
        """Stop waiting; add the events of *ticket* to *counts* by state: `dropped` are those since
        the last ticket.
        """
        with self._lock:
            if ticket in self._tickets:
                self._tickets.remove(ticket)
            ticket.count(counts)
            self._count_dropped(counts)
            if not ticket.sealed:
                counts["waiting"] += self._unsealed()

    def _count_dropped(self, counts: Counter[str]) -> None:
        counts["dropped"] += self._sender.dropped + self._count_lost()
        self._sender.dropped = 0

    def _answered(self, answer: Answer) -> None:
        """The sender has an answer: release whom it concerns."""
        if answer.accepted:
            self._guarded(partial(self._sealer.intake.hear, answer))
        self._review()
        if (self._sender.backlog or self._abandoned) and not self.closed:
            self._bell.put(False)  # the coordinator keeps the time of the gate, and staffs

    def _review(self) -> None:
        """Release the tickets that nothing more can happen to before their deadline."""
        if not self._tickets:
            return
        opens = float("inf") if self.closed else self._sender.ready_at()
        for ticket in [one for one in self._tickets if one.sealed]:
            left = ticket.unsettled()
            if not left or (
                opens > ticket.deadline and all(payload.state != "flying" for payload in left)
            ):
                self._tickets.remove(ticket)
                self._verdicts.note(ticket.release)

    def _unsealed(self) -> int:
        taken, joining = self._limbo
        return tracked_among([*taken, *list(self._recorded)]) + custom_among(
            [*joining, *self._drafts]
        )

    # -- ending ------------------------------------------------------------------------------------
    def close(self, patience: float = 0.2) -> None:
        """End the threads; what is still in the network ends by itself, what is left waits for
        another processor.

        A coordinator that is busy for longer than *patience* seconds, at a slow disk perhaps,
        finishes by itself.
        """
        self._renew()
        with self._lock:
            self._sender.end()
        self._bell.put(False)
        if self._coordinator is None:
            self._finish()
        elif self._coordinator is not threading.current_thread():
            self._coordinator.join(patience)

    def _finish(self) -> None:
        """The last work of the last one at work: what came since the last sealing, and what is
        left.
        """
        self._seal_the_rest()
        with self._lock:
            self._sender.leave()
            self._review()
        self._finished = True
        self._too_late()
        self._verdicts.pronounce()
        self._guarded(self._sender.close)
        self._chores.note(lambda spool: spool.end())
        self._chores.do()
        orphanage.told()

    def _seal_the_rest(self) -> None:
        """What came between the last flush and the end; a signal handler may have interrupted
        another sealing.
        """
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
        """The client let go of its processor without `stop()`, as `postfork()` does; send what
        there is, and end.

        A finaliser calls this: it takes no lock and does not wait.
        """
        if self._pid == os.getpid() and self._coordinator is not None:
            self._ends_at = time.monotonic() + self.options.close_timeout
            self._abandoned = True
            self._bell.put(True)

    def _may_end(self) -> bool:
        with self._lock:
            left = self._recorded or self._drafts or self._sender.backlog or self._sender.flying
        return not left or time.monotonic() >= self._ends_at

    def pause(self) -> None:
        """Before a fork."""
        if self._pid == os.getpid():
            self._chores.pause()

    def resume(self) -> None:
        """After it, in the parent."""
        if self._pid == os.getpid():
            self._chores.resume()


_after_fork = threading.Lock()


def _nobody() -> None:
    return


started: Callable[[], None] = _nobody
"""Called when an engine starts to work in this process."""


def forked() -> None:
    """In a forked child: nobody holds the lock that guards the new beginning."""
    global _after_fork
    _after_fork = threading.Lock()
    orphanage.forget()
