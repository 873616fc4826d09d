"""The worker behind an event processor: a queue of events and one daemon thread that batches them.

Posting is the sender's, whose threads are daemons, too. Nobody else opens a connection; whoever
flushes waits for these threads, with a deadline.

Lock order, from the first taken to the last:

1. `DeliveryWorker._batch_lock`: while events become payloads. Held for computing only, and for the
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
from collections import Counter, deque
from collections.abc import Callable, Iterable
from typing import Any

from .. import sdk
from ..diagnostics import guard, log_once, on_event_loop
from ..ledger import ledger
from ..sessions import emission
from .batch_writer import EventTexts
from .batcher import LARGE, Batcher, Recorded, Recorder, size_of, tracked_among
from .options import Options, flush_interval
from .payloads import Payload
from .sender import NEVER, Sender, start_thread
from .spool_queue import SpoolQueue
from .transport import PostResult
from .undelivered import origin_of, undelivered
from .waiters import FlushWaiter

EARLY_BATCH = 1000
EARLY_BYTES = 2**18
TAKE_OVER_EVERY = 30.0
LINGER = 0.01
FEW = 100
SLICE = 256
HELP = 16
YIELD = 0.0001


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
        self.quiet = False
        """Whether the interpreter exits, and nobody wants to read a warning."""
        self._on_start = on_start
        self._half = max(1, config.events_max_pending // 2)
        self._early = min(EARLY_BATCH, self._half)
        self._begin()

    def _begin(self) -> None:
        """Make everything that a forked child needs afresh."""
        self._recorded: deque[Recorded] = deque()
        self._recorder = Recorder(self.config, self._recorded)
        self._in_progress: list[Recorded] = []
        self._batcher = Batcher(self.config)
        self._batch_lock = threading.Lock()
        origin = origin_of(self.config.events_uri, self.config.sdk_key)
        self._spool = SpoolQueue(self.options.spool, origin)
        self._sender = Sender(self.config, self.options, self._spool, self._on_result)
        # Re-entrant, unlike a Condition: a finaliser may put something into it.
        self._wakeup: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._woken = False
        self._lost: deque[None] = deque()
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
            self._lose("closed", event)
        elif not self._has_room() and not self._make_room():
            self._lose("queue_full", event)
        else:
            self._recorder.record(event, ours)
            # A recursion that is too deep, perhaps: the event is queued, and found later.
            with contextlib.suppress(Exception):
                self._announce()

    def write_batch(self, batch: Iterable[Any], context: Any) -> tuple[list[EventTexts], int]:
        """Return events of ours and of one *context* as JSON; see `BatchWriter.write`."""
        if self._thread is None:
            self.start()
        return self._recorder.write_batch(batch, context)

    def accept_batch(self, texts: list[EventTexts], context: Any) -> None:
        """Queue what `write_batch` returned, or drop it by name; never waits."""
        if self.closed:
            self._lose_batch("closed", texts)
        elif not self._has_room() and not self._make_room():
            self._lose_batch("queue_full", texts)
        else:
            self._recorder.record_batch(texts, context)
            with contextlib.suppress(Exception):  # see `accept`
                self._announce()

    def _has_room(self) -> bool:
        return len(self._recorded) < self._half and self._recorder.bytes < self._most_bytes // 4

    @property
    def _most_bytes(self) -> int:
        return self.options.max_bytes

    def _make_room(self) -> bool:
        """Help to batch: the worker's thread does not keep up, or does not get its turn.

        Python gives a thread that waits its turn after 5 ms without a pause of the running one; a
        host that pauses for microseconds all the time, as for a system call, starves the others.
        """
        self._help()
        if self._batcher.bytes >= self._most_bytes // 4:
            self._wake()
            time.sleep(YIELD)
        return self._fits() or self._wait_for_room()

    def _fits(self) -> bool:
        return self._recorder.bytes + self._batcher.bytes < self._most_bytes

    def _help(self) -> None:
        if self._batch_lock.acquire(blocking=False):
            try:
                with guard("delivery"):
                    self._pass_on(HELP)
            finally:
                self._batch_lock.release()

    def _wait_for_room(self) -> bool:
        self._wake()
        deadline = time.monotonic() + self.options.wait_when_full
        while time.monotonic() < deadline and not on_event_loop():
            time.sleep(0.001)
            if self._fits():
                return True
        return False

    def _announce(self) -> None:
        if self._finished:
            self._drop_late()
        elif not self._woken:
            if len(self._recorded) >= self._early or self._recorder.bytes >= EARLY_BYTES:
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

    def _lose_batch(self, reason: str, texts: Iterable[EventTexts]) -> None:
        count = sum(text.events for text in texts)
        ledger.dropped(reason, count)
        self._lost.extend([None] * count)
        self._say_lost(reason)

    def _lose(self, reason: str, event: Any) -> None:
        if sdk.is_custom(event):
            ledger.dropped(reason)
            self._lost.append(None)
        elif sdk.is_exposure(event):
            ledger.exposures_emitted(1)
            ledger.exposures_dropped(reason, 1)
        self._say_lost(reason)

    def _say_lost(self, reason: str) -> None:
        if reason == "closed" and not self.quiet:
            log_once(
                reason,
                "",
                "events are tracked after client.close(): they are dropped, see "
                "stats().events.dropped; close the client when the program ends, and in AWS Lambda "
                "never",
            )
        if reason == "queue_full":
            log_once(
                reason,
                "",
                "events come faster than they can be batched: more than "
                f"max_bytes={self._most_bytes} wait; what does not fit is dropped and counted, see "
                "stats().events.dropped and stats().exposures.dropped",
            )

    def _drop_late(self) -> None:
        """Drop what was recorded while, or after, the worker came to its end."""
        while self._recorded:
            try:
                entry = self._recorded.popleft()
            except IndexError:
                return
            if count := tracked_among([entry]):
                ledger.dropped("closed", count)
                self._lost.extend([None] * count)

    # -- batching: with the batch lock -------------------------------------------------------------
    def _pass_on(self, most: int) -> None:
        """Let up to *most* of the oldest recorded events wait for their payload."""
        self._recover()
        with self._sender.lock:
            taken = self._in_progress
            for _ in range(min(most, len(self._recorded))):
                taken.append(self._recorded.popleft())
        if not taken:
            return
        texts = self._batcher.texts(taken)
        with self._sender.lock:
            added = self._batcher.add(texts)
            self._in_progress = []
        self._recorder.bytes -= sum(map(size_of, taken))
        if not self._recorded:
            self._recorder.bytes, self._recorder.large = 0, False
        self._spool.add(lambda spool: spool.draft(added))

    def _recover(self) -> None:
        """Put back what a signal handler's exception kept from being passed on."""
        with self._sender.lock:
            if self._in_progress:
                self._recorded.extendleft(reversed(self._in_progress))
                self._in_progress = []
                self._recorder.forget_context()
                self._batcher.forget_contexts()

    def _pass_on_all(self) -> None:
        for _ in range(len(self._recorded) // SLICE + 1):
            self._pass_on(SLICE)

    def _batch(self) -> None:
        """Make payloads of everything recorded so far."""
        with self._batch_lock:
            self._batch_now()

    def _batch_now(self) -> None:
        complete = self._sender.unbatched_waiters()
        self._pass_on_all()
        payloads = self._batcher.payloads()
        if payloads:
            self._spool.add(lambda spool: spool.seal(payloads))
            self._spool.run()
        with self._sender.lock:
            self._sender.add(payloads, complete)
            self._batcher.done()
            self._count_lost()
        self._sender.run_deferred()

    def _batch_here(self) -> bool:
        """Batch a few events on the thread that flushes, which saves waking another one first.

        Returns:
            Whether it was done.
        """
        few = len(self._recorded) <= FEW and self._batcher.bytes < LARGE
        if not few or self._recorder.large or self._spool:
            return False
        if not self._batch_lock.acquire(blocking=False):
            return False
        try:
            with guard("delivery") as batching:
                self._batch_now()
            return not batching.failed
        finally:
            self._batch_lock.release()

    def _draft(self) -> None:
        """With a spool, put what was recorded on disk, long before it is sent."""
        if self._spool:
            with self._batch_lock:
                self._pass_on_all()
                self._spool.run()

    def _count_lost(self) -> None:
        """Tell the sender what was lost on other threads: they only append, without a lock."""
        count = len(self._lost)
        for _ in range(count):
            self._lost.popleft()
        refused, self._batcher.refused = self._batcher.refused, 0
        self._sender.count_dropped(count + refused)

    def _unbatched(self) -> int:
        return tracked_among([*self._in_progress, *list(self._recorded)]) + self._batcher.waiting()

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
        with self._batch_lock:
            self._recorder.forget_context()
            self._batcher.forget_contexts()

    def _on_result(self, result: PostResult) -> None:
        if result.accepted:
            with guard("delivery"):
                self._batcher.note_date(result)
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
            self._count_lost()
            self._sender.close_waiter(waiter, counts)
            if not waiter.batched:
                counts["waiting"] += self._unbatched()

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
        if self._batch_lock.acquire(timeout=0.2):  # a signal handler may have interrupted its owner
            try:
                with guard("delivery"):
                    self._batch_now()
            finally:
                self._batch_lock.release()
        self._sender.leave()
        self._finished = True
        self._drop_late()
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
            left = self._unbatched() or self._sender.busy
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
