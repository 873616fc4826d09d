"""Sessions over many requests, reported to a local LaunchDarkly by the real SDK's connections, over
every store.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import threading
import time

import pytest
from ldclient import Context, LDClient
from ldclient.config import Config
from stores_builders import delta, end, in_child, tallies_of, until, visit

from ldinstrument import Metric, SessionMetricsTracker, catalog, session
from ldinstrument.delivery import Plugin
from ldinstrument.ledger import ledger
from ldinstrument.sessions.exposures import exposures
from ldinstrument.sessions.scopes import open_session
from ldinstrument.stores import (
    MemoryStore,
    Rules,
    SessionStore,
    SqliteStore,
    aend_request,
    end_request,
    end_session,
    session_store,
    sweep,
)
from ldinstrument.stores.protocol import today
from ldinstrument.stores.records import readable
from ldinstrument.testing import RecordingClient


def request(
    store, client, visitor, *, user="ana", success=True, money=None, score=None, name="session"
):
    opened = open_session(user, name=name, client=client)
    opened.interaction(success)
    if money is not None:
        opened.revenue(money, source="shop")
    if score is not None:
        opened.satisfaction(score)
    return end_request(opened, store, visitor)


def totals(ld, key="session.interactions"):
    return {event["data"]["sessionId"]: event for event in ld.custom_events(key)}


def test_a_visit_of_many_requests_is_reported_once(make_store, keep, ld, client):
    """Folded values and totals are one event each for the visit; values that do not fold left with
    their request.
    """
    store = keep(make_store(), client=client)

    refs = [
        request(store, client, "v-1", success=turn != 2, money=1.5, score=80) for turn in range(4)
    ]
    ended = end_session(store, "v-1")
    client.flush()
    report = sweep(store)

    assert len({ref.session_id for ref in refs}) == 1
    assert [ref.opened for ref in refs] == [True, False, False, False]
    assert ended is not None
    assert ended.session_id == refs[0].session_id
    assert (report.sessions, report.delivered, report.complete, report.error) == (1, 4, True, "")
    (event,) = ld.custom_events("session.interactions")
    assert event["metricValue"] == 4
    assert event["context"] == {"kind": "user", "key": "ana"}
    assert {
        key: event["data"][key] for key in ("successes", "failures", "endReason", "sessionId")
    } == {
        "successes": 3,
        "failures": 1,
        "endReason": "ended",
        "sessionId": refs[0].session_id,
    }
    assert [event["metricValue"] for event in ld.custom_events("session.success_rate")] == [75.0]
    (money,) = ld.custom_events("revenue.impact")
    assert (money["metricValue"], money["data"]) == (6.0, {"source": "shop"})
    ld.wait_for(lambda: len(ld.custom_events("user.satisfaction")) == 4)
    (duration,) = ld.custom_events("session.duration")
    assert 0 <= duration["metricValue"] < 60_000


def test_a_visit_is_over_when_it_has_been_silent_for_long_enough(make_store, keep, ld, client):
    """Its events are dated to then, however late the sweeper comes: whoever is exposed in the
    meantime counts. Its duration ends with the last activity.
    """
    store = keep(make_store(idle=60.0), client=client)
    now = time.time() * 1000

    store.merge("v-1", delta("s-1", context={"user": "ana"}, started_ago=75_000, last_ago=70_000))
    sweep(store)

    (duration,) = ld.custom_events("session.duration")
    assert duration["metricValue"] == 5000
    assert abs(duration["creationDate"] - (now - 10_000)) < 5_000
    assert duration["data"]["endReason"] == "idle"


def test_a_visit_lasts_from_the_beginning_of_its_first_request(make_store, keep, ld, client):
    """Not from its merge: what a request took is part of the visit."""
    store = keep(make_store(), client=client)
    opened = open_session("ana", client=client)
    opened._held.started -= 5.0  # the request began five seconds ago
    opened.interaction()

    end_request(opened, store, "v-1")
    end_session(store, "v-1")
    sweep(store)

    (duration,) = ld.custom_events("session.duration")
    assert 5000 <= duration["metricValue"] < 60_000


def test_silence_ends_a_session_and_the_next_one_knows_it(make_store, keep, ld, client):
    """Swept or not, a new activity after the idle time opens the next session with `previousId`."""
    store = keep(make_store(idle=0.05), client=client)

    first = request(store, client, "v-1")
    time.sleep(0.1)
    sweep(store)
    second = request(store, client, "v-1")
    time.sleep(0.1)
    third = request(store, client, "v-1")
    end_session(store, "v-1")
    sweep(store)

    assert second.previous_id == first.session_id
    assert third.previous_id == second.session_id
    found = totals(ld)
    assert set(found) == {first.session_id, second.session_id, third.session_id}
    assert "previousId" not in found[first.session_id]["data"]
    assert found[third.session_id]["data"]["previousId"] == second.session_id


def test_a_with_block_goes_on_in_the_store(make_store, keep, ld, client):
    """`session(..., store=, id=)`: each block adds to the conversation; its totals come once, at
    its end.
    """
    store = keep(make_store(), client=client)

    for turn in range(3):
        with session("ana", id="conv-9", store=store, client=client) as conversation:
            conversation.interaction(turn > 0)
            conversation.conversion(2.0)
        assert conversation.ended
    with session("ben", store=store, client=client) as unnamed:
        unnamed.interaction()
    assert ld.custom_events("session.interactions") == []
    assert end_session(store, "conv-9") is not None
    assert end_session(store, "ben") is not None  # the key of the context stands for who gave no id
    sweep(store)

    assert totals(ld)["conv-9"]["metricValue"] == 3
    assert totals(ld)[unnamed.id]["metricValue"] == 1
    assert [event["metricValue"] for event in ld.custom_events("business.conversion")] == [6.0]


def test_names_keep_apart(make_store, keep, ld, client):
    """A chat and a visit of the same visitor are two sessions with metrics of their own."""
    store = keep(make_store(), client=client)

    request(store, client, "v-1", name="chat")
    request(store, client, "v-1")
    request(store, client, "v-1")
    end_session(store, "v-1", name="chat")
    end_session(store, "v-1")
    sweep(store)

    assert [event["metricValue"] for event in ld.custom_events("chat.interactions")] == [1]
    assert [event["metricValue"] for event in ld.custom_events("session.interactions")] == [2]


def test_a_visitor_who_becomes_known_takes_along_what_came_before(make_store, keep, ld, client):
    """Requests before the login have no context: their folded values belong to whoever logs in."""
    store = keep(make_store(), client=client)

    request(store, client, "v-1", user=None, money=1.0)
    request(store, client, "v-1", user="ana", money=2.0)
    known = request(store, client, "v-1", user=None, money=4.0, score=90)
    end_session(store, "v-1")
    sweep(store)
    client.flush()

    assert known.stored
    (money,) = ld.custom_events("revenue.impact")
    assert (money["metricValue"], money["context"]["key"]) == (7.0, "ana")
    ld.wait_for(lambda: ld.custom_events("user.satisfaction"))
    assert ld.custom_events("user.satisfaction")[0]["context"]["key"] == "ana"


def test_a_session_of_nobody_is_dropped_and_counted(make_store, keep, ld, client):
    """Nothing can be reported for no context; the ledger says so."""
    store = keep(make_store(), client=client)

    request(store, client, "v-1", user=None, money=1.0)
    end_session(store, "v-1")
    report = sweep(store)

    assert (report.sessions, report.delivered, report.complete) == (1, 0, True)
    assert ld.custom_events() == []
    assert ledger.stats().events.dropped["no_context"] == 4
    assert store.holdings().ended == 0


def test_every_rollup_survives_the_store(make_store, keep, ld, client):
    """Sum, mean, last, once and each: one process or many, the same events."""
    store = keep(make_store(), client=client)
    with pytest.warns(UserWarning):
        gauge = Metric(
            "the.gauge", unit="points", success_criteria="HigherThanBaseline", rollup="last"
        )
        mean = Metric(
            "the.mean", unit="points", success_criteria="HigherThanBaseline", rollup="mean"
        )
    once = Metric("the.sight", measure="occurrence")
    clicks = Metric("the.clicks", measure="count")
    catalog.add(gauge, mean, once, clicks)

    for value in (3.0, 9.0, 6.0):
        with session("ana", id="conv-1", store=store, client=client) as stay:
            stay.record(gauge, value)
            stay.record(mean, value)
            stay.record(once)
            stay.record(clicks, 2)
        time.sleep(0.002)
    end_session(store, "conv-1")
    sweep(store)
    client.flush()

    assert [event["metricValue"] for event in ld.custom_events("the.gauge")] == [6.0]
    assert [event["metricValue"] for event in ld.custom_events("the.mean")] == [6.0]
    assert [event.get("metricValue") for event in ld.custom_events("the.sight")] == [None, None]
    ld.wait_for(lambda: len(ld.custom_events("the.clicks")) == 6)
    stats = ledger.stats()
    assert stats.values.recorded == stats.values.emitted + sum(stats.values.discarded.values())


def test_a_context_of_several_kinds_keeps_its_keys_and_nothing_else(make_store, keep, ld, client):
    """The store holds kind and key; attributes stay with the application."""
    raw = make_store()
    store = keep(raw, client=client)
    ana = Context.builder("ana").set("email", "secret@example.com").build()
    both = Context.create_multi(ana, Context.create("acme", "organization"))

    with session(both, id="conv-1", store=store, client=client) as stay:
        stay.interaction()
    text = end(raw, "session:conv-1", "ended")
    sweep(store)

    assert text is not None
    assert "secret" not in text
    (event,) = ld.custom_events("session.interactions")
    assert event["context"] == {
        "kind": "multi",
        "user": {"key": "ana"},
        "organization": {"key": "acme"},
    }


def test_a_request_ends_once_and_what_comes_late_leaves_at_once(make_store, keep, ld, client):
    """Ending a request twice merges once; what is recorded afterwards is its own event, counted as
    late.
    """
    store = keep(make_store(), client=client)
    opened = open_session("ana", client=client)
    opened.interaction()

    first = end_request(opened, store, "v-1")
    second = end_request(opened, store, "v-1")
    opened.revenue(5.0)
    end_session(store, "v-1")
    sweep(store)

    assert first.stored
    assert not second.stored
    assert totals(ld)[first.session_id]["metricValue"] == 1
    assert ledger.stats().late == 1


def test_an_event_loop_is_not_blocked(make_store, keep, ld, client):
    """`aend_request` does the same from a coroutine, on a thread."""
    store = keep(make_store(), client=client)

    async def serve(turn):
        opened = open_session("ana", client=client)
        opened.interaction()
        return await aend_request(opened, store, "v-1")

    async def main():
        return await asyncio.gather(*(serve(turn) for turn in range(5)))

    refs = asyncio.run(main())
    end_session(store, "v-1")
    sweep(store)

    assert len({ref.session_id for ref in refs}) == 1
    assert totals(ld)[refs[0].session_id]["metricValue"] == 5


def test_the_tracker_works_over_every_store(make_store, keep, ld, client):
    """The recipe's sessions, shared: any tracker over the store goes on with what another began."""
    store = keep(make_store(), client=client)
    here, there = SessionMetricsTracker(client, store), SessionMetricsTracker(client, store)

    here.start_session("ana", "s-1")
    there.track_interaction("s-1", True)
    here.track_interaction("s-1", False)
    there.start_session("ana", "s-1")
    here.track_interaction("unknown", True)
    summary = there.end_session("s-1")
    sweep(store)

    assert summary is not None
    assert set(summary) == {"user_id", "start_time", "interactions", "successful_tasks", "duration"}
    assert (summary["user_id"], summary["interactions"], summary["successful_tasks"]) == (
        "ana",
        2,
        1,
    )
    assert abs(summary["start_time"] - time.time()) < 60
    assert here.end_session("s-1") is None
    assert here.end_session("unknown") is None
    assert here.end_session(["odd"]) is None
    event = totals(ld)["s-1"]
    assert (event["metricValue"], event["context"]["key"]) == (2, "ana")
    (duration,) = ld.custom_events("session.duration")
    assert duration["metricValue"] == pytest.approx(summary["duration"] * 1000, abs=1)
    assert set(totals(ld)) == {"s-1"}


