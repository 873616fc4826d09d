"""The worker behind an event processor: one daemon thread that batches what is queued.

Posting is the sender's, whose threads are daemons, too. Nobody else opens a connection; whoever
flushes waits for these threads, with a deadline.

Lock order, from the first taken to the last:

1. `EventQueue.batching`: while events become payloads. Held for computing only, and for the
   spool by the worker's own thread. A thread that tracks or flushes takes it only when it is free.
2. `Sender.lock`: the payloads, the flushes that wait, and who has which event. Re-entrant, held for
   microseconds, never while calling anything of the host's, the disk or the network.
3. The lock of `memory_spool`, of the ledger, of diagnostics, of the spool: none of these is waited
   for while `Sender.lock` is held, but `memory_spool`'s; see `unlocked_calls` for how and why.

Fork hooks take the locks of diagnostics and ledger, and pause the spool; a child begins afresh.
"""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from .. import sdk
from ..diagnostics import guard
from ..ledger import ledger
from ..process import start_thread
from ..sessions import emission
from .event_json import Payload
from .event_queue import EventQueue
from .memory_spool import memory_spool, origin_of
from .options import Options, flush_interval
from .sender import NEVER, Sender
from .spool_writes import SpoolWrites

TAKE_OVER_EVERY = 30.0


def _nothing() -> None:
    return


