"""Sealed payloads: bytes and payload id are fixed before the first POST, so a repetition cannot count twice."""

from __future__ import annotations

import gzip
import json
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal, NamedTuple

from ..ledger import ledger
from ..sdk import Intake, Writer, as_json, is_custom
from . import complaints

MAX_EVENTS = 5000
State = Literal["waiting", "flying", "failed", "delivered", "dropped", "split"]


class Payload:
    """One POST: what is sent, what is inside, and how it fares.

    A plain class, as elsewhere in this package: making a dataclass takes most of a millisecond of a cold start.

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
        "sender", "state", "zipped",
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

    def texts(self) -> list[str]:
        """Its events, each as JSON text."""
        body = gzip.decompress(self.body) if self.zipped else self.body
        return [as_json(event) for event in json.loads(body)]

    def split(self) -> tuple[Payload, ...]:
        """Two payloads with half of the events each, under new ids; one that cannot be split gives nothing."""
        if self.events < 2:
            return ()
        texts = self.texts()
        middle = len(texts) // 2
        self.heirs = tuple(join(part, self.zipped) for part in (texts[:middle], texts[middle:]))
        for heir in self.heirs:
            heir.sealed_at, heir.age_from = self.sealed_at, self.age_from
        self.state = "split"
        return self.heirs

    def first_key(self) -> str:
        """The key or kind of its first event, to name what is dropped."""
        event = json.loads(gzip.decompress(self.body) if self.zipped else self.body)[0]
        return str(event.get("key") or event.get("kind"))


_CUSTOM = '{"kind":"custom",'


def custom_among(texts: Iterable[str]) -> int:
    """How many of the JSON *texts* are `track` events."""
    return sum([text.startswith(_CUSTOM) for text in texts])


def join(texts: list[str], zipped: bool) -> Payload:
    """Seal the events *texts*, each JSON as this module writes it, into one payload."""
    body = f"[{','.join(texts)}]".encode()
    return Payload(gzip.compress(body) if zipped else body, len(texts), custom_among(texts), zipped)


class Recorded(NamedTuple):
    """An event as it waits to be sealed.

    Args:
        event: the SDK's own.
        ours: whether a session of ours emitted it.
        text: a custom event as JSON, written when it was tracked: what the host changes later is not what it tracked,
            and whoever flushes does not wait for the writing. None for other kinds, and for what cannot be written.
    """

    event: Any
    ours: bool
    text: str | None


def tracked_among(recorded: Iterable[Recorded]) -> int:
    """How many of *recorded* came from `track`."""
    return sum([text is not None or is_custom(event) for event, _, text in recorded])


def recorder(config: Any) -> Callable[[Any, bool], Recorded]:
    """Makes `Recorded` of an event and whether it is ours; safe for several threads at once."""
    text_of = Writer(config).text

    def record(event: Any, ours: bool) -> Recorded:
        if not is_custom(event) or event.sampling_ratio is not None:
            return Recorded(event, ours, None)
        try:
            return Recorded(event, ours, text_of(event))
        except Exception:  # it is refused, with its name, when it is sealed
            return Recorded(event, ours, None)

    return record


class Sealer:
    """Makes payloads of recorded events. One thread at a time.

    Args:
        config: the SDK's configuration.
    """

    def __init__(self, config: Any) -> None:
        self.intake = Intake(config)
        self._zipped = bool(config.enable_event_compression)

    def seal(self, recorded: Iterable[Recorded]) -> list[Payload]:
        """Seal *recorded* events and the summary; what cannot be JSON is dropped, named and counted."""
        return self.join(self.texts(recorded))

    def texts(self, recorded: Iterable[Recorded]) -> list[str]:
        """*recorded* events as JSON texts, one by one; the summary waits for `join`."""
        texts: list[str] = []
        context, whose = self.intake.seen
        for event, ours, text in recorded:
            if text is not None and event.context is context and ours is whose:
                texts.append(text)  # the SDK would only pass it on
            else:
                texts += self._passed(event, ours, text)
                context, whose = self.intake.seen
        return texts

    def join(self, texts: list[str]) -> list[Payload]:
        """Seal *texts* and the summary as this configuration wants them."""
        texts = texts + self._summary()
        return [join(texts[start : start + MAX_EVENTS], self._zipped) for start in range(0, len(texts), MAX_EVENTS)]

    def _passed(self, event: Any, ours: bool, text: str | None) -> Iterator[str]:
        """What the SDK makes of *event*: nothing, itself, an index or a debug event besides."""
        try:
            self.intake.take(event, ours=ours)
        except Exception as error:
            _refuse(event, error)
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
            _refuse(event, error)
            return None

    def _summary(self) -> list[str]:
        try:
            summary = self.intake.drain_summary()
            return [] if summary is None else [as_json(self.intake.written_summary(summary))]
        except Exception as error:
            _refuse(None, error)
            return []


def _refuse(event: Any, error: Exception) -> None:
    key = "summary" if event is None else str(getattr(event, "key", "") or type(event).__name__)
    if is_custom(event):
        ledger.dropped("not_json")
    complaints.say("not_json", key, f"{key}: an event that cannot be JSON ({error}) was dropped; its batch was not")
