"""The queue between the threads that track and the worker that batches.

Its bounds are bytes, not counts, and a burst never meets a full queue while LaunchDarkly answers: a
thread that finds it filling up helps to batch.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from .. import sdk
from ..diagnostics import log_internal_error, log_once, on_event_loop
from ..ledger import ledger
from ..sessions.hook import lost
from .batch_writer import EventTexts
from .batcher import LARGE, Batcher, Recorded, Recorder, size_of, tracked_among
from .options import Options
from .payloads import Payload
from .spool_queue import SpoolQueue
from .transport import PostResult

EARLY_BATCH = 1000
EARLY_BYTES = 2**18
FEW = 100
SLICE = 256
YIELD = 0.0001


class EventQueue:
    """Hold events until they are payloads. Tracking threads use it without waiting.

    Args:
        config: the SDK's configuration.
        options: bounds.
        lock: the sender's; who has which event changes under it only.
        spool: writes to the spool.
        wake: asks the worker's thread to batch; must not wait.
        help: batches on the calling thread when it can, and tells whether it did.
    """

    def __init__(
        self,
        config: Any,
        options: Options,
        lock: threading.RLock,
        spool: SpoolQueue,
        wake: Callable[[], None],
        help: Callable[[], bool],
    ) -> None:
        self._options = options
        self._lock = lock
        self._spool = spool
        self._wake = wake
        self._help = help
        self._early = max(1, min(EARLY_BATCH, config.events_max_pending // 2))
        self._zipped = bool(config.enable_event_compression)
        self._recorded: deque[Recorded] = deque()
        self._recorder = Recorder(config, self._recorded)
        self._in_progress: list[Recorded] = []
        self._batcher = Batcher(config)
        self._lost: deque[None] = deque()
        self.batching = threading.Lock()
        """Held while events become payloads; the methods that say so need it."""
        self.record = self._recorder.record
        self.record_batch = self._recorder.record_batch
        self.write_batch = self._recorder.write_batch

    # -- room --------------------------------------------------------------------------------------
    def has_room(self) -> bool:
        """Tell whether another event may come, after helping to batch when much is waiting."""
        return self._recorder.bytes < self._most // 4 or self._make_room()

    @property
    def _most(self) -> int:
        return self._options.max_bytes

    def _make_room(self) -> bool:
        """Help to batch: the worker's thread does not keep up, or does not get its turn.

        Python gives a thread that waits its turn after 5 ms without a pause of the running one; a
        host that pauses for microseconds all the time, as for a system call, starves the others.
        Where this thread cannot help, it lets the others have a moment.
        """
        if not self._help():
            self._wake()
            time.sleep(YIELD)
        return self._fits() or self._wait_for_room()

    def _fits(self) -> bool:
        return self._recorder.bytes + self._batcher.bytes < self._most

    def _wait_for_room(self) -> bool:
        self._wake()
        deadline = time.monotonic() + self._options.wait_when_full
        while time.monotonic() < deadline and not on_event_loop():
            time.sleep(0.001)
            if self._fits():
                return True
        return False

    @property
    def has_many(self) -> bool:
        """Whether the worker should batch now, before the next interval."""
        return len(self._recorded) >= self._early or self._recorder.bytes >= EARLY_BYTES

    @property
    def is_cheap(self) -> bool:
        """Whether payloads are made without compressing them or writing them to a disk."""
        return not self._zipped and not self._spool

    @property
    def has_few(self) -> bool:
        """Whether batching takes no longer than waking another thread for it."""
        few = len(self._recorded) <= FEW and self._batcher.bytes < LARGE
        return few and not self._recorder.large

    # -- losses ------------------------------------------------------------------------------------
    def lose(self, reason: str, event: Any) -> None:
        """Count *event* as dropped."""
        if sdk.is_custom(event):
            self._count_lost(reason, 1)
        elif sdk.is_exposure(event):
            ledger.exposures_emitted(1)
            ledger.exposures_dropped(reason, 1)
            lost(event)
        self._log_lost(reason)

    def lose_batch(self, reason: str, texts: Iterable[EventTexts]) -> None:
        """Count the events *texts* as dropped."""
        self._count_lost(reason, sum(text.events for text in texts))
        self._log_lost(reason)

    def lose_all(self, reason: str) -> None:
        """Count everything that is still in the queue as dropped."""
        while self._recorded:
            try:
                entry = self._recorded.popleft()
            except IndexError:  # another thread took the last one
                return
            self._count_entry(reason, entry)

    def _count_entry(self, reason: str, entry: Recorded) -> None:
        if count := tracked_among([entry]):
            self._count_lost(reason, count)
        elif sdk.is_exposure(getattr(entry, "event", None)):
            ledger.exposures_emitted(1)
            ledger.exposures_dropped(reason, 1)

    def _count_lost(self, reason: str, count: int) -> None:
        ledger.dropped(reason, count)
        self._lost.extend([None] * count)  # without a lock; see `take_lost`

    def _log_lost(self, reason: str) -> None:
        if reason == "closed":
            log_once(
                reason,
                "",
                "events are tracked after client.close(): they are dropped, see "
                "stats().events.dropped; close the client when the program ends, and in AWS Lambda "
                "never",
            )
        elif reason == "queue_full":
            log_once(
                reason,
                "",
                "events come faster than they can be batched: more than "
                f"max_bytes={self._most} wait; what does not fit is dropped and counted, see "
                "stats().events.dropped and stats().exposures.dropped",
            )

    def take_lost(self) -> int:
        """Return how many `track` events were dropped here since this was asked last."""
        count = len(self._lost)
        for _ in range(count):
            self._lost.popleft()
        refused, self._batcher.refused = self._batcher.refused, 0
        return count + refused

    # -- batching: with `batching` held ------------------------------------------------------------
    def pass_on_all(self) -> None:
        """Let everything recorded so far wait for its payload, and be drafted in the spool."""
        for _ in range(len(self._recorded) // SLICE + 1):
            self._pass_on(SLICE)

    def _pass_on(self, most: int) -> None:
        self._recover()
        with self._lock:
            taken = self._in_progress
            for _ in range(min(most, len(self._recorded))):
                taken.append(self._recorded.popleft())
        if not taken:
            return
        try:
            texts = self._batcher.texts(taken)
        except Exception as error:  # each event is guarded by itself: a bug, and no endless loop
            log_internal_error("delivery", error)
            for entry in taken:
                self._count_entry("internal", entry)
            texts = []
        with self._lock:
            added = self._batcher.add(texts)
            self._in_progress = []
        self._recorder.bytes -= sum(map(size_of, taken))
        if not self._recorded:
            self._recorder.bytes, self._recorder.large = 0, False
        self._spool.add(lambda spool: spool.draft(added))

    def _recover(self) -> None:
        """Put back what a signal handler's exception kept from being passed on."""
        with self._lock:
            if self._in_progress:
                self._recorded.extendleft(reversed(self._in_progress))
                self._in_progress = []
                self.forget_contexts()

    def payloads(self) -> list[Payload]:
        """Make payloads of what was passed on; made again, under the same ids, before `done`."""
        return self._batcher.payloads()

    def done(self) -> None:
        """Note that the sender has the payloads now."""
        self._batcher.done()

    def forget_contexts(self) -> None:
        """Let every context be indexed again, as the SDK does from time to time."""
        self._recorder.forget_context()
        self._batcher.forget_contexts()

    # -- reading -----------------------------------------------------------------------------------
    def unbatched(self) -> int:
        """Count the `track` events that are in no payload yet; with the lock."""
        recorded = tracked_among([*self._in_progress, *list(self._recorded)])
        return recorded + self._batcher.waiting()

    def note_date(self, result: PostResult) -> None:
        """Take the server's `Date` from a 2xx *result*; it bounds debug events."""
        self._batcher.note_date(result)
