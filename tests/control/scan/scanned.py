"""What a scan found, as sets of keys."""

from __future__ import annotations

from ldinstrument.scan import Scan


def keys(found: Scan) -> set[str]:
    return {metric.key for metric in found.metrics}


def runs(*tasks: str) -> set[str]:
    return {f"{task}.{suffix}" for task in tasks for suffix in ("success_rate", "duration")}
