"""The JSON of events, and the payloads that carry it.

A session ends with many events of one context. Passing each through `LDClient.track`, an object of
the SDK's, a dictionary and a JSON encoder costs ten times what their text costs, so `EventJson`
writes them by joining pieces of text that were cut out of the SDK's own output. The texts are the
same, but for how a duration is spelled. This is only done for a client whose `track` would do
nothing else (see `sdk.batch_taker`): whoever wraps, subclasses or patches a client gets one `track`
per event. Runs of tasks without data stay numbers until they are batched.

A payload is one POST, whose bytes and payload id are fixed before it is tried first. LaunchDarkly
counts a payload id once, so a repetition cannot count twice.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import time
import uuid
from collections.abc import Iterable, Sequence
from copy import copy
from struct import unpack, unpack_from
from typing import Any, Literal, TypeAlias

from ..sdk import Writer, as_json, context_fields, encode
from ..sessions.ids import random_bits
from ..sessions.outcomes import FINISHED, Outcome
from ..sessions.rollups import Emission, FinishedRuns
from ..sessions.task_definition import TaskPlan
from .transport import body_of, texts_of

MOST_TEMPLATES = 4096
LARGEST_TEXT = 2**18
OF_A_RUN = 90
"""About how many bytes an event of a run is, but for its key and its context."""
json_string = json.encoder.encode_basestring_ascii
_SUCCESS = Outcome.SUCCESS
_DURATION_MARK = float("inf")  # an object of its own, compared by identity
# JSON writes these characters in another way.
_CONTEXT = "\0"
_DATA = "\1"

EventTexts: TypeAlias = "tuple[bytes | UnwrittenRuns, int, int]"
"""Several custom events of one context: as JSON with commas in between, or what that is written
from; how many they are; and the date of the first, in milliseconds since the epoch.

Text that waits is long-lived memory: bytes are one copy of it, made while it is in a cache.
"""
_Cut: TypeAlias = tuple[TaskPlan, list[str], list[str]]
"""The events of a run by a plan of its task: the pieces before its duration, where it has one, and
after it, between which its date belongs.
"""

MAX_EVENTS = 5000
MAX_BYTES = 4 * 2**20
"""Joining and splitting hold the interpreter's lock: 4 MiB keep others waiting a few ms."""
State = Literal["open", "waiting", "in_flight", "failed", "delivered", "dropped", "split"]
UNSETTLED = ("open", "waiting", "in_flight", "failed")

_CUSTOM = '{"kind":"custom",'
_FEATURE = '{"kind":"feature",'


# -- the events of a session --------------------------------------------------------------------


class UnwrittenRuns:
    """Runs of a session that are still numbers. Without data, nothing in them can change any more.

    Args:
        runs: at least one.
        end: the end of each event, from its context on.
    """

    __slots__ = ("at", "end", "events", "runs", "size")

    def __init__(self, runs: FinishedRuns, end: str) -> None:
        self.runs = runs
        self.end = end
        self.events = keys = 0
        for _, plan, _, _, count, _, _ in runs.parts:
            self.events += count * plan.worth
            keys += count * plan.key_length
        (at,) = unpack_from("d", runs.parts[0][5])
        self.at = int(at * 1000 + runs.offset_ms)
        """The date of the first, in milliseconds since the epoch."""
        self.size = self.events * (OF_A_RUN + len(end)) + keys
        """About how long their text will be."""


