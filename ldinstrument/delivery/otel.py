"""The ledger as OpenTelemetry counters, on request only."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ..ledger import Events, ledger

_EVENTS = ("emitted", "delivered", "unconfirmed")


def export_ledger(meter_provider: Any | None = None) -> None:
    """Register observable instruments that read the ledger whenever somebody collects.

    `ldinstrument.events.emitted`, `.delivered`, `.unconfirmed`, `.dropped` (attribute `reason`) are
    counters of events; `ldinstrument.events.pending` goes up and down.

    Args:
        meter_provider: None means the global one.
    """
    from opentelemetry import metrics

    meter = metrics.get_meter("ldinstrument", meter_provider=meter_provider)
    for name in _EVENTS:
        meter.create_observable_counter(
            f"ldinstrument.events.{name}", [_reads(name)], unit="{event}"
        )
    meter.create_observable_up_down_counter(
        "ldinstrument.events.pending", [_reads("pending")], unit="{event}"
    )
    meter.create_observable_counter("ldinstrument.events.dropped", [_dropped], unit="{event}")


def _reads(name: str) -> Callable[[Any], Iterator[Any]]:
    def read(options: Any) -> Iterator[Any]:
        yield from _observed({"": getattr(_events(), name)})

    return read


def _dropped(options: Any) -> Iterator[Any]:
    yield from _observed(_events().dropped)


def _observed(counts: Mapping[str, int]) -> Iterator[Any]:
    from opentelemetry.metrics import Observation

    for reason, count in counts.items():
        yield Observation(count, {"reason": reason} if reason else {})


def _events() -> Events:
    return ledger.stats().events
