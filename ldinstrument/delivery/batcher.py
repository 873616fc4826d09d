"""From events to payloads: `Recorder` queues what is tracked, `Batcher` makes payloads of it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, TypeAlias

from ..diagnostics import log_once
from ..ids import random_uuid
from ..ledger import ledger
from ..sdk import Intake, Writer, as_json, custom_event, is_custom, is_exposure
from .batch_writer import BatchWriter, EventTexts
from .payloads import Payload, body_of, custom_among, exposures_among

MAX_EVENTS = 5000
MAX_BYTES = 4 * 2**20
"""Joining and splitting hold the interpreter's lock: 4 MiB keep others waiting a few ms."""
LARGE = 65536
OTHER = 500
"""What an event counts that is not written yet."""


Text: TypeAlias = "str | EventTexts"
"""One event as JSON, or several custom ones."""


class Event(NamedTuple):
    """An event that has yet to pass the SDK's dispatcher.

    Args:
        event: the SDK's own.
        ours: whether a session of ours emitted it.
        text: a custom event as JSON, or a batch that it stands for. None for other kinds, and for
            what cannot be written.
    """

    event: Any
    ours: bool
    text: Text | None


Recorded: TypeAlias = "Event | Text"
"""What waits to be batched: an event, or the text of custom ones that the dispatcher would only
pass on.
"""


def size_of(entry: Recorded | None) -> int:
    """Return about how many characters *entry* has."""
    if isinstance(entry, Event):
        entry = entry.text
    if isinstance(entry, EventTexts):
        return len(entry.text)
    return OTHER if entry is None else len(entry)


def tracked_among(recorded: Iterable[Recorded]) -> int:
    """Count what came from `track` among *recorded*."""
    return sum(map(_tracked, recorded))


def _tracked(entry: Recorded) -> int:
    if isinstance(entry, Event):
        return int(is_custom(entry.event)) if entry.text is None else _tracked(entry.text)
    return entry.events if isinstance(entry, EventTexts) else 1


class Recorder:
    """Queue events, custom ones as the JSON that will be sent. Safe for several threads at once.

    They are written when they are tracked: what the host changes later is not what it tracked, and
    whoever flushes does not wait for it.

    Args:
        config: the SDK's configuration.
        queue: where to.
    """

    def __init__(self, config: Any, queue: deque[Recorded]) -> None:
        writer = Writer(config)
        self._text_of = writer.text
        self.write_batch = BatchWriter(writer).write
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

    def record_batch(self, texts: Iterable[EventTexts], context: Any) -> None:
        """Queue events of ours, all of one *context* and written by `write_batch`."""
        for text in texts:
            self.bytes += len(text.text)
            if self._last[0] is context and self._last[1]:
                self._put(text)
            else:
                # The dispatcher sees one event of the batch, for its context.
                self._put(Event(custom_event("", context, text.at, None, None), True, text))
                self._last = (context, True)

    def forget_context(self) -> None:
        """Let the dispatcher see the next event, whosever it is: it has forgotten, too."""
        self._last = (None, False)


class OpenPayload:
    """Events that will be one payload, whose id is known already.

    Args:
        id: the payload id.
    """

    __slots__ = ("_size", "custom", "events", "exposures", "id", "texts")

    def __init__(self) -> None:
        self.id = random_uuid()
        self.texts: list[str] = []
        self.events = self.custom = self.exposures = self._size = 0

    def has_room(self, text: str, events: int) -> bool:
        """Tell whether *events* events *text* may join within the bounds of a payload."""
        fits = self.events + events <= MAX_EVENTS and self._size + len(text) <= MAX_BYTES
        return fits or not self.texts

    def add(self, text: str, events: int, custom: int) -> None:
        """Add *events* events *text*, of which *custom* came from `track`."""
        self.texts.append(text)
        self._size += len(text)
        self.events += events
        self.custom += custom
        if not custom:
            self.exposures += exposures_among([text])

    def payload(self, zipped: bool) -> Payload:
        """Make the payload."""
        body = body_of(self.texts, zipped)
        return Payload(body, self.events, self.custom, zipped, self.id, exposures=self.exposures)


class Batcher:
    """Make payloads of recorded events. One thread at a time.

    Args:
        config: the SDK's configuration.
    """

    def __init__(self, config: Any) -> None:
        self._intake = Intake(config)
        self._zipped = bool(config.enable_event_compression)
        self._open: list[OpenPayload] = []
        self.bytes = 0
        """Characters of the events that wait to become payloads."""
        self.refused = 0
        """Custom events that could not be batched; whoever counts them resets it."""

    def add(self, texts: Iterable[Text]) -> list[tuple[str, str]]:
        """Let the events *texts* (see `texts`) wait for their payload.

        Returns:
            The id of that payload and the text, of each.
        """
        added = []
        for text in texts:
            if isinstance(text, EventTexts):
                written, events, _ = text
                custom = events
            else:
                written, events, custom = text, 1, custom_among([text])
            if not self._open or not self._open[-1].has_room(written, events):
                self._open.append(OpenPayload())
            self._open[-1].add(written, events, custom)
            self.bytes += len(written)
            added.append((self._open[-1].id, written))
        return added

    def payloads(self) -> list[Payload]:
        """Make payloads of everything added, and of the summary of evaluations.

        They are made again, under the same ids, unless `done` is called.
        """
        self.add(self._summary())
        return [payload.payload(self._zipped) for payload in self._open]

    def done(self) -> None:
        """Note that somebody else has the payloads now."""
        self._open, self.bytes = [], 0

    def waiting(self) -> int:
        """Count the `track` events that were added and are in no payload yet."""
        return sum(payload.custom for payload in self._open)

    def texts(self, recorded: Iterable[Recorded]) -> list[Text]:
        """Return the JSON texts that the SDK's dispatcher makes of *recorded*."""
        texts: list[Text] = []
        exposures = 0
        for entry in recorded:
            if isinstance(entry, Event):
                passed = list(self._passed(*entry))
                exposures += exposures_among(text for text in passed if isinstance(text, str))
                texts += passed
            else:
                texts.append(entry)
        if exposures:
            ledger.exposures_emitted(exposures)
        return texts

    def forget_contexts(self) -> None:
        """Let every context be indexed again."""
        self._intake.forget_contexts()

    def note_date(self, result: Any) -> None:
        """Take the server's `Date` from a 2xx *result*; it bounds debug events."""
        self._intake.hear(result)

    def _passed(self, event: Any, ours: bool, text: Text | None) -> Iterator[Text]:
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
