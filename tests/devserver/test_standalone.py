"""The local LaunchDarkly as a process of its own."""

from __future__ import annotations

import sys
import threading

import requests

from ldinstrument.devserver import standalone
from ldinstrument.devserver.server import LocalLaunchDarkly


def test_it_serves_until_it_is_told_to_end_and_leaves_the_process_as_it_was():
    """Its switch interval included."""
    before, ended, seen = sys.getswitchinterval(), threading.Event(), {}

    def ready(local: LocalLaunchDarkly) -> None:
        seen["interval"] = sys.getswitchinterval()
        seen["loaded"] = "scipy.special" in sys.modules
        seen["flags"] = requests.get(f"{local.url}/dev/flags", timeout=20).json()
        ended.set()

    standalone.serve(port=0, experiments=["new-prompt=short,long"], ready=ready, until=ended)
    assert seen["interval"] == standalone.SWITCH_SECONDS
    assert seen["loaded"]
    assert [flag["key"] for flag in seen["flags"]] == ["new-prompt"]
    assert sys.getswitchinterval() == before
