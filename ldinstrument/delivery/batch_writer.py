"""Write a session's events at once, as JSON text from templates.

A session ends with many events of one context. Passing each through `LDClient.track`, an object of
the SDK's, a dictionary and a JSON encoder costs ten times what their text costs, so they are
written by joining pieces of text that were cut out of the SDK's own output. The texts are the same,
but for the decimals of a duration. This is only done for a client whose `track` would do nothing
else (see `sdk.batch_taker`): whoever wraps, subclasses or patches a client gets one `track` per
event.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, TypeAlias

from ..sdk import Writer, as_json, custom_event
from ..sessions.outcomes import Outcome

MOST_TEMPLATES = 4096
LARGEST_TEXT = 2**18
MOST_RUNS = 1000
_SUCCESS = Outcome.SUCCESS
_DATE, _DURATION, _DATA, _NOTHING = range(4)
_RATE_AND_DURATION: tuple[int, ...] = (_DATE, _DATE, _DURATION, _NOTHING)
_SHAPES: dict[tuple[int, ...], tuple[int, ...]] = {
    _RATE_AND_DURATION: _RATE_AND_DURATION
}  # so that it can be compared by identity
_DURATION_MARK = float("inf")  # an object of its own, compared by identity
_END = "\0"  # where the context belongs: JSON writes this character in another way


_Cut: TypeAlias = tuple[tuple[str, ...], tuple[int, ...], int]
"""The events of a run: pieces of text, what follows each, and how many events it is."""


class EventTexts(NamedTuple):
    """Several custom events of one context as JSON, with commas in between.

    Args:
        text: the events.
        events: how many they are.
        at: the date of the first, in milliseconds since the epoch.
    """

    text: str
    events: int
    at: int


class BatchWriter:
    """Write batches of events. Safe for several threads at once.

    Args:
        writer: knows the SDK's shape of an event.
    """

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._templates: dict[tuple[str, bool, bool], tuple[str, ...]] = {}
        self._prepared: dict[Any, tuple[Any, Any]] = {}

    def write(self, batch: Iterable[Any], context: Any) -> tuple[list[EventTexts], int]:
        """Return the texts of *batch*, and how many values it is worth.

        Args:
            batch: elements with `event_key`, `value`, `data`, `at` and `values`, as `Emission` has
                them; or with `entries`, `plans` and `offset_ms`, as `FinishedRuns` has them.
            context: the context of all of them.

        Raises:
            Exception: something in it cannot be written as JSON, or this SDK writes in another way.
        """
        end = self._writer.context_text(custom_event("", context, 0, None, None))
        written: list[EventTexts] = []
        texts: list[str] = []
        values = size = at = 0
        data_written: tuple[Any, str] = (None, "")
        for element in batch:
            entries = getattr(element, "entries", None)
            if entries is not None:
                if texts:
                    written.append(EventTexts(",".join(texts), len(texts), at))
                    texts, size = [], 0
                for start in range(0, len(entries), MOST_RUNS):
                    part = entries[start : start + MOST_RUNS]
                    written.append(self._write_runs(part, element.plans, element.offset_ms, end))
                    values += written[-1].events
                continue
            values += element.values
            if element.data is not data_written[0]:
                data_written = (element.data, as_json(element.data))
            at = at if texts else element.at
            texts.append(self._text(element, data_written[1], end))
            size += len(texts[-1])
            if size > LARGEST_TEXT:
                written.append(EventTexts(",".join(texts), len(texts), at))
                texts, size = [], 0
        if texts:
            written.append(EventTexts(",".join(texts), len(texts), at))
        return written, values

    def _text(self, element: Any, data: str, end: str) -> str:
        value = element.value
        pieces = self._template(element.event_key, element.data is not None, value is not None)
        if value is None:
            if element.data is None:
                head, tail = pieces
                return f"{head}{element.at}{tail}{end}}}"
            head, middle, tail = pieces
            return f"{head}{element.at}{middle}{data}{tail}{end}}}"
        number = repr(value) if type(value) is float or type(value) is int else as_json(value)
        if element.data is None:
            head, middle, tail = pieces
            return f"{head}{element.at}{middle}{number}{tail}{end}}}"
        head, first, second, tail = pieces
        return f"{head}{element.at}{first}{data}{second}{number}{tail}{end}}}"

    def _template(self, event_key: str, with_data: bool, with_value: bool) -> tuple[str, ...]:
        wanted = (event_key, with_data, with_value)
        found = self._templates.get(wanted)
        if found is None:
            if len(self._templates) >= MOST_TEMPLATES:
                self._templates.clear()
            found = self._templates[wanted] = self._writer.template(*wanted)
        return found

    # -- runs of tasks: (task, outcome, started, ended, data) as the tracked functions leave them
    # ---
    def _write_runs(
        self, entries: list[Any], plans: Mapping[Any, Any], offset_ms: float, end: str
    ) -> EventTexts:
        """Return the texts of finished runs: what stays the same is prepared once per task."""
        ready: dict[Any, _Cut] = {}
        out: list[str] = []
        events, current, succeeded, fast = 0, None, True, False
        for task, outcome, started, ended, data in entries:
            if task is not current or data is not None or (outcome is _SUCCESS) is not succeeded:
                succeeded, current = outcome is _SUCCESS, None if data is not None else task
                kind = (task, succeeded, data is not None)
                cut = ready.get(kind)
                if cut is None:
                    cut = ready[kind] = self._cut(task, plans[task], outcome, data is not None, end)
                pieces, slots, count = cut
                fast = slots is _RATE_AND_DURATION
                if fast:
                    first, second, third, last = pieces
            events += count
            milliseconds = (ended - started) * 1000
            at = str(int(ended * 1000 + offset_ms))
            duration = f"{milliseconds:.6f}" if milliseconds > 0.0 else "0.0"
            if fast:
                out += (first, at, second, at, third, duration, last)
            else:
                values = (at, duration, "" if data is None else as_json(data), "")
                for piece, slot in zip(pieces, slots, strict=True):
                    out += (piece, values[slot])
        first_at = int(entries[0][3] * 1000 + offset_ms)
        return EventTexts("".join(out)[:-1], events, first_at)

    def _cut(self, task: Any, plan: Any, outcome: Outcome, with_data: bool, end: str) -> _Cut:
        """Return the events of one run of *task*, cut where its date, duration and data belong."""
        known = self._prepared.get((task, outcome, with_data))
        if known is None or known[0] is not plan:
            if len(self._prepared) >= MOST_TEMPLATES:
                self._prepared.clear()
            values = plan.finished(1.0 if outcome is _SUCCESS else 0.0, _DURATION_MARK)
            known = (plan, self._cut_events(values, with_data))
            self._prepared[task, outcome, with_data] = known
        pieces, slots, count = known[1]
        return tuple([piece.replace(_END, end) for piece in pieces]), slots, count

    def _cut_events(self, values: Iterable[tuple[Any, float]], with_data: bool) -> _Cut:
        pieces: list[str] = []
        slots: list[int] = []
        text, count = "", 0
        for routing, value in values:
            head, *data, middle, tail = self._template(routing.event_key, with_data, True)
            pieces += [text + head, *data]
            slots += [_DATE] + [_DATA] * with_data
            if value is _DURATION_MARK:
                pieces.append(middle)
                slots.append(_DURATION)
                text = f"{tail}{_END}}},"
            else:
                text = f"{middle}{value!r}{tail}{_END}}},"
            count += 1
        shape = (*slots, _NOTHING)
        return (*pieces, text), _SHAPES.get(shape, shape), count
