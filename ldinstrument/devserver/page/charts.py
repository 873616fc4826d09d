"""Charts as SVG, made by the server: readable without script, in light and dark, by screen readers.

Each is an image with a sentence as its label. Colours come from the page's style sheet.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from ...analysis import OrderedValues
from .timelines import Mark, Timeline

DASH, MINUS = "\N{EN DASH}", "\N{MINUS SIGN}"
WIDTH = 320
BINS = 32
LANE, MOST_LANES, LEAST_BAR, LETTER = 16, 6, 2.0, 6
"""The rows of a timeline: their height, how many, the narrowest bar, and the width of a letter."""


def number(value: float | None, digits: int = 4) -> str:
    """Return a number for people; a dash for none."""
    if value is None:
        return DASH
    if abs(value) >= 10_000:
        return f"{value:,.0f}"
    text = f"{value:.{digits}g}"
    return text if "e" not in text else f"{value:.2e}"


def percent(share: float | None, *, sign: bool = False) -> str:
    """Return a share as percent, with a sign where it is a difference."""
    if share is None:
        return DASH
    value = share * 100
    digits = 0 if abs(value) >= 100 else 1
    text = f"{value:+.{digits}f} %" if sign else f"{value:.{digits}f} %"
    return text.replace("-", MINUS)


def chance(probability: float | None) -> str:
    """Return a probability as percent; never as certain."""
    if probability is not None and probability > 0.9995:
        return "> 99.9 %"
    if probability is not None and probability < 0.0005:
        return "< 0.1 %"
    return percent(probability)


def counted(count: int, noun: str) -> str:
    """Return a count with its noun, such as `1 unit` or `1,200 units`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _svg(body: str, label: str, width: int, height: int, name: str) -> Markup:
    return Markup(
        '<svg class="chart {}" role="img" aria-label="{}" viewBox="0 0 {} {}" width="{}" '
        'height="{}" preserveAspectRatio="xMidYMid meet">{}</svg>'
    ).format(name, label, width, height, width, height, Markup(body))  # noqa: S704 - numbers


def interval(
    value: float, lower: float, upper: float, word: str, label: str, limit: float | None = None
) -> Markup:
    """Draw a difference as a dot on a bar around zero.

    Args:
        value: the relative difference.
        lower: of its interval.
        upper: of its interval.
        word: the verdict, which gives the colour.
        label: what a screen reader says.
        limit: where the scale ends on both sides; by the interval without.
    """
    end = limit or max(abs(lower), abs(upper), abs(value), 0.001) * 1.1

    def place(share: float) -> float:
        return round(WIDTH / 2 + max(-1.0, min(1.0, share / end)) * (WIDTH / 2 - 8), 1)

    left, right = place(lower), place(upper)
    body = (
        f'<line class="axis" x1="8" x2="{WIDTH - 8}" y1="16" y2="16"/>'
        f'<line class="zero" x1="{WIDTH / 2}" x2="{WIDTH / 2}" y1="3" y2="29"/>'
        f'<rect class="bar {_class(word)}" x="{left}" y="11" width="{max(right - left, 2):.1f}" '
        f'height="10" rx="5"/>'
        f'<circle class="dot {_class(word)}" cx="{place(value)}" cy="16" r="6"/>'
        f'<text class="tick" x="8" y="42">{percent(-end, sign=True)}</text>'
        f'<text class="tick" x="{WIDTH / 2}" y="42" text-anchor="middle">0</text>'
        f'<text class="tick" x="{WIDTH - 8}" y="42" text-anchor="end">'
        f"{percent(end, sign=True)}</text>"
    )
    return _svg(body, label, WIDTH, 46, "interval")


def _class(word: str) -> str:
    return {"better": "good", "worse": "bad"}.get(word, "open")


@dataclass(frozen=True, slots=True)
class Scale:
    """The common scale of the distributions of one metric: from, to, and the highest share."""

    low: float
    high: float
    most: float


def common_scale(found: Sequence[OrderedValues]) -> Scale | None:
    """Return the scale that holds 98 of 100 values of every variation; None without values."""
    ends = [values for values in found if values.count]
    if not ends:
        return None
    low = min(values.quantile(0.01) for values in ends)
    high = max(values.quantile(0.99) for values in ends)
    if low == high:
        low, high = low - 0.5, high + 0.5
    most = max(max(_shares(values, low, high)) for values in ends)
    return Scale(low, high, most or 1.0)


def _shares(values: OrderedValues, low: float, high: float) -> list[float]:
    """Return the share of the values in each bin; those beyond are in the outermost."""
    counts = [0] * BINS
    for value, count in zip(values.values, values.counts, strict=True):
        place = int((value - low) / (high - low) * BINS)
        counts[max(0, min(BINS - 1, place))] += count
    return [count / values.count for count in counts]


def distribution(values: OrderedValues, scale: Scale, label: str) -> Markup:
    """Draw how the values of units are distributed, with a line at the median."""
    if not values.count:
        return Markup("")
    width, height = 160, 30
    step = width / BINS
    bars = "".join(
        f'<rect x="{i * step:.1f}" y="{height - share / scale.most * height:.1f}" '
        f'width="{step - 0.5:.1f}" height="{share / scale.most * height:.1f}"/>'
        for i, share in enumerate(_shares(values, scale.low, scale.high))
        if share
    )
    middle = (values.quantile(0.5) - scale.low) / (scale.high - scale.low) * width
    line = f'<line class="zero" x1="{middle:.1f}" x2="{middle:.1f}" y1="0" y2="{height}"/>'
    return _svg(f'<g class="bars">{bars}</g>{line}', label, width, height, "distribution")


