"""The read-out in the terminal: legible at 80 columns and in a pipe, with a verdict."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator

import pytest
from ldclient import Context, LDClient
from ldclient.config import Config

import ldinstrument as ld
from ldinstrument.cli import readout
from ldinstrument.devserver import LocalLaunchDarkly, experiment_flag
from ldinstrument.metrics.metric import Metric
from ldinstrument.rest import MetricsAPI

USERS = 400


@pytest.fixture(name="experiment", scope="module")
def _experiment() -> Iterator[LocalLaunchDarkly]:
    """An experiment with a true winner, one without, a metric nobody feeds, one of another kind."""
    chance = random.Random(11)
    flag = experiment_flag("new-prompt", ("short", "long"))
    with LocalLaunchDarkly(flags=[flag]) as local:
        with MetricsAPI("default", base_uri=local.url, token="api-local-token") as api:
            api.create(
                Metric(
                    "answer.latency",
                    unit="milliseconds",
                    success_criteria="LowerThanBaseline",
                    percentile=90,
                )
            )
            api.create(Metric("answer.good", measure="occurrence"))
            api.create(Metric("never.sent", measure="count"))
            api.create_context_kind("device")
            api.add_analysis_unit("device")
            api.create(Metric("by.device", measure="count", analysis_units=("device",)))
        with MetricsAPI("elsewhere", base_uri=local.url, token="api-local-token") as api:
            api.create(Metric("other.metric", measure="count"))
        address = dict.fromkeys(("base_uri", "events_uri", "stream_uri"), local.url)
        client = LDClient(
            Config(
                "sdk-x", plugins=[ld.Plugin()], event_processor_class=ld.EventProcessor, **address
            )
        )
        for number in range(USERS):
            context = Context.create(f"user-{number}")
            slow = client.variation("new-prompt", context, "short") == "long"
            latency = chance.gauss(900 if slow else 500, 60)
            client.track("answer.latency", context, metric_value=latency)
            if chance.random() < 0.5:
                client.track("answer.good", context)
        assert ld.flush(timeout=30, client=client).confirmed
        client.close()
        yield local


def shown(local: LocalLaunchDarkly, *arguments: str) -> str:
    """Run the command in a process of its own, its output in a pipe."""
    environment = {**os.environ, "LDINSTRUMENT_URL": local.url, "COLUMNS": "80"}
    command = [sys.executable, "-m", "ldinstrument", "readout", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr
    return done.stdout


def block(text: str, metric: str) -> str:
    """The lines of one metric."""
    return next(part for part in text.split("\n\n") if part.startswith(metric))


def test_no_line_is_wider_than_a_terminal(experiment: LocalLaunchDarkly) -> None:
    """In a pipe, too, where no terminal would wrap them between the digits."""
    lines = shown(experiment).splitlines()

    assert len(lines) > 20
    assert max(map(len, lines)) <= 80


def test_a_true_difference_has_a_verdict(experiment: LocalLaunchDarkly) -> None:
    """By the metric's own percentile and direction, with the difference and its interval."""
    found = block(shown(experiment), "answer.latency")

    assert "(p90 in milliseconds, lower is better)" in found
    assert "WORSE" in found
    assert "long against short: +" in found
    assert found.count("[") >= 3


def test_no_difference_is_undecided(experiment: LocalLaunchDarkly) -> None:
    """And it says how many units another look would take."""
    found = block(shown(experiment), "answer.good")

    assert "UNDECIDED" in found
    assert "more units" in found


def test_a_row_without_numbers_says_why(experiment: LocalLaunchDarkly) -> None:
    """A metric that nobody feeds, and one of a kind that was never exposed."""
    text = shown(experiment)

    assert "never.sent" in text
    assert "nobody was exposed as device" in block(text, "by.device").replace("\n    ", " ")


def test_other_projects_with_metrics_are_named(experiment: LocalLaunchDarkly) -> None:
    """Looking at the wrong project is the first reason for an empty page."""
    assert "elsewhere" in shown(experiment)
    assert "other.metric" not in shown(experiment)


def test_json_has_the_shape_of_launchdarklys_results(experiment: LocalLaunchDarkly) -> None:
    """One document per metric, with treatment results and ours beside them."""
    document = json.loads(shown(experiment, "--json"))
    (found,) = document["experiments"]
    latency = next(each for each in found["metrics"] if each["metric"] == "answer.latency")

    assert latency["result"]["percentile"] == 90
    assert {each["treatmentName"] for each in latency["result"]["treatmentResults"]} == {
        "short",
        "long",
    }
    assert latency["result"]["ldinstrument"]["comparisons"][0]["verdict"]["word"] == "worse"


def test_numbers_are_short() -> None:
    """Four significant digits, and no exponent for what people count."""
    shown = [readout.number(value) for value in (0.123456, 1234.5, 12345.678, None, 7)]

    assert shown == ["0.1235", "1,234", "12,346", "", "7"]


@pytest.mark.parametrize(
    ("figure", "expected"),
    [
        ({"value": 0.5, "lower": 0.25, "upper": 0.75}, "<0.5> [<0.25>, <0.75>]"),
        ({"value": 0.0, "lower": None}, "<0.0>"),
        ({"value": 0.5}, "<0.5>"),
        ({"value": None, "reason": "nobody came"}, "nobody came"),
        ({}, "no number yet"),
    ],
)
def test_a_figure_has_its_interval_or_its_reason(figure: dict[str, object], expected: str) -> None:
    """A number may be known without the interval."""
    assert readout.interval(figure, "<{}>".format) == expected
