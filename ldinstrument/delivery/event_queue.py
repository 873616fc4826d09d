"""The queue between the threads that track and the payloads that leave.

Tracking threads append to it without a lock. Whoever batches, the worker's thread or one that
flushes, passes the events through the SDK's own dispatcher and into payloads, which it gives to the
sender.

Its bounds are bytes, not counts, and a burst never meets a full queue while LaunchDarkly answers: a
thread that finds it filling up helps to batch.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from itertools import repeat, starmap
from math import inf
from typing import TYPE_CHECKING, Any, TypeAlias

from .. import sdk
from ..diagnostics import interruption, log_once, on_event_loop, raise_if_interrupted, withhold
from ..ledger import ledger
from ..sessions.evaluations import lost
from ..sessions.rollups import Emission, FinishedRuns
from .event_json import EventJson, Payload, UnwrittenRuns, exposures_among
from .options import Options
from .sender import Flush, Sender
from .spool_writes import SpoolWrites

if TYPE_CHECKING:
    from .spool import Spool


EARLY_BATCH = 1000
EARLY_BYTES = 2**19
"""A POST takes as long as writing 500 runs of a task: it is worth waiting for more of them. But a
process that holds more is given more memory, page by page, which costs as much as writing.
"""
FEW = 100
FEW_BYTES = 2**18
HELP_BYTES = 2**16
"""What a thread batches that finds the queue filling up, in a fraction of a millisecond."""
LINGER = 0.01
OTHER = 500
"""How many bytes an event counts that the dispatcher writes."""
PAUSE = 0.0001
PAUSE_EVERY = 2**20
"""How many bytes may wait, and come between two pauses, while the worker's thread gets no turn."""
PATIENCE = 0.2
"""How many seconds threads pause for room since nobody batches. A LaunchDarkly that stops answering
costs a program as much, once.
"""
SLICE = 256

Known: TypeAlias = tuple[Any, str, int]
"""A context, how custom events have it in JSON, and a date."""
Recorded: TypeAlias = tuple["bytes | UnwrittenRuns | None", int, int, Any, bool, "Known | None"]
"""What waits to be batched: custom events as JSON, or what that is written from, or None for one
that the dispatcher writes; about how many bytes that is; how many `track` events it is; the SDK's
event that its dispatcher has yet to see, or None where it would only pass the text on, after the
index event of its context; whether a session of ours emitted it; and its context, if it is new and
known in JSON.
"""