class DeliveryWorker:
    """Deliver what its queue takes, and know what became of it.

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
        config, options = self.config, self.options
        origin = origin_of(config.events_uri, config.sdk_key)
        dispatcher = sdk.Intake(config)
        self._wakeup: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._spool = SpoolWrites(options.spool, origin) if options.spool else None
        wake = partial(self._wakeup.put, False)
        self.sender = Sender(config, options, self._spool, wake)
        """What posts payloads."""
        self.events = EventQueue(
            config, options, dispatcher, self.sender, self._spool, self._wakeup
        )
        """What takes events."""
        self.thread: threading.Thread | None = None
        """None until `start`, also in a forked child."""
        self._abandoned = self._taking_over = self._batches_later = False
        self._ends_at = NEVER
        self._pid = os.getpid()

    @property
    def closed(self) -> bool:
        """Whether nothing is taken, and no POST begun, any more."""
        return self.sender.closed

    def start(self) -> None:
        """Start the worker's thread unless it runs; in a forked child, begin everything afresh."""
        self._renew()
        with self.sender.lock:
            if self.thread is None and not self.closed:
                self.thread = start_thread("delivery.worker", self._run)
                if self.thread is not None:
                    self._on_start()

    def forked(self) -> None:
        """Note, in a forked child, that everything here is the parent's; takes no lock."""
        self.thread = None
        if self._spool is not None:
            self._spool.forked()

    def _renew(self) -> None:
        if self._pid != os.getpid():
            with _after_fork:
                if self._pid != os.getpid():
                    self._begin()

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
            wait_until = min(flush_at, forget_at, take_over_at, self._ends_at)
            batch = self.events.wait(min(wait_until, self.sender.next_attempt()))
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
            if (batch or self._batches_later) and not self._has_to_wait():
                # Whoever helped in between may have filled the room that there was.
                if not self.events.batch(if_it_fits=True):
                    self._batches_later = self.sender.tells_each_answer = True
            elif self._spool is not None:  # what was recorded is on disk long before it is sent
                with self.events.batching:
                    self.events.pass_on()
                    self._spool.run()
        with guard("delivery"):
            self.sender.start_posters()
        if self._abandoned and self._may_end():
            self.close()

    def _has_to_wait(self) -> bool:
        """Tell whether more payloads would push others out, though LaunchDarkly answers: then
        events are better off in the queue, where whoever tracks slows down.
        """
        self.sender.tells_each_answer = True  # first: the last one may come now
        self._batches_later = not self.sender.takes(self.events.size)
        self.sender.tells_each_answer = self._batches_later or self._abandoned
        return self._batches_later

    def _forget_contexts(self) -> None:
        with self.events.batching:
            self.events.forget_contexts()

    # -- what others left --------------------------------------------------------------------------
    def look_for_undelivered(self) -> None:
        """Let the thread look for undelivered payloads; does not wait, takes no lock."""
        self._taking_over = True
        self._wakeup.put(False)

    def _take_over(self) -> None:
        """Take what closed processors of this process, or dead processes, left for our place."""
        self._taking_over = False
        self._take_undelivered()
        if self._spool is None:
            return
        room, idle = self.sender.room, self.sender.is_idle
        taken: list[tuple[list[Payload], list[Payload]]] = []
        self._spool.add(
            lambda spool: taken.append(
                spool.take_over(room, self.options.max_age, one_at_least=idle)
            )
        )
        self._spool.run()
        for found, expired in taken:
            for payload in [*found, *expired]:
                ledger.count(emitted=payload.custom, exposures_emitted=payload.exposures)
            self.sender.drop("too_old", expired)
            self._receive(found)
        self.sender.run_deferred()

    def _take_undelivered(self) -> None:
        if memory_spool.left and not self.closed:
            with self.sender.lock:  # no flush meanwhile, which would find it in neither place
                self._receive(memory_spool.take(self.sender.origin, self.config.events_uri))
            self.sender.run_deferred()

    def _receive(self, payloads: list[Payload]) -> None:
        if payloads:
            self.sender.add(payloads)
            self._wakeup.put(False)

    # -- flushing ----------------------------------------------------------------------------------
    def prepare_flush(self) -> None:
        """Begin in a process where it has not yet begun, and take what others have left."""
        self.start()
        self._take_undelivered()

    def request_flush(self) -> None:
        """Ask for everything to be sent now; does not wait."""
        self.start()
        self.events.wake()

    # -- ending ------------------------------------------------------------------------------------
    def close(self, timeout: float = 0.2) -> None:
        """End the threads; what is in flight ends by itself, what is left waits for another
        processor.

        A thread that is busy for longer than *timeout* seconds, at a slow disk perhaps, finishes
        by itself.
        """
        self._renew()
        self.sender.stop()
        self._wakeup.put(False)
        if self.thread is None:
            self._finish()
        elif self.thread is not threading.current_thread():
            self.thread.join(timeout)

    def _finish(self) -> None:
        """Do the last work, on the last thread: batch what came since, and leave what remains."""
        # Not for ever: a signal handler may have interrupted whoever batches.
        self.events.batch(0.2)
        self.sender.leave()
        self.events.finished = True
        self.events.lose_all("closed")
        with guard("delivery"):
            self.sender.close()
        if self._spool is not None:
            self._spool.add(lambda spool: spool.end())
            self._spool.run()
        memory_spool.notify()

    def wait_for_end(self, timeout: float) -> None:
        """Wait for a worker that closes itself; harmless for any other."""
        if self.closed and self.thread is not None:
            self.thread.join(timeout)

    def abandon(self) -> None:
        """Send what there is, and end: the client dropped its processor without `stop()`.

        A finaliser calls this, as after `postfork()`: it takes no lock and does not wait.
        """
        if self._pid == os.getpid() and self.thread is not None:
            self._ends_at = time.monotonic() + self.options.close_timeout
            self._abandoned = self.sender.tells_each_answer = True
            self._wakeup.put(True)

    def _may_end(self) -> bool:
        with self.sender.lock:
            left = self.events.unbatched() or self.sender.busy
        return not left or time.monotonic() >= self._ends_at

    def pause(self) -> None:
        """Prepare for a fork."""
        if self._spool is not None and self._pid == os.getpid():
            self._spool.pause()

    def resume(self) -> None:
        """Go on after a fork, in the parent."""
        if self._spool is not None and self._pid == os.getpid():
            self._spool.resume()


def worker_of(client: Any) -> DeliveryWorker | None:
    """Return the worker inside *client*, or None when it was built without our processor."""
    found = getattr(sdk.event_processor_of(client), "worker", None)
    return found if isinstance(found, DeliveryWorker) else None


_after_fork = threading.Lock()


def forked() -> None:
    """In a forked child, make the lock anew that guards the new beginning."""
    global _after_fork
    _after_fork = threading.Lock()
