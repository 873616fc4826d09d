"""The event processor that the SDK calls.

`Config("sdk-key", plugins=[ld.Plugin()], event_processor_class=ld.EventProcessor)`
"""

from __future__ import annotations

import time
import weakref
from typing import TYPE_CHECKING, Any

from ldclient.interfaces import EventProcessor as EventProcessorInterface

from .. import sdk
from ..diagnostics import log_once, raise_if_interrupted
from ..errors import DefinitionError
from ..ledger import ledger
from ..process import on_exit
from ..sessions import clients, recipes, threads
from ..sessions.current_event import current_event
from ..sessions.evaluations import see
from ..settings import disabled, scanning
from .flushing import (
    UNDELIVERED,
    deadline_of,
    flush_workers,
    flush_workers_async,
    leave,
    watch_exit_of_child,
)
from .local_server import use_local_server
from .options import Options
from .registry import register
from .worker import DeliveryWorker

IN_HAND = (recipes, threads)
"""What a program may first call when no file can be opened any more, and nothing be imported."""

if TYPE_CHECKING:
    from ldclient.interfaces import AsyncEventProcessor

    class _EitherProcessor(EventProcessorInterface, AsyncEventProcessor):
        """What a type checker shall see: it goes into a `Config` and into an `AsyncConfig`."""

        async def flush_and_wait(self, timeout: float) -> bool: ...

        def stop(self) -> Any: ...

else:
    _EitherProcessor = EventProcessorInterface


class EventProcessor(_EitherProcessor):
    """Delivers events with receipts; give the class itself as `event_processor_class` of `Config`
    or `AsyncConfig`.

    For options, `functools.partial(ld.EventProcessor, spool="/var/lib/app/events")`; see `Options`.

    Where `LDINSTRUMENT_DISABLED` is set, or an SDK has closed the seam we use, making one gives the
    SDK's own event processor instead; the latter is said once.

    Args:
        config: the SDK's configuration.
        options: keywords of `Options`.
    """

    worker: DeliveryWorker
    """What delivers."""
    sees_exposures = True
    client: weakref.ref[Any] | None = None
    """The client that it belongs to, as far as our `Plugin` has told."""

    def __new__(cls, config: Any, **options: Any) -> Any:
        """Make one of ours for a sync or an async client, or the SDK's own."""
        if scanning():
            return sdk.null_event_processor(config)
        if disabled():
            return sdk.default_event_processor(config)
        use_local_server(config)
        try:
            worker = DeliveryWorker(config, Options(**options), watch_exit_of_child)
        except (TypeError, DefinitionError):
            raise  # an unknown or an odd option: say it where it is written
        except Exception as error:
            raise_if_interrupted(error)
            log_once(
                "seam",
                type(error).__name__,
                f"this LaunchDarkly SDK keeps its own event processor ({error!r}): events leave, "
                f"but "
                "nothing confirms them; update ldinstrument",
            )
            return sdk.default_event_processor(config)
        self = super().__new__(_AsyncEventProcessor if sdk.is_async(config) else cls)
        self.worker = worker
        register(worker)
        on_exit(leave)
        worker.start()
        return self

    def __init__(self, config: Any, **options: Any) -> None:
        super().__init__()

    def send_event(self, event: Any) -> None:
        """Take one event of the SDK; never waits."""
        ours = False
        if sdk.is_custom(event):
            at = current_event.take(event)
            if at is None:
                ledger.count(emitted=1)
            else:
                ours, event.timestamp = True, at
        else:
            see(event, self.client)
        if (recorder := clients.recorder()) is not None:
            # A test records: nothing leaves, and what the program tracks by itself is recorded.
            if sdk.is_custom(event):
                recorder.track(event.key, event.context, event.data, event.metric_value)
            return
        if self.worker.thread is None:
            try:
                self.worker.start()
            except BaseException:
                if sdk.is_custom(event):
                    ledger.dropped("internal")
                raise
        self.worker.events.take(event, ours=ours)

    own_send_event = send_event
    """The same; `sdk.batch_taker` sees by it whether somebody has put another in its place."""

    @property
    def _closed(self) -> bool:
        """Whether it takes no more, under the name that the SDK's own processor has for it."""
        return self.worker.closed

    def flush(self) -> None:
        """Send soon; does not wait. `ldinstrument.flush` does."""
        self.worker.request_flush()

    def stop(self) -> Any:
        """Deliver for at most `close_timeout`, then end the threads."""
        if not self.worker.closed:
            ends = time.monotonic() + self.worker.options.close_timeout
            flush_workers([self.worker], ends)
            self.worker.close(_left(ends))

    def __del__(self) -> None:
        worker = getattr(self, "worker", None)
        if worker is not None and not worker.closed:
            worker.abandon()


def _left(ends: float) -> float:
    """Return the seconds left for the threads to end; a moment, where delivery took them all."""
    return max(0.2, ends - time.monotonic())


class _AsyncEventProcessor(EventProcessor):
    """Deliver for an `AsyncLDClient`, which awaits `stop` and `flush_and_wait`."""

    async def flush_and_wait(self, timeout: float) -> bool:
        """Tell whether everything recorded so far, evaluations included, is at LaunchDarkly.

        Args:
            timeout: how many seconds to wait for it.
        """
        counts = await flush_workers_async([self.worker], deadline_of(timeout))
        return not any(counts[state] for state in (*UNDELIVERED, "others", "timed_out"))

    async def stop(self) -> None:
        """Deliver for at most `close_timeout`, then end the threads."""
        if not self.worker.closed:
            import asyncio

            ends = time.monotonic() + self.worker.options.close_timeout
            await flush_workers_async([self.worker], ends)
            # It may wait for a thread and the disk.
            await asyncio.to_thread(self.worker.close, _left(ends))