def sparkline(counts: Sequence[int], label: str) -> Markup:
    """Draw how many events came in each stretch of time."""
    if not any(counts):
        return Markup("")
    width, height, most = 120, 24, max(counts)
    step = width / max(len(counts) - 1, 1)
    points = " ".join(
        f"{i * step:.1f},{height - 2 - count / most * (height - 4):.1f}"
        for i, count in enumerate(counts)
    )
    return _svg(f'<polyline class="line" points="{points}"/>', label, width, height, "spark")


@dataclass(frozen=True, slots=True)
class Point:
    """A relative difference with its interval, when so many units were exposed."""

    units: int
    value: float
    lower: float
    upper: float


def development(points: Sequence[Point], word: str, label: str) -> Markup:
    """Draw how a difference and its interval developed with the units that came."""
    if len(points) < 2:
        return Markup("")
    height = 72
    settled = points[len(points) // 3 :]
    end = max(max(abs(p.lower), abs(p.upper)) for p in settled) * 1.15 or 0.01
    most = points[-1].units

    def place(units: int, share: float) -> str:
        y = height / 2 - max(-1.0, min(1.0, share / end)) * (height / 2 - 4)
        return f"{units / most * (WIDTH - 8) + 4:.1f},{y:.1f}"

    band = [place(p.units, p.upper) for p in points]
    band += [place(p.units, p.lower) for p in reversed(points)]
    line = " ".join(place(p.units, p.value) for p in points)
    body = (
        f'<line class="zero" x1="4" x2="{WIDTH - 4}" y1="{height / 2}" y2="{height / 2}"/>'
        f'<polygon class="band {_class(word)}" points="{" ".join(band)}"/>'
        f'<polyline class="line {_class(word)}" points="{line}"/>'
        f'<text class="tick" x="4" y="{height + 11}">{points[0].units:,} units</text>'
        f'<text class="tick" x="{WIDTH - 4}" y="{height + 11}" text-anchor="end">'
        f"{most:,} units, scale ±{escape(percent(end))}</text>"
    )
    return _svg(body, label, WIDTH, height + 15, "development")


def split(shares: Sequence[tuple[float, float]], label: str) -> Markup:
    """Draw the units of the variations beside each other; ticks show what was allocated."""
    width, height, x, at, body = WIDTH, 14, 0.0, 0.0, ""
    for i, (share, _) in enumerate(shares):
        body += (
            f'<rect class="part part{i % 4}" x="{x:.1f}" y="2" width="{share * width:.1f}" '
            f'height="{height - 4}"/>'
        )
        x += share * width
    for _, weight in shares[:-1]:
        at += weight * width
        body += f'<line class="zero" x1="{at:.1f}" x2="{at:.1f}" y1="0" y2="{height}"/>'
    return _svg(body, label, width, height, "split")


def timeline(shown: Timeline) -> Markup:
    """Draw a session from its start to its end, with its tasks where they ran; those that ran at
    the same time stand below each other. What took no time is a tick on the axis.
    """
    if shown.milliseconds is None:
        return Markup("")
    lanes = _lanes([mark for mark in shown.marks if mark.length])
    height = LANE * max(len(lanes), 1) + 8
    bars = Markup("").join(_bar(mark, place) for place, lane in enumerate(lanes) for mark in lane)
    ticks = Markup("").join(_tick(mark, height) for mark in shown.marks if not mark.length)
    line = f'<line class="axis" x1="4" x2="{WIDTH - 4}" y1="{height - 3}" y2="{height - 3}"/>'
    tasks = ", ".join(mark.text for mark in shown.marks[:12])
    label = f"{shown.name} of {shown.who}, {number(shown.milliseconds)} ms: {tasks or 'no task'}"
    return _svg(line + bars + ticks, label, WIDTH, height, "timeline")


def _lanes(marks: Sequence[Mark]) -> list[list[Mark]]:
    """Return the marks in as few rows as it takes for none to cover another, six at most."""
    lanes: list[list[Mark]] = []
    for mark in sorted(marks, key=lambda mark: (mark.start, -mark.length)):
        free = [lane for lane in lanes if _end(lane[-1]) <= mark.start]
        if free:
            free[0].append(mark)
        elif len(lanes) < MOST_LANES:
            lanes.append([mark])
        else:
            lanes[-1].append(mark)
    return lanes


def _end(mark: Mark) -> float:
    return mark.start + max(mark.length, LEAST_BAR / (WIDTH - 8))


def _tick(mark: Mark, height: int) -> Markup:
    rect = Markup('<rect class="task" x="{}" y="{}" width="2" height="6"><title>{}</title></rect>')
    return rect.format(round(4 + mark.start * (WIDTH - 8), 1), height - 6, mark.text)


def _bar(mark: Mark, lane: int) -> Markup:
    """Draw a task as a bar, with its name in it where that fits."""
    x, y = 4 + mark.start * (WIDTH - 8), LANE * lane + 2
    width = max(mark.length * (WIDTH - 8), LEAST_BAR)
    name = mark.key.removesuffix(".duration")
    written = (
        Markup('<text class="name" x="{}" y="{}">{}</text>').format(round(x + 4, 1), y + 10, name)
        if len(name) * LETTER + 8 <= width
        else ""
    )
    rect = Markup(
        '<rect class="task" x="{}" y="{}" width="{}" height="{}" rx="2"><title>{}</title></rect>'
    )
    return rect.format(round(x, 1), y, round(width, 1), LANE - 3, mark.text) + written
