"""Sealed payloads: bytes and payload id are fixed before the first POST, so a repetition cannot
count twice.
"""

from __future__ import annotations

import gzip
import json
import time
import uuid
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from typing import Any, Literal, NamedTuple, TypeAlias

from .. import diagnostics as complaints
from ..ledger import ledger
from ..sdk import Intake, Writer, as_json, is_custom

MAX_EVENTS = 5000
MAX_BYTES = 4 * 2**20
"""Joining and splitting hold the interpreter's lock: 4 MiB cost whoever waits a few
milliseconds.
"""
LARGE = 65536
State = Literal["waiting", "flying", "failed", "delivered", "dropped", "split"]


class Payload:
    """One POST: what is sent, what is inside, and how it fares.

    A plain class, as elsewhere in this package: making a dataclass takes most of a millisecond of a
        cold start.

    Args:
        body: the exact bytes; with *zipped*, gzip.
        events: events of every kind inside.
        custom: `track` events among them; only these are counted in the ledger.
        id: `X-LaunchDarkly-Payload-ID`; None makes one.
        sealed_at: the wall clock, in seconds since the epoch; it survives the process in a spool.
        age_from: the monotonic clock, which a clock set back an hour does not reach.
    """

    __slots__ = (
        "age_from", "attempts", "bad_requests", "body", "custom", "events", "flights", "heirs", "id", "sealed_at",
        "sender", "state", "stored", "zipped",
    )  # fmt: skip

    def __init__(
        self,
        body: bytes,
        events: int,
        custom: int,
        zipped: bool = False,
        id: str | None = None,
        sealed_at: float | None = None,
        age_from: float | None = None,
    ) -> None:
        self.body = body
        self.events = events
        self.custom = custom
        self.zipped = zipped
        self.id = id or str(uuid.uuid4())
        self.sealed_at = time.time() if sealed_at is None else sealed_at
        self.age_from = time.monotonic() if age_from is None else age_from
        self.attempts = self.bad_requests = self.flights = 0
        self.sender: int | None = None
        """The thread that posts it while it waits for a flush."""
        self.state: State = "waiting"
        self.stored = False
        """Whether a spool holds it."""
        self.heirs: tuple[Payload, ...] = ()

    @property
    def settled(self) -> bool:
        """Whether its fate is known."""
        return self.state in ("delivered", "dropped")

    def lineage(self) -> Iterator[Payload]:
        """Itself, or what it was split into."""
        if self.state == "split":
            for heir in self.heirs:
                yield from heir.lineage()
        else:
            yield self

    def count(self, counts: Counter[str]) -> None:
        """Add its custom events to *counts*, by state; what is given up is counted where it is."""
        for part in self.lineage():
            if part.state != "dropped":
                counts[part.state] += part.custom

    def texts(self) -> list[str]:
        """Its events, each as JSON text."""
        body = gzip.decompress(self.body) if self.zipped else self.body
        return [as_json(event) for event in json.loads(body)]

    def halves(self) -> tuple[Payload, ...]:
        """Two payloads with half of the events each, under new ids; none of one that cannot be
        split.

        Raises:
            ValueError: the body is not JSON, as a damaged spool may hold it.
            OSError: it is not gzip.
        """
        if self.events < 2:
            return ()
        texts = self.texts()
        middle = len(texts) // 2
        halves = tuple(join(part, self.zipped) for part in (texts[:middle], texts[middle:]))
        for half in halves:
            half.sealed_at, half.age_from = self.sealed_at, self.age_from
            half.stored = self.stored  # should the spool refuse them, it still holds this one
        return halves

    def split(self, heirs: tuple[Payload, ...]) -> None:
        """From now on it is *heirs*."""
        self.heirs = heirs
        self.state = "split"

    def first_key(self) -> str:
        """The key or kind of its first event, to name what is dropped."""
        try:
            event = json.loads(gzip.decompress(self.body) if self.zipped else self.body)[0]
            return str(event.get("key") or event.get("kind"))
        except (ValueError, OSError, LookupError, AttributeError):
            return "an event that cannot be read"


_CUSTOM = '{"kind":"custom",'


def custom_among(texts: Iterable[str]) -> int:
    """How many of the JSON *texts* are `track` events."""
    return sum([text.startswith(_CUSTOM) for text in texts])


def join(texts: list[str], zipped: bool, custom: int | None = None) -> Payload:
    """Seal the events *texts*, each JSON as this module writes it, into one payload; *custom* of
    them, when known.
    """
    body = f"[{','.join(texts)}]".encode()
    custom = custom_among(texts) if custom is None else custom
    return Payload(gzip.compress(body) if zipped else body, len(texts), custom, zipped)


