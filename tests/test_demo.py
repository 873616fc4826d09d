"""The demo's totals are what its traffic really did."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import urllib.request

import pytest

from ldinstrument.demo.helpdesk import FLAG
from ldinstrument.demo.show import play
from ldinstrument.demo.traffic import QUESTIONS
from ldinstrument.devserver import LocalLaunchDarkly, experiment_flag

VISITORS = 40


def test_the_totals_are_what_the_visitors_got() -> None:
    """The visitors' own account, kept from HTTP answers, against the read-out's join of exposures
    and events.
    """
    with LocalLaunchDarkly(flags=[experiment_flag(FLAG, ("short", "long"))]) as launchdarkly:
        shown = play(launchdarkly, VISITORS)

    assert shown.report.confirmed
    assert (shown.report.failed, shown.report.dropped, shown.report.pending) == (0, 0, 0)
    assert VISITORS == sum(len(account.visitors) for account in shown.accounts.values())
    assert {"short", "long"} == set(shown.accounts)
    for variation, voice in enumerate(("short", "long")):
        account = shown.accounts[voice]
        answered = shown.readout.row("assistant.answer.success_rate", FLAG, variation)
        sales = shown.readout.row("business.conversion", FLAG, variation)
        requests = shown.readout.row("request.interactions", FLAG, variation)
        rate = shown.readout.row("request.success_rate", FLAG, variation)
        assert answered.units == len(account.visitors)
        assert answered.events == account.requests
        assert answered.mean == pytest.approx(account.helpful / account.requests)
        assert sales.mean is not None
        assert sales.mean * sales.units == pytest.approx(account.sales)
        assert requests.mean == pytest.approx(len(QUESTIONS))
        assert rate.mean == pytest.approx(100 * (1 - account.failed / account.requests))


def test_it_exits_0_when_not_on_a_terminal() -> None:
    """As `make demo` calls it; no address of a page that is gone, and how to keep it up."""
    done = subprocess.run(
        [sys.executable, "-m", "ldinstrument", "demo"],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert "request.success_rate" in done.stdout
    assert "the page: http" not in done.stdout
    assert "ldinstrument demo --serve" in done.stdout


def test_with_serve_the_page_stays_up() -> None:
    """Until it is told to end."""
    program = subprocess.Popen(
        [sys.executable, "-u", "-m", "ldinstrument", "demo", "--serve"],
        stdout=subprocess.PIPE, text=True, env={**os.environ, "COLUMNS": "200"},
    )  # fmt: skip
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
