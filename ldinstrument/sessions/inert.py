"""A session under `LDINSTRUMENT_DISABLED`: it takes everything and sends nothing."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..metrics.metric import Metric
from .accumulator import Sample
from .outcomes import NO_TALLIES
from .parts import SessionPart
from .session import Session
from .summaries import Summary, summarised

if TYPE_CHECKING:
    from ldclient import Context


class InertSession(Session):
    """A session that counts nothing and says nothing."""

    is_inert = True

    __slots__ = ()

    def record(
        self, metric: Metric | str, value: Any = None, *, data: Mapping[str, Any] | None = None
    ) -> None:
        """Drop the value."""

    def append(self, entry: Sample) -> None:
        """Drop the sample."""

    def append_from_finalizer(self, entry: Sample) -> None:
        """Drop the sample."""

    def is_watched(self) -> bool:
        """Ask nobody: nothing leaves."""
        return True

    def fold_up(self) -> None:
        """Drop what tracked functions have appended; they do not ask whose list it is."""
        self.entries.clear()

    def identify(self, context: Any) -> None:
        """Stay nobody's."""

    def see_exposure(self, context: Context, client: weakref.ref[Any] | None = None) -> None:
        """Stay nobody's."""

    def merge_data(self, data: Mapping[str, Any]) -> None:
        """Drop the data."""

    def hand_over(self) -> SessionPart | None:
        """Have nothing for a store."""
        self.ended, self.open_entries = True, None
        return None

    def end(self, reason: str = "ended") -> None:
        """End without a word."""
        self.ended, self.open_entries = True, None

    def summary(self) -> Summary:
        """Tell of nothing."""
        return summarised(0.0, NO_TALLIES, {})

    def __del__(self) -> None:
        """Leave nothing behind."""
