"""A lint of metric keys: the dotted hierarchy (`quality.accuracy`), lower case, no unit in it. Advice only."""

from __future__ import annotations

import re
from collections.abc import Iterator

_UNITS = {
    "ms", "millis", "milliseconds", "s", "sec", "secs", "seconds", "minutes", "usd", "dollars", "eur", "euros",
    "percent", "pct", "bytes", "kb", "mb",
}  # fmt: skip


def naming_complaints(key: str, unit: str | None) -> Iterator[str]:
    """Say what a reader of LaunchDarkly's metric list would stumble over in *key* (its unit is *unit*)."""
    if key != key.lower():
        yield f"the key is not lower case; event keys are case-sensitive, so prefer {key.lower()!r}"
    if "." not in key:
        yield f"the key has no dotted area; prefer something like 'checkout.{key.lower()}'"
    words = [word for word in re.split(r"[._-]", key.lower()) if word]
    if unit is not None and len(words) > 1 and words[-1] in _UNITS:
        yield f"the key ends in a unit ({words[-1]!r}); the unit belongs in unit={unit!r}, and may change"