def test_the_tracker_ends_anothers_session_of_the_same_id(make_store, keep, ld, client):
    """A start for another user ends the first one's session, with its own numbers."""
    store = keep(make_store(), client=client)
    tracker = SessionMetricsTracker(client, store)

    tracker.start_session("ana", "s-1")
    tracker.track_interaction("s-1")
    tracker.start_session("ben", "s-1")
    tracker.end_session("s-1")
    sweep(store)

    found = {
        event["context"]["key"]: event["metricValue"]
        for event in ld.custom_events("session.interactions")
    }
    assert found == {"ana": 1, "ben": 0}


def test_an_end_under_a_clock_that_was_set_back_counts_for_who_was_exposed(
    make_store, keep, ld, client, monkeypatch
):
    """Exposed after the last request of the visit and before its end, which is dated after that."""
    store = keep(make_store(), client=client)
    ref = request(store, client, "v-1")
    request(store, client, "v-2", user="ben")
    time.sleep(0.01)
    date = exposures.note("flag", 1, Context.create("ana"), today())
    monkeypatch.setattr(session_store, "today", lambda: today() - 3_600_000)

    for visitor in ("v-1", "v-2"):
        end_session(store, visitor)
    sweep(store)

    found = totals(ld)
    assert found.pop(ref.session_id)["creationDate"] >= date
    (other,) = found.values()
    assert other["creationDate"] < date


