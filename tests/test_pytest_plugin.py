"""The fixture `ld_events`, in test files of a user's own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

FIXTURES = """
import pytest
import ldinstrument as ld

@ld.track_interaction("a")
def work(): return 1

@pytest.fixture
def visit():
    with ld.session("user-1") as s:
        yield s

@pytest.fixture(scope="module")
def wide():
    with ld.session("user-2") as s:
        yield s

def test_events_first(ld_events, visit):
    work()
    visit.end()
    assert ld_events.only("a.success_rate").value == 1

def test_visit_first(visit, ld_events):
    assert ld.current_session() is visit
    work()
    visit.end()
    assert ld_events.only("a.success_rate").context.key == "user-1"
    assert ld_events.only("session.interactions").value == 1

def test_what_the_visit_holds_stays_counted(wide, ld_events):
    work()
    wide.conversion(3.0)
    assert ld.stats().values.open == 4

def test_the_wider_visit_goes_on(wide, ld_events):
    assert ld.current_session() is wide
    assert ld.stats().values.open == 4
    wide.end()
    assert ld_events.only("business.conversion").value == 3.0
    values = ld.stats().values
    assert values.recorded == values.emitted

def test_what_a_test_leaves_open_is_forgotten(ld_events):
    leaked = ld.session("user-3").__enter__()
    leaked.conversion(1.0)
    globals()["leaked"] = leaked

def test_and_is_not_there_in_the_next(ld_events):
    assert ld.current_session() is None
    assert ld.stats().values.recorded == 0
    assert leaked.ended
"""


def test_sessions_of_other_fixtures_go_on(tmp_path: Path) -> None:
    """Whichever fixture comes first, and however wide it is; leaks of a test end with it."""
    (tmp_path / "test_order.py").write_text(FIXTURES)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"],
        capture_output=True,
        text=True,
        timeout=100,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert "6 passed" in done.stdout
