"""The worker behind an event processor: one daemon thread that batches what is queued.

Posting is the sender's, whose threads are daemons, too. Nobody else opens a connection; whoever
flushes waits for these threads, with a deadline.

Lock order, from the first taken to the last:

1. `EventQueue.batching`: while events become payloads. Held for computing only, and for the
   spool by the worker's own thread. A thread that tracks or flushes takes it only when it is free.
2. `Sender.lock`: the payloads, the flushes that wait, and who has which event. Re-entrant, held for
   microseconds, never while calling anything of the host's, the disk or the network.
3. The lock of `undelivered`, of the ledger, of diagnostics, of the spool: none of these is waited
   for while `Sender.lock` is held, but `undelivered`'s; see `deferred` for how and why.

Fork hooks take the locks of diagnostics and ledger, and pause the spool; a child begins afresh.
"""

from __future__ import annotations

import contextlib
import os
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from ..diagnostics import guard
from ..ledger import ledger
from ..sessions import emission
from .batch_writer import EventTexts
from .event_queue import EventQueue
from .options import Options, flush_interval
from .payloads import Payload
from .sender import NEVER, Sender, start_thread
from .spool_queue import SpoolQueue
from .transport import PostResult
from .undelivered import origin_of, undelivered
from .waiters import FlushWaiter

TAKE_OVER_EVERY = 30.0
LINGER = 0.01


def _nothing() -> None:
    return


