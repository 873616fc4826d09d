"""Charts: what they say to those who do not see them, and that they hold for any numbers."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ldinstrument.analysis import SufficientStatistics
from ldinstrument.devserver.page import charts
from ldinstrument.devserver.page.charts import MINUS, Point
from ldinstrument.devserver.page.timelines import Mark, Timeline

EVIL = "\"><script>alert('x')</script>&"
FINITE = st.floats(-1e12, 1e12)


def drawn(chart: str) -> ET.Element:
    """The chart as XML: it is well-formed, has a label, and all its numbers are finite."""
    root = ET.fromstring(chart)
    assert root.attrib["role"] == "img"
    assert root.attrib["aria-label"]
    for element in root.iter():
        for name, value in element.attrib.items():
            if name in ("x", "y", "width", "height", "cx", "cy", "x1", "x2"):
                assert math.isfinite(float(value)), (name, value)
    return root


@given(value=FINITE, low=FINITE, high=FINITE)
def test_an_interval_is_drawn_for_any_numbers(value, low, high):
    """Infinite ones too, and with any label."""
    drawn(charts.interval(value, min(low, high), max(low, high), "better", EVIL))


def test_the_dot_is_on_the_side_of_the_difference():
    """Less is left of the middle."""
    zero = charts.WIDTH / 2
    for value, side in ((-0.1, -1), (0.1, 1)):
        root = drawn(charts.interval(value, value - 0.05, value + 0.05, "worse", "label"))
        (dot,) = [e for e in root.iter() if "dot" in e.attrib.get("class", "")]
        assert math.copysign(1, float(dot.attrib["cx"]) - zero) == side
        assert "bad" in dot.attrib["class"]


@given(values=st.lists(FINITE, min_size=1, max_size=50))
def test_a_distribution_is_drawn_for_any_values(values):
    """No bar is higher than the picture."""
    ordered = SufficientStatistics(values).ordered()
    scale = charts.common_scale([ordered, SufficientStatistics().ordered()])
    assert scale is not None
    root = drawn(charts.distribution(ordered, scale, EVIL))
    bars = [float(rect.attrib["height"]) for rect in root.iter() if rect.tag.endswith("rect")]
    assert bars
    assert max(bars) <= 30.5


def test_nothing_is_drawn_without_values():
    """Not even an empty frame."""
    nothing = SufficientStatistics().ordered()
    assert charts.common_scale([nothing]) is None
    assert charts.distribution(nothing, charts.Scale(0, 1, 1), "x") == ""
    assert charts.sparkline([0, 0], "x") == ""
    assert charts.development([Point(1, 0.1, 0.0, 0.2)], "better", "x") == ""


@given(counts=st.lists(st.integers(0, 10**9), min_size=1, max_size=30))
def test_a_sparkline_has_a_point_for_each_stretch(counts):
    """Whatever the counts."""
    chart = charts.sparkline(counts, EVIL)
    if any(counts):
        (line,) = [e for e in drawn(chart).iter() if e.tag.endswith("polyline")]
        assert len(line.attrib["points"].split()) == len(counts)


def test_the_development_ends_at_the_last_units():
    """Their number is in its label."""
    points = [Point(units, 0.1, 0.1 - 1 / units, 0.1 + 1 / units) for units in (10, 100, 1000)]
    assert "1,000 units" in charts.development(points, "better", "label")
    drawn(charts.development(points, "undecided", EVIL))


def test_a_timeline_names_its_tasks():
    """In its label and in a title for each, escaped."""
    marks = (Mark("a.duration", 0.1, 0.5, "a.duration = 5"), Mark(EVIL, 2.0, 0.0, EVIL))
    shown = Timeline("s", "session", EVIL, 0, 10.0, "ended", (1, 0), marks)
    root = drawn(charts.timeline(shown))
    assert "a.duration = 5" in root.attrib["aria-label"]
    assert EVIL in [title.text for title in root.iter() if title.tag.endswith("title")]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, charts.DASH),
        (0.0, "0"),
        (1234.5678, "1235"),
        (12345.678, "12,346"),
        (1e-9, "1.00e-09"),
        (0.12345, "0.1235"),
    ],
)
def test_numbers_are_short(value, text):
    """Four digits, thousands apart."""
    assert charts.number(value) == text


def test_shares_are_percent_with_a_sign_where_they_are_differences():
    """With a real minus sign."""
    assert charts.percent(0.1234) == "12.3 %"
    assert charts.percent(-0.1234, sign=True) == f"{MINUS}12.3 %"
    assert charts.percent(2.5, sign=True) == "+250 %"
    assert charts.percent(None) == charts.DASH


def test_tasks_that_ran_at_the_same_time_stand_below_each_other():
    """A task within another one is seen; what took no time is a tick on the axis."""
    marks = (
        Mark("answer.duration", 0.0, 0.9, "answer.duration = 90"),
        Mark("search.duration", 0.1, 0.4, "search.duration = 40"),
        Mark("rerank.duration", 0.6, 0.2, "rerank.duration = 20"),
        Mark("answer.tokens", 0.9, 0.0, "answer.tokens = 7"),
    )
    shown = Timeline("s", "session", "user:u", 100, 100.0, "ended", (1, 0), marks)
    bars = drawn(charts.timeline(shown)).findall(".//{*}rect")
    rows = [bar.get("y") for bar in bars]
    assert rows[1] == rows[2] != rows[0]
    assert bars[3].get("width") == "2"
    assert [text.text for text in drawn(charts.timeline(shown)).findall(".//{*}text")] == [
        "answer",
        "search",
        "rerank",
    ]
