"""The clock of durations: frozen time cannot reach it, pickle finds it."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

import ldinstrument as ld
from ldinstrument.sessions import clock
from ldinstrument.testing import RecordingClient

A_MINUTE = 60_000


@ld.track_interaction("frozen.work")
def work() -> None: ...


def test_it_is_the_interpreters_own() -> None:
    """The same readings as `time.perf_counter`, and another object."""
    assert clock.clock is not time.perf_counter
    assert clock.clock() == pytest.approx(time.perf_counter(), abs=1)


def test_no_session_of_fifty_years_under_freezegun(ld_events: RecordingClient) -> None:
    """Frozen inside, frozen around, and thawed before the end."""
    freezegun = pytest.importorskip("freezegun")
    with ld.session("u"), freezegun.freeze_time("2024-01-02 03:04:05"):
        work()
    with freezegun.freeze_time("2024-01-02 03:04:05"), ld.session("u"):
        work()
    with freezegun.freeze_time("1999-01-02", tick=True) as frozen:
        s = ld.session("u").__enter__()
        work()
        frozen.move_to("2050-01-01")
        s.conversion(1.0)
    s.end()
    durations = ld_events.values("session.duration") + ld_events.values("frozen.work.duration")
    assert len(durations) == 6
    assert all(0 <= float(value or 0) < A_MINUTE for value in durations)


def test_no_session_of_fifty_years_under_time_machine(ld_events: RecordingClient) -> None:
    """It replaces the functions of `time` in C; the clock is not among them."""
    time_machine = pytest.importorskip("time_machine")
    with ld.session("u"), time_machine.travel("1975-01-02", tick=False):
        work()
    with time_machine.travel("2075-01-02") as traveller, ld.session("u"):
        work()
        traveller.shift(10**8)
    assert all(0 <= float(v or 0) < A_MINUTE for v in ld_events.values("session.duration"))


def test_an_import_in_frozen_time_keeps_the_real_clock() -> None:
    """What is imported late, inside a frozen block, would else keep a clock that ends with it."""
    pytest.importorskip("freezegun")
    program = (
        "import freezegun\n"
        "with freezegun.freeze_time('2024-01-02'):\n"
        "    import ldinstrument as ld\n"
        "    from ldinstrument.testing import recording\n"
        "    scope = ld.session('u')\n"
        "    with recording() as events:\n"
        "        session = scope.__enter__()\n"
        "with recording() as events:\n"
        "    session.end()\n"
        "print(0 <= events.only('session.duration').value < 60_000)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout.strip(), done.returncode) == ("True", 0), done.stderr
