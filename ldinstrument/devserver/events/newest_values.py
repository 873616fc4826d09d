"""The newest values of each event key, in memory: what percentiles of a key are made of."""

from __future__ import annotations

import threading
from array import array
from collections.abc import Iterable, Mapping

from ..database import Database

KEPT = 5_000
"""Values of one event key."""
MOST_KEYS = 1_000
"""Keys whose values are kept: 40 MB at most."""
READ_AGAIN = 200_000
"""Measurements that are read when a database is opened again."""
MEASURED = """
SELECT substr(n.name, 2), m.value FROM measurements m JOIN names n ON n.id = m.series
WHERE m.id > (SELECT max(id) FROM measurements) - ? AND m.value IS NOT NULL AND m.is_first
  AND n.space = 'series' AND n.name LIKE '=%' ORDER BY m.id
"""


class NewestValues:
    """Keeps the newest values by event key, whoever was exposed to what.

    Args:
        database: what was measured before is read from it.
    """

    def __init__(self, database: Database):
        self._lock = threading.Lock()
        self._values: dict[str, array[float]] = {}
        found: dict[str, list[float]] = {}
        for key, value in database.rows(MEASURED, (READ_AGAIN,)):
            found.setdefault(key, []).append(value)
        self.add(found)

    def add(self, values: Mapping[str, Iterable[float]]) -> None:
        """Add the values of a POST, by event key."""
        with self._lock:
            for key, newest in values.items():
                kept = self._values.get(key)
                if kept is None:
                    if len(self._values) >= MOST_KEYS:
                        continue
                    kept = self._values[key] = array("d")
                kept.extend(newest)
                del kept[:-KEPT]

    def of(self, key: str) -> list[float]:
        """Return the newest values of an event key, in order of size."""
        with self._lock:
            kept = self._values.get(key)
            found = [] if kept is None else kept.tolist()
        return sorted(found)

    def forget(self) -> None:
        """Forget all of them."""
        with self._lock:
            self._values.clear()
