"""One thread for all alarms: each rings in time, once, unless it was disarmed."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from lambda_contexts import LambdaContext

from ldinstrument.errors import StrictError
from ldinstrument.integrations.aws_lambda import invocations, lambda_handler
from ldinstrument.integrations.aws_lambda.watchdog import Watchdog
from ldinstrument.testing import RecordingClient


@pytest.fixture(name="client")
def _client() -> RecordingClient:
    return RecordingClient()


def test_every_invocation_has_its_own_alarm() -> None:
    """A handler may call another, and a local server several at once: one that ends leaves the
    others their alarm.
    """
    watchdog, first, second, ended = (
        Watchdog(),
        threading.Event(),
        threading.Event(),
        threading.Event(),
    )
    now = time.monotonic()
    watchdog.arm(now + 0.3, second.set)
    watchdog.arm(now + 0.2, first.set)
    watchdog.arm(now + 600, ended.set)
    watchdog.disarm(ended.set)

    assert first.wait(30)
    assert second.wait(30)
    assert watchdog._alarms == {}


def test_the_watchdog_ends_a_session_before_the_time_out(client: RecordingClient) -> None:
    """While the handler still runs, its session ends as `timeout`; what it does afterwards changes
    nothing of that.
    """
    events_seen = threading.Event()

    class Client(RecordingClient):
        def track(self, event_name: str, *rest: Any, **more: Any) -> None:
            super().track(event_name, *rest, **more)
            if event_name == "invocation.interactions":
                events_seen.set()

    client = Client()

    @lambda_handler(context="u", client=client)
    def handler(event: Any, context: Any) -> bool:
        return events_seen.wait(30) and context.get_remaining_time_in_millis() >= 0

    assert handler({}, LambdaContext(seconds=1.0)) is True

    ended = client.only("invocation.success_rate")
    assert (ended.value, ended.data["endReason"], ended.data["failures"]) == (0.0, "timeout", 1)
    assert client.only("invocation.duration").value > 500


def test_without_a_thread_to_spare_the_handler_runs(
    client: RecordingClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process out of threads has no watchdog; that is no reason to fail."""

    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(invocations, "watchdog", Watchdog())
    handler = lambda_handler(context="u", client=client)(lambda event, context: "ran")
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        assert handler({}, LambdaContext()) == "ran"

    assert client.values("invocation.interactions") == [1]
    assert handler({}, LambdaContext("request-2")) == "ran"
    assert invocations.watchdog._started


def test_the_watchdog_keeps_quiet_about_what_ended_in_time(
    client: RecordingClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its thread sleeps on after a short invocation, and must not ring for the next one."""
    watchdog = Watchdog()
    monkeypatch.setattr(invocations, "watchdog", watchdog)

    @lambda_handler(context="u", client=client)
    def handler(event: Any, context: Any) -> bool:
        (alarm,) = watchdog._alarms.values()
        until = time.monotonic() + 30
        while event and watchdog._sleeps_until != alarm and time.monotonic() < until:
            time.sleep(0.01)  # its thread has not looked again since the invocation before this one
        return watchdog._sleeps_until == alarm

    handler(False, LambdaContext(seconds=2.0))
    assert handler(True, LambdaContext("request-2", seconds=600))

    assert [event.data["endReason"] for event in client.of("invocation.duration")] == [
        "ended",
        "ended",
    ]


def test_an_earlier_alarm_wakes_the_sleeper() -> None:
    """It slept for a later one, which does not ring with it."""
    watchdog, later, earlier = Watchdog(), threading.Event(), threading.Event()
    watchdog.arm(time.monotonic() + 600, later.set)
    time.sleep(0.05)  # it sleeps by now
    watchdog.arm(time.monotonic() + 0.02, earlier.set)
    assert earlier.wait(30)
    assert not later.is_set()
    watchdog.disarm(later.set)


def test_the_same_alarm_again_is_moved() -> None:
    """It rings once, at its last time."""
    watchdog, rung, after = Watchdog(), [], threading.Event()

    def ring() -> None:
        rung.append(time.monotonic())

    now = time.monotonic()
    watchdog.arm(now + 600, ring)
    watchdog.arm(now + 0.05, ring)
    watchdog.arm(now + 0.1, after.set)
    assert after.wait(30)
    assert len(rung) == 1
    assert rung[0] >= now + 0.05


def test_a_disarmed_alarm_never_rings() -> None:
    """Disarming what is not armed is nothing."""
    watchdog, after = Watchdog(), threading.Event()
    rung: list[str] = []

    def ring() -> None:
        rung.append("it rang")

    watchdog.disarm(ring)
    at = time.monotonic() + 1.0  # a full machine has time to disarm it
    watchdog.arm(at, ring)
    watchdog.disarm(ring)
    watchdog.arm(at + 0.03, after.set)
    assert after.wait(30)
    assert rung == []


@pytest.mark.parametrize("error", [ValueError, StrictError])
def test_an_alarm_that_fails_stops_no_other(error: type[Exception], caplog: Any) -> None:
    """It is logged: nobody waits for this thread, also in a strict test."""
    watchdog, after = Watchdog(), threading.Event()

    def fail() -> None:
        raise error("in the alarm")

    watchdog.arm(time.monotonic(), fail)
    watchdog.arm(time.monotonic() + 0.02, after.set)
    assert after.wait(30)
    assert "watchdog" in caplog.text
