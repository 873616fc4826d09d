"""The README's program runs, and LaunchDarkly receives the very event that stands under it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

import ldinstrument as ld
from ldinstrument.devserver import LocalLaunchDarkly
from ldinstrument.testing import RecordingClient

README = Path(__file__).parents[1] / "README.md"


def blocks(language: str) -> list[str]:
    """The fenced blocks of the README in *language*."""
    return re.findall(rf"```{language}\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)


def test_the_first_programs_event_is_true(tmp_path: Path) -> None:
    """Run as a stranger would, against the local LaunchDarkly."""
    program = tmp_path / "program.py"
    program.write_text(blocks("python")[0], encoding="utf-8")
    with LocalLaunchDarkly() as launchdarkly:
        before = time.time() * 1000
        environment = {**os.environ, "LDINSTRUMENT_URL": launchdarkly.url, "no_proxy": "127.0.0.1"}
        done = subprocess.run(
            [sys.executable, str(program)],
            capture_output=True,
            text=True,
            env=environment,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert "delivered=7" in done.stdout
        assert "confirmed=True" in done.stdout
        received = {event["key"]: dict(event) for event in launchdarkly.custom_events()}

    shown = json.loads(blocks("json")[0])
    event = received["business.conversion"]
    assert before - 1 <= event.pop("creationDate") <= time.time() * 1000 + 1
    assert isinstance(shown.pop("creationDate"), int)
    assert shown == {name: event[name] for name in shown}
    assert set(event) - set(shown) <= {"samplingRatio"}
    assert len(received) == 7
    for key in received.keys() - {"business.conversion"}:
        assert f"`{key}`" in README.read_text(encoding="utf-8")


def test_the_first_screen_has_both_commands_and_a_short_program() -> None:
    """45 lines before anybody scrolls; 15 lines of program."""
    first_screen = "\n".join(README.read_text(encoding="utf-8").splitlines()[:45])

    assert "make demo" in first_screen
    assert "make test" in first_screen
    assert '"metricValue"' in first_screen
    assert len([line for line in blocks("python")[0].splitlines() if line.strip()]) <= 15


def test_its_links_lead_somewhere() -> None:
    """Every relative link."""
    for target in re.findall(r"\]\((?!http)([^)#]+)", README.read_text(encoding="utf-8")):
        assert (README.parent / target).exists(), target


@pytest.mark.parametrize("block", range(len(blocks("python"))))
def test_every_block_is_python(block: int) -> None:
    """Compiles, with an indented `...` where a name is only pointed at."""
    compile(
        re.sub(
            r"^(@.*)$\n(?!def|@|async)",
            r"\1\ndef decorated(): ...\n",
            blocks("python")[block],
            flags=re.M,
        ),
        "README",
        "exec",
    )


def test_the_recording_block_is_true(ld_events: RecordingClient) -> None:
    """What the sessions section shows does what it says."""
    ld.catalog.add(ld.Metric("cart.size", unit="items", success_criteria="HigherThanBaseline"))
    with ld.session("user-123") as s:
        s.record("cart.size", 3)
        s.interaction(success=True)
        s.satisfaction(88)
        s.revenue(12.5, source="upsell")
        s.feedback(False)
    ld.track_conversion(49.0, context="user-123")

    assert [3] == ld_events.values("cart.size")
    assert [88, 0] == ld_events.values("user.satisfaction")
    assert ld_events.only("business.conversion").value == 49.0
