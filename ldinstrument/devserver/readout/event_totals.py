"""All events of each key, whoever was exposed to what."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from ..database import Database, Document
from .readout import NOTHING, Distribution, EventTotal

SHARES = (0.5, 0.9, 0.95, 0.99)
TOTALS_OF = 50_000
"""So many of the newest values of an event key make its distribution."""
QUANTILES = """
WITH newest AS (SELECT value FROM measurements WHERE series = (SELECT id FROM names
    WHERE space = 'series' AND name = ?) AND value IS NOT NULL AND is_first
    ORDER BY id DESC LIMIT ?),
  ranked AS MATERIALIZED (
    SELECT value, row_number() OVER (ORDER BY value) - 1 AS place FROM newest),
  wanted AS (SELECT column1 * ((SELECT count(*) FROM ranked) - 1) AS position
    FROM (VALUES {shares}))
SELECT r.value, (SELECT value FROM ranked WHERE place = r.place + 1), w.position - r.place
FROM wanted w JOIN ranked r ON r.place = CAST(w.position AS INTEGER) ORDER BY w.position
"""


class EventTotals:
    """Totals by event key; the percentiles of a key are found anew only when it has new values."""

    def __init__(self, database: Database):
        self.database = database
        self._known: dict[str, tuple[tuple[int, float], Distribution]] = {}

    def of(self, metrics: Iterable[tuple[str, Document]], *, settled: bool) -> Iterator[EventTotal]:
        """Yield the total of each event key.

        Args:
            metrics: project and definition of those that read events.
            settled: nothing waits to be counted, so that percentiles may be kept.
        """
        readers: dict[str, list[str]] = {}
        for _, metric in metrics:
            readers.setdefault(metric["eventKey"], []).append(metric["key"])
        for key, events, valued, total, last_seen in self.database.rows(
            "SELECT key, events, valued, total, last_seen FROM event_keys ORDER BY key"
        ):
            yield EventTotal(
                event_key=key,
                events=events,
                values=valued,
                sum=total,
                distribution=self._distribution(key, valued, total, settled),
                metrics=tuple(readers.get(key, ())),
                last_seen=last_seen,
            )

    def _distribution(self, key: str, valued: int, total: float, settled: bool) -> Distribution:
        if not valued:
            return NOTHING
        state, known = (valued, total), self._known.get(key)
        if known is not None and known[0] == state:
            return known[1]
        found = Distribution(total / valued, *self._quantiles(key))
        if settled:
            self._known[key] = state, found
        return found

    def _quantiles(self, key: str) -> Sequence[float | None]:
        """Return the percentiles of the newest values, interpolated; SQLite sorts them."""
        shares = ", ".join(f"({share})" for share in SHARES)
        rows = self.database.rows(QUANTILES.replace("{shares}", shares), (f"={key}", TOTALS_OF))
        return [_between(lower, upper, part) for lower, upper, part in rows] or [None] * len(SHARES)


def _between(lower: float, upper: float | None, part: float) -> float:
    return lower if upper is None or not part else lower + (upper - lower) * part
