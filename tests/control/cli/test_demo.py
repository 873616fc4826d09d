"""`ldinstrument demo`: from traffic to a verdict, in lines that fit a terminal."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import urllib.request
from typing import Any

import pytest

from ldinstrument.cli.demo import demo, verdict_lines
from ldinstrument.errors import MissingExtra


def test_it_ends_on_a_winner_and_on_what_is_undecided() -> None:
    """As `make demo` calls it, not on a terminal; no address of a page that is gone."""
    done = subprocess.run(
        [sys.executable, "-m", "ldinstrument", "demo"],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    lines = done.stdout.splitlines()

    assert done.returncode == 0, done.stderr
    assert lines[-3].startswith("assistant.answer.success_rate: long is better, +")
    assert lines[-2].startswith("business.conversion: undecided, ")
    assert max(map(len, lines)) <= 80
    assert "the page: http" not in done.stdout
    assert lines[-1].startswith("ldinstrument demo --serve")


def test_with_serve_the_page_stays_up() -> None:
    """Until it is told to end."""
    program = subprocess.Popen(
        [sys.executable, "-u", "-m", "ldinstrument", "demo", "--serve"],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "COLUMNS": "200"},
    )
    try:
        assert program.stdout is not None
        address = ""
        for line in program.stdout:
            if found := re.search(r"the page: (http://\S+)", line):
                address = found[1]
                break
        with urllib.request.urlopen(address, timeout=60) as page:
            assert page.status == 200
            assert b"<html" in page.read().lower()
    finally:
        program.send_signal(signal.SIGINT)
        assert program.wait(100) == 0
        assert program.stdout is not None
        program.stdout.close()


def compared(metric: str, word: str, reason: str = "") -> dict[str, Any]:
    """A metric of the read-out whose second variation is compared with the first."""
    known = {"value": 0.1, "lower": 0.05, "upper": 0.15}
    comparison = {
        "treatmentId": "1",
        "verdict": {"word": word},
        "bayesian": {"relativeDifference": {"reason": reason} if reason else known},
    }
    rows = [{"variation": place, "value": value} for place, value in enumerate(("short", "long"))]
    return {
        "metric": metric,
        "rows": rows,
        "result": {"ldinstrument": {"comparisons": [comparison]}},
    }


def test_verdicts_come_first_where_there_are_any() -> None:
    """In the direction of the metric, with the interval; a metric without a result has no line."""
    metrics = [
        compared("a.one", "undecided"),
        compared("a.two", "worse"),
        {"metric": "a.none", "rows": [], "result": None},
        compared("a.three", "better"),
        compared("a.four", "too little data", "no unit has a value"),
    ]
    lines = list(verdict_lines(metrics))
    assert [line.partition(":")[0] for line, _ in lines] == ["a.two", "a.three", "a.one", "a.four"]
    assert lines[0] == ("a.two: long is worse, +10.0 % [+5.0 %, +15.0 %]", "bold red")
    assert lines[1][1] == "bold green"
    assert lines[2] == ("a.one: undecided, +10.0 % [+5.0 %, +15.0 %]", "bold")
    assert lines[3][0] == "a.four: too little data, no unit has a value"


def test_without_the_local_server_it_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error is the command to type."""
    monkeypatch.setitem(sys.modules, "ldinstrument.demo.experiment", None)
    with pytest.raises(MissingExtra, match=r"pip install 'ldinstrument\[dev\]'"):
        demo()
