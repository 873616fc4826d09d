"""Sessions accumulate, then emit: for whom, when, how much, and never twice."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest
from ldclient import Context

import ldinstrument as ld
from ldinstrument.clock import clock
from ldinstrument.errors import DefinitionError
from ldinstrument.metrics import catalogs
from ldinstrument.metrics.metric import Metric
from ldinstrument.sessions import accumulator, contexts, hook, registry
from ldinstrument.sessions import session as sessions
from ldinstrument.sessions.current import current_session, entered, open_session
from ldinstrument.sessions.registry import stats
from ldinstrument.testing import RecordingClient

USER = Context.create("u-1")


def value(key: str, **fields: object) -> Metric:
    return Metric(key, **{"unit": "items", "success_criteria": "HigherThanBaseline", **fields})  # type: ignore[arg-type]


def multi(**keys: str) -> Context:
    return Context.create_multi(*(Context.create(key, kind) for kind, key in keys.items()))


def expose(flag: str, context: Context = USER) -> None:
    """Expose *context* to *flag*, here and now."""
    hook.exposed(flag, 1, context, int(time.time() * 1000))


def keys(context: Context) -> dict[str, str]:
    """The keys of *context* by kind."""
    return contexts.keys_of(context)


def adds_up() -> bool:
    read = stats()
    values = read.values.recorded == read.values.emitted + read.values.open + sum(
        read.values.discarded.values()
    )
    events = (
        read.events.emitted
        == read.events.delivered
        + read.events.pending
        + read.events.unconfirmed
        + sum(read.events.dropped.values())
    )
    return values and events


# -- the three metrics -----------------------------------------------------------------------------


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
        s.stop_clock(began + 0.25)
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
    assert ["step.1"] == [one.message.partition(":")[0] for one in caplog.records]
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


def test_an_exception_passes_through_and_is_the_end_reason(ld_events: RecordingClient) -> None:
    """The host's exception is untouched."""
    boom = KeyError("boom")
    with pytest.raises(KeyError) as caught, ld.session("u-1"):
        raise boom

    assert caught.value is boom
    assert ld_events.only("session.duration").data["endReason"] == "error"


def test_late_values_leave_at_once_and_are_counted(ld_events: RecordingClient) -> None:
    """Recorded through a held session, or by a task begun inside it."""
    ld.catalog.add(value("area.a"))
    with ld.session("u-1") as s:
        pass
    s.record("area.a", 3)

    assert [3] == ld_events.values("area.a")
    assert stats().late == 1
    assert adds_up()


def test_a_dropped_session_is_abandoned(ld_events: RecordingClient) -> None:
    """Counts only: a duration or rate would be censored."""
    dropped = open_session("u-1")
    dropped.interaction()
    del dropped
    gc.collect()
    stats()

    assert ["session.interactions"] == ld_events.keys()
    assert ld_events.only("session.interactions").data["endReason"] == "abandoned"
    assert ld_events.only("session.interactions").value == 1


def test_a_session_that_is_open_at_exit_is_abandoned() -> None:
    """Also for a client that is none of ours, and before it is closed; nobody hears a word."""
    program = (
        "import atexit, ldinstrument as ld\n"
        "class Client:\n"
        "    def track(self, key, context, data=None, value=None):\n"
        "        print(key, value, data['endReason'])\n"
        "    def close(self): print('closed')\n"
        "client = Client()\n"
        "atexit.register(client.close)\n"
        "held = ld.session('u-1', client=client).__enter__()\n"
        "held.interaction()\n"
        "nobodys = ld.session(client=client).__enter__()\n"
        "nobodys.identify(5)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )

    assert done.stdout.splitlines() == ["session.interactions 1 abandoned", "closed"]
    assert done.stderr.count("\n") == 1  # of identify(5)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (None, "ended"),
        (SystemExit(0), "ended"),
        (SystemExit(2), "error"),
        (ValueError(), "error"),
        (KeyboardInterrupt(), "abandoned"),
        (asyncio.CancelledError(), "abandoned"),
    ],
    ids=repr,
)
def test_what_ends_a_block_is_its_end_reason(
    ld_events: RecordingClient, error: BaseException | None, reason: str
) -> None:
    """A block that was cancelled is abandoned: its duration and its rate would say nothing."""

    @ld.session("u-1")
    def call() -> None:
        if error is not None:
            raise error

    @ld.session("u-1")
    async def coroutine() -> None:
        call()

    for work in (call, lambda: coroutine().send(None)):
        ld_events.clear()
        with contextlib.suppress(StopIteration, *([type(error)] if error else [])):
            work()

        counted = ld_events.of("session.interactions")
        assert [event.data["endReason"] for event in counted] == [reason]
        assert len(ld_events.of("session.duration")) == (reason != "abandoned")


