"""Sealed payloads: bytes and payload id are fixed before the first POST, so a repetition cannot count twice."""

from __future__ import annotations

import gzip
import json
import time
import uuid
from collections.abc import Iterable, Iterator
from typing import Any, Literal

from ..ledger import ledger
from ..sdk import Intake, is_custom
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
        "age_from", "attempts", "body", "custom", "events", "heirs", "id", "sealed_at", "state", "zipped",
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
        self.attempts = 0
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
        return [_json(event) for event in json.loads(body)]

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


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


_CUSTOM = '{"kind":"custom",'


def custom_among(texts: Iterable[str]) -> int:
    """How many of the JSON *texts* are `track` events."""
    return sum(text.startswith(_CUSTOM) for text in texts)


def join(texts: list[str], zipped: bool) -> Payload:
    """Seal the events *texts*, each JSON as this module writes it, into one payload."""
    body = f"[{','.join(texts)}]".encode()
    return Payload(gzip.compress(body) if zipped else body, len(texts), custom_among(texts), zipped)


class Sealer:
    """Makes payloads of recorded events. One thread at a time.

    Args:
        config: the SDK's configuration.
    """

    def __init__(self, config: Any) -> None:
        self.intake = Intake(config)
        self._zipped = bool(config.enable_event_compression)

    def seal(self, recorded: Iterable[tuple[Any, bool]]) -> list[Payload]:
        """Seal *recorded* events (event, whether it is ours); what cannot be JSON is dropped, named and counted."""
        outgoing = [*self._outgoing(recorded), *self._summary()]
        chunks = (outgoing[start : start + MAX_EVENTS] for start in range(0, len(outgoing), MAX_EVENTS))
        return [payload for payload in map(self._sealed, chunks) if payload.events]

    def texts(self, recorded: Iterable[tuple[Any, bool]]) -> list[str]:
        """*recorded* events as JSON texts, one by one; the summary waits for `join`."""
        return [text for text in map(self._text, self._outgoing(recorded)) if text]

    def join(self, texts: list[str]) -> list[Payload]:
        """Seal *texts* and the summary as this configuration wants them."""
        texts = texts + [text for text in map(self._text, self._summary()) if text]
        return [join(texts[start : start + MAX_EVENTS], self._zipped) for start in range(0, len(texts), MAX_EVENTS)]

    def _sealed(self, outgoing: list[dict[str, Any]]) -> Payload:
        try:
            body = _json(outgoing).encode()
        except (TypeError, ValueError, RecursionError):
            return join([text for text in map(self._text, outgoing) if text], self._zipped)
        custom = sum(event["kind"] == "custom" for event in outgoing)
        return Payload(gzip.compress(body) if self._zipped else body, len(outgoing), custom, self._zipped)

    def _text(self, event: dict[str, Any]) -> str | None:
        try:
            return _json(event)
        except (TypeError, ValueError, RecursionError) as error:
            _refuse(event["kind"] == "custom", str(event.get("key") or event["kind"]), error)
            return None

    def _outgoing(self, recorded: Iterable[tuple[Any, bool]]) -> Iterator[dict[str, Any]]:
        for event, ours in recorded:
            try:
                self.intake.take(event, ours=ours)
            except Exception as error:
                _refuse(is_custom(event), str(getattr(event, "key", "")), error)
        for event in self.intake.drain():
            if written := self._written(event):
                yield written

    def _written(self, event: Any) -> dict[str, Any] | None:
        try:
            return self.intake.written(event)
        except Exception as error:
            _refuse(is_custom(event), str(getattr(event, "key", "")), error)
            return None

    def _summary(self) -> Iterator[dict[str, Any]]:
        try:
            summary = self.intake.drain_summary()
            if summary is not None:
                yield self.intake.written_summary(summary)
        except Exception as error:
            _refuse(False, "summary", error)


def _refuse(counted: bool, key: str, error: Exception) -> None:
    if counted:
        ledger.dropped("not_json")
    complaints.say("not_json", key, f"{key}: an event that cannot be JSON ({error}) was dropped; its batch was not")
