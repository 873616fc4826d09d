"""All events of each key, whoever was exposed to what."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from ..database import Database, Document
from ..events.newest_values import NewestValues
from .readout import NOTHING, Distribution, EventKeyTotal

SHARES = (0.5, 0.9, 0.95, 0.99)


class EventKeyTotals:
    """Totals by event key; the percentiles of a key are found anew only when it has new values.

    Args:
        database: what counts the events.
        newest: the values of which percentiles are made.
    """

    def __init__(self, database: Database, newest: NewestValues):
        self.database = database
        self.newest = newest
        self._known: dict[str, tuple[tuple[int, float], Distribution]] = {}

    def of(self, metrics: Iterable[tuple[str, Document]]) -> Iterator[EventKeyTotal]:
        """Yield the total of each event key.

        Args:
            metrics: project and definition of those that read events.
        """
        readers: dict[str, list[str]] = {}
        for _, metric in metrics:
            readers.setdefault(metric["eventKey"], []).append(metric["key"])
        for key, events, valued, total, last_seen in self.database.rows(
            "SELECT key, events, valued, total, last_seen FROM event_keys ORDER BY key"
        ):
            yield EventKeyTotal(
                event_key=key,
                events=events,
                values=valued,
                sum=total,
                distribution=self._distribution(key, valued, total),
                metrics=tuple(readers.get(key, ())),
                last_seen=last_seen,
            )

    def _distribution(self, key: str, valued: int, total: float) -> Distribution:
        if not valued:
            return NOTHING
        state, known = (valued, total), self._known.get(key)
        if known is not None and known[0] == state:
            return known[1]
        values = self.newest.of(key)
        found = Distribution(total / valued, *(_quantile(values, share) for share in SHARES))
        self._known[key] = state, found
        return found


def _quantile(values: Sequence[float], share: float) -> float | None:
    """Return a percentile of sorted values, interpolated; None without any."""
    if not values:
        return None
    position = share * (len(values) - 1)
    place = int(position)
    upper = values[min(place + 1, len(values) - 1)]
    return values[place] + (upper - values[place]) * (position - place)
