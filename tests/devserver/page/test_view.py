"""Experiments as the page shows them: in words, in the order that a reader wants."""

from __future__ import annotations

import random

import pytest

from ldinstrument.analysis import Figure
from ldinstrument.devserver.page.charts import MINUS
from ldinstrument.devserver.page.view import SHOWN_IN_FULL, ExperimentViews, close_call

from ..recorded_events import Server, event, exposure


@pytest.fixture(name="server")
def _server():
    server = Server()
    yield server
    server.database.close()


def view_of(server: Server):
    views = ExperimentViews(server.database, server.reader)
    (view,) = views.of(server.reader.read())
    return view


def answers(server: Server, key: str, effect: float, units: int = 400) -> None:
    rng = random.Random(7)
    for i in range(units):
        value = rng.gauss(100, 10) * (effect if i % 2 else 1.0)
        server.post(exposure(f"u{i}", i % 2, 1 + i), event(f"u{i}", value, 1_000 + i, key=key))


def test_better_and_worse_are_by_the_metrics_own_direction(server):
    """The same values: less time is better, less revenue is worse."""
    server.define(key="time", eventKey="k")
    server.define(key="revenue", eventKey="k", successCriteria="HigherThanBaseline")
    answers(server, "k", 0.8)
    words = {metric.key: metric.comparisons[0].word for metric in view_of(server).metrics}
    assert words == {"time": "better", "revenue": "worse"}


def test_what_is_decided_comes_before_what_is_not_and_the_own_metrics_first(server):
    """Own are those that the experiment names."""
    server.define(key="a.same", eventKey="same")
    server.define(key="b.faster", eventKey="faster")
    answers(server, "same", 1.0)
    answers(server, "faster", 0.8)
    assert [metric.key for metric in view_of(server).metrics] == ["b.faster", "a.same"]
    server.database.put(
        "flag", "", "f", {"key": "f", "version": 1, "experimentMetrics": ["a.same"]}
    )
    assert [metric.key for metric in view_of(server).metrics] == ["a.same", "b.faster"]
    assert [metric.own for metric in view_of(server).metrics] == [True, False]


def test_a_comparison_names_difference_interval_chance_and_whose_formulas(server):
    """In words that need no legend."""
    server.define()
    answers(server, "latency", 0.8)
    (metric,) = view_of(server).metrics
    (comparison,) = metric.comparisons
    assert comparison.difference.startswith(f"{MINUS}2")
    assert f" to {MINUS}" in comparison.difference
    assert comparison.chance == "> 99.9 %"
    assert 'aria-label="latency, v1 against the control' in comparison.chart
    assert "how it developed" in comparison.over_time
    assert {"difference", "p"} <= dict(comparison.figures).keys()
    assert metric.about == "average per user, the mean of all; lower is better"
    assert metric.variations[0].estimate.endswith(" ms")
    assert any("LaunchDarkly" in source for source in metric.sources)


def test_a_broken_split_is_said_and_an_allocated_one_too(server):
    """What was allocated stands beside what came."""
    server.define()
    for i in range(300):
        server.post(exposure(f"u{i}", int(i % 4 == 0), 1 + i), event(f"u{i}", 1.0 + i % 7, 500))
    view = view_of(server)
    assert not view.split_ok
    assert "do not trust the differences" in view.split_text
    assert [share for _, _, share in view.variations] == ["75.0 % of 50.0 %", "25.0 % of 50.0 %"]


def test_a_metric_that_says_nothing_names_the_reason_and_the_command(server):
    """The command to find out more."""
    server.define(analysisUnits=["request"])
    server.post(exposure("a"), event("a"))
    (missing,) = view_of(server).missing
    assert "nobody was exposed as request" in missing.reason
    assert missing.command == "ldinstrument doctor latency"


def test_what_was_made_for_a_read_out_is_made_once(server):
    """The next read-out has its own."""
    server.define()
    server.post(exposure("a"))
    views, readout = ExperimentViews(server.database, server.reader), server.reader.read()
    assert views.of(readout) is views.of(readout)
    assert views.of(server.reader.read()) is not views.of(readout)


@pytest.mark.parametrize(
    ("lower", "upper", "word", "said"),
    [(-0.1, 0.3, "better", 1), (0.1, 0.3, "better", 0), (-0.1, 0.3, "undecided", 0)],
)
def test_a_verdict_beside_an_interval_with_0_in_it_is_explained(lower, upper, word, said):
    """A close call: two formulas that differ a little, and the reader would see only that."""
    figure = Figure(0.1, "LaunchDarkly", lower=lower, upper=upper)
    assert len(close_call(figure, word)) == said


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "average per user, the mean of all; lower is better"),
        ({"unitAggregationType": "sum"}, "total per user, the mean of all; lower is better"),
        (
            {"analysisType": "percentile", "percentileValue": 95},
            "percentile 95 of the averages of users; lower is better",
        ),
    ],
)
def test_what_a_metric_compares_is_said_in_words(server, fields, words):
    """Not by the names of an API's fields."""
    server.define(**fields)
    answers(server, "latency", 0.8)
    assert view_of(server).metrics[0].about == words


def test_of_many_metrics_ten_are_shown_in_full_unless_all_are_asked_for(server):
    """The experiment's own first, then those with a verdict; the others have a line each."""
    for number in range(12):
        server.define(key=f"same.{number}", eventKey="same")
    server.define(key="won", eventKey="won")
    flag = {"key": "f", "version": 1, "variations": ["v0", "v1"], "experimentMetrics": ["same.11"]}
    server.database.put("flag", "", "f", flag)
    answers(server, "same", 1.0, units=100)
    answers(server, "won", 0.8, units=100)
    readout = server.reader.read()
    views = ExperimentViews(server.database, server.reader)
    (brief,) = views.of(readout)
    assert [metric.key for metric in brief.metrics][:3] == ["same.11", "won", "same.0"]
    assert len(brief.metrics) == SHOWN_IN_FULL
    assert [metric.key for metric in brief.others] == ["same.8", "same.9", "same.10"]
    ((name, word, difference, chance),) = brief.others[0].comparisons
    assert (name, word) == ("v1", "undecided")
    assert "%" in difference
    assert "%" in chance
    (whole,) = views.of(readout, "f")
    assert (len(whole.metrics), whole.others) == (13, ())