class Event(NamedTuple):
    """An event that is yet to pass the SDK's dispatcher.

    Args:
        event: the SDK's own.
        ours: whether a session of ours emitted it.
        text: a custom event as JSON. None for other kinds, and for what cannot be written.
    """

    event: Any
    ours: bool
    text: str | None


Recorded: TypeAlias = "Event | str"
"""What waits to be sealed: an event, or the text of a custom one that the dispatcher would only
pass on.
"""


def tracked_among(recorded: Iterable[Recorded]) -> int:
    """How many of *recorded* came from `track`."""
    return sum(
        [isinstance(one, str) or one.text is not None or is_custom(one.event) for one in recorded]
    )


class Recorder:
    """Queues events, custom ones as the JSON that will be sent. Safe for several threads at once.

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
        """Whether something was queued that takes its time to be sealed; whoever takes the queue
        sets it back.
        """

    def record(self, event: Any, ours: bool) -> None:
        """Queue *event*."""
        text = None
        if is_custom(event) and event.sampling_ratio is None:
            try:
                text = self._text_of(event)
            except Exception:  # it is refused, with its name, when it is sealed
                text = None
            if text is None or len(text) > LARGE:
                self.large = True
        context, whose = self._last
        if text is not None and event.context is context and ours is whose:
            self._put(
                text
            )  # the dispatcher has taken this context, or will have when it comes to this
        else:
            self._put(Event(event, ours, text))
            self._last = (event.context, ours)

    def forget_context(self) -> None:
        """Let the dispatcher see the next event, whosever it is: it has forgotten, too."""
        self._last = (None, False)


def _chunks(texts: Iterable[str]) -> Iterator[list[str]]:
    """*texts* in their order, in pieces within the bounds of a payload."""
    chunk: list[str] = []
    size = 0
    for text in texts:
        if chunk and (len(chunk) >= MAX_EVENTS or size + len(text) > MAX_BYTES):
            yield chunk
            chunk, size = [], 0
        chunk.append(text)
        size += len(text)
    if chunk:
        yield chunk


class Sealer:
    """Makes payloads of recorded events. One thread at a time.

    Args:
        config: the SDK's configuration.
    """

    def __init__(self, config: Any) -> None:
        self.intake = Intake(config)
        self.refused = 0
        """Custom events that could not be sealed; whoever counts them sets it back."""
        self._zipped = bool(config.enable_event_compression)

    def seal(self, recorded: Iterable[Recorded]) -> list[Payload]:
        """Seal *recorded* events and the summary; what cannot be JSON is dropped, named and
        counted.
        """
        return self.join(*self.texts(recorded))

    def texts(self, recorded: Iterable[Recorded]) -> tuple[list[str], int]:
        """*recorded* events as JSON texts, and how many of them are custom ones; the summary waits
        for `join`.
        """
        texts: list[str] = []
        others = 0
        for one in recorded:
            if isinstance(one, str):
                texts.append(one)
            else:
                passed = list(self._passed(*one))
                others += len(passed) - custom_among(passed)
                texts += passed
        return texts, len(texts) - others

    def join(self, texts: list[str], custom: int | None = None) -> list[Payload]:
        """Seal *texts*, of which *custom* are, and the summary as this configuration wants them."""
        texts = texts + self._summary()
        if not texts:
            return []
        if len(texts) <= MAX_EVENTS and sum(map(len, texts)) <= MAX_BYTES:
            return [join(texts, self._zipped, custom)]
        return [join(chunk, self._zipped) for chunk in _chunks(texts)]

    def _passed(self, event: Any, ours: bool, text: str | None) -> Iterator[str]:
        """What the SDK makes of *event*: nothing, itself, an index or a debug event besides."""
        try:
            self.intake.take(event, ours=ours)
        except Exception as error:
            self._refuse(event, error)
        for out in self.intake.drain():
            if text is not None and out is event:
                yield text
            elif (written := self._written(out)) is not None:
                yield written

    def _written(self, event: Any) -> str | None:
        try:
            out = self.intake.written(event)
            return None if out is None else as_json(out)
        except Exception as error:
            self._refuse(event, error)
            return None

    def _summary(self) -> list[str]:
        try:
            summary = self.intake.drain_summary()
            return [] if summary is None else [as_json(self.intake.written_summary(summary))]
        except Exception as error:
            self._refuse(None, error)
            return []

    def _refuse(self, event: Any, error: Exception) -> None:
        key = "summary" if event is None else str(getattr(event, "key", "") or type(event).__name__)
        if is_custom(event):
            ledger.dropped("not_json")
            self.refused += 1
        complaints.log_once(
            "not_json",
            key,
            f"{key}: an event that cannot be JSON ({error}) was dropped; its batch was not",
        )