class DeliveryWorker:
    """Take events without waiting, deliver them, and know what became of each.

    Args:
        config: the SDK's configuration; its key is read anew for each POST.
        options: bounds and seams.
        on_start: called when its thread starts in this process.
    """

    def __init__(
        self, config: Any, options: Options, on_start: Callable[[], None] = _nothing
    ) -> None:
        self.config = config
        self.options = options
        self._on_start = on_start
        self._begin()

    def _begin(self) -> None:
        """Make everything that a forked child needs afresh."""
        origin = origin_of(self.config.events_uri, self.config.sdk_key)
        self._spool = SpoolQueue(self.options.spool, origin)
        self._sender = Sender(self.config, self.options, self._spool, self._on_result)
        self._events = EventQueue(
            self.config, self.options, self._sender.lock, self._spool, self._wake, self._help
        )
        # Re-entrant, unlike a Condition: a finaliser may put something into it.
        self._wakeup: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._woken = False
        self._thread: threading.Thread | None = None
        self._finished = self._abandoned = self._taking_over = False
        self._ends_at = NEVER
        self._pid = os.getpid()

    @property
    def closed(self) -> bool:
        """Whether nothing is taken, and no POST begun, any more."""
        return self._sender.closed

    # -- taking events: any thread, also in a forked child -----------------------------------------
    def accept(self, event: Any, *, ours: bool) -> None:
        """Queue *event*, or drop it by name; never waits unless `wait_when_full` allows it.

        Raises:
            Exception: nothing of ours, only what leaves no room for the call itself; then nothing
                was queued.
        """
        if self._thread is None:
            self.start()
        if self.closed:
            self._events.lose("closed", event)
        elif not self._events.has_room():
            self._events.lose("queue_full", event)
        else:
            self._events.record(event, ours)
            # A recursion that is too deep, perhaps: the event is queued, and found later.
            with contextlib.suppress(Exception):
                self._announce()

    def write_batch(self, batch: Iterable[Any], context: Any) -> tuple[list[EventTexts], int]:
        """Return events of ours and of one *context* as JSON; see `BatchWriter.write`."""
        if self._thread is None:
            self.start()
        return self._events.write_batch(batch, context)

    def accept_batch(self, texts: list[EventTexts], context: Any) -> None:
        """Queue what `write_batch` returned, or drop it by name; never waits."""
        if self.closed:
            self._events.lose_batch("closed", texts)
        elif not self._events.has_room():
            self._events.lose_batch("queue_full", texts)
        else:
            self._events.record_batch(texts, context)
            with contextlib.suppress(Exception):  # see `accept`
                self._announce()

    def _announce(self) -> None:
        if self._finished:
            self._events.lose_all("closed")
        elif not self._woken:
            if self._events.has_many:
                self._wake()
            elif self._spool:
                self._wake(batch=False)

    def _wake(self, batch: bool = True) -> None:
        self._woken = True
        self._wakeup.put(batch)

    def start(self) -> None:
        """Start the worker's thread unless it runs; in a forked child, begin everything afresh."""
        self._renew()
        with self._sender.lock:
            if self._thread is None and not self.closed:
                try:
                    self._thread = start_thread("worker", self._run)
                except RuntimeError:  # at exit no thread can start
                    return
                self._on_start()

    def forked(self) -> None:
        """Note, in a forked child, that everything here is the parent's; takes no lock."""
        self._thread = None
        self._spool.forked()

    def _renew(self) -> None:
        if self._pid != os.getpid():
            with _after_fork:
                if self._pid != os.getpid():
                    self._begin()

    # -- batching ----------------------------------------------------------------------------------
    def _batch(self) -> None:
        """Make payloads of everything recorded so far."""
        with self._events.batching:
            self._batch_now()

    def _batch_now(self) -> None:
        complete = self._sender.unbatched_waiters()
        self._events.pass_on_all()
        payloads = self._events.payloads()
        if payloads:
            self._spool.add(lambda spool: spool.seal(payloads))
            self._spool.run()
        with self._sender.lock:
            self._sender.add(payloads, complete)
            self._events.done()
            self._sender.count_dropped(self._events.take_lost())
        self._sender.run_deferred()

    def _batch_here(self) -> bool:
        """Batch a few events on the thread that flushes, which saves waking another one first.

        Returns:
            Whether it was done.
        """
        return self._events.has_few and self._events.is_cheap and self._try_to_batch()

    def _help(self) -> bool:
        """Batch on the thread that tracks, which has found the queue filling up."""
        if not self._events.is_cheap or self._sender.is_crowded or not self._try_to_batch():
            return False
        self._sender.start_posters(here=False)
        return True

    def _try_to_batch(self) -> bool:
        if not self._events.batching.acquire(blocking=False):
            return False
        try:
            with guard("delivery") as batching:
                self._batch_now()
            return not batching.failed
        finally:
            self._events.batching.release()

    def _draft(self) -> None:
        """With a spool, put what was recorded on disk, long before it is sent."""
        if self._spool:
            with self._events.batching:
                self._events.pass_on_all()
                self._spool.run()

    # -- the thread --------------------------------------------------------------------------------
    def _run(self) -> None:
        now = time.monotonic()
        interval = flush_interval(self.config)
        flush_at, take_over_at = now + interval, now
        forget_at = now + self.config.context_keys_flush_interval
        while not self.closed:
            if self._taking_over or time.monotonic() >= take_over_at:
                with guard("delivery"):
                    self._take_over()
                take_over_at = time.monotonic() + TAKE_OVER_EVERY
            batch = self._wait(min(flush_at, forget_at, take_over_at, self._ends_at))
            now = time.monotonic()
            if now >= forget_at:
                self._forget_contexts()
                forget_at = now + self.config.context_keys_flush_interval
            if now >= flush_at:
                flush_at, batch = now + interval, True
                with guard("settle"):
                    emission.settle()
            self._work(batch)
        with guard("delivery"):
            self._finish()

    def _work(self, batch: bool) -> None:
        with guard("delivery"):
            if batch:
                self._batch()
            else:
                self._draft()
        with guard("delivery"):
            self._sender.start_posters()
        if self._abandoned and self._may_end():
            self.close()

    def _wait(self, until: float) -> bool:
        """Wait to be woken, for the time *until*, or for the end of a pause between attempts.

        Returns:
            Whether somebody wants everything in payloads.
        """
        until = min(until, self._sender.next_attempt())
        try:
            batch = self._wakeup.get(timeout=max(0.0, until - time.monotonic()))
            if not batch and self._spool:  # a few events per transaction
                batch = self._wakeup.get(timeout=LINGER)
            while not self._wakeup.empty():
                batch = self._wakeup.get() or batch
        except queue.Empty:
            batch = False
        self._woken = False  # whoever records from now on wakes it again
        return batch

    def _forget_contexts(self) -> None:
        with self._events.batching:
            self._events.forget_contexts()

    def _on_result(self, result: PostResult) -> None:
        if result.accepted:
            with guard("delivery"):
                self._events.note_date(result)
        if (self._sender.waiting or self._abandoned) and not self.closed:
            self._wakeup.put(False)  # the thread keeps the time of the next attempt

    # -- what others left --------------------------------------------------------------------------
    def look_for_undelivered(self) -> None:
        """Let the thread look for undelivered payloads; does not wait, takes no lock."""
        self._taking_over = True
        self._wakeup.put(False)

    def _take_over(self) -> None:
        """Take what closed processors of this process, or dead processes, left for our place."""
        self._taking_over = False
        self._take_undelivered()
        if not self._spool:
            return
        room, idle = self._sender.room, not self._sender.waiting
        taken: list[tuple[list[Payload], list[Payload]]] = []
        self._spool.add(
            lambda spool: taken.append(
                spool.take_over(room, self.options.max_age, one_at_least=idle)
            )
        )
        self._spool.run()
        for found, expired in taken:
            for payload in [*found, *expired]:
                ledger.emitted(payload.custom)
                ledger.exposures_emitted(payload.exposures)
            self._sender.drop("too_old", expired)
            self._receive(found)

    def _take_undelivered(self) -> None:
        if undelivered and not self.closed:
            self._receive(undelivered.take(self._sender.origin, self.config.events_uri))

    def _receive(self, payloads: list[Payload]) -> None:
        if payloads:
            self._sender.add(payloads)
            self._sender.run_deferred()
            self._wakeup.put(False)

    # -- flushing ----------------------------------------------------------------------------------
    def open_waiter(self, wake: Callable[[], None], deadline: float) -> FlushWaiter:
        """Ask for everything to be sent now.

        Args:
            wake: called when there is nothing left to wait for; must not wait.
            deadline: `time.monotonic` seconds.
        """
        waiter = FlushWaiter(wake, deadline)
        self.start()
        self._take_undelivered()
        self._sender.open_waiter(waiter)
        if not self.closed:
            batched = self._batch_here()
            if not (self._sender.wake_posters() and batched):
                self._wake(batch=not batched)
        return waiter

    def close_waiter(self, waiter: FlushWaiter, counts: Counter[str]) -> None:
        """Stop waiting; add the events of *waiter* to *counts* by state."""
        with self._sender.lock:
            self._sender.count_dropped(self._events.take_lost())
            self._sender.close_waiter(waiter, counts)
            if not waiter.batched:
                counts["waiting"] += self._events.unbatched()

    def request_flush(self) -> None:
        """Ask for everything to be sent now; does not wait."""
        self.start()
        self._wake()

    # -- ending ------------------------------------------------------------------------------------
    def close(self, patience: float = 0.2) -> None:
        """End the threads; what is in flight ends by itself, what is left waits for another
        processor.

        A thread that is busy for longer than *patience* seconds, at a slow disk perhaps, finishes
        by itself.
        """
        self._renew()
        self._sender.stop()
        self._wakeup.put(False)
        if self._thread is None:
            self._finish()
        elif self._thread is not threading.current_thread():
            self._thread.join(patience)

    def _finish(self) -> None:
        """Do the last work, on the last thread: batch what came since, and leave what remains."""
        # Not for ever: a signal handler may have interrupted whoever holds it.
        if self._events.batching.acquire(timeout=0.2):
            try:
                with guard("delivery"):
                    self._batch_now()
            finally:
                self._events.batching.release()
        self._sender.leave()
        self._finished = True
        self._events.lose_all("closed")
        with guard("delivery"):
            self._sender.close()
        self._spool.add(lambda spool: spool.end())
        self._spool.run()
        undelivered.notify()

    def wait_for_end(self, timeout: float) -> None:
        """Wait for a worker that closes itself; harmless for any other."""
        if self.closed and self._thread is not None:
            self._thread.join(timeout)

    def abandon(self) -> None:
        """Send what there is, and end: the client dropped its processor without `stop()`.

        A finaliser calls this, as after `postfork()`: it takes no lock and does not wait.
        """
        if self._pid == os.getpid() and self._thread is not None:
            self._ends_at = time.monotonic() + self.options.close_timeout
            self._abandoned = True
            self._wakeup.put(True)

    def _may_end(self) -> bool:
        with self._sender.lock:
            left = self._events.unbatched() or self._sender.busy
        return not left or time.monotonic() >= self._ends_at

    def pause(self) -> None:
        """Prepare for a fork."""
        if self._pid == os.getpid():
            self._spool.pause()

    def resume(self) -> None:
        """Go on after a fork, in the parent."""
        if self._pid == os.getpid():
            self._spool.resume()


_after_fork = threading.Lock()


def forked() -> None:
    """In a forked child, make the lock anew that guards the new beginning."""
    global _after_fork
    _after_fork = threading.Lock()
