"""Who observes sessions and the runs of their tasks, as OpenTelemetry's spans do where somebody
asked for them. Without an observer nothing here costs anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from .outcomes import Outcome


class RunObserver(Protocol):
    """Hears of one run of a task. Never raises, and takes what it is told as it is."""

    @property
    def data(self) -> Mapping[str, Any]:
        """Return what it adds to the data of the run's events."""

    def resume(self) -> None:
        """Note that the user's code is about to run."""

    def pause(self) -> None:
        """Note that the user's code has stopped."""

    def ended(
        self,
        outcome: Outcome | None,
        error: BaseException | None,
        values: Mapping[str, Any],
        *,
        later: bool,
    ) -> None:
        """Note the end.

        Args:
            outcome: None for a run that never began.
            error: what came out of it.
            values: what a model call used, by the suffix of its metrics, and its data.
            later: whether this may be the garbage collector's turn, so that no lock may be taken.
        """


class SessionObserver(Protocol):
    """Hears of one session. It must not hold the session."""

    def begin_run(self, session: Any, key: str) -> RunObserver:
        """Return the observer of a run of the task *key*, which begins now."""

    def here(self, session: Any) -> None:
        """Note that the session's work goes on in what is current here."""

    def ended(self, session: Any, reason: str) -> None:
        """Note that the session has ended, and why."""
