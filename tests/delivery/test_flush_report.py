"""Reports: when a flush may be called complete, and when a payload has been taken."""

from __future__ import annotations

import dataclasses

import pytest

from ldinstrument.delivery import FlushReport, Receipt


def test_a_flush_of_nothing_is_ok():
    """Nothing was lost, and nobody was asked who cannot tell."""
    assert FlushReport().ok
    assert FlushReport(delivered=7).ok


@pytest.mark.parametrize(
    "change",
    [
        {"failed": 1},
        {"dropped": 1},
        {"pending": 1},
        {"unconfirmed": 1},
        {"others": 1},
        {"timed_out": True},
        {"confirmed": False},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_flush_that_left_something_open_is_not_ok(change):
    """Each of these alone is enough, however much was delivered."""
    assert not FlushReport(delivered=7, **change).ok


@pytest.mark.parametrize(
    ("status", "delivered"),
    [(0, False), (199, False), (200, True), (202, True), (299, True), (300, False), (503, False)],
)
def test_any_2xx_is_a_delivery(status, delivered):
    """No answer, a redirect or an error is none."""
    receipt = Receipt("id", 2, 1, 300, status, 1, 0.02)
    assert receipt.delivered is delivered


def test_reports_and_receipts_are_values():
    """Nobody changes one that was handed out."""
    for value, field in (
        (FlushReport(), "failed"),
        (Receipt("id", 1, 1, 1, 202, 1, 0.1), "status"),
    ):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(value, field, 5)