class EventJson:
    """Write batches of events. Safe for several threads at once.

    Args:
        writer: knows the SDK's shape of an event.
    """

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._templates: dict[tuple[str, bool, bool], tuple[str, ...]] = {}
        self._cuts: dict[tuple[Any, Outcome, bool], _Cut] = {}
        self._writable: dict[Any, TaskPlan] = {}
        """By task: the plan whose events have been seen to be writable."""
        self._plain: dict[tuple[str, bool], tuple[str, str, str, bool]] = {}
        """By kind, and whether it has a name: a context that tells no more than its key and name,
        cut where those belong, and whether its name is told.
        """

    def write(
        self, batch: Iterable[Emission | FinishedRuns], context: Any, *, later: bool = True
    ) -> tuple[list[EventTexts], int, str]:
        """Return the texts of *batch*, how many values it is worth, and the text of the context
        where that tells more than its key, which LaunchDarkly then has to learn.

        Args:
            batch: in order.
            context: the context of all of them.
            later: leave runs for `text_of` in which nothing can change.

        Raises:
            Exception: something in it cannot be written as JSON, or this SDK writes in another way.
        """
        valid, multiple, anonymous, name, attributes, private, kind, key = context_fields(context)
        if not valid:
            raise ValueError("context")
        named = name is not None
        rich = multiple or named or attributes
        strange = type(key) is not str or (named and (private or type(name) is not str))
        if multiple or attributes or anonymous or strange:
            text = self._writer.context_text(context)
        else:
            shape = kind, named
            before, between, after, has_name = self._plain.get(shape) or self._plain_context(*shape)
            text = (
                f"{before}{json_string(key)}{between}{json_string(name) if has_name else ''}{after}"
            )
        end = text + "}"

        written: list[EventTexts] = []
        texts: list[str] = []
        values = size = at = 0
        known, data = None, ""
        for element in batch:
            if isinstance(element, FinishedRuns):
                if texts:
                    written.append((",".join(texts).encode(), len(texts), at))
                    texts, size = [], 0
                unwritten = UnwrittenRuns(element, end)
                text_or_runs = (
                    unwritten if later and self._can_wait(element) else self.text_of(unwritten)
                )
                written.append((text_or_runs, unwritten.events, unwritten.at))
                values += unwritten.events
                continue

            # Events of a session often share their data, too.
            if element.data is not known:
                known = element.data
                data = "" if known is None else "".join(encode(known, 0))
            value = element.value
            plain = type(value) is float or type(value) is int
            number = "" if value is None else repr(value) if plain else as_json(value)
            of_event = (element.event_key, known is not None, value is not None)
            head, before_data, before_value, tail = self._templates.get(of_event) or self._template(
                of_event
            )
            texts.append(f"{head}{element.at}{before_data}{data}{before_value}{number}{tail}{end}")
            at = at if len(texts) > 1 else element.at
            values += element.values
            size += len(texts[-1])
            if size > LARGEST_TEXT:
                written.append((",".join(texts).encode(), len(texts), at))
                texts, size = [], 0

        if texts:
            written.append((",".join(texts).encode(), len(texts), at))
        return written, values, text if rich else ""

    def _plain_context(self, kind: str, named: bool) -> tuple[str, str, str, bool]:
        if len(self._plain) >= MOST_TEMPLATES:
            self._plain.clear()
        found = self._plain[kind, named] = self._writer.plain_context(kind, named=named)
        return found

    def _template(self, kind: tuple[str, bool, bool]) -> tuple[str, ...]:
        if len(self._templates) >= MOST_TEMPLATES:
            self._templates.clear()
        found = self._templates[kind] = self._writer.template(*kind)
        return found

    # -- runs of tasks -----------------------------------------------------------------------------
    def _can_wait(self, runs: FinishedRuns) -> bool:
        """Tell whether *runs* may be written later: they have no data, and their events are
        writable, which is tried once.
        """
        for task, plan, _, datas, _, _, _ in runs.parts:
            if datas is not None:
                return False
            if self._writable.get(task) is not plan:
                for outcome in FINISHED:
                    self._cut(plan, task, outcome, False)
                if len(self._writable) >= MOST_TEMPLATES:
                    self._writable.clear()
                self._writable[task] = plan
        return True

    def text_of(self, unwritten: UnwrittenRuns) -> bytes:
        """Write what `write` has left for later.

        What stays the same from one run to the next is made once: the events of the task, and those
        with their date in them, for as long as runs end within one millisecond. What lies between
        two durations of those is one text, by which they are joined.
        """
        out: list[str] = []
        runs, end = unwritten.runs, unwritten.end
        offset_ms, head, tail = runs.offset_ms, "", ""
        of_last: tuple[Any, TaskPlan, Outcome] | None = None
        for task, plan, outcome, datas, count, ended, seconds in runs.parts:
            layout = f"{count}d"
            times, durations = unpack(layout, ended), [""] * count
            if plan.duration is not None:
                taken = unpack(layout, seconds)
                durations = [str(int(took * 1e9 + 0.5)) if took > 0.0 else "0" for took in taken]

            stretches: list[tuple[int, int, Any]] = [(0, count, None)]
            if datas is not None:
                stretches = [(place, place + 1, data) for place, data in enumerate(datas)]
            for first, stop, data in stretches:
                of_this = (task, plan, outcome)
                if of_this != of_last or data is not None:
                    before, after = self._pieces(task, plan, outcome, data, end)
                    of_last, since, until = of_this if data is None else None, 0.0, 0.0
                for place in range(first, stop):
                    at = times[place]
                    if not since < at < until:
                        if place > first:
                            out += (head, (tail + head).join(durations[first:place]), tail)
                        date = int(at * 1000 + offset_ms)
                        written = str(date)
                        head, tail, first = written.join(before), written.join(after), place
                        # Within a microsecond of another date, each run is asked for its own.
                        since = (date - offset_ms) / 1000 + 1e-6
                        until = since + 0.001 - 2e-6
                out += (head, (tail + head).join(durations[first:stop]), tail)
        return "".join(out)[1:].encode()  # a comma

    def _pieces(
        self, task: Any, plan: TaskPlan, outcome: Outcome, data: Any, end: str
    ) -> tuple[list[str], list[str]]:
        """Return the events of one run, cut at its date: up to its duration, and after it."""
        cut = self._cuts.get((task, outcome, data is not None))
        if cut is None or cut[0] is not plan:
            cut = self._cut(plan, task, outcome, data is not None)
        _, before, after = cut
        before = [piece.replace(_CONTEXT, end) for piece in before]
        after = [piece.replace(_CONTEXT, end) for piece in after]
        if data is not None:
            text = as_json(data)
            before = [piece.replace(_DATA, text) for piece in before]
            after = [piece.replace(_DATA, text) for piece in after]
        return before, after

    def _cut(self, plan: TaskPlan, task: Any, outcome: Outcome, with_data: bool) -> _Cut:
        """Return the events of one run of *task*, cut where its date and its duration belong."""
        if len(self._cuts) >= MOST_TEMPLATES:
            self._cuts.clear()
        values = plan.finished(1.0 if outcome is _SUCCESS else 0.0, _DURATION_MARK)
        cut = (plan, *self._cut_events(values, with_data))
        self._cuts[task, outcome, with_data] = cut
        return cut

    def _cut_events(
        self, values: Sequence[tuple[Any, float]], with_data: bool
    ) -> tuple[list[str], list[str]]:
        pieces: list[str] = []
        before: list[str] | None = None
        text = ","
        for routing, value in values:
            kind = (routing.event_key, with_data, True)
            head, before_data, before_value, tail = self._template(kind)
            pieces.append(text + head)
            text = f"{before_data}{_DATA if with_data else ''}{before_value}"
            if value is _DURATION_MARK:
                before, pieces, text = [*pieces, text], [], "e-6"
            else:
                text += repr(value)
            text += f"{tail}{_CONTEXT},"
        pieces.append(text[:-1])
        if before is None:
            return pieces, [""]
        return before, pieces


# -- payloads -----------------------------------------------------------------------------------


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
        self.id = id or str(uuid.UUID(int=random_bits(128), version=4))
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

    def copy(self) -> Payload:
        """Return one like it, to which others may be added."""
        made = copy(self)
        made._texts = self._texts[:]
        return made

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
