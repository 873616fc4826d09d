"""Switches over faults: what each does, that it can be switched off, and that a reset does."""

from __future__ import annotations

import pytest

from ldinstrument.devserver.faults import InjectedFaults
from ldinstrument.devserver.page.fault_switches import SWITCHES, FaultSwitches
from ldinstrument.devserver.responses import RefusedRequest


@pytest.fixture(name="faults")
def _faults():
    return InjectedFaults()


def on(switches: FaultSwitches) -> list[str]:
    return [switch.name for switch in switches.all() if switch.on]


@pytest.mark.parametrize("name", SWITCHES)
def test_each_makes_faults_for_its_routes_and_takes_them_away(faults, name):
    """One switch may stand for several routes."""
    switches = FaultSwitches(faults)
    switches.switch(name, on=True)
    assert on(switches) == [name]
    assert [fault.route for fault in faults.active()] == list(SWITCHES[name][1])
    switches.switch(name, on=False)
    assert on(switches) == []
    assert faults.active() == []


def test_one_that_is_on_is_not_doubled_and_the_others_stay(faults):
    """Each is on or off by itself."""
    switches = FaultSwitches(faults)
    for name in ("events-503", "flags-503", "events-503"):
        switches.switch(name, on=True)
    assert on(switches) == ["events-503", "flags-503"]
    assert len(faults.active()) == sum(len(SWITCHES[name][1]) for name in on(switches))
    switches.switch("events-503", on=False)
    assert on(switches) == ["flags-503"]


def test_faults_that_are_cleared_elsewhere_switch_it_off(faults):
    """What the page shows is what is there."""
    switches = FaultSwitches(faults)
    switches.switch("events-slow", on=True)
    faults.clear()
    assert on(switches) == []


def test_an_unknown_one_is_not_found(faults):
    """With 404."""
    with pytest.raises(RefusedRequest) as refused:
        FaultSwitches(faults).switch("everything", on=True)
    assert refused.value.status == 404
