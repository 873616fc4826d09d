"""Units that are easily mistaken for another one: LaunchDarkly converts no value."""

from __future__ import annotations

_SMALL = {
    "milliseconds": (60.0, "seconds"),
    "ms": (60.0, "seconds"),
    "percent": (1.0, "shares from 0 to 1"),
    "%": (1.0, "shares from 0 to 1"),
}
"""By unit: values none of which is greater, and not all of which are whole, may be in the other."""


_MEASURED = (
    ".duration",
    ".duration_ms",
    ".success_rate",
    ".time_to_first_token",
    ".time_to_first_item",
    ".time_per_chunk",
)
"""How the keys end of what ldinstrument measures itself: those values may well be small."""


def is_confusable(key: str, unit: str | None) -> bool:
    """Tell whether values of a metric, recorded by hand, are easily in another unit."""
    return unit is not None and unit.lower() in _SMALL and not key.endswith(_MEASURED)


def other_unit(unit: str | None, greatest: float) -> str:
    """Return in which unit values up to *greatest* may be that are said to be in *unit*.

    Ask it only where not all of them are whole numbers. Empty where nothing is suspected.
    """
    most, other = _SMALL.get(str(unit or "").lower(), (-1.0, ""))
    return other if greatest <= most else ""
