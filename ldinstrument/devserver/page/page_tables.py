"""The smaller tables of the page: activity of event keys, exposed contexts, health in one line."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..database import Database
from .charts import counted

SPARK_STEPS = 24


def activity(database: Database) -> dict[str, list[int]]:
    """Return how many custom events of each key came in each stretch of the time until now."""
    found = database.rows(
        "SELECT k.key, p.received, k.events FROM post_keys k JOIN posts p ON p.id = k.post "
        "WHERE k.kind = 'custom' ORDER BY p.id DESC LIMIT 20000"
    )
    if not found:
        return {}
    now = int(time.time() * 1000)
    oldest = min(received for _, received, _ in found)
    stretch = max((now - oldest) / SPARK_STEPS, 1)
    counts: dict[str, list[int]] = {}
    for key, received, events in found:
        place = min(SPARK_STEPS - 1, int((received - oldest) / stretch))
        counts.setdefault(key, [0] * SPARK_STEPS)[place] += events
    return counts


@dataclass(frozen=True, slots=True)
class UnitView:
    """One context and what it was exposed to: flag, variation and when."""

    kind: str
    key: str
    exposures: tuple[tuple[str, str, int], ...]


UNITS = """
WITH found AS (SELECT DISTINCT x.unit, max(x.first) AS last FROM exposures x
  JOIN units u ON u.id = x.unit WHERE ? = '' OR instr(lower(u.key), lower(?)) > 0
  GROUP BY x.unit ORDER BY last DESC LIMIT 20)
SELECT u.kind, u.key, n.name, coalesce(v.value, x.variation), x.first FROM found f
JOIN exposures x ON x.unit = f.unit JOIN units u ON u.id = x.unit
JOIN iterations i ON i.id = x.iteration JOIN names n ON n.id = i.flag
LEFT JOIN variations v ON v.flag = n.name AND v.variation = x.variation
ORDER BY f.last DESC, x.first DESC
"""


def exposed_units(database: Database, search: str) -> list[UnitView]:
    """Return contexts that were exposed last, or those whose key has the searched text in it."""
    found: dict[tuple[str, str], list[tuple[str, str, int]]] = {}
    for kind, key, flag, value, first in database.rows(UNITS, (search, search)):
        found.setdefault((kind, key), []).append((flag, _plain(value), first))
    return [UnitView(kind, key, tuple(seen)) for (kind, key), seen in found.items()]


def _plain(value: Any) -> str:
    """Return the JSON of a variation's value without the quotes of a string."""
    text = str(value)
    return str(json.loads(text)) if text.startswith('"') else text


def health_words(totals: Mapping[str, int], failed: int, pending: int) -> str:
    """Return the health of everything in one line."""
    parts = [counted(totals["events"], "event"), counted(totals["posts"], "POST")]
    for name, text in (
        ("duplicates", "sent twice and counted once"),
        ("refused", "refused"),
        ("faults", "spoilt on purpose"),
    ):
        if totals[name]:
            parts.append(f"{totals[name]:,} {text}")
    if failed:
        parts.append(f"{failed} finding{'' if failed == 1 else 's'}")
    if pending:
        parts.append("still counting what has arrived")
    return ", ".join(parts)