def test_an_exposure_under_a_clock_that_was_set_back_comes_after_who_took_over(make_store, keep):
    """Also after somebody whom the visit belonged to before, and belongs to again."""
    store = keep(make_store(), sweep=False)
    for user in ("ana", "ben", "ana"):
        time.sleep(0.005)
        latest = delta(f"of-{user}", context={"user": user})
        store.merge("v-1", latest)
    set_back = today() - 3_600_000
    assert exposures.note("flag", 1, Context.create("ben"), set_back) > latest.now


def test_whose_sessions_are_is_remembered_within_a_bound(make_store, keep, client, monkeypatch):
    """Forgotten all at once, they end all the same."""
    monkeypatch.setattr(session_store, "MOST_KNOWN", 2)
    store = keep(make_store(), client=client)
    for number in range(5):
        request(store, client, f"v-{number}")
        assert len(store._whose) <= 2
    assert all(end_session(store, f"v-{number}") for number in range(5))
    assert not store._whose


def test_a_recording_client_gets_what_launchdarkly_would(make_store, keep):
    """A client without SDK configuration (tests) is handed the events by `track`."""
    recording = RecordingClient()
    store = keep(make_store(), client=recording)

    request(store, recording, "v-1", money=3.0)
    end_session(store, "v-1")
    report = sweep(store)

    assert report.complete
    assert recording.values("session.interactions") == [1]
    assert recording.values("revenue.impact") == [3.0]


