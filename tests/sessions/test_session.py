"""Sessions accumulate, then emit: for whom, when, how much, and never twice."""

from __future__ import annotations

import gc
import threading
import time

import pytest
from session_values import USER, adds_up, expose, value

import ldinstrument as ld
from ldinstrument.errors import StrictError
from ldinstrument.metrics import catalogs
from ldinstrument.metrics.metric import Metric
from ldinstrument.sessions import accumulator
from ldinstrument.sessions import session as sessions
from ldinstrument.sessions.accounts import SUMS
from ldinstrument.sessions.clock import clock
from ldinstrument.sessions.current import current_session
from ldinstrument.sessions.postponed import later
from ldinstrument.sessions.registry import open_sessions, stats
from ldinstrument.sessions.scopes import open_session
from ldinstrument.stores import open_store
from ldinstrument.testing import RecordingClient, strictly

# -- the three metrics -----------------------------------------------------------------------------


def test_a_session_that_is_given_nothing_is_one_all_the_same(ld_events: RecordingClient) -> None:
    """Its duration and its count of interactions leave, and it is counted as any other."""
    before = stats().sessions.get("session")
    began = time.perf_counter()
    with ld.session("u-1", id="s-1", data={"channel": "web"}) as s:
        time.sleep(0.02)
        s.add_data(status=200)
    whole = (time.perf_counter() - began) * 1000

    duration, interactions = ld_events.events
    assert (duration.key, interactions.key) == ("session.duration", "session.interactions")
    assert 20 <= duration.value <= whole
    assert interactions.value == 0
    assert duration.data == interactions.data
    assert {"channel": "web", "status": 200, "endReason": "ended"}.items() <= duration.data.items()
    assert stats().sessions["session"].ended == (before.ended if before else 0) + 1


def test_a_session_emits_its_three_metrics(ld_events: RecordingClient) -> None:
    """Duration in milliseconds, success rate in percent, interactions as a count, all with the
    session's data.
    """
    began = time.perf_counter()
    with ld.session("u-1", id="s-1", data={"channel": "web"}) as s:
        s.interaction()
        s.interaction(success=False)
        time.sleep(0.02)
        s.interaction()
    whole = (time.perf_counter() - began) * 1000

    duration = ld_events.only("session.duration")
    assert 20 <= duration.value <= whole
    assert ld_events.only("session.success_rate").value == pytest.approx(200 / 3)
    assert ld_events.only("session.interactions").value == 3
    assert duration.data == {
        "sessionId": "s-1",
        "interactions": 3,
        "successes": 2,
        "failures": 1,
        "cancelled": 0,
        "abandoned": 0,
        "endReason": "ended",
        "channel": "web",
    }
    assert duration.context == USER


def test_an_interaction_takes_an_outcome_as_it_is(ld_events: RecordingClient) -> None:
    """`Outcome.FAILURE` is a text, and as such true: it is no success all the same."""
    with ld.session("u-1") as s:
        for outcome in ld.Outcome:
            s.interaction(outcome)

    data = ld_events.only("session.interactions").data
    assert [1, 1, 1, 1] == [
        data[name] for name in ("successes", "failures", "cancelled", "abandoned")
    ]
    assert [50.0] == ld_events.values("session.success_rate")


def test_a_stopped_clock_dates_the_end(ld_events: RecordingClient) -> None:
    """What a background task records after the last byte counts, and prolongs nothing."""
    with ld.session("u-1") as s:
        began = clock()
        s.interaction(at=began)
        s.stopped_at = began + 0.25
        s.add_data(status=200)

    assert ld_events.only("session.duration").value == pytest.approx(250, abs=20)


def test_without_interactions_there_is_no_rate(ld_events: RecordingClient) -> None:
    """0 of 0 is no number."""
    with ld.session("u-1"):
        pass

    assert ["session.duration", "session.interactions"] == ld_events.keys()
    assert ld_events.only("session.interactions").value == 0


def test_another_name_prefixes_everything(ld_events: RecordingClient) -> None:
    """A chat is not a request; its metrics are in the catalog from the definition on."""
    with ld.session("u-1", name="chat") as s:
        s.interaction()

    assert ["chat.duration", "chat.interactions", "chat.success_rate"] == ld_events.keys()
    assert "chat.duration" in ld.catalog