class EventQueue:
    """Hold events until they are payloads.

    Events are written when they are tracked: what the host changes later is not what it tracked.
    Only runs of tasks without data, in which nothing can change, are written by whoever batches: to
    write 64 of them was what took longest of a thousand calls.

    Args:
        config: the SDK's configuration.
        options: bounds.
        dispatcher: what the SDK makes of an event.
        sender: takes the payloads; who has which event changes under its lock only.
        spool: keeps events on disk; None without one.
        wakeup: what the worker's thread waits for: whether to make payloads of everything. It is
            re-entrant, unlike a Condition: a finaliser may put something into it.
    """

    def __init__(
        self,
        config: Any,
        options: Options,
        dispatcher: sdk.Intake,
        sender: Sender,
        spool: SpoolWrites | None,
        wakeup: queue.SimpleQueue[bool],
    ) -> None:
        self._options = options
        self._dispatcher = dispatcher
        self._sender = sender
        self._spool = spool
        self._early = max(1, min(EARLY_BATCH, config.events_max_pending // 2))
        self._help_from = options.max_bytes // 4
        self._zipped = bool(config.enable_event_compression)
        self._is_cheap = not self._zipped and spool is None
        """Whether payloads are made without compressing them or writing them to a disk."""
        writer = sdk.Writer(config)
        self._text_of = writer.text
        self._json = EventJson(writer)
        self._recorded: deque[Recorded] = deque()
        self._last: tuple[Any, bool] = (None, False)
        self._bytes = 0
        """About how many characters wait: threads may undo each other's additions."""
        self._taken: list[Recorded] = []
        self._open: list[Payload] = []
        self._open_bytes = 0
        self._may_sum_up = False
        """Whether the dispatcher has seen what it may have a summary of."""
        self.batching = threading.RLock()
        """Held while events become payloads; the methods that say so need it."""
        self._batcher = 0
        """The thread in `batch` (`threading.get_ident`); 0 when none is."""
        self._wakeup = wakeup
        self._woken = False
        self._pause_at = min(PAUSE_EVERY, self._help_from)
        """How many bytes wait when whoever records pauses."""
        self._gives_up_at = 0.0
        """When nobody pauses any more because the queue is full; 0 since somebody has batched."""
        self.finished = False
        """Whether nobody will batch any more."""

    # -- taking events: any thread, without waiting ------------------------------------------------
    def take(self, event: Any, *, ours: bool) -> None:
        """Queue *event*, or drop it by name; waits only as `wait_when_full` allows.

        Raises:
            Exception: nothing of ours, only what leaves no room for the call itself, or a signal's
                handler raised; an event that is not queued then is dropped as `internal`.
        """
        custom = left = sdk.is_custom(event)
        try:
            if self._sender.closed or self._bytes >= self._pause_at:
                reason = self._refusal()
                if reason:
                    left = False
                    self._lose_event(reason, event)
                    return
            text = self._text(event) if custom else None
            size = OTHER if text is None else len(text)
            known, whose = self._last
            left = False  # whatever strikes from here on, it is queued
            if text is not None and event.context is known and ours is whose:
                # The dispatcher has taken this context, or will have when it comes to this text.
                self._recorded.append((text, size, 1, None, ours, None))
            else:
                self._recorded.append((text, size, int(custom), event, ours, None))
                self._last = (event.context, ours)
            self._bytes += size
            try:
                self._announce()
            except RecursionError:  # it is queued, and found later
                pass
            except Exception as error:
                raise_if_interrupted(error)
        except BaseException:
            if left:
                ledger.dropped("internal")
            raise

    def take_batch(self, batch: Iterable[Emission | FinishedRuns], context: Any) -> bool:
        """Take events of ours, all of one *context*, as `EventProcessor.send_event` would one by
        one, or drop them by name; waits only as `wait_when_full` allows.

        Args:
            batch: in order.
            context: of all of them.

        Returns:
            False when it takes none: the caller then tracks each. One cannot be written as JSON,
            perhaps.
        """
        try:
            later = self._bytes < self._help_from
            texts, values, told = self._json.write(batch, context, later=later)
        except BaseException as error:
            if isinstance(error, Exception) and interruption(error) is None:
                return False  # `track` tells which
            self.take_batch(batch, context)  # nothing of it is queued yet
            raise

        # Counted before it can be delivered; from here on it is queued, or dropped by name.
        count = left = sum([events for _, events, _ in texts])
        ledger.count(emitted=count, emitted_values=values)
        try:
            if self._sender.closed or self._bytes >= self._pause_at:
                reason = self._refusal()
                if reason:
                    left = 0
                    self._lose(reason, count)
                    return True

            event = known = None
            if told and texts and (self._last[0] is not context or not self._last[1]):
                # LaunchDarkly has to learn of this context; of one that tells no more than a key,
                # never by a session.
                known = context, told, texts[0][2]
                if context.multiple or context.anonymous:
                    event = sdk.custom_event("", context, texts[0][2], None, None)

            for text, events, _ in texts:
                size = text.size if isinstance(text, UnwrittenRuns) else len(text)
                entry = (text, size, events, event, True, known)
                left -= events
                self._recorded.append(entry)
                self._last = (context, True)  # now another thread's text may rely on it
                self._bytes += size
                event = known = None

            try:
                much = self._bytes >= EARLY_BYTES or len(self._recorded) >= self._early
                wakes = not self._woken and (much or self._spool is not None)
                if wakes or self.finished:
                    self._announce()
            except RecursionError:  # it is queued, and found later
                pass
        except BaseException as error:  # a signal handler's: what is queued is delivered
            ledger.dropped("internal", left)
            if not isinstance(error, Exception):
                raise
            withhold("delivery", error)
        return True

    def _text(self, event: Any) -> bytes | None:
        if event.sampling_ratio is None:
            try:
                return self._text_of(event).encode()
            except RecursionError:
                pass
            except Exception as error:  # it is refused, with its name, when it is batched
                raise_if_interrupted(error)
        return None

    def _announce(self) -> None:
        """Wake the worker when there is much to batch, or something to put on disk."""
        if self.finished:
            self.lose_all("closed")
        elif not self._woken:
            if len(self._recorded) >= self._early or self._bytes >= EARLY_BYTES:
                self.wake()
            elif self._spool is not None:
                self.wake(batch=False)

    # -- no room -----------------------------------------------------------------------------------
    def _refusal(self) -> str | None:
        """Return why no more is taken; None when there is room, perhaps after helping to batch.

        The worker's thread does not get its turn, or does not keep up. Python gives a thread that
        waits its turn after 5 ms without a pause of the running one; a host that pauses for
        microseconds all the time, as for a system call, starves the others. This thread lets them
        have a moment, and helps where much waits.
        """
        if self._sender.closed:
            return "closed"
        if self._bytes < self._help_from:
            self._pause_at = min(self._bytes + PAUSE_EVERY, self._help_from)
            _pause()
            return None
        self._help_or_pause()
        return None if self._has_room() or self._wait_for_room() else "queue_full"

    def _help_or_pause(self) -> None:
        if not self._help():
            self.wake()
            _pause()

    def _has_room(self) -> bool:
        return self.size < self._options.max_bytes

    def _wait_for_room(self) -> bool:
        self.wake()
        if on_event_loop():
            return False
        deadline = time.monotonic() + self._options.wait_when_full
        while not self._has_room():
            now = time.monotonic()
            gives_up_at = self._gives_up_at
            if not gives_up_at:
                gives_up_at = self._gives_up_at = now + PATIENCE
            if now >= max(gives_up_at, deadline):
                return False
            if now < gives_up_at:
                self._help_or_pause()
            else:
                _pause(0.001)
        return True

    def _help(self) -> bool:
        """Batch on the thread that tracks: a little, or what fits where the queue is half full."""
        if not self._is_cheap or not self._sender.takes(self.size):
            return False
        most = HELP_BYTES if self.size < self._options.max_bytes // 2 else inf
        if not self.batch(0, most, if_it_fits=True):
            return False
        self._sender.start_posters(here=False)
        return True

    # -- losses ------------------------------------------------------------------------------------
    def lose_all(self, reason: str) -> None:
        """Count everything that is still in the queue as dropped."""
        while self._recorded:
            try:
                _, _, events, event, _, _ = self._recorded.popleft()
            except IndexError:  # another thread took the last one
                return
            self._count_lost(reason, events, event)

    def _lose_event(self, reason: str, event: Any) -> None:
        self._lose(reason, int(sdk.is_custom(event)), event)
        if sdk.is_exposure(event):
            lost(event)

    def _lose(self, reason: str, events: int, event: Any = None) -> None:
        """Count *events* events, or an evaluation, as dropped, and say it once."""
        self._count_lost(reason, events, event)
        bound = self._options.max_bytes
        messages = {
            "closed": "events are tracked after client.close(): they are dropped, see "
            "stats().events.dropped; close the client when the program ends, and in AWS Lambda "
            "never",
            "queue_full": "events come faster than they can be batched: more than "
            f"max_bytes={bound} wait; what does not fit is dropped and counted, see "
            "stats().events.dropped and stats().exposures.dropped",
        }
        log_once(reason, "", messages[reason])

    def _count_lost(self, reason: str, events: int, event: Any) -> None:
        if events:
            self._sender.count_dropped(reason, events)
        elif sdk.is_exposure(event):
            ledger.count(exposures_emitted=1)
            ledger.exposures_dropped(reason, 1)

    # -- the worker's thread waits -----------------------------------------------------------------
    def wake(self, *, batch: bool = True) -> None:
        """Wake the worker's thread; with *batch*, everything shall become payloads."""
        self._woken = True
        self._wakeup.put(batch)

    def wait(self, until: float) -> bool:
        """Wait to be woken, or for the time *until* (`time.monotonic`).

        Returns:
            Whether somebody wants everything in payloads.
        """
        try:
            batch = self._wakeup.get(timeout=max(0.0, until - time.monotonic()))
            if not batch and self._spool is not None:  # a few events per transaction
                batch = self._wakeup.get(timeout=LINGER)
            while not self._wakeup.empty():
                batch = self._wakeup.get() or batch
        except queue.Empty:
            batch = False
        self._woken = False  # whoever records from now on wakes it again
        return batch

    # -- flushing ----------------------------------------------------------------------------------
    def open_flush(self, wake: Callable[[], object], deadline: float) -> Flush:
        """Ask for everything to be sent now. A few events are batched on the thread that flushes,
        which saves waking another one first.

        Args:
            wake: called when there is nothing left to wait for; must not wait.
            deadline: `time.monotonic` seconds.
        """
        flush = Flush(wake, deadline)
        try:
            self._sender.open_flush(flush)
            if not self._sender.closed:
                few = len(self._recorded) <= FEW and self._bytes + self._open_bytes < FEW_BYTES
                batched = few and self._is_cheap and self.batch(0)
                if not batched or self._sender.needs_posters:
                    self.wake(batch=not batched)
        except BaseException:  # a signal's handler: nobody will wait for it
            self._sender.forget_flush(flush)
            raise
        return flush

    # -- batching ----------------------------------------------------------------------------------
    def batch(self, timeout: float = -1, most: float = inf, *, if_it_fits: bool = False) -> bool:
        """Make payloads of everything recorded so far.

        Args:
            timeout: seconds to wait for another thread that batches; -1 waits for ever.
            most: stop after about so many bytes, which then wait for more to leave with.
            if_it_fits: no more than pushes no other payloads out, while LaunchDarkly answers.

        Returns:
            Whether it was done.
        """
        me = threading.get_ident()
        if self._batcher == me:  # a signal's handler has interrupted it
            return False
        # The handler may raise when the lock has been taken, before this function knows. Whose it
        # is, the lock can tell; no call may come before its release.
        try:
            if not self.batching.acquire(timeout=timeout):
                return False
            self._batcher = me
            flushes = list(self._sender.flushes)
            whole = self.pass_on(min(most, self._sender.fitting) if if_it_fits else most)
            if most < inf and self._open_bytes < min(EARLY_BYTES, self._help_from):
                return True
            if not whole:
                flushes = []
            elif self._may_sum_up:
                self._sum_up()
                self.pass_on()
            for payload in self._open:
                payload.seal(self._zipped)
            if self._spool is not None and self._open:
                self._spool.add(partial(_seal, self._open))
                self._spool.run()
            with self._sender.lock:
                try:
                    self._sender.add(self._open, flushes)
                except BaseException:
                    self._open = self._sender.without_waiting(self._open)
                    raise
                self._open, self._open_bytes = [], 0
            if self._spool is not None or self._sender.calls.queued:
                self._sender.run_deferred()
        except Exception as error:
            withhold("delivery", error)
            return False
        finally:
            if self._batcher == me:
                self._batcher = 0
            try:
                self.batching.release()
            except RuntimeError:  # it is another thread's
                pass
        return whole or most < inf

    def pass_on(self, most: float = inf) -> bool:
        """Let everything recorded so far wait in payloads, and on disk; with `batching` held.

        Args:
            most: stop after about so many bytes.

        Returns:
            Whether it was everything.
        """
        if self._taken:
            self._recover()
        elif not self._recorded:  # what a signal handler's exception kept from being counted
            self._bytes = 0
        for _ in range(len(self._recorded) // SLICE + 1):
            taken, size, count = self._taken, 0, 0
            with self._sender.lock:
                for count in range(1, min(SLICE, len(self._recorded)) + 1):
                    size += self._recorded[count - 1][1]
                    if size >= most:
                        break
                # In one call, out of which no signal's handler raises: each is here or there.
                taken.extend(starmap(self._recorded.popleft, repeat((), count)))

            passed: list[tuple[bytes, int]] = []
            for entry in taken:
                given, _, events, event, ours, known = entry
                text = self._runs_text(given) if isinstance(given, UnwrittenRuns) else given
                if text is None and given is not None:
                    continue
                if event is not None:
                    passed += self._dispatched(text, events, event, ours, known)
                elif text is not None:
                    if known is not None:
                        passed += self._indexed(known)
                    passed.append((text, events))

            # All of it at once: what a signal's handler interrupts is done again.
            drafts, payloads, added = [], self._open[:], 0
            if payloads:
                payloads[-1] = payloads[-1].copy()
            for text, events in passed:
                if not payloads or not payloads[-1].add(text, events):
                    payloads.append(Payload())
                    payloads[-1].add(text, events)
                added += len(text)
                if self._spool is not None:
                    drafts.append((payloads[-1].id, text.decode()))
            with self._sender.lock:
                self._open, self._taken = payloads, []
                self._open_bytes += added
            self._bytes -= size
            self._pause_at, self._gives_up_at = min(PAUSE_EVERY, self._help_from), 0.0
            most -= size
            if self._spool is not None:
                self._spool.add(partial(_draft, drafts))
            if most <= 0:
                return not self._recorded
        return True

    def _runs_text(self, unwritten: UnwrittenRuns) -> bytes | None:
        """Write runs; where that fails, which has been seen not to, they are dropped by name."""
        try:
            return self._json.text_of(unwritten)
        except Exception as error:
            self._refuse(None, unwritten.events, error)
        return None

    def _sum_up(self) -> None:
        """Queue the summary of the evaluations since the last one, if there were any."""
        try:
            if (summary := self._dispatcher.summary_text()) is not None:
                self._recorded.append((summary.encode(), len(summary), 0, None, False, None))
                self._bytes += len(summary)
        except Exception as error:
            self._refuse(None, 0, error)
        self._may_sum_up = False

    def _recover(self) -> None:
        """Put back what a signal handler's exception kept from being passed on."""
        with self._sender.lock:
            self._recorded.extendleft(reversed(self._taken))
            self._taken = []
            self.forget_contexts()

    # -- the SDK's dispatcher ----------------------------------------------------------------------
    def _dispatched(
        self, text: bytes | None, events: int, event: Any, ours: bool, known: Known | None
    ) -> list[tuple[bytes, int]]:
        """Return what the SDK makes of *event*: nothing, itself, an index or a debug event too.

        Returns:
            JSON texts, and how many `track` events each is.
        """
        passed: list[tuple[bytes, int]] = []
        self._may_sum_up = True
        try:
            if (answer := self._sender.last_accepted) is not None:
                self._dispatcher.hear(answer)
            for out in self._dispatcher.passed(event, ours=ours):
                if out is event and text is not None:
                    passed.append((text, events))
                    continue
                counted = events if out is event else 0
                if (written := self._written(out, counted, known)) is not None:
                    passed.append((written, counted))
        except Exception as error:
            self._refuse(event, events, error)
        return passed

    def _indexed(self, known: Known) -> list[tuple[bytes, int]]:
        """Return the index event of a context, unless LaunchDarkly has had it; as `_dispatched`."""
        try:
            text = self._dispatcher.index_text(*known)
        except Exception as error:
            withhold("delivery", error)
            return []
        return [] if text is None else [(text.encode(), 0)]

    def _written(self, event: Any, events: int, known: Known | None) -> bytes | None:
        """Return an event out of the dispatcher as JSON; None for a kind that has no shape."""
        try:
            text = self._dispatcher.text(event, known)
        except Exception as error:
            self._refuse(event, events, error)
            return None
        if text is None:
            return None
        if exposures := exposures_among([text]):
            ledger.count(exposures_emitted=exposures)
        return text.encode()

    def _refuse(self, event: Any, events: int, error: Exception) -> None:
        raise_if_interrupted(error)  # then it stays where it is, and the next who batches has it
        key = "runs of a task" if events else "summary"
        if event is not None:
            key = str(getattr(event, "key", "") or type(event).__name__)
        self._count_lost("not_json", events, event)
        log_once(
            "not_json",
            key,
            f"{key}: an event that cannot be written as JSON ({error}) was dropped; the others of "
            "its batch were not",
        )

    def forget_contexts(self) -> None:
        """Let every context be indexed again, as the SDK does from time to time."""
        self._last = (None, False)
        self._dispatcher.forget_contexts()

    # -- reading -----------------------------------------------------------------------------------
    @property
    def size(self) -> int:
        """About how many bytes wait here."""
        return self._bytes + self._open_bytes

    def unbatched(self) -> int:
        """Count the `track` events that are in no payload yet; with the sender's lock."""
        recorded = sum([entry[2] for entry in [*self._taken, *list(self._recorded)]])
        return recorded + sum([payload.custom for payload in self._open])


def _pause(seconds: float = PAUSE) -> None:
    """Let other threads have their turn, where that is possible: in gevent's hub it is not."""
    try:
        time.sleep(seconds)
    except Exception as error:  # nothing is lost
        raise_if_interrupted(error)


def _draft(drafts: list[tuple[str, str]], spool: Spool) -> None:
    spool.draft(drafts)


def _seal(payloads: list[Payload], spool: Spool) -> None:
    spool.seal(payloads)
