"""What a finding means and what to do: told by the doctor and by the page alike."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import ldinstrument
from ldinstrument.devserver.readout.health import HealthCheck
from ldinstrument.metrics.advice import OF_CHECKS, OF_WARNINGS, concerns, task_of_metric


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


@pytest.mark.parametrize(
    ("key", "task"),
    [
        ("support.answer.tokens.total", "support.answer"),
        ("support.answer.cost", "support.answer"),
        ("answer.time_to_first_token", "answer"),
        ("support.answer.duration", None),
        ("cost", None),
        ("tokens.total", None),
    ],
)
def test_the_task_of_a_metric_is_what_stands_before_its_suffix(key: str, task: str | None) -> None:
    """Other metrics are of no model call."""
    assert task_of_metric(key) == task


@pytest.mark.parametrize("cause", OF_WARNINGS)
def test_each_warning_is_said_somewhere(cause: str) -> None:
    """By the runtime half, which meets it: none is explained in vain."""
    sources = Path(ldinstrument.__file__).parent
    runtime = [
        path.read_text(encoding="utf-8")
        for path in sources.rglob("*.py")
        if path.relative_to(sources).parts[0] not in ("doctor", "cli", "devserver")
        and path.name != "advice.py"
    ]
    assert any(f'"{cause}"' in text for text in runtime)
