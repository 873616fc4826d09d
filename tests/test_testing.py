"""What other people's tests are given: a recorder, a clock, strictness; nothing leaves."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from ldclient import Context, LDClient

import ldinstrument as ld
from ldinstrument import stores, testing
from ldinstrument.devserver import LocalLaunchDarkly, experiment_flag
from ldinstrument.errors import StrictError
from ldinstrument.sessions import clock
from ldinstrument.sessions.scopes import open_session


@ld.track_interaction("quick")
def quick() -> None:
    """Takes no time by a clock that stands still."""


def test_durations_follow_the_fake_clock(ld_events: testing.RecordingClient) -> None:
    """Of functions that were decorated before, of sessions, and of what is decorated meanwhile."""
    with testing.fake_clock() as fake:

        @ld.track_task("slow")
        def slow() -> None:
            fake.advance(2.5)

        with ld.session("ada"):
            quick()
            slow()
            fake.advance(1.0)
            ld.track_conversion(1.0)

    assert ld_events.values("slow.duration") == [2500.0]
    assert ld_events.values("quick.duration") == [0.0]
    assert ld_events.values("session.duration") == [pytest.approx(3500.0)]


def test_the_real_clock_is_back_after_the_fake_one(ld_events: testing.RecordingClient) -> None:
    """Everywhere, also in functions that were decorated meanwhile."""
    real = clock.clock
    with testing.fake_clock():

        @ld.track_task("later")
        def later() -> None:
            began = real()
            while real() - began < 0.002:
                pass

    assert clock.clock is real
    with ld.session("ada"):
        later()
    (value,) = ld_events.values("later.duration")
    assert value is not None
    assert value >= 2.0


def test_dates_follow_the_fake_clock_to_the_millisecond(ld_events: testing.RecordingClient) -> None:
    """Whichever session tells them, and by the real time again afterwards."""
    with testing.fake_clock() as fake:
        began = open_session("u-1").date_now()
        for milliseconds in range(1, 500):
            fake.advance(0.001)
            session = open_session("u-1")
            assert session.date_now() == began + milliseconds
            session.end()
    assert abs(open_session("u-1").date_now() - time.time() * 1000) < 1000


def test_a_clock_does_not_go_back() -> None:
    """A test that needs it needs another session."""
    with testing.fake_clock() as fake, pytest.raises(ValueError, match="forward"):
        fake.advance(-1)


def test_what_production_logs_raises_under_strict(ld_strict: None) -> None:
    """And only there."""
    with pytest.raises(StrictError), ld.session("ada") as session:
        session.record("typo", float("nan"))


def test_recording_may_be_strict() -> None:
    """For a block; afterwards it is as before."""
    with testing.recording(strict=True), pytest.raises(StrictError), ld.session("ada") as session:
        session.record("typo", float("nan"))
    with testing.recording() as events, ld.session("ada") as session:
        session.record("typo", float("nan"))
    assert events.of("typo") == []


@pytest.fixture(name="open_before")
def _open_before() -> Iterator[ld.Session]:
    with ld.session("ada", name="before") as session:
        session.interaction()
        yield session


def test_a_session_that_was_open_before_goes_on(
    open_before: ld.Session, ld_events: testing.RecordingClient
) -> None:
    """It is still the current one, and its events are recorded when it ends."""
    quick()
    assert ld.current_session() is open_before
    open_before.end()

    assert ld_events.only("before.interactions").value == 2


def test_one_test_forgets_what_it_opened_and_nothing_else() -> None:
    """A fixture's session outlives it, and stays the current one; a session that the test left open
    does not.
    """
    with ld.session("ada", client=object()) as around:
        with testing.fresh_recording():
            left_open = ld.session("bob", name="left")
            session = left_open.__enter__()
        assert not around.ended
        assert session.ended
        assert ld.current_session() is around


@pytest.fixture(name="client")
def _client(ld_server: LocalLaunchDarkly) -> Iterator[LDClient]:
    ld_server.set_flag(experiment_flag("flag", ["a", "b"], metrics=("k",)))
    client = LDClient(ld.launchdarkly_config("sdk-test", flush_interval=300))
    yield client
    client.close()


def test_nothing_leaves_the_process_while_a_test_records(
    client: LDClient, ld_server: LocalLaunchDarkly
) -> None:
    """Neither evaluations, nor what the program tracks by itself, which is recorded."""
    ada = Context.create("ada")
    with testing.recording() as events:
        client.variation("flag", ada, "none")
        client.track("own", ada, {"a": 1}, 2.0)
        with ld.session(ada, client=client):
            ld.track_conversion(3.0)
        assert ld.flush(10.0, client).delivered == 0

    assert events.only("own").value == 2.0
    assert events.only("business.conversion").value == 3.0
    client.track("after", ada)
    assert ld.flush(10.0, client).ok
    assert [event["key"] for event in ld_server.custom_events()] == ["after"]
    assert ld_server.events("feature") == []


def test_visits_of_a_store_are_recorded_not_sent(
    client: LDClient, ld_server: LocalLaunchDarkly
) -> None:
    """A sweep in the test is the test's; afterwards the store reports by its client again."""
    with stores.open_store("memory:", client=client, sweep=False) as store:
        for recorded in (True, False):
            with ld.session("ada", store=store) as visit:
                visit.interaction()
            assert stores.end_session(store, "ada") is not None
            if recorded:
                with testing.recording() as events:
                    store.sweep()
                assert events.only("session.interactions").value == 1
                assert ld_server.custom_events("session.interactions") == []
            else:
                store.sweep()
                assert len(ld_server.custom_events("session.interactions")) == 1


def test_the_server_fails_on_request(client: LDClient, ld_server: LocalLaunchDarkly) -> None:
    """A test of a program's own may see what an outage does to it."""
    ld_server.fault("/bulk", status=503, times=1)
    client.track("own", Context.create("ada"))

    assert not ld.flush(0.2, client).ok
    assert ld.flush(30.0, client).ok
    assert len(ld_server.custom_events("own")) == 1


def test_the_fixture_leads_every_client_to_its_server(ld_server: LocalLaunchDarkly) -> None:
    """By the environment, on a port of its own."""
    config: Any = ld.launchdarkly_config("sdk-test", events_only=True)
    assert config.events_uri.startswith(ld_server.url)


def test_the_fixtures_may_be_asked_for_in_any_order(ld_strict, ld_clock, ld_events):
    """Recording begins with a clean slate, and neither switches strictness off nor starts clocks."""
    with ld.session("u") as session:
        ld_clock.advance(1.5)
        with pytest.raises(StrictError):
            session.record("revenue.impact", float("nan"))
    (duration,) = [event for event in ld_events.events if event.key == "session.duration"]
    assert duration.value == 1500
