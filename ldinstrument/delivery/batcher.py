"""From events to payloads: `Recorder` queues what is tracked, `Batcher` makes payloads of it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, TypeAlias

from ..diagnostics import log_once
from ..ledger import ledger
from ..sdk import Intake, Writer, as_json, is_custom, is_exposure
from .payloads import Payload, custom_among, exposures_among, join, new_id

MAX_EVENTS = 5000
MAX_BYTES = 4 * 2**20
"""Joining and splitting hold the interpreter's lock: 4 MiB keep others waiting a few ms."""
LARGE = 65536
OTHER = 500
"""What an event counts that is not written yet."""


class Event(NamedTuple):
    """An event that has yet to pass the SDK's dispatcher.

    Args:
        event: the SDK's own.
        ours: whether a session of ours emitted it.
        text: a custom event as JSON. None for other kinds, and for what cannot be written.
    """

    event: Any
    ours: bool
    text: str | None


Recorded: TypeAlias = "Event | str"
"""What waits to be batched: an event, or the text of a custom one that the dispatcher would only
pass on.
"""


def size_of(entry: Recorded | None) -> int:
    """Return about how many characters *entry* has."""
    if isinstance(entry, str):
        return len(entry)
    return OTHER if entry is None or entry.text is None else len(entry.text)


def tracked_among(recorded: Iterable[Recorded]) -> int:
    """Count what came from `track` among *recorded*."""
    return sum(
        [
            isinstance(entry, str) or entry.text is not None or is_custom(entry.event)
            for entry in recorded
        ]
    )


class Recorder:
    """Queue events, custom ones as the JSON that will be sent. Safe for several threads at once.

    They are written when they are tracked: what the host changes later is not what it tracked, and
    whoever flushes does not wait for it.

    Args:
        config: the SDK's configuration.
        queue: where to.
    """

    def __init__(self, config: Any, queue: deque[Recorded]) -> None:
        self._text_of = Writer(config).text
        self._put = queue.append
        self._last: tuple[Any, bool] = (None, False)
        self.large = False
        """Whether something was queued that takes long to batch; whoever takes the queue resets
        it.
        """
        self.bytes = 0
        """About how many characters wait: threads may undo each other's additions."""

    def record(self, event: Any, ours: bool) -> None:
        """Queue *event*."""
        text = None
        if is_custom(event) and event.sampling_ratio is None:
            try:
                text = self._text_of(event)
            except Exception:  # it is refused, with its name, when it is batched
                text = None
            if text is None or len(text) > LARGE:
                self.large = True
        self.bytes += size_of(text)
        context, whose = self._last
        if text is not None and event.context is context and ours is whose:
            # The dispatcher has taken this context, or will have when it comes to this text.
            self._put(text)
        else:
            self._put(Event(event, ours, text))
            self._last = (event.context, ours)

    def forget_context(self) -> None:
        """Let the dispatcher see the next event, whosever it is: it has forgotten, too."""
        self._last = (None, False)


class Batch:
    """Events that will be one payload, whose id is known already.

    Args:
        id: the payload id.
    """

    __slots__ = ("id", "size", "texts")

    def __init__(self) -> None:
        self.id = new_id()
        self.texts: list[str] = []
        self.size = 0

    def has_room(self, text: str) -> bool:
        """Tell whether *text* may join within the bounds of a payload."""
        fits = len(self.texts) < MAX_EVENTS and self.size + len(text) <= MAX_BYTES
        return fits or not self.texts

    def add(self, text: str) -> None:
        """Add the event *text*."""
        self.texts.append(text)
        self.size += len(text)


class Batcher:
    """Make payloads of recorded events. One thread at a time.

    Args:
        config: the SDK's configuration.
    """

    def __init__(self, config: Any) -> None:
        self._intake = Intake(config)
        self._zipped = bool(config.enable_event_compression)
        self._batches: list[Batch] = []
        self.bytes = 0
        """Characters of the events that wait to become payloads."""
        self.refused = 0
        """Custom events that could not be batched; whoever counts them resets it."""

    def add(self, texts: Iterable[str]) -> list[tuple[str, str]]:
        """Let the events *texts* (see `texts`) wait for their payload.

        Returns:
            The id of that payload and the text, of each.
        """
        added = []
        for text in texts:
            if not self._batches or not self._batches[-1].has_room(text):
                self._batches.append(Batch())
            self._batches[-1].add(text)
            self.bytes += len(text)
            added.append((self._batches[-1].id, text))
        return added

    def payloads(self) -> list[Payload]:
        """Make payloads of everything added, and of the summary of evaluations.

        They are made again, under the same ids, unless `done` is called.
        """
        self.add(self._summary())
        return [join(batch.texts, self._zipped, batch.id) for batch in self._batches]

    def done(self) -> None:
        """Note that somebody else has the payloads now."""
        self._batches, self.bytes = [], 0

    def waiting(self) -> int:
        """Count the `track` events that were added and are in no payload yet."""
        return sum(custom_among(batch.texts) for batch in self._batches)

    def texts(self, recorded: Iterable[Recorded]) -> list[str]:
        """Return the JSON texts that the SDK's dispatcher makes of *recorded*."""
        texts: list[str] = []
        exposures = 0
        for entry in recorded:
            if isinstance(entry, str):
                texts.append(entry)
            else:
                passed = list(self._passed(*entry))
                exposures += exposures_among(passed)
                texts += passed
        if exposures:
            ledger.exposures_emitted(exposures)
        return texts

    def forget_contexts(self) -> None:
        """Let every context be indexed again."""
        self._intake.forget_contexts()

    def note_date(self, result: Any) -> None:
        """Take the server's `Date` from a 2xx *result*; it bounds debug events."""
        self._intake.hear(result)

    def _passed(self, event: Any, ours: bool, text: str | None) -> Iterator[str]:
        """Yield what the SDK makes of *event*: nothing, itself, an index or a debug event too."""
        try:
            self._intake.take(event, ours=ours)
        except Exception as error:
            self._refuse(event, error)
        for out in self._intake.drain():
            if text is not None and out is event:
                yield text
            elif (written := self._written(out)) is not None:
                yield written

    def _written(self, event: Any) -> str | None:
        try:
            out = self._intake.written(event)
            return None if out is None else as_json(out)
        except Exception as error:
            self._refuse(event, error)
            return None

    def _summary(self) -> list[str]:
        try:
            summary = self._intake.drain_summary()
            return [] if summary is None else [as_json(self._intake.written_summary(summary))]
        except Exception as error:
            self._refuse(None, error)
            return []

    def _refuse(self, event: Any, error: Exception) -> None:
        key = "summary" if event is None else str(getattr(event, "key", "") or type(event).__name__)
        if is_custom(event):
            ledger.dropped("not_json")
            self.refused += 1
        elif is_exposure(event):
            ledger.exposures_emitted(1)
            ledger.exposures_dropped("not_json", 1)
        log_once(
            "not_json",
            key,
            f"{key}: an event that cannot be written as JSON ({error}) was dropped; the others of "
            "its batch were not",
        )
