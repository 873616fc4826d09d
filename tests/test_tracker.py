"""`SessionMetricsTracker`: sessions by an id of the caller's."""

from __future__ import annotations

import threading
import time
from collections import Counter
from typing import Any
from uuid import UUID

import pytest
from ldclient import Context

import ldinstrument as ld
from ldinstrument import testing
from ldinstrument.errors import DefinitionError
from ldinstrument.ledger import ledger
from ldinstrument.sessions.exposures import exposures
from ldinstrument.stores import open_store
from ldinstrument.testing import RecordingClient
from ldinstrument.tracker import SessionMetricsTracker, _SessionsInStore


class Recorder:
    """Takes events as `LDClient.track` does, and keeps them."""

    def __init__(self) -> None:
        self.events: list[tuple[str, Any, Any, Any]] = []

    def track(
        self, event_name: str, context: Any, data: Any = None, metric_value: Any = None
    ) -> None:
        self.events.append((event_name, context, data, metric_value))

    def by_key(self) -> dict[str, Any]:
        return {key: value for key, _, _, value in self.events}


@pytest.fixture(autouse=True)
def _fresh():
    testing.forget_everything()
    yield
    testing.forget_everything()


@pytest.mark.parametrize("given", [None, [], {}, b"s-1", 1.5, True], ids=repr)
def test_what_is_no_session_id_is_said_in_one_line(
    given: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """The same with a store and without one; nothing is tracked under it."""
    with open_store("memory:", sweep=False) as store:
        for tracker in (
            SessionMetricsTracker(Recorder()),
            SessionMetricsTracker(Recorder(), store),
        ):
            tracker.start_session("user-1", given)
            tracker.track_interaction(given)
            assert tracker.end_session(given) is None

    assert [
        f"give a text, not a {type(given).__name__}" in record.getMessage()
        for record in caplog.records
    ] == [True]


def test_an_id_may_be_a_number_or_a_uuid() -> None:
    """What a database calls its rows; they are texts from there on."""
    with open_store(
        "memory:", sweep=False
    ) as store:  # closed here: its sweeper would report in another test's time
        for tracker in (
            SessionMetricsTracker(Recorder()),
            SessionMetricsTracker(Recorder(), store),
        ):
            for given in (7, UUID(int=7)):
                tracker.start_session("user-1", given)  # type: ignore[arg-type]
                tracker.track_interaction(str(given))
                summary = tracker.end_session(given)  # type: ignore[arg-type]
                assert summary is not None
                assert summary["interactions"] == 1


def test_the_recipe_of_launchdarkly_works():
    """Start, interact, end: the summary in seconds, the events in milliseconds, for the user."""
    recorder = Recorder()
    tracker = SessionMetricsTracker(recorder)

    tracker.start_session("user-1", "s-1")
    tracker.track_interaction("s-1", True)
    tracker.track_interaction("s-1", True)
    tracker.track_interaction("s-1", False)
    summary = tracker.end_session("s-1")

    assert summary is not None
    assert {"user_id", "start_time", "interactions", "successful_tasks", "duration"} == set(summary)
    assert (summary["user_id"], summary["interactions"], summary["successful_tasks"]) == (
        "user-1",
        3,
        2,
    )
    values = recorder.by_key()
    assert {"session.duration", "session.success_rate", "session.interactions"} == set(values)
    assert pytest.approx(summary["duration"] * 1000) == values["session.duration"]
    assert pytest.approx(100 * 2 / 3) == values["session.success_rate"]
    assert values["session.interactions"] == 3
    assert {"s-1"} == {data["sessionId"] for _, _, data, _ in recorder.events}
    assert {("user", "user-1")} == {
        (context.kind, context.key) for _, context, _, _ in recorder.events
    }


def test_unknown_ids_are_answered_with_none():
    """Neither an id never started, nor one that has ended, nor one that cannot be an id is an
    error.
    """
    recorder = Recorder()
    tracker = SessionMetricsTracker(recorder)

    assert tracker.track_interaction("nobody", True) is None
    assert tracker.end_session("nobody") is None
    tracker.start_session("user-1", "s-1")
    assert tracker.end_session("s-1") is not None
    assert tracker.end_session("s-1") is None
    assert tracker.end_session(["unhashable"]) is None  # type: ignore[arg-type]

    assert [key for key, *_ in recorder.events] == ["session.duration", "session.interactions"]


def test_a_context_is_taken_as_it_is():
    """`user_id` may be a context, of several kinds too; `user_id` of the summary is its user's
    key.
    """
    recorder = Recorder()
    tracker = SessionMetricsTracker(recorder)
    context = Context.create_multi(Context.create("ana"), Context.create("acme", "organization"))

    tracker.start_session(context, "s-1")
    summary = tracker.end_session("s-1")

    assert summary is not None
    assert summary["user_id"] == "ana"
    assert all(seen == context for _, seen, _, _ in recorder.events)


def test_starting_again_goes_on_for_the_same_user_and_ends_anothers():
    """A repeated start (a retried request) changes nothing; another user's session of that id ends
    first.
    """
    recorder = Recorder()
    tracker = SessionMetricsTracker(recorder)

    tracker.start_session("ana", "s-1")
    tracker.track_interaction("s-1", True)
    tracker.start_session("ana", "s-1")
    tracker.track_interaction("s-1", True)
    tracker.start_session("ben", "s-1")
    summary = tracker.end_session("s-1")

    assert summary is not None
    assert (summary["user_id"], summary["interactions"]) == ("ben", 0)
    ended = {
        context.key: value
        for key, context, _, value in recorder.events
        if key == "session.interactions"
    }
    assert ended == {"ana": 2, "ben": 0}


def test_nobody_costs_the_events_and_nothing_else():
    """None as user is said once, counted, and never raised."""
    recorder = Recorder()
    tracker = SessionMetricsTracker(recorder)

    tracker.start_session(None, "s-1")
    tracker.track_interaction("s-1", True)
    summary = tracker.end_session("s-1")

    assert summary is not None
    assert summary["user_id"] is None
    assert recorder.events == []
    assert ledger.stats().values.discarded["no_context"] > 0


def test_open_sessions_are_bounded():
    """Beyond the bound the one silent for longest ends as abandoned, counted."""
    recorder = Recorder()
    tracker = SessionMetricsTracker(recorder, max_sessions=3)

    for number in range(5):
        tracker.start_session("ana", f"s-{number}")
        tracker.track_interaction("s-0", True)

    assert tracker.end_session("s-1") is None
    survivor = tracker.end_session("s-0")
    assert survivor is not None
    assert survivor["interactions"] == 5
    assert ledger.stats().evicted_sessions == 2
    abandoned = [
        data["sessionId"] for key, _, data, _ in recorder.events if data["endReason"] == "abandoned"
    ]
    assert {"s-1", "s-2"} == set(abandoned)


def test_threads_share_a_tracker():
    """Eight threads on four sessions: every interaction is in exactly one total."""
    recorder = Recorder()
    tracker = SessionMetricsTracker(recorder)
    for number in range(4):
        tracker.start_session(f"u-{number}", f"s-{number}")

    def work(seed: int) -> None:
        for turn in range(500):
            tracker.track_interaction(f"s-{(seed + turn) % 4}", turn % 5 != 0)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    totals: Counter[str] = Counter()
    for number in range(4):
        summary = tracker.end_session(f"s-{number}")
        assert summary is not None
        totals["interactions"] += summary["interactions"]
        totals["successes"] += summary["successful_tasks"]

    assert dict(totals) == {"interactions": 4000, "successes": 3200}


def test_a_client_that_fails_never_reaches_the_host():
    """An exception out of `track` is logged and counted; the summary is still answered."""

    class Broken:
        def track(self, *args: Any) -> None:
            raise RuntimeError("broken")

    tracker = SessionMetricsTracker(Broken())
    tracker.start_session("ana", "s-1")

    assert tracker.end_session("s-1") is not None
    assert ledger.stats().events.dropped["client_error"] > 0


@pytest.mark.parametrize(
    "arguments", [{"store": 5}, {"store": object()}, {"max_sessions": None}, {"max_sessions": 0}]
)
def test_bad_arguments_are_refused_where_they_are_written(arguments: dict[str, Any]) -> None:
    """With what to write instead."""
    with pytest.raises(DefinitionError, match="SessionMetricsTracker"):
        ld.SessionMetricsTracker(**arguments)


def test_an_address_opens_a_store(tmp_path: Any, ld_events: RecordingClient) -> None:
    """The same words as everywhere else."""
    tracker = ld.SessionMetricsTracker(store=f"sqlite:///{tmp_path}/sessions.db")
    tracker.start_session("u-1", "s-1")
    tracker.track_interaction("s-1", True)
    answer = tracker.end_session("s-1")

    assert answer is not None
    assert (answer["user_id"], answer["interactions"], answer["successful_tasks"]) == ("u-1", 1, 1)


def test_many_threads_may_start_the_same_session(ld_events: RecordingClient) -> None:
    """It is one session, and nothing is emitted for those that lost the race."""
    tracker = ld.SessionMetricsTracker()
    threads = [
        threading.Thread(target=tracker.start_session, args=("u-1", "s-1")) for _ in range(16)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    tracker.track_interaction("s-1", True)
    tracker.end_session("s-1")

    assert [1] == ld_events.values("session.interactions")


def test_a_tracker_feeds_the_metrics_that_were_asked_for(ld_events: RecordingClient) -> None:
    """Here and in a store; an unknown one is refused where it is written."""
    for store in (None, open_store("memory:", sweep=False)):
        tracker = SessionMetricsTracker(store=store, metrics=("unfinished", "interactions"))
        tracker.start_session("u-1", "s-1")
        tracker.track_interaction("s-1", True)
        tracker.end_session("s-1")
        if store is not None:
            store.sweep()
        sent = [(event.key, event.value) for event in ld_events]
        ld_events.clear()
        assert sorted(sent) == [("session.interactions", 1), ("session.unfinished", 0)]
    with pytest.raises(DefinitionError, match="not one of duration"):
        SessionMetricsTracker(metrics=("durations",))


@pytest.mark.parametrize("later", [True, False], ids=["an interaction follows", "the end follows"])
def test_a_store_is_told_the_exposures_that_a_tracker_sees(
    ld_events: RecordingClient, later: bool
) -> None:
    """Another process reports the session, and has seen none of them."""
    store = open_store("memory:", sweep=False)
    tracker = SessionMetricsTracker(store=store)
    tracker.start_session("u-1", "s-1")
    tracker.track_interaction("s-1", True)
    time.sleep(0.005)
    exposures.note("flag", 1, Context.create("u-1"), int(time.time() * 1000))
    time.sleep(0.005)
    for _ in range(later):
        tracker.track_interaction("s-1", True)
    tracker.end_session("s-1")
    exposures.clear()
    store.sweep()

    interactions = [event.value for event in ld_events if event.key == "session.interactions"]
    assert interactions == [1, int(later)]


def test_the_keys_of_stored_sessions_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that starts sessions which others end forgets the oldest."""
    monkeypatch.setattr("ldinstrument.tracker.MAX_SESSIONS", 2)
    stored = _SessionsInStore(None, open_store("memory:", sweep=False), ())
    for number in range(5):
        stored.start(Context.create(f"u-{number}"), f"s-{number}")
    assert list(stored._keys) == ["s-3", "s-4"]