def test_open_sessions_are_capped(
    ld_events: RecordingClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The oldest is ended as abandoned, and counted."""
    monkeypatch.setattr(registry, "MAX_OPEN", 3)
    held = [open_session(f"u-{n}") for n in range(5)]

    assert [True, True, False, False, False] == [one.ended for one in held]
    assert stats().evicted_sessions == 2


# -- nesting ---------------------------------------------------------------------------------------


def test_the_same_name_and_context_joins(ld_events: RecordingClient) -> None:
    """Inner blocks are part of the outer session and do not end it."""
    with ld.session("u-1") as outer, ld.session("u-1") as inner:
        assert inner is outer
    with ld.session("u-1") as outer:
        with ld.session() as inner:
            assert inner is outer
        assert not outer.ended

    assert len(ld_events.of("session.duration")) == 2


def test_another_kind_of_context_is_somebody_else(ld_events: RecordingClient) -> None:
    """An organisation's session inside a user's is not the user's, though they contradict each
    other nowhere.
    """
    with ld.session("u-1") as outer, ld.session(Context.create("acme", "org")) as inner:
        assert inner is not outer

    assert {"u-1", "org:acme"} == {
        event.context.fully_qualified_key for event in ld_events.of("session.duration")
    }


def test_another_id_or_client_is_independent(ld_events: RecordingClient) -> None:
    """Two conversations of one user are two sessions, and so are the same ones at two clients."""
    other = RecordingClient()
    with ld.session("u-1", id="s-1") as outer:
        with ld.session("u-1", id="s-2") as inner:
            assert (inner is outer, inner.id) == (False, "s-2")
        with ld.session("u-1", id="s-1") as inner:
            assert inner is outer
        with ld.session("u-1", client=other) as inner:
            assert inner is not outer
        with (
            ld.session("u-1", client=other) as one,
            ld.session("u-1", client=other) as two,
            ld.session("u-1") as three,
        ):
            assert one is two is three is not outer

    assert len(ld_events.of("session.duration")) == 4


def test_another_name_or_context_is_independent(ld_events: RecordingClient) -> None:
    """The innermost receives; afterwards the outer is current again."""
    ld.catalog.add(value("area.a"))
    with ld.session("u-1") as outer:
        with ld.session("u-2") as inner:
            assert current_session() is inner
            inner.record("area.a", 1)
        with ld.session("u-1", name="chat") as chat:
            assert chat is not outer
        assert current_session() is outer

    assert ld_events.only("area.a").context.key == "u-2"


def test_a_nested_session_without_identity_is_of_the_outer_ones(ld_events: RecordingClient) -> None:
    """A chat inside a request belongs to the request's user."""
    with ld.session("u-1", name="request"), ld.session(name="chat"):
        pass

    assert ld_events.only("chat.duration").context == USER


def test_current_session_never_answers_an_ended_one(ld_events: RecordingClient) -> None:
    """An ended inner session falls back to the open outer one, then to None."""
    with ld.session("u-1") as outer:
        with ld.session("u-2") as inner:
            inner.end()
            assert current_session() is outer
        outer.end()
        assert current_session() is None


# -- forms -----------------------------------------------------------------------------------------


def test_it_decorates_every_kind_of_function(ld_events: RecordingClient) -> None:
    """Bare, called, with extractors; sync, async, generator, async generator."""

    @ld.session
    def bare() -> object:
        return current_session()

    @ld.session(context=lambda user, **_: user, name="job")
    def called(user: str, *, other: int = 0) -> str:
        return current_session().context.key  # type: ignore[union-attr]

    @ld.session("u-3")
    async def coroutine() -> str:
        await asyncio.sleep(0)
        return current_session().context.key  # type: ignore[union-attr]

    @ld.session(context=lambda n: f"g-{n}")
    def generator(n: int):  # type: ignore[no-untyped-def]
        yield current_session().context.key
        yield current_session().context.key

    @ld.session("u-5")
    async def agenerator():  # type: ignore[no-untyped-def]
        yield current_session().context.key

    async def drained() -> list[str]:
        return [item async for item in agenerator()]

    assert isinstance(bare(), ld.Session)
    assert called("u-2", other=1) == "u-2"
    assert asyncio.run(coroutine()) == "u-3"
    seen = []
    for key in generator(4):
        assert current_session() is None
        seen.append(key)
    assert seen == ["g-4", "g-4"]
    assert asyncio.run(drained()) == ["u-5"]
    assert current_session() is None
    assert {"u-2", "u-3", "g-4", "u-5"} == {event.context.key for event in ld_events}
    assert asyncio.iscoroutinefunction(coroutine)


def test_async_with_and_reuse(ld_events: RecordingClient) -> None:
    """One scope object may be entered again, and by many tasks at once."""
    scope = ld.session("u-1")

    async def visit(n: int) -> str:
        async with scope as s:
            await asyncio.sleep(0.001 * (5 - n))
            assert current_session() is s
            return s.id

    async def all_of_them() -> list[str]:
        return await asyncio.gather(*(visit(n) for n in range(5)))

    ids = asyncio.run(all_of_them())
    assert len(set(ids)) == 5
    assert sorted(ids) == sorted(
        event.data["sessionId"] for event in ld_events.of("session.duration")
    )


def test_bad_definitions_are_refused_where_they_are_written() -> None:
    """A name that cannot prefix a metric, two contexts, a class."""
    with pytest.raises(DefinitionError, match="session name"):
        ld.session("u-1", name="no spaces")
    with pytest.raises(DefinitionError, match="once"):
        ld.session("u-1", context="u-2")
    with pytest.raises(DefinitionError, match="context=lambda"):
        ld.session(lambda request: request.user_id)
    with pytest.raises(DefinitionError, match="class"):
        ld.session()(type("Some", (), {}))


def test_a_scope_shared_with_a_background_thread_leaks_nothing(ld_events: RecordingClient) -> None:
    """Who leaves first leaves its own stay: the thread that opened the session ends it."""
    scope, inside, go = ld.session("u-1"), threading.Event(), threading.Event()

    def background() -> None:
        with scope:
            inside.set()
            go.wait(10)

    with scope as s:
        thread = threading.Thread(target=ld.propagate(background))
        thread.start()
        assert inside.wait(10)
    assert current_session() is None
    assert s.ended
    go.set()
    thread.join()

    assert len(ld_events.of("session.duration")) == 1


def test_joining_brings_what_the_inner_block_knows(ld_events: RecordingClient) -> None:
    """A further kind widens the identity; the inner data joins the outer's."""
    inner = Context.create_multi(USER, Context.create("acme", "org"))
    with (
        ld.session("u-1") as outer,
        ld.session(inner, data={"step": "pay", "odd key": 1}) as joined,
    ):
        assert joined is outer

    event = ld_events.only("session.duration")
    assert {"user", "org"} == set(event.context.to_dict()) - {"kind"}
    assert (event.data["step"], event.data["odd key"]) == ("pay", 1)


@pytest.mark.parametrize("store", ["sqlite:///x.db", 5, object()])
def test_what_is_no_store_is_refused_at_definition(store: object) -> None:
    """With what to write instead."""
    with pytest.raises(DefinitionError, match="open_store"):
        ld.session("u-1", store=store)


# -- identity --------------------------------------------------------------------------------------


def test_late_identity(ld_events: RecordingClient) -> None:
    """What was recorded before anybody was known belongs to whom identify() names."""
    ld.catalog.add(value("area.a"))
    with ld.session() as s:
        s.record("area.a", 1)
        s.identify("u-1")

    assert {"u-1"} == {event.context.key for event in ld_events}
    assert [1] == ld_events.values("area.a")


def test_another_key_emits_what_was_recorded_under_the_old_one(ld_events: RecordingClient) -> None:
    """Login: the visitor's sum is the visitor's, the user's the user's."""
    ld.catalog.add(value("area.sum", aggregation="sum"))
    with ld.session("visitor") as s:
        s.record("area.sum", 1)
        s.identify("u-1")
        s.record("area.sum", 10)

    assert [("visitor", 1), ("u-1", 10)] == [
        (event.context.key, event.value) for event in ld_events.of("area.sum")
    ]


def test_an_inherited_identity_is_emitted_before_another_takes_over(
    ld_events: RecordingClient,
) -> None:
    """A chat without identity of its own was the request's user's until it says otherwise."""
    ld.catalog.add(value("area.sum", aggregation="sum"))
    with ld.session("visitor", name="request"), ld.session(name="chat") as s:
        s.record("area.sum", 1)
        s.identify("u-1")
        s.record("area.sum", 10)

    assert [("visitor", 1), ("u-1", 10)] == [
        (event.context.key, event.value) for event in ld_events.of("area.sum")
    ]


def test_another_kind_widens(ld_events: RecordingClient) -> None:
    """Identifying a kind that was not known yet loses nothing."""
    with ld.session("u-1") as s:
        s.identify(Context.create("acme", "org"))

    assert {"user", "org"} == set(ld_events.only("session.duration").context.to_dict()) - {"kind"}


def test_no_identity_at_the_end_is_counted(ld_events: RecordingClient) -> None:
    """Dropped with its reason; said once; nothing raised."""
    with ld.session() as s:
        s.interaction()

    assert len(ld_events) == 0
    assert stats().values.discarded == {"no_context": 3}
    assert adds_up()


def test_a_session_that_ended_before_its_request_was_known(ld_events: RecordingClient) -> None:
    """A chat in a request whose login comes later is that user's; nobody else's client gets it."""
    other = RecordingClient()
    with ld.session(name="request") as request:
        with ld.session(name="chat") as chat:
            chat.revenue(1)
            with ld.session(name="step"):
                pass
        chat.revenue(2)
        with ld.session(name="elsewhere", client=other):
            pass
        assert len(ld_events) == 0
        request.identify("u-1")

    assert {"u-1"} == {event.context.key for event in ld_events}
    assert {"request.duration", "chat.duration", "step.duration", "revenue.impact"} <= set(
        ld_events.keys()
    )
    assert sorted(value or 0 for value in ld_events.values("revenue.impact")) == [1, 2]
    assert stats().values.discarded == {"no_context": 2}
    assert adds_up()


def test_exposures_give_identity_and_evaluations_do_not(ld_events: RecordingClient) -> None:
    """A session without identity adopts an exposure's context; one that shares a kind and agrees
    widens it; another user's, and one of another kind, change nothing.
    """
    with ld.session() as s:
        s.see_exposure(multi(user="u-1", request="r-1"))
        s.see_exposure(Context.create("u-2"))
        s.see_exposure(Context.create("acme", "org"))
    with ld.session("u-9") as t:
        t.see_exposure(Context.builder("u-9").set("plan", "pro").build())
        t.see_exposure(Context.create("u-1"))

    first, second = ld_events.of("session.duration")
    assert {"user": "u-1", "request": "r-1"} == keys(first.context)
    assert second.context.get("plan") == "pro"


def test_the_items_of_a_list_do_not_label_the_session(ld_events: RecordingClient) -> None:
    """A flag that is evaluated for each item shows nobody's session."""
    with ld.session("u-1") as s:
        for n in range(3):
            expose("item-flag", Context.create(f"item-{n}", "item"))
            s.record(value("r.shown"), n)

    assert [{"user": "u-1"}] * 3 == [keys(event.context) for event in ld_events.of("r.shown")]


def test_a_fresh_request_beside_a_steady_user_is_one_session(ld_events: RecordingClient) -> None:
    """Each value carries the request that it was recorded in; the user's account goes on."""
    with ld.session("u-1") as s:
        for n in range(4):
            expose("flag", multi(user="u-1", request=f"r-{n}"))
            s.record(value("r.each"), n)
            s.interaction()

    assert [{"user": "u-1", "request": f"r-{n}"} for n in range(4)] == [
        keys(event.context) for event in ld_events.of("r.each")
    ]
    totals = ld_events.of("session.success_rate")
    users = [event for event in totals if "user" in keys(event.context)]
    assert [4] == [event.data["interactions"] for event in users]
    assert {f"r-{n}" for n in range(1, 4)} <= {
        keys(event.context).get("request") for event in totals
    }
    reasons = [event.data["endReason"] for event in totals if keys(event.context).get("request")]
    assert sorted(reasons) == ["ended", "identified", "identified", "identified"]


def test_a_bare_exposure_never_replaces_a_richer_identity(ld_events: RecordingClient) -> None:
    """LaunchDarkly would forget the attributes."""
    with ld.session(Context.builder("u-1").name("Ana").build()) as s:
        s.see_exposure(Context.create("u-1"))

    assert ld_events.only("session.duration").context.name == "Ana"


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


def test_no_fold_crosses_an_exposure(ld_events: RecordingClient) -> None:
    """Before a flag's first evaluation the session emits what it holds; the second evaluation
    changes nothing.
    """
    ld.catalog.add(value("r.sum", aggregation="sum"))
    with ld.session("u-1") as s:
        s.record("r.sum", 1)
        expose("flag", USER)
        s.record("r.sum", 2)
        expose("flag", USER)
        s.record("r.sum", 4)

    assert [1, 6] == ld_events.values("r.sum")


@pytest.mark.parametrize("times", [1, 3])
def test_an_exposure_in_a_session_joined_again_is_seen_by_the_one_in_between(
    ld_events: RecordingClient, times: int
) -> None:
    """A request, a chat in it, and a block of the request again: what the chat holds does not cross
    its exposure.
    """
    ld.catalog.add(value("r.sum", aggregation="sum"))
    with ld.session("u-1", name="request"), ld.session(name="chat") as chat:
        chat.record("r.sum", 1)
        for n in range(times):
            with ld.session("u-1", name="request") as request:
                assert request is chat.outer
                expose(f"flag-{n}")
            chat.record("r.sum", 2)

    assert [1, *[2] * times] == ld_events.values("r.sum")


def test_a_fold_without_identity_does_not_cross_an_exposure_either(
    ld_events: RecordingClient,
) -> None:
    """It waits for the identity that the exposure brings, apart from what comes after."""
    ld.catalog.add(value("r.sum", aggregation="sum"))
    with ld.session() as s:
        s.record("r.sum", 1)
        expose("flag", USER)
        s.see_exposure(USER)
        s.record("r.sum", 2)

    assert [1, 2] == ld_events.values("r.sum")


def test_a_flag_seen_with_somebody_else_is_still_to_be_seen(ld_events: RecordingClient) -> None:
    """The exposure is of a flag and a context; a login makes every flag unseen."""
    ld.catalog.add(value("r.sum", aggregation="sum"))
    with ld.session("u-1") as s:
        expose("flag", Context.create("other"))
        s.record("r.sum", 1)
        expose("flag", USER)
        s.record("r.sum", 2)
        s.identify("u-2")
        s.record("r.sum", 4)
        expose("flag", Context.create("u-2"))
        s.record("r.sum", 8)

    assert [1, 2, 4, 8] == ld_events.values("r.sum")


def test_an_evaluation_for_somebody_else_breaks_no_fold(ld_events: RecordingClient) -> None:
    """An administrator's session that looks at a customer's flags is not exposed to them."""
    ld.catalog.add(value("r.sum", aggregation="sum"))
    with ld.session("u-1") as s:
        s.record("r.sum", 1)
        expose("flag", Context.create("other"))
        s.record("r.sum", 2)

    assert [3] == ld_events.values("r.sum")


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
    assert ["call identify()" in one.getMessage() for one in caplog.records] == [True]
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


def test_a_request_around_a_chat_learns_who_it_is(ld_events: RecordingClient) -> None:
    """An exposure inside the innermost session identifies those around it that know nobody; an
    explicit one shields.
    """
    with ld.session(name="request"), ld.session(name="chat"):
        expose("flag")
    with ld.session(name="job"), ld.session("u-2", name="chat"):
        expose("flag", Context.create("u-2"))

    assert {"request.duration", "chat.duration"} <= set(ld_events.keys())
    assert "job.duration" not in set(ld_events.keys())


def test_an_heir_keeps_what_it_recorded_under_the_old_identity(ld_events: RecordingClient) -> None:
    """A login in the request around a chat does not rewrite the chat's past."""
    ld.catalog.add(value("r.sum", aggregation="sum"))
    with ld.session("visitor", name="request") as request, ld.session(name="chat") as chat:
        chat.record("r.sum", 1)
        request.identify("u-1")
        chat.record("r.sum", 2)

    assert [("visitor", 1), ("u-1", 2)] == [
        (event.context.key, event.value) for event in ld_events.of("r.sum")
    ]


def test_learning_who_it_is_is_no_activity(ld_events: RecordingClient) -> None:
    """A session that is identified at its start and records nothing lasts as long as its block."""
    with ld.session() as s:
        s.identify("u-1")
        time.sleep(0.03)

    assert ld_events.only("session.duration").value >= 30


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


def test_summary_is_frozen_and_complete(ld_events: RecordingClient) -> None:
    """What DESIGN section 4 promises."""
    with ld.session("u-1") as s:
        with ld.track_task("area.work"):
            pass
        s.interaction()
        s.interaction(False)
        seen = s.summary()

    assert (seen.interactions, seen.successes, seen.failures, seen.success_rate) == (2, 1, 1, 50.0)
    successes, failures, cancelled, abandoned, duration = seen.tasks["area.work"]
    assert (successes, failures, cancelled, abandoned) == (1, 0, 0, 0)
    assert duration >= 0
    with pytest.raises(AttributeError):
        seen.successes = 9  # type: ignore[misc]


def test_a_decorator_on_an_inner_function_changes_nothing_of_the_rate(
    ld_events: RecordingClient,
) -> None:
    """Tasks are not interactions."""

    @ld.track_task("area.inner")
    def inner() -> None:
        raise ValueError

    @ld.track_interaction("area.outer")
    def outer() -> None:
        with pytest.raises(ValueError):
            inner()

    with ld.session("u-1"):
        outer()

    assert [100.0] == ld_events.values("session.success_rate")
    assert [0.0] == ld_events.values("area.inner.success_rate")


def test_a_task_outlives_a_cleared_catalog(ld_events: RecordingClient) -> None:
    """`testing.reset()` between tests must not turn the numbers of module-level tasks into events
    without value.
    """

    @ld.track_task("area.kept")
    def kept() -> None:
        pass

    ld.catalog.clear()
    with ld.session("u-1"):
        kept()

    assert [1.0] == ld_events.values("area.kept.success_rate")
    assert "area.kept.duration" in ld.catalog


# -- where it runs ---------------------------------------------------------------------------------


def test_threads_see_a_session_only_when_carried(ld_events: RecordingClient) -> None:
    """`asyncio.to_thread` inherits; a plain thread does not; `propagate` carries."""
    seen: list[object] = []

    def look() -> None:
        seen.append(current_session())

    with ld.session("u-1") as s:
        for target in (look, ld.propagate(look)):
            thread = threading.Thread(target=target)
            thread.start()
            thread.join()
        asyncio.run(asyncio.to_thread(look))  # type: ignore[arg-type]

    assert [None, s, s] == seen


def test_a_carried_generator_keeps_the_session_that_its_body_is_in(
    ld_events: RecordingClient,
) -> None:
    """Between its items the thread has its own back; in it, the block that is open across them goes
    on.
    """

    def items() -> Iterator[object]:
        yield current_session()
        with ld.session("u-2", name="inner"):
            yield current_session()
            yield current_session()
        yield current_session()

    seen = []
    with ld.session("u-1") as s, entered(None):
        with entered(s):
            carried = ld.propagate(items)
        for item in carried():
            assert current_session() is None
            seen.append(item)

    first, inner, again, last = seen
    assert first is last is s
    assert isinstance(inner, ld.Session)
    assert inner is again
    assert (inner.name, inner.outer) == ("inner", s)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("locked", ["ledger", "catalog"])
def test_a_fork_while_another_thread_holds_a_lock_hangs_nobody(locked: str) -> None:
    """The child gets locks of its own; the thread that held them is not in it."""
    lock = {"ledger": sessions.ledger.lock, "catalog": ld.catalog._lock}[locked]
    held, release = threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            held.set()
            release.wait(2)  # delivery, where it is loaded, waits for the ledger before it forks

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(10)
    child = os.fork()
    if child == 0:
        stats()
        ld.catalog.add(value("area.child"))
        os._exit(7)
    release.set()
    thread.join()
    deadline = time.monotonic() + 20
    while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0) and time.monotonic() < deadline:
        time.sleep(0.01)
    if ended == (0, 0):
        os.kill(child, 9)
        os.waitpid(child, 0)
    assert ended != (0, 0)
    assert os.waitstatus_to_exitcode(ended[1]) == 7


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_child_leaves_the_parents_values_to_the_parent(ld_events: RecordingClient) -> None:
    """The child's copy of an open session emits only what the child recorded."""
    ld.catalog.add(value("r.sum", aggregation="sum"))
    reader, writer = os.pipe()
    with ld.session("u-1") as s:
        s.record("r.sum", 1)
        child = os.fork()
        if child == 0:
            ld_events.clear()
            s.record("r.sum", 10)
            s.end()
            os.write(writer, repr([(event.key, event.value) for event in ld_events]).encode())
            os._exit(0)
        os.waitpid(child, 0)
    os.close(writer)
    with os.fdopen(reader) as answer:
        assert answer.read() == "[('r.sum', 10)]"
    assert [1] == ld_events.values("r.sum")


def test_disabled_makes_everything_inert(
    ld_events: RecordingClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LDINSTRUMENT_DISABLED=1: everything works, nothing is recorded, sent, counted or said."""
    monkeypatch.setenv("LDINSTRUMENT_DISABLED", "1")

    @ld.track_task("area.work")
    def work() -> int:
        return 7

    with ld.session("u-1") as s:
        s.record("nobody.declared", float("nan"))
        s.conversion("x")
        s.identify("u-2")
        s.add_data(step=1)
        expose("flag", USER)
        s.see_exposure(USER)
        assert work() == 7
        assert s.summary().tasks == {}
    work()
    ld.track_revenue(3)

    assert len(ld_events) == 0
    assert stats().values.recorded == 0
    assert stats().warnings == {}
