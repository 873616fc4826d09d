"""Magnitudes: values by hand that seem to be in another unit than their metric's are said once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import ldinstrument as ld
from ldinstrument.metrics.metric import Metric
from ldinstrument.sessions import magnitudes
from ldinstrument.sessions.magnitudes import LOOKED_AT, check_magnitude
from ldinstrument.testing import RecordingClient


@pytest.fixture(autouse=True)
def _nothing_was_seen() -> Iterator[None]:
    magnitudes.forget()
    yield
    magnitudes.forget()


def metric(unit: str, key: str = "answer.latency") -> Metric:
    return Metric(key, unit=unit, success_criteria="LowerThanBaseline")


def test_seconds_under_milliseconds_are_said_once(
    ld_events: RecordingClient, caplog: pytest.LogCaptureFixture
) -> None:
    """After the tenth value, through a session as a program records; the values go as they are."""
    ld.catalog.add(metric("milliseconds"))
    with ld.session("u-1") as s:
        for number in range(3 * LOOKED_AT):
            s.record("answer.latency", 0.25 + number)
    assert len(ld_events.of("answer.latency")) == 3 * LOOKED_AT
    (line,) = caplog.messages
    assert "the first 10 values are at most 9.25" in line
    assert "are they seconds?" in line


@pytest.mark.parametrize(
    ("unit", "values"),
    [
        ("milliseconds", [0.25] * (LOOKED_AT - 1)),  # too few to say
        ("milliseconds", [5.0] * LOOKED_AT),  # whole numbers are measured in their own unit
        ("milliseconds", [0.25] * (LOOKED_AT - 1) + [80.5]),  # one is too large for seconds
        ("milliseconds", [0.25] * (LOOKED_AT - 1) + [-80.5]),
        ("percent", [0.5] * (LOOKED_AT - 1) + [1.5]),
        ("dollars", [0.25] * LOOKED_AT),  # no unit that is mistaken for another one
    ],
)
def test_what_may_be_right_is_not_said(
    unit: str, values: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing is suspected without a reason."""
    for value in values:
        check_magnitude(metric(unit), value)
    assert caplog.messages == []


def test_shares_under_percent_are_said(caplog: pytest.LogCaptureFixture) -> None:
    """Some whole ones among them change nothing."""
    for value in [0.0, 1.0] * 4 + [0.5, 0.25]:
        check_magnitude(metric("Percent"), value)
    assert "shares from 0 to 1" in caplog.text


def test_what_ldinstrument_measures_itself_may_be_small(caplog: pytest.LogCaptureFixture) -> None:
    """A fast function lasts less than a millisecond."""
    for _ in range(LOOKED_AT):
        check_magnitude(metric("milliseconds", "answer.duration"), 0.25)
    assert caplog.messages == []


def test_only_so_many_metrics_are_looked_at(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A program may make keys up as it goes."""
    monkeypatch.setattr(magnitudes, "MOST_METRICS", 2)
    for key in ("a.one", "a.two", "a.three"):
        for _ in range(LOOKED_AT):
            check_magnitude(metric("ms", key), 0.25)
    assert [line.partition(":")[0] for line in caplog.messages] == ["a.one", "a.two"]
