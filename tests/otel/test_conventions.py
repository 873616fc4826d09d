"""The names that are written: version 1.36, or the newest for who opts in."""

from __future__ import annotations

import pytest

from ldinstrument.metrics.model_calls import AI_METRICS
from ldinstrument.otel import conventions as names
from ldinstrument.otel.conventions import NEWEST, STABLE, Conventions, conventions


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (None, STABLE),
        ("", STABLE),
        ("http", STABLE),
        ("gen_ai_latest_experimental", NEWEST),
        ("http, gen_ai_latest_experimental ", NEWEST),
        ("gen_ai_latest_experimental_2", STABLE),
    ],
)
def test_the_environment_chooses(
    monkeypatch: pytest.MonkeyPatch, asked: str | None, expected: Conventions
) -> None:
    """As OpenTelemetry's own instrumentors are asked: a list, with white space."""
    monkeypatch.delenv("OTEL_SEMCONV_STABILITY_OPT_IN", raising=False)
    if asked is not None:
        monkeypatch.setenv("OTEL_SEMCONV_STABILITY_OPT_IN", asked)
    assert conventions() is expected


def test_both_versions_name_model_and_provider() -> None:
    """The provider was renamed in between."""
    assert STABLE.model == NEWEST.model == "gen_ai.response.model"
    assert (STABLE.provider, NEWEST.provider) == ("gen_ai.system", "gen_ai.provider.name")


@pytest.mark.parametrize("version", [STABLE, NEWEST], ids=lambda version: version.version)
def test_what_is_written_can_be_read(version: Conventions) -> None:
    """By ourselves, so that a bridge understands the spans of an observer."""
    assert version.model in names.MODEL
    assert version.provider in names.PROVIDER
    for value, read in (
        ("tokens.input", names.INPUT_TOKENS),
        ("tokens.output", names.OUTPUT_TOKENS),
        ("tokens.cached", names.CACHED_TOKENS),
        ("tokens.reasoning", names.REASONING_TOKENS),
        ("time_to_first_token", (names.FIRST_CHUNK,)),
    ):
        assert version.attributes.get(value, read[0]) in read


@pytest.mark.parametrize("version", [STABLE, NEWEST], ids=lambda version: version.version)
def test_each_instrument_is_fed_by_a_value_that_there_is(version: Conventions) -> None:
    """In seconds or tokens, with ascending buckets; one name has one unit."""
    units: dict[str, str] = {}
    for instrument in version.instruments:
        assert instrument.value in ("duration", *AI_METRICS)
        assert instrument.unit == ("{token}" if "tokens" in instrument.value else "s")
        assert list(instrument.boundaries) == sorted(set(instrument.boundaries))
        assert units.setdefault(instrument.name, instrument.unit) == instrument.unit


def test_the_buckets_are_those_that_the_conventions_ask_for() -> None:
    """From 10 ms to 82 s, from one token to 64 millions."""
    by_value = {instrument.value: instrument for instrument in STABLE.instruments}
    assert by_value["duration"].boundaries[:3] == (0.01, 0.02, 0.04)
    assert by_value["duration"].boundaries[-1] == 81.92
    assert by_value["tokens.input"].boundaries[-1] == 67_108_864
