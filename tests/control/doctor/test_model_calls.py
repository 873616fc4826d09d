"""The traps of model calls: whose metric it is, and that each trap is one a program can say."""

from __future__ import annotations

from pathlib import Path

import pytest

import ldinstrument
from ldinstrument.doctor.model_calls import SAID_OF_MODEL_CALLS, task_of_metric


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


@pytest.mark.parametrize("cause", SAID_OF_MODEL_CALLS)
def test_each_trap_is_said_somewhere(cause: str) -> None:
    """By the code that meets it; here are why it matters and what mends it."""
    sources = Path(ldinstrument.__file__).parent
    said = [
        path
        for folder in ("ai", "otel")
        for path in (sources / folder).rglob("*.py")
        if f'"{cause}"' in path.read_text(encoding="utf-8")
    ]
    assert said
    assert all(SAID_OF_MODEL_CALLS[cause])
