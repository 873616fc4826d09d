"""The JSON of events: those of a session at once, as text from templates.

A session ends with many events of one context. Passing each through `LDClient.track`, an object of
the SDK's, a dictionary and a JSON encoder costs ten times what their text costs, so they are
written by joining pieces of text that were cut out of the SDK's own output. The texts are the same,
but for how a duration is spelled. This is only done for a client whose `track` would do nothing
else (see `sdk.batch_taker`): whoever wraps, subclasses or patches a client gets one `track` per
event.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

from ..sdk import Writer, as_json
from ..sessions.outcomes import Outcome
from ..sessions.rollups import Emission, FinishedRuns

MOST_TEMPLATES = 4096
LARGEST_TEXT = 2**18
MOST_RUNS = 1000
_SUCCESS = Outcome.SUCCESS
_DURATION_MARK = float("inf")  # an object of its own, compared by identity
# JSON writes these characters in another way.
_CONTEXT = "\0"
_DATA = "\1"

EventTexts: TypeAlias = tuple[str, int, int]
"""Several custom events of one context: as JSON with commas in between, how many they are, and the
date of the first, in milliseconds since the epoch.
"""
_Cut: TypeAlias = tuple[tuple[str, ...], tuple[str, ...], bool, int]
"""The events of a run: the pieces before its duration and after it, between which its date belongs;
whether it has a duration; and how many events it is.
"""


class EventJson:
    """Write batches of events. Safe for several threads at once.

    Args:
        writer: knows the SDK's shape of an event.
    """

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._templates: dict[tuple[str, bool, bool], tuple[str, ...]] = {}
        self._cuts: dict[Any, tuple[Any, _Cut]] = {}

    def write(
        self, batch: Iterable[Emission | FinishedRuns], context: Any
    ) -> tuple[list[EventTexts], int]:
        """Return the texts of *batch*, and how many values it is worth.

        Args:
            batch: in order.
            context: the context of all of them.

        Raises:
            Exception: something in it cannot be written as JSON, or this SDK writes in another way.
        """
        end = self._writer.context_text(context) + "}"
        written: list[EventTexts] = []
        emissions: list[Emission] = []
        values = 0
        for element in batch:
            if isinstance(element, Emission):
                emissions.append(element)
                values += element.values
                continue
            if emissions:
                self._write_emissions(emissions, end, written)
                emissions = []
            entries = element.entries
            for start in range(0, len(entries), MOST_RUNS):
                written.append(self._write_runs(element, entries[start : start + MOST_RUNS], end))
                values += written[-1][1]
        if emissions:
            self._write_emissions(emissions, end, written)
        return written, values

    def _write_emissions(
        self, emissions: Iterable[Emission], end: str, written: list[EventTexts]
    ) -> None:
        texts: list[str] = []
        size = at = 0
        known, data = None, ""
        for emission in emissions:
            if emission.data is not known:
                known = emission.data
                data = "" if known is None else as_json(known)
            value = emission.value
            plain = type(value) is float or type(value) is int
            number = "" if value is None else repr(value) if plain else as_json(value)
            kind = (emission.event_key, known is not None, value is not None)
            head, before_data, before_value, tail = self._templates.get(kind) or self._template(
                kind
            )
            at = at if texts else emission.at
            texts.append(f"{head}{emission.at}{before_data}{data}{before_value}{number}{tail}{end}")
            size += len(texts[-1])
            if size > LARGEST_TEXT:
                written.append((",".join(texts), len(texts), at))
                texts, size = [], 0
        if texts:
            written.append((",".join(texts), len(texts), at))

    def _template(self, kind: tuple[str, bool, bool]) -> tuple[str, ...]:
        if len(self._templates) >= MOST_TEMPLATES:
            self._templates.clear()
        found = self._templates[kind] = self._writer.template(*kind)
        return found

    # -- runs of tasks: (task, outcome, started, ended, data) as the tracked functions leave them
    def _write_runs(self, runs: FinishedRuns, entries: Sequence[Any], end: str) -> EventTexts:
        """Return the texts of *entries* among *runs*.

        What stays the same from one run to the next is made once: the events of the task, and those
        with their date in them, for as long as runs end within one millisecond. What lies between
        two durations of those is one text, by which they are joined.
        """
        out: list[str] = []
        durations: list[str] = []
        offset_ms, events, at = runs.offset_ms, 0, 0
        head = tail = ""
        current = ended_so = None
        for task, outcome, started, ended, data in entries:
            date = int(ended * 1000 + offset_ms)
            if date != at or task is not current or outcome is not ended_so or data is not None:
                if durations:
                    out += (head, (tail + head).join(durations), tail)
                    durations = []
                if task is not current or outcome is not ended_so or data is not None:
                    before, after, timed, count = self._cut(runs, task, outcome, data, end)
                    current, ended_so = None if data is not None else task, outcome
                at, written = date, str(date)
                head, tail = written.join(before), written.join(after)
            events += count
            nanoseconds = int((ended - started) * 1e9 + 0.5) if ended > started else 0
            durations.append(str(nanoseconds) if timed else "")
        out += (head, (tail + head).join(durations), tail)
        out[0] = out[0][1:]  # the comma
        return "".join(out), events, int(entries[0][3] * 1000 + offset_ms)

    def _cut(self, runs: FinishedRuns, task: Any, outcome: Outcome, data: Any, end: str) -> _Cut:
        """Return the events of one run of *task*, cut where its date and its duration belong."""
        plan, kind = runs.plans[task], (task, outcome, data is not None)
        known = self._cuts.get(kind)
        if known is None or known[0] is not plan:
            if len(self._cuts) >= MOST_TEMPLATES:
                self._cuts.clear()
            values = plan.finished(1.0 if outcome is _SUCCESS else 0.0, _DURATION_MARK)
            known = self._cuts[kind] = (plan, self._cut_events(values, data is not None))
        before, after, timed, count = known[1]
        if data is not None:
            text = as_json(data)
            before = tuple([piece.replace(_DATA, text) for piece in before])
            after = tuple([piece.replace(_DATA, text) for piece in after])
        before = tuple([piece.replace(_CONTEXT, end) for piece in before])
        return before, tuple([piece.replace(_CONTEXT, end) for piece in after]), timed, count

    def _cut_events(self, values: Sequence[tuple[Any, float]], with_data: bool) -> _Cut:
        pieces: list[str] = []
        before: tuple[str, ...] | None = None
        text = ","
        for routing, value in values:
            kind = (routing.event_key, with_data, True)
            head, before_data, before_value, tail = self._template(kind)
            pieces.append(text + head)
            text = f"{before_data}{_DATA if with_data else ''}{before_value}"
            if value is _DURATION_MARK:
                before, pieces, text = (*pieces, text), [], "e-6"
            else:
                text += repr(value)
            text += f"{tail}{_CONTEXT},"
        pieces.append(text[:-1])
        if before is None:
            return tuple(pieces), ("",), False, len(values)
        return before, tuple(pieces), True, len(values)
