"""What a finding means and what to do: told by the doctor and by the page alike."""

from __future__ import annotations

import re

import pytest

from ldinstrument.devserver.readout.health import HealthCheck
from ldinstrument.metrics.advice import OF_CHECKS, OF_WARNINGS, concerns


def test_every_check_of_a_local_launchdarkly_has_advice():
    """Those that its documentation names; `definition` is about an event that no metric reads."""
    named = re.search(r"check: (.*?)\n +ok:", HealthCheck.__doc__ or "", re.DOTALL)
    assert named is not None
    checks = set(re.findall(r"`([^`]+)`", named[1]))
    assert checks - {"definition"} == set(OF_CHECKS)
    assert all(advice.why and advice.command for advice in (OF_CHECKS | OF_WARNINGS).values())


@pytest.mark.parametrize(
    ("subject", "about"),
    [
        ("", True),
        ("answer.duration", True),
        ("answer", True),
        ("answer 'x' of kind user", True),
        ("support", True),
        ("other.duration", False),
        ("ans", False),
    ],
)
def test_a_warning_concerns_a_metric_by_its_key_event_task_or_session(subject, about):
    """An empty subject concerns everything, a task the metrics of its runs and model calls."""
    assert concerns(subject, {"answer.duration", "support.tokens.input"}) is about