def test_nothing_is_stored_when_disabled(make_store, keep, monkeypatch):
    """`LDINSTRUMENT_DISABLED` makes stores inert, too."""
    monkeypatch.setenv("LDINSTRUMENT_DISABLED", "1")
    store = keep(make_store())

    ref = request(store, None, "v-1")

    assert not ref.stored
    assert SessionMetricsTracker(None, store).end_session("v-1") is None
    assert store.holdings().open == 0


# -- life ------------------------------------------------------------------------------------------


def test_an_event_loop_never_waits_for_a_shared_store(keep):
    """`async with session(store=)` in a coroutine: the round trip is made on the sweeper's
    thread.
    """
    threads = []

    class Remote(MemoryStore):
        shared = True

        def merge(self, key, delta):
            threads.append(threading.current_thread().name)
            return super().merge(key, delta)

    raw = Remote(Rules())
    store = keep(raw, client=RecordingClient(), sweep=True, interval=60.0)

    async def main():
        async with session("ana", id="conv-1", store=store) as stay:
            stay.interaction()

    asyncio.run(main())
    until(lambda: store.waiting == 0 and raw.holdings().open)

    assert threads == ["ldinstrument.stores.sweeper"]
    assert tallies_of(readable(end(raw, "session:conv-1", "ended")))[0] == 1


def test_closing_reports_what_only_this_process_knows(keep, ld, client):
    """Sessions in memory end as abandoned at exit: counts, no duration or rate, which would be
    censored.
    """
    store = keep(MemoryStore(Rules()), client=client, sweep=True, interval=60.0)
    visit(store, money=2.5, client=client)

    store.close(timeout=60.0)
    store.close()

    keys = {event["key"]: event for event in ld.custom_events()}
    assert set(keys) == {"session.interactions", "revenue.impact"}
    assert keys["session.interactions"]["data"]["endReason"] == "abandoned"


def test_closing_leaves_a_shared_store_alone(keep, tmp_path, ld, client):
    """Other workers go on with its sessions."""
    store = keep(SqliteStore(tmp_path / "x.db"), client=client, sweep=True)
    visit(store, client=client)
    store.close(timeout=60.0)

    assert SqliteStore(tmp_path / "x.db").holdings().open == 1
    assert ld.custom_events("session.interactions") == []


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_fork_shares_the_store_and_nothing_else(make_store, keep):
    """A child merges into the same session (of a shared store) on a connection, a name and a thread
    of its own.
    """
    raw = make_store()
    store = keep(raw, client=RecordingClient(), sweep=True, interval=60.0)
    visit(store)
    worker = store._worker

    def child():
        inherited = store._sweeper is None
        ref = visit(store)
        return [
            inherited,
            ref.stored,
            ref.opened,
            store._worker != worker,
            store._sweeper is not None,
        ]

    sweeper = store._sweeper
    answers = in_child(child)
    after = visit(store)

    assert answers == [True, True, not raw.shared, True, True]
    assert after.stored
    assert store._sweeper is sweeper
    assert tallies_of(readable(end(raw, "session:v-1", "ended")))[0] == (3 if raw.shared else 2)


def _visit_in_child(url):
    """A worker of `multiprocessing` that keeps visits in memory, and returns."""
    client = LDClient(
        Config(
            "sdk-test",
            base_uri=url,
            events_uri=url,
            stream_uri=url,
            use_ldd=True,
            diagnostic_opt_out=True,
            plugins=[Plugin()],
        )
    )
    visit(SessionStore(MemoryStore(Rules()), client=client), client=client)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_of_multiprocessing_reports_what_only_it_knows(ld):
    """It leaves by `os._exit`, where no `atexit` runs: visits in memory are abandoned, not lost."""
    child = multiprocessing.get_context("fork").Process(target=_visit_in_child, args=(ld.url,))
    child.start()
    child.join(60)

    (event,) = ld.custom_events("session.interactions")
    assert (child.exitcode, event["data"]["endReason"]) == (0, "abandoned")
