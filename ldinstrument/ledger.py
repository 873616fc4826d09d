"""The ledger: what became of every value and every event, in rows that add up; and warn-once.

* values: `recorded = emitted + open + discarded[reason]`
* events: `emitted = delivered + pending + unconfirmed + dropped[reason]`

A *value* is one measurement handed to us; an *event* is one `track` call. A session's rollup may turn a thousand values
into one event, so the two are counted apart.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from .errors import StrictError

log = logging.getLogger("ldinstrument")


@dataclass(frozen=True, slots=True)
class Values:
    """What became of the values: `recorded == emitted + open + sum(discarded.values())`."""

    recorded: int = 0
    emitted: int = 0
    open: int = 0
    discarded: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Events:
    """What became of the events: `emitted == delivered + pending + unconfirmed + sum(dropped.values())`.

    `unconfirmed` left through a client that cannot tell whether LaunchDarkly took them.
    """

    emitted: int = 0
    delivered: int = 0
    pending: int = 0
    unconfirmed: int = 0
    dropped: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Stats:
    """One reading of the ledger.

    Args:
        values: the values equation.
        events: the events equation.
        late: values that came after the end of their session (part of `values.recorded`).
        without_session: task runs that no session received, by metric key (their values are in
            `values.discarded["no_session"]`).
        evicted_sessions: sessions ended early because too many were open.
        warnings: how often each complaint would have been said, by (cause, subject).
    """

    values: Values
    events: Events
    late: int = 0
    without_session: Mapping[str, int] = field(default_factory=dict)
    evicted_sessions: int = 0
    warnings: Mapping[tuple[str, str], int] = field(default_factory=dict)


class Ledger:
    """The process-wide counts. Rows that can be derived (`open`, `pending`) are, so the equations cannot drift."""

    def __init__(self) -> None:
        # Re-entrant: a finaliser that the garbage collector runs in here may count, too.
        self._lock = threading.RLock()
        self.strict = False
        self.clear()

    def clear(self) -> None:
        """Forget every count and every warning (tests, and a forked child)."""
        with self._lock:
            self._values: Counter[str] = Counter()
            self._discarded: Counter[str] = Counter()
            self._events: Counter[str] = Counter()
            self._dropped: Counter[str] = Counter()
            self._without_session: Counter[str] = Counter()
            self._said: Counter[tuple[str, str]] = Counter()
            self._told = 0

    def forked(self) -> None:
        """In a forked child: the parent's counts are the parent's, and its threads may have held the lock."""
        self._lock = threading.RLock()
        self.clear()

    # -- values ----------------------------------------------------------------------------------
    def recorded(self, count: int = 1) -> None:
        """Count *count* values as recorded; they are open until emitted or discarded."""
        with self._lock:
            self._values["recorded"] += count

    def emitted_values(self, count: int) -> None:
        """Move *count* values from open to emitted."""
        with self._lock:
            self._values["emitted"] += count

    def discarded(self, reason: str, count: int = 1) -> None:
        """Move *count* values from open to `discarded[reason]`."""
        with self._lock:
            self._discarded[reason] += count

    def late(self, count: int = 1) -> None:
        """Count values that came after the end of their session."""
        with self._lock:
            self._values["late"] += count

    def without_session(self, key: str, runs: int, values: int) -> None:
        """Count *runs* of the task *key* that no session received, worth *values* values."""
        with self._lock:
            self._without_session[key] += runs
            self._values["recorded"] += values
            self._discarded["no_session"] += values

    def evicted(self) -> None:
        """Count a session that was ended because too many were open."""
        with self._lock:
            self._values["evicted"] += 1

    # -- events ----------------------------------------------------------------------------------
    def emitted(self, count: int = 1) -> None:
        """Count *count* events as emitted; they are pending until their fate is known."""
        with self._lock:
            self._events["emitted"] += count

    def delivered(self, count: int) -> None:
        """Move *count* events from pending to delivered (LaunchDarkly answered 202)."""
        with self._lock:
            self._events["delivered"] += count

    def unconfirmed(self, count: int = 1) -> None:
        """Move *count* events from pending to unconfirmed: handed to a client that cannot tell."""
        with self._lock:
            self._events["unconfirmed"] += count

    def newly_unconfirmed(self) -> int:
        """Events handed to clients that cannot tell, since this was asked last."""
        with self._lock:
            told, self._told = self._told, self._events["unconfirmed"]
            return self._told - told

    def dropped(self, reason: str, count: int = 1) -> None:
        """Move *count* events from pending to `dropped[reason]`."""
        with self._lock:
            self._dropped[reason] += count

    # -- reading ---------------------------------------------------------------------------------
    def stats(self) -> Stats:
        """One consistent reading."""
        with self._lock:
            values, events = self._values, self._events
            still_open = values["recorded"] - values["emitted"] - sum(self._discarded.values())
            pending = events["emitted"] - events["delivered"] - events["unconfirmed"] - sum(self._dropped.values())
            return Stats(
                Values(values["recorded"], values["emitted"], still_open, _frozen(self._discarded)),
                Events(events["emitted"], events["delivered"], pending, events["unconfirmed"], _frozen(self._dropped)),
                late=values["late"],
                without_session=_frozen(self._without_session),
                evicted_sessions=values["evicted"],
                warnings=MappingProxyType(dict(self._said)),
            )

    # -- saying it once --------------------------------------------------------------------------
    def warn(self, cause: str, subject: str, message: str, *, once: bool = False) -> None:
        """Say *message* once per (*cause*, *subject*), count it always; with `strict`, raise it instead.

        Args:
            cause: the kind of complaint.
            subject: what it is about.
            message: one line that says what to do.
            once: say it for the first subject only.

        Raises:
            StrictError: when `strict` is set, so that a test sees what production would only log.
        """
        if self.strict:
            raise StrictError(_one_line(message))
        with self._lock:
            # The subject may come from outside (an event key): a cap keeps the table small.
            known = (cause, subject[:_SUBJECT_CAP]) in self._said or len(self._said) < _SAID_CAP
            entry = (cause, subject[:_SUBJECT_CAP] if known else "...")
            first = entry not in self._said and not (once and any(said == cause for said, _ in self._said))
            self._said[entry] += 1
        if first:
            _log(logging.WARNING, _one_line(message))

    def hosts_failure(self, what: str, error: BaseException, cost: str) -> None:
        """Say once, with its line, that something which the host gave us raised, and what that costs."""
        trace = error.__traceback__
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        place = f" at {trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace is not None else ""
        self.warn("host", what, f"{what} raised {type(error).__name__}{place}: {cost}; mend it there")

    def failure(self, where: str, error: BaseException) -> None:
        """Log a failure of our own once per place and kind; it must never reach the host."""
        with self._lock:
            entry = (f"internal:{where}", type(error).__name__)
            self._said[entry] += 1
            first = self._said[entry] == 1
        if first:
            _log(logging.ERROR, f"internal failure in {where}, a number was lost: {type(error).__name__}", error)


def _log(level: int, message: str, error: BaseException | None = None) -> None:
    try:
        log.log(level, "%s", message, exc_info=error)
    except Exception:  # noqa: S110 - a filter or a handler of the host's is broken, and there is no other way to say so
        pass


_SAID_CAP = 1000
_SUBJECT_CAP = 200
_LINE_CAP = 600


def _one_line(message: str) -> str:
    """*message* as one line of bounded length: keys and names in it may come from outside."""
    short = message if len(message) <= _LINE_CAP else f"{message[: _LINE_CAP // 2]} ... {message[-_LINE_CAP // 2 :]}"
    return "".join(one if one.isprintable() else "\N{REPLACEMENT CHARACTER}" for one in short)


def _frozen(counter: Counter[str]) -> Mapping[str, int]:
    return MappingProxyType({reason: count for reason, count in sorted(counter.items()) if count})


ledger = Ledger()
