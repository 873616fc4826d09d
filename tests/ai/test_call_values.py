"""What a call of a model is worth: only what is known, under the suffixes of its metrics."""

from __future__ import annotations

from decimal import Decimal

import ldinstrument as ld
from ldinstrument.ai.call_values import (
    CallValues,
    append_times,
    data_of,
    routing_of,
    times_of,
    values_of,
)
from ldinstrument.ai.cost import Cost
from ldinstrument.ai.usage import Generation, Usage
from ldinstrument.metrics.model_calls import AI_METRICS
from ldinstrument.testing import RecordingClient

KNOWN = Generation(Usage(20, 6, 26, 8, 3, 2), "m", "openai", "stop", 1, 3, "r-1")
COST = Cost(Decimal("0.25"), "v7")


def test_what_is_known_has_a_value() -> None:
    """Each under the suffix of one of its metrics; 0 is a value."""
    found = values_of(KNOWN, COST)
    assert found == {
        "tokens.input": 20,
        "tokens.output": 6,
        "tokens.total": 26,
        "tokens.cached": 8,
        "tokens.reasoning": 2,
        "cost": 0.25,
        "tool_calls": 1,
        "attempts": 3,
    }
    assert found.keys() < set(AI_METRICS)
    assert values_of(Generation(tool_calls=0), None) == {"tool_calls": 0}


def test_what_is_unknown_has_none() -> None:
    """Neither a value nor data: unknown is not 0."""
    assert values_of(Generation(), None) == data_of(Generation(), None) == {}


def test_data_names_model_price_and_how_well_usage_is_known() -> None:
    """At the top: LaunchDarkly's filters see nothing deeper."""
    assert data_of(KNOWN, COST) == {
        "model": "m",
        "provider": "openai",
        "finishReason": "stop",
        "usage": "known",
        "priceVersion": "v7",
    }
    assert data_of(KNOWN.broken_off(), None)["usage"] == "partial"


def test_a_stream_is_timed_from_its_start_and_from_piece_to_piece() -> None:
    """In milliseconds; one piece has no time between two."""
    assert times_of(10.0, 1, 10.25, 10.25) == {"time_to_first_token": 250.0}
    assert times_of(10.0, 5, 10.25, 11.25) == {
        "time_to_first_token": 250.0,
        "time_per_chunk": 250.0,
    }


def test_values_and_data_are_told_together() -> None:
    """To whoever observes the call; the empty one tells nothing."""
    assert CallValues({"cost": 1.0}, {"model": "m"}).described == {"model": "m", "cost": 1.0}
    assert CallValues().described == {}
    assert CallValues().end.known == Generation()


def test_a_metric_that_the_catalog_has_lost_is_declared_again() -> None:
    """Tests clear it between two calls."""
    metrics = {"tokens.total": "k.tokens.total"}
    assert "k.tokens.total" not in ld.catalog
    assert routing_of("k", "tokens.total", metrics).numeric
    assert ld.catalog["k.tokens.total"].unit == "tokens"


def test_only_the_times_that_are_wanted_are_recorded(ld_events: RecordingClient) -> None:
    """With the data of the call."""
    times = {"time_to_first_token": 250.0, "time_per_chunk": 5.0}
    with ld.session("u-1") as s:
        metrics = {"time_to_first_token": "k.time_to_first_token"}
        append_times(s, "k", metrics, times, {"model": "m"})
    event = ld_events.only("k.time_to_first_token")
    assert (event.value, event.data) == (250.0, {"model": "m"})
    assert ld_events.of("k.time_per_chunk") == []
