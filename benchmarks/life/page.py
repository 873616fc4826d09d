"""docs/performance.md: the tables between its marks, and the plot beside it, as SVG."""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

Lives = dict[str, dict[int, float]]
"""CPU microseconds per run, by candidate and by runs per session."""

DOCS = Path(__file__).resolve().parents[2] / "docs"
RUNS = (1, 10, 100, 1000)
SHOWN = {
    "ours": ("ldinstrument", "#c2410c"),
    "naive_sdk": ("track by hand, the SDK's event processor", "#6b7280"),
    "naive": ("track by hand, our event processor", "#4338ca"),
    "prometheus": ("prometheus_client", "#047857"),
    "floor": ("orjson floor", "#111827"),
}
LEFT, TOP, WIDTH, HEIGHT = 60, 20, 420, 300


def write_page(rows: Iterable[tuple[str, str, str]], lives: Lives) -> None:
    """Put the tables between the marks of docs/performance.md, and the plot beside it."""
    lines = [f"Measured {versions()}.", "", "| | measured | wanted |", "| --- | --: | --: |"]
    lines += [f"| {what} | {value} | {wanted} |" for what, value, wanted in rows]
    if lives:
        lines += ["", *table(lives), "", "![CPU per run](performance.svg)"]
        (DOCS / "performance.svg").write_text(plot(lives), encoding="utf-8")
    page = DOCS / "performance.md"
    before, _, rest = page.read_text(encoding="utf-8").partition("<!-- life -->")
    _, _, after = rest.partition("<!-- /life -->")
    text = "\n".join(["<!-- life -->", *lines, "<!-- /life -->"])
    page.write_text(f"{before}{text}{after}", encoding="utf-8")


def versions() -> str:
    """Say on what this was measured."""
    names = (
        "launchdarkly-server-sdk",
        "urllib3",
        "orjson",
        "prometheus-client",
        "opentelemetry-instrumentation-wsgi",
    )
    packages = ", ".join(f"{name} {metadata.version(name)}" for name in names)
    return f"with Python {platform.python_version()}, {packages}, {os.cpu_count()} cores"


def table(lives: Lives) -> list[str]:
    """Return the cost of a run by runs per session as a table."""
    lines = ["CPU microseconds of the whole process per run, by runs per session:", ""]
    lines += ["| runs per session | " + " | ".join(f"{runs:,}" for runs in RUNS) + " |"]
    lines += ["| --- |" + " --: |" * len(RUNS)]
    for name, (words, _) in SHOWN.items():
        cells = " | ".join(f"{lives[name][runs]:.2f}" for runs in RUNS)
        lines.append(f"| {words} | {cells} |")
    return lines


def plot(lives: Lives) -> str:
    """Return the cost of a run against runs per session as SVG; both scales are logarithmic."""
    low, high = 0.5, 200.0
    lines = [grid(low, high)]
    ends = [(y_of(lives[name][RUNS[-1]], low, high), name) for name in SHOWN]
    heights = apart(ends)
    for name, (words, colour) in SHOWN.items():
        points = [
            (x_of(runs), min(y_of(lives[name][runs], low, high), TOP + HEIGHT)) for runs in RUNS
        ]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        lines.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        lines += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in points]
        lines.append(
            f'<text x="{LEFT + WIDTH + 10}" y="{heights[name] + 4:.1f}" fill="{colour}">'
            f"{words}</text>"
        )
    label = "CPU microseconds per run against runs per session, both logarithmic"
    whole = f"{LEFT + WIDTH + 280} {TOP + HEIGHT + 50}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {whole}" role="img" '
        f'aria-label="{label}" font-family="sans-serif" font-size="12">\n'
        '<rect width="100%" height="100%" fill="white"/>\n' + "\n".join(lines) + "\n</svg>\n"
    )


def grid(low: float, high: float) -> str:
    """Return the lines of the scales, each with its number."""
    parts = []
    for us in (0.5, 1, 2, 5, 10, 20, 50, 100, 200):
        y = y_of(us, low, high)
        parts.append(
            f'<line x1="{LEFT}" x2="{LEFT + WIDTH}" y1="{y:.1f}" y2="{y:.1f}" stroke="#e5e7eb"/>'
            f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{us:g}</text>'
        )
    for runs in RUNS:
        parts.append(
            f'<text x="{x_of(runs):.1f}" y="{TOP + HEIGHT + 18}" text-anchor="middle">'
            f"{runs:,}</text>"
        )
    parts.append(
        f'<text x="{LEFT + WIDTH / 2}" y="{TOP + HEIGHT + 38}" text-anchor="middle">'
        "runs per session</text>"
        f'<text x="16" y="{TOP + HEIGHT / 2}" text-anchor="middle" '
        f'transform="rotate(-90 16 {TOP + HEIGHT / 2})">CPU microseconds per run</text>'
    )
    return "\n".join(parts)


def x_of(runs: int) -> float:
    """Return where *runs* per session are."""
    return LEFT + math.log10(runs) / math.log10(RUNS[-1]) * WIDTH


def y_of(us: float, low: float, high: float) -> float:
    """Return where *us* microseconds are."""
    return TOP + HEIGHT - math.log(us / low) / math.log(high / low) * HEIGHT


def apart(ends: list[tuple[float, str]], least: float = 15.0) -> dict[str, float]:
    """Return heights for the words at the lines' ends, *least* pixels from each other."""
    heights: dict[str, float] = {}
    before = -math.inf
    for y, name in sorted(ends):
        before = heights[name] = max(y, before + least)
    return heights
