"""The findings of the page: what was seen, why it matters, what to do and what to run."""

from __future__ import annotations

import pytest

from ldinstrument.devserver.page.findings import findings, of_check
from ldinstrument.devserver.readout.health import HealthCheck

METRICS = [("default", {"key": "answer.p95", "eventKey": "answer.duration"})]


@pytest.mark.parametrize(
    ("check", "detail", "remedy", "run"),
    [
        ("analysis unit", "0 of 3 events", "give the session a context", "doctor answer.p95"),
        ("definition", "3 events that no metric reads", "catalog.add", "plan"),
        ("event receipt", "no event 'a'", "record the metric", "doctor answer.p95"),
        ("event receipt", "no event 'A': keys are case-sensitive", "tail", "doctor answer.p95"),
    ],
)
def test_a_failed_check_says_what_to_do(check, detail, remedy, run):
    """As the doctor says it; an event that never came is not a matter of capitals."""
    found = of_check(HealthCheck("answer.p95", check, False, detail))
    assert (found.seen, found.run) == (detail, f"ldinstrument {run}")
    assert remedy in found.remedy
    assert found.why


def test_what_programs_have_warned_about_stands_at_the_metric_that_it_concerns():
    """By the event that the metric reads; what nobody knows is left out."""
    warnings = [["not_a_number", "answer.duration", 1], ["no_such_cause", "", 2]]
    failed = [of_check(HealthCheck("other", "numeric value", False, "1 of 2"))]
    found = findings(failed, [{"warnings": warnings}], METRICS)
    assert {key: [each.seen for each in of] for key, of in found.items()} == {
        "other": ["1 of 2"],
        "answer.p95": ["not a number (1 time)"],
    }