def test_names_made_up_at_run_time_do_not_fill_the_catalog(
    ld_events: RecordingClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Beyond a limit, said once, nothing more is declared; what they record is counted and sent all
    the same.
    """
    monkeypatch.setattr(catalogs, "MAX_IMPLIED", 8)
    for n in range(5):
        with ld.session("u-1", name=f"chat-{n}"), ld.track_task(f"step.{n}"):
            pass
    with ld.session("u-1", name="chat-0"):
        pass

    assert len([metric for metric in ld.catalog if metric.key.startswith(("chat", "step"))]) == 8
    assert ["step.1"] == [record.message.partition(":")[0] for record in caplog.records]
    assert [1.0] * 5 == [
        value for n in range(5) for value in ld_events.values(f"step.{n}.success_rate")
    ]
    assert [2, 1, 1, 1, 1] == [len(ld_events.of(f"chat-{n}.duration")) for n in range(5)]
    assert adds_up()


def test_the_end_is_the_last_activity(ld_events: RecordingClient) -> None:
    """Idle time after the last activity does not count; a block that recorded nothing lasts as long
    as it lasted.
    """
    began = time.perf_counter()
    with ld.session("u-1") as s:
        s.interaction()
        time.sleep(0.1)
    whole = (time.perf_counter() - began) * 1000
    with ld.session("u-2"):
        time.sleep(0.05)

    first, second = ld_events.of("session.duration")
    assert first.value <= whole - 100
    assert second.value >= 50


def test_ending_twice_is_harmless(ld_events: RecordingClient) -> None:
    """Also end() inside the block, and from two threads at once."""
    with ld.session("u-1") as s:
        s.end()
        s.end()
        assert current_session() is None
    other = open_session("u-2")
    threads = [threading.Thread(target=other.end) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(ld_events.of("session.duration")) == 2
    assert adds_up()


def test_late_values_leave_at_once_and_are_counted(ld_events: RecordingClient) -> None:
    """Recorded through a held session, or by a task begun inside it."""
    ld.catalog.add(value("area.a"))
    with ld.session("u-1") as s:
        pass
    s.record("area.a", 3)

    assert [3] == ld_events.values("area.a")
    assert stats().late == 1
    assert adds_up()


@pytest.mark.parametrize("stored", [False, True])
def test_late_interactions_are_counted_and_change_no_rate(
    ld_events: RecordingClient, stored: bool
) -> None:
    """Those that end after their session, as in a background thread; the session is told once."""
    with (
        open_store("memory:", client=ld_events, sweep=False) as store,
        ld.session(
            "u-1", store=store if stored else None, metrics=("success_rate", *SUMS)
        ) as session,
    ):
        session.interaction(False)
    before = len(ld_events)
    for succeeded in (True, False):
        session.interaction(succeeded)

    late = [(event.key, event.value, event.data["endReason"]) for event in list(ld_events)[before:]]
    assert late == [
        ("session.interactions", 1, "late"),
        ("session.successes", 1, "late"),
        ("session.interactions", 1, "late"),
    ]
    assert ld_events.values("session.success_rate") == ([] if stored else [0])
    assert adds_up()


# -- recording -------------------------------------------------------------------------------------


def test_rollups_fold_as_declared(ld_events: RecordingClient) -> None:
    """Sum, occurrence, count, average, and the overrides."""
    with pytest.warns(UserWarning):
        ld.catalog.add(value("r.last", rollup="last"), value("r.mean", rollup="mean"))
    ld.catalog.add(
        value("r.sum", aggregation="sum"),
        value("r.each"),
        Metric("r.count", "count"),
        Metric("r.once", "occurrence"),
    )
    with ld.session("u-1") as s:
        for n in (1, 2, 3):
            for key in ("r.sum", "r.each", "r.last", "r.mean"):
                s.record(key, n)
            s.record("r.once")
        s.record("r.count", 3)
        s.record("r.count")
        s.record("r.count", 0)

    assert [6] == ld_events.values("r.sum")
    assert [1, 2, 3] == ld_events.values("r.each")
    assert [3] == ld_events.values("r.last")
    assert [2] == ld_events.values("r.mean")
    once = ld_events.values("r.once")  # one, or two of different dates
    assert once in ([None], [None, None])
    assert [None] * 4 == ld_events.values("r.count")
    assert adds_up()


def test_values_fold_only_with_equal_data(ld_events: RecordingClient) -> None:
    """Up to 16 groups; further ones travel unfolded, and nothing is lost."""
    ld.catalog.add(value("r.sum", aggregation="sum"))
    with ld.session("u-1") as s:
        for n in range(20):
            s.record("r.sum", 1, data={"group": n})
            s.record("r.sum", 1, data={"group": n})

    found = ld_events.of("r.sum")
    assert sum(event.value or 0 for event in found) == 40
    assert len(found) == 16 + 8
    assert [2] * 16 == sorted((event.value or 0 for event in found), reverse=True)[:16]


def test_data_is_copied_when_recorded(ld_events: RecordingClient) -> None:
    """A later change of the host's dict does not change the event."""
    ld.catalog.add(value("r.each"))
    data = {"n": 1, "deep": {"list": [1]}}
    with ld.session("u-1") as s:
        s.record("r.each", 1, data=data)
        data["n"] = 999
        data["deep"]["list"].append(2)  # type: ignore[index]

    assert ld_events.only("r.each").data == {"n": 1, "deep": {"list": [1]}}


def test_averages_are_bounded_and_sent_early(ld_events: RecordingClient) -> None:
    """A session of a million values holds only a few of them."""
    ld.catalog.add(value("r.each"))
    with ld.session("u-1") as s:
        for n in range(2000):
            s.record("r.each", n)
        assert len(ld_events.of("r.each")) >= 2000 - accumulator.FOLD_AT

    assert list(range(2000)) == ld_events.values("r.each")


def test_a_metric_given_as_object_is_declared(ld_events: RecordingClient) -> None:
    """Recording a Metric adds it to the catalog."""
    with ld.session("u-1") as s:
        s.record(value("r.new"), 5)

    assert "r.new" in ld.catalog
    assert [5] == ld_events.values("r.new")


def test_a_definition_replaced_meanwhile_changes_only_what_follows(
    ld_events: RecordingClient,
) -> None:
    """What was folded under the old definition leaves under it, and nothing is lost."""
    ld.catalog.add(value("r.sum", aggregation="sum"))
    with ld.session("u-1") as s:
        s.record("r.sum", 1)
        s.record("r.sum", 2)
        s.summary()
        ld.catalog.replace(value("r.sum"))
        s.record("r.sum", 4)
        s.record("r.sum", 8)

    assert [3, 4, 8] == ld_events.values("r.sum")
    assert adds_up()


def test_values_that_wait_for_an_identity_are_bounded(
    ld_events: RecordingClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The oldest are dropped, counted, and said once."""
    monkeypatch.setattr(accumulator, "MAX_WAITING", 5)
    monkeypatch.setattr(sessions, "FOLD_AT", 4)
    ld.catalog.add(value("r.each"))
    with ld.session() as s:
        for n in range(20):
            s.record("r.each", n)
        s.identify("u-1")

    assert [15, 16, 17, 18, 19] == ld_events.values("r.each")
    assert stats().values.discarded == {"no_context": 15}
    assert ["call identify()" in record.getMessage() for record in caplog.records] == [True]
    assert adds_up()


def test_what_is_active_inside_keeps_what_is_around_active(ld_events: RecordingClient) -> None:
    """A request lasts at least as long as the chat in it did."""
    with ld.session("u-1", name="request") as request:
        request.interaction()
        with ld.session(name="chat") as chat:
            time.sleep(0.02)
            chat.interaction()

    assert ld_events.only("request.duration").value >= 20


def test_a_wall_clock_set_back_dates_nothing_before_an_exposure(
    ld_events: RecordingClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The session's dates never run backwards, also not those of a session inside it."""
    dates: list[int | None] = []
    monkeypatch.setattr(
        RecordingClient,
        "track",
        lambda *_: dates.append(getattr(sessions.emission.current_event.emission, "at", None)),
    )
    real = time.time
    with ld.session("u-1") as s:
        expose("f", USER)
        exposed = int(real() * 1000)
        monkeypatch.setattr(time, "time", lambda: real() - 3600)
        expose("g", USER)
        s.revenue(1)
        with ld.session("u-2"):
            pass

    assert len(dates) == 5
    assert all(date is not None and date >= exposed for date in dates)


def test_an_occurrence_beside_a_mean_is_no_zero_in_it(ld_events: RecordingClient) -> None:
    """It travels as an event without a value, which numeric metrics ignore."""
    with pytest.warns(UserWarning):
        ld.catalog.add(value("r.mean", rollup="mean"))
    ld.catalog.add(Metric("r.seen", "occurrence", event_key="r.mean"))
    with ld.session("u-1") as s:
        s.record("r.mean", 10)
        s.record("r.seen")

    assert sorted(map(str, ld_events.values("r.mean"))) == ["10.0", "None"]


def test_totals_are_exact_under_contention(ld_events: RecordingClient) -> None:
    """Eight threads, one session, folds in between."""
    ld.catalog.add(value("r.sum", aggregation="sum"))
    with ld.session("u-1") as s:

        def work() -> None:
            for _ in range(2000):
                s.record("r.sum", 1)
                s.interaction()

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert s.summary().interactions == 16_000

    assert sum(event.value or 0 for event in ld_events.of("r.sum")) == 16_000
    assert adds_up()


def test_a_session_that_never_began_is_never_ended(ld_events: RecordingClient) -> None:
    """Where strict refuses what it is given."""
    with strictly():
        for given in ({"who": 7}, {"who": "u-1", "client": object()}):
            with pytest.raises(StrictError):
                sessions.Session(**given)
            gc.collect()
    assert not later
    assert open_sessions() == []
