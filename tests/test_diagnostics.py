"""What is logged, how often, and what never reaches the host."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ldinstrument.diagnostics import (
    MOST_WARNINGS,
    diagnostics,
    guard,
    log_internal_error,
    log_once,
    one_line,
    warn_once,
    warn_user_code,
)
from ldinstrument.errors import StrictError

ROOT = Path(__file__).resolve().parents[1]


def test_a_warning_is_logged_once_and_counted_always(caplog: pytest.LogCaptureFixture) -> None:
    """By cause and subject."""
    for subject in ("a", "a", "b"):
        warn_once("cause", subject, f"about {subject}")

    assert caplog.messages == ["about a", "about b"]
    assert diagnostics.counts() == {("cause", "a"): 2, ("cause", "b"): 1}


def test_once_per_cause(caplog: pytest.LogCaptureFixture) -> None:
    """The first subject speaks for all; each is counted."""
    for subject in ("a", "b"):
        warn_once("cause", subject, f"about {subject}", once_per_cause=True)

    assert caplog.messages == ["about a"]
    assert len(diagnostics.counts()) == 2


def test_subjects_from_outside_cannot_grow_the_table() -> None:
    """Beyond the cap they share one row."""
    for number in range(MOST_WARNINGS + 50):
        diagnostics.count("cause", str(number))

    assert len(diagnostics.counts()) == MOST_WARNINGS + 1
    assert diagnostics.counts()["cause", "..."] == 50


def test_strict_raises_what_would_be_logged(caplog: pytest.LogCaptureFixture) -> None:
    """But not on a thread that nobody waits for: there it is logged each time."""
    diagnostics.strict = True

    with pytest.raises(StrictError, match="about a"):
        warn_once("cause", "a", "about a")
    log_once("cause", "b", "about b")
    log_once("cause", "b", "about b")
    assert caplog.messages == ["about b", "about b"]


def test_the_guard_keeps_our_bug_from_the_host(caplog: pytest.LogCaptureFixture) -> None:
    """It is logged once with its traceback; what is no `Exception` passes."""
    for _ in range(2):
        with guard("a test") as attempt:
            raise KeyError("lost")
    with pytest.raises(KeyboardInterrupt), guard("a test"):
        raise KeyboardInterrupt
    with pytest.raises(StrictError), guard("a test"):
        raise StrictError("said")

    assert attempt.failed
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert "ldinstrument bug in a test: KeyError" in caplog.text
    assert "report this traceback" in caplog.text


def test_a_bug_of_ours_tells_no_text_of_an_exception(caplog: pytest.LogCaptureFixture) -> None:
    """It may hold a visitor's key, as may what it came from: kind and lines are enough."""
    visitor = "-".join(("visitor", "ana"))
    with guard("a secret"):
        try:
            {}[visitor]
        except KeyError as error:
            raise LookupError(f"no {visitor}") from error

    assert "LookupError" in caplog.text
    assert "test_diagnostics.py" in caplog.text
    assert visitor not in caplog.text


def test_the_hosts_failure_names_its_line(caplog: pytest.LogCaptureFixture) -> None:
    """Where it was raised, not where we noticed it."""
    try:
        int("x")
    except ValueError as error:
        warn_user_code("context=", error, "no identity")

    assert f"context= raised ValueError at {__file__}:" in caplog.text


def test_a_line_from_outside_cannot_forge_another() -> None:
    """No line break, no escape, no unbounded text."""
    assert "\n" not in one_line("a\nb\x1b[31m")
    assert len(one_line("x" * 10_000)) < 700


def test_a_broken_handler_costs_its_message(caplog: pytest.LogCaptureFixture) -> None:
    """And never the request."""

    class Broken(logging.Filter):
        def filter(self, record: logging.LogRecord) -> bool:
            raise RuntimeError("broken")

    logger, broken = logging.getLogger("ldinstrument"), Broken()
    logger.addFilter(broken)
    try:
        warn_once("cause", "a", "about a")
        log_internal_error("a test", KeyError())
    finally:
        logger.removeFilter(broken)

    assert len(diagnostics.counts()) == 2


def test_the_place_of_a_declaration_is_the_users(tmp_path: Path) -> None:
    """A framework that calls us for them is stepped over; alone, it is better than nothing."""
    framework = tmp_path / "site-packages" / "framework.py"
    framework.parent.mkdir()
    framework.write_text(
        "from ldinstrument.diagnostics import caller_place\ndef make(): return caller_place()\n"
    )
    program = tmp_path / "shop.py"
    program.write_text("\n\nimport framework\nprint(framework.make())\n")
    script = tmp_path / "site-packages" / "script.py"
    script.write_text("import framework\nprint(framework.make())\n")

    def place(path: Path) -> str:
        environment = {**os.environ, "PYTHONPATH": f"{framework.parent}:{ROOT}"}
        command = [sys.executable, str(path)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    assert place(program) == f"{program}:4"
    assert place(script) == f"{framework}:2"
