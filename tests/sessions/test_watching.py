"""Watched clients: exposures are seen, and events dated, whatever their event processor is."""

from __future__ import annotations

import gc
import subprocess
import sys
import time
import weakref

from laboratory import laboratory
from session_values import USER

import ldinstrument as ld
from ldinstrument.sessions.emission import emit
from ldinstrument.sessions.exposures import exposures
from ldinstrument.sessions.hook import ExposureHook
from ldinstrument.sessions.rollups import Emission
from ldinstrument.sessions.watching import watch


def test_the_events_of_an_attached_client_are_watched() -> None:
    """Also on another thread; sums fold and are divided."""
    with laboratory(plugins=[], event_processor_class=None) as lab:
        ld.attach(lab.client)
        with ld.session("u-1", client=lab.client) as s:
            s.conversion(1)
            s.conversion(99)
            lab.elsewhere(lambda: lab.expose("u-1"))
            s.conversion(10)
        lab.client.flush()
        lab.server.wait_for(lambda: lab.server.count(key="session.duration"))

        assert lab.counted("business.conversion", "u-1") == [10]
        assert len(lab.server.custom_events("business.conversion")) == 2


def test_sums_travel_value_by_value_where_nobody_sees_exposures() -> None:
    """A client with neither Plugin nor processor: nothing folds across an exposure."""
    with laboratory(plugins=[], event_processor_class=None) as lab:
        with ld.session("u-1", client=lab.client) as s:
            s.conversion(1)
            s.conversion(99)
            lab.expose("u-1")
            s.conversion(10)
            s.conversion(20)
        lab.client.flush()
        lab.server.wait_for(lambda: lab.server.count(key="session.duration"))

        assert lab.counted("business.conversion", "u-1") == [10, 20]
    assert ("unwatched_client", "") in ld.stats().warnings


def test_a_client_that_is_watched_needs_no_hook() -> None:
    """Whatever its event processor is; the hook that it has already is silenced."""
    for options in ({"plugins": []}, {"plugins": [], "event_processor_class": None}):
        with laboratory(**options) as lab:
            hook = ExposureHook()
            watch(lab.client, hook)
            assert (hook.active, hook.client()) == (False, lab.client)
            lab.expose("u-1")
            (noted,) = exposures.of(["u-1"])
            assert noted.client() is lab.client
            exposures.clear()


def test_an_event_of_ours_is_dated_to_when_it_happened() -> None:
    """By a processor that is not ours, too; an event of the program keeps its own date."""
    with laboratory(plugins=[], event_processor_class=None) as lab:
        watch(lab.client)
        emit(Emission("area.ours", 1.0, None, 1234), USER, lab.client)
        lab.client.track("area.theirs", USER)
        lab.client.flush()
        lab.server.wait_for(lambda: lab.server.count(key="area.theirs"))
        (ours,), (theirs,) = map(lab.server.custom_events, ("area.ours", "area.theirs"))
        assert ours["creationDate"] == 1234
        assert theirs["creationDate"] > 1234


def test_a_client_is_kept_alive_by_nobody() -> None:
    """It is known weakly: also by what looks at its events."""
    with laboratory(plugins=[], event_processor_class=None) as lab:
        watch(lab.client)
        known = weakref.ref(lab.client)
        lab.client.close()
        lab.client = None
    del lab
    deadline = time.monotonic() + 60  # threads of the SDK end by and by
    while known() is not None and time.monotonic() < deadline:
        gc.collect()
        time.sleep(0.01)
    assert known() is None


READY = """
import builtins, sys
from ldclient import Config, LDClient
import ldinstrument as ld

@ld.track_task("a.plain")
def plain():
    async def made():
        return 1
    return made()

@ld.track_task("a.generator")
def generator():
    return (number for number in [1])

uris = dict.fromkeys(("base_uri", "events_uri", "stream_uri"), "http://127.0.0.1:9")
parts = {"plugins": [ld.Plugin()], "event_processor_class": ld.EventProcessor}
client = LDClient(Config("sdk-key", use_ldd=True, flush_interval=3600, **parts, **uris))
loaded, compile, compiled = set(sys.modules), builtins.compile, []
builtins.compile = lambda *given, **named: compiled.append(given[1]) or compile(*given, **named)
with ld.session("u-1", client=client):
    plain().close()
    list(generator())
names = sorted(set(sys.modules) - loaded)
print([name for name in names if name.startswith("ldinstrument")], compiled)
sys.stdout.flush()
import os
os._exit(0)
"""


def test_no_call_waits_for_imports_once_there_is_a_client() -> None:
    """The first session, coroutine and generator load no module of ours and compile nothing."""
    done = subprocess.run([sys.executable, "-c", READY], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[] []"
