"""Payloads: one POST each, whose bytes and payload id are fixed before it is tried first.

LaunchDarkly counts a payload id once, so a repetition cannot count twice.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import time
import uuid
from collections.abc import Iterable
from typing import Literal

from ..sdk import as_json
from ..sessions.ids import random_uuid

MAX_EVENTS = 5000
MAX_BYTES = 4 * 2**20
"""Joining and splitting hold the interpreter's lock: 4 MiB keep others waiting a few ms."""
GZIP_LEVEL = 3
"""Level 9 takes twelve times as long as level 3 for a quarter fewer bytes."""
State = Literal["open", "waiting", "in_flight", "failed", "delivered", "dropped", "split"]
UNSETTLED = ("open", "waiting", "in_flight", "failed")

_CUSTOM = '{"kind":"custom",'
_FEATURE = '{"kind":"feature",'


def _id_of_half(id: str, place: int) -> str:
    digest = hashlib.sha256(f"{id}/{place}".encode()).digest()
    return str(uuid.UUID(bytes=digest[:16], version=4))


class Payload:
    """One POST, from its first event to LaunchDarkly's answer.

    It is open while events are added; `seal` fixes its bytes; then its state tells how it fares.

    A plain class, as elsewhere in this package: making a dataclass takes most of a millisecond of a
    cold start.

    Args:
        body: the exact bytes; with *zipped*, gzip. Empty while it is open.
        events: events of every kind inside.
        custom: `track` events among them.
        zipped: whether *body* is compressed.
        id: `X-LaunchDarkly-Payload-ID`; None makes one.
        sealed_at: the wall clock, in seconds since the epoch; it survives the process in a spool.
        age_from: the monotonic clock, which a clock set back an hour does not reach.
        exposures: flag evaluations with full data among the events.
    """

    __slots__ = (
        "_size",
        "_texts",
        "age_from",
        "attempts",
        "bad_requests",
        "body",
        "custom",
        "events",
        "exposures",
        "id",
        "sealed_at",
        "state",
        "stored",
        "zipped",
    )

    def __init__(
        self,
        body: bytes = b"",
        events: int = 0,
        custom: int = 0,
        zipped: bool = False,
        id: str | None = None,
        sealed_at: float | None = None,
        age_from: float | None = None,
        exposures: int = 0,
    ) -> None:
        self._texts: list[bytes] = []
        self._size = 0
        self.body = body
        self.events = events
        self.custom = custom
        self.exposures = exposures
        self.zipped = zipped
        self.id = id or random_uuid()
        self.sealed_at = time.time() if sealed_at is None else sealed_at
        self.age_from = time.monotonic() if age_from is None else age_from
        self.attempts = self.bad_requests = 0
        self.state: State = "waiting" if body else "open"
        self.stored = False
        """Whether a spool holds it."""

    # -- while it is open ------------------------------------------------------------------------
    def add(self, text: bytes, custom: int) -> bool:
        """Add *custom* `track` events *text*, or one event of another kind where that is 0.

        Args:
            text: JSON, as this package writes it, in UTF-8.
            custom: how many events, with commas in between.

        Returns:
            False when it is sealed or full: then nothing was added.
        """
        events, size = self.events + (custom or 1), self._size + len(text)
        full = self._texts and (events > MAX_EVENTS or size > MAX_BYTES)
        if full or self.state != "open":
            return False
        self._texts.append(text)
        self.events, self._size = events, size
        self.custom += custom
        if not custom:
            self.exposures += text.startswith(_FEATURE.encode())
        return True

    def seal(self, zipped: bool) -> None:
        """Fix its bytes, once."""
        if self.state == "open":
            self.body, self.zipped = body_of(self._texts, zipped), zipped
            self.sealed_at, self.age_from = time.time(), time.monotonic()
            self.state, self._texts = "waiting", []

    # -- reading its bytes -----------------------------------------------------------------------
    def texts(self) -> list[str]:
        """Return its events, each as JSON text."""
        return texts_of(self.body, self.zipped)

    def halves(self) -> tuple[Payload, ...]:
        """Return two payloads with half of the events each; none for a single event.

        Their ids follow from this one's, so that whoever splits it again makes the same.

        Raises:
            ValueError: the body is not JSON, as a damaged spool may hold it.
            OSError: it is not gzip.
        """
        if self.events < 2:
            return ()
        texts = self.texts()
        middle = len(texts) // 2
        halves = tuple(
            join(part, self.zipped, _id_of_half(self.id, place))
            for place, part in enumerate((texts[:middle], texts[middle:]))
        )
        for half in halves:
            half.sealed_at, half.age_from = self.sealed_at, self.age_from
            half.stored = self.stored  # should the spool refuse them, it still holds this one
        return halves

    def first_key(self) -> str:
        """Return the key or kind of its first event, to name what is dropped."""
        try:
            event = json.loads(gzip.decompress(self.body) if self.zipped else self.body)[0]
            return str(event.get("key") or event.get("kind"))
        except (ValueError, OSError, LookupError, AttributeError):
            return "an event that cannot be read"


def custom_among(texts: Iterable[str]) -> int:
    """Count the `track` events among the JSON *texts*."""
    return sum([text.startswith(_CUSTOM) for text in texts])


def exposures_among(texts: Iterable[str]) -> int:
    """Count the flag evaluations among the JSON *texts*."""
    return sum([text.startswith(_FEATURE) for text in texts])


def join(texts: list[str], zipped: bool, id: str | None = None) -> Payload:
    """Make one payload of the events *texts*, each JSON as this package writes it.

    Args:
        texts: at least one.
        zipped: whether to compress them.
        id: the payload id; None makes one.
    """
    custom = custom_among(texts)
    exposures = exposures_among(texts) if custom < len(texts) else 0
    return Payload(
        body_of(map(str.encode, texts), zipped), len(texts), custom, zipped, id, exposures=exposures
    )


def join_drafts(texts: list[str], id: str | None) -> Payload:
    """Make one payload of *texts*, each of them one event or several with commas in between."""
    body = body_of(map(str.encode, texts), zipped=False)
    try:
        kinds = [event.get("kind") for event in json.loads(body)]
    except (ValueError, AttributeError):  # damaged: LaunchDarkly will say so
        return join(texts, zipped=False, id=id)
    exposures = kinds.count("feature")
    return Payload(body, len(kinds), kinds.count("custom"), False, id, exposures=exposures)


def body_of(texts: Iterable[bytes], zipped: bool) -> bytes:
    """Return the body of a POST of the events *texts*, each JSON as this package writes it, in
    UTF-8.
    """
    # One copy of the whole: it is written into pages that the process has to be given anew.
    pieces = [b"["]
    for text in texts:
        pieces += (text, b",")
    pieces[-1] = b"]"
    body = b"".join(pieces)
    return gzip.compress(body, GZIP_LEVEL) if zipped else body


def texts_of(body: bytes, zipped: bool) -> list[str]:
    """Return the events of the *body* of a POST, each as JSON text.

    Raises:
        ValueError: it is not JSON.
        OSError: it is not gzip.
    """
    return [as_json(event) for event in json.loads(gzip.decompress(body) if zipped else body)]
