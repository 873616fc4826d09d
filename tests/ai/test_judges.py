"""Scores of judges, in the shapes of both of LaunchDarkly's SDKs."""

from __future__ import annotations

from typing import Any
from unittest import mock

import pytest

import ldinstrument as ld
from ldinstrument.ai import track_judge
from ldinstrument.testing import RecordingClient


def test_results_of_the_old_sdk(ld_events: RecordingClient) -> None:
    """`ldai`'s results name their judge; one that was not sampled or failed has no score."""
    from ldai.providers.types import JudgeResult

    results = [
        JudgeResult("accuracy", True, None, True, "$ld:ai:judge:accuracy", 0.7),
        JudgeResult("relevance", False, "no", True, None, None),
    ]
    with ld.session("u-1"):
        assert track_judge(results) == 1
    assert ld_events.values("judge.accuracy") == [0.7]
    assert ld_events.of("judge.relevance") == []


def test_metric_is_declared(ld_events: RecordingClient) -> None:
    """Its metric is averaged, higher is better, unless the program has defined it otherwise."""
    lower = ld.Metric("judge.toxicity", unit="ratio", success_criteria="LowerThanBaseline")
    ld.catalog.replace(lower)
    with ld.session("u-1"):
        track_judge({"toxicity": 0.1, "tone of voice": 0.9})
    assert ld.catalog["judge.toxicity"] == lower
    assert ld.catalog["judge.tone-of-voice"].success_criteria == "HigherThanBaseline"
    assert ld_events.values("judge.tone-of-voice") == [0.9]


@pytest.mark.parametrize(
    "nothing", [None, "0.5", [], {}, {"a": "0.5"}, {"a": True}, mock.MagicMock()]
)
def test_no_score(ld_events: RecordingClient, nothing: Any) -> None:
    """What is no score is none."""
    with ld.session("u-1"):
        assert track_judge(nothing, key="accuracy") == 0


def test_for_a_context(ld_events: RecordingClient) -> None:
    """Outside a session, the score is for the context that is given."""
    assert track_judge({"accuracy": 0.5}, context="u-9") == 1
    assert ld_events.only("judge.accuracy").context.key == "u-9"
