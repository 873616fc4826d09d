"""Runs: what extractors, blocks and contexts tell of them; each of these costs its own value only."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import AsyncGenerator, Callable, Generator
from decimal import Decimal
from typing import Any

import pytest
from ldclient import Context

import ldinstrument as ld
from ldinstrument.errors import StrictError
from ldinstrument.metrics.metric import Metric
from ldinstrument.sessions.current import current_session, set_current
from ldinstrument.sessions.registry import open_sessions
from ldinstrument.testing import RecordingClient, recording


def counts(session: ld.Session, key: str = "k") -> tuple[int, ...]:
    tasks = session.summary().tasks
    return tuple(int(number) for number in tuple(tasks[key])[:4]) if key in tasks else (0, 0, 0, 0)


def adds_up() -> bool:
    read = ld.stats()
    values, events = read.values, read.events
    return values.recorded == values.emitted + values.open + sum(
        values.discarded.values()
    ) and events.emitted == events.delivered + events.pending + events.unconfirmed + sum(
        events.dropped.values()
    )


# -- success ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (True, (1, 0, 0, 0)),
        (False, (0, 1, 0, 0)),
        ("yes", (1, 0, 0, 0)),
        (None, (0, 1, 0, 0)),
        (ld.Outcome.FAILURE, (0, 1, 0, 0)),
        (ld.Outcome.CANCELLED, (0, 0, 1, 0)),
        (ld.Outcome.ABANDONED, (0, 0, 0, 1)),
        (ld.Outcome.SUCCESS, (1, 0, 0, 0)),
    ],
    ids=repr,
)
def test_success_decides(told: Any, expected: tuple[int, ...]) -> None:
    """Truthy is a success, falsy a failure, an `Outcome` is taken as it is; for every kind of
    callable.
    """

    async def coroutine() -> int:
        return 3

    def items() -> Generator[int, None, int]:
        yield 1
        return 3

    heard: list[Any] = []
    decorate = ld.track_task("k", success=lambda result: (heard.append(result), told)[1])
    with ld.session("u") as s:
        assert decorate(_three)() == 3
        assert counts(s) == expected
        assert asyncio.run(ld.track_task("a", success=lambda result: told)(coroutine)()) == 3
        assert counts(s, "a") == expected
        assert list(ld.track_task("g", success=lambda result: told)(items)()) == [1]
        assert counts(s, "g") == expected
    assert heard == [3]


def _three() -> int:
    return 3


class Evil:
    """Raises whatever one asks of it."""

    def __bool__(self) -> bool:
        raise ValueError("no truth in me")

    def __repr__(self) -> str:
        raise ValueError("no name either")

    __str__ = __repr__


@pytest.mark.parametrize(
    "bad",
    [
        lambda result: 1 / 0,
        lambda result: Evil(),
        lambda result: (_ for _ in ()).throw(SystemExit(1)),
        lambda result: (_ for _ in ()).throw(GeneratorExit()),
        lambda wrong, arity: True,
        lambda result: _awaitable(),
    ],
    ids=["raises", "evil", "exits", "generator exit", "arity", "awaitable"],
)
def test_a_failing_extractor_costs_its_own_value(
    bad: Callable[..., Any], ld_events: RecordingClient
) -> None:
    """The host gets its result; duration and the other extractors are there; it is logged once and
    counted.
    """
    wrapped = ld.track_task(
        "k",
        success=bad,
        data=lambda result: {"n": result},
        record={"cart.size": lambda result: result, "odd": bad},
    )(_three)
    ld.catalog.add(Metric("cart.size", unit="items", success_criteria="HigherThanBaseline"))
    with ld.session("u"):
        assert wrapped() == 3
        assert wrapped() == 3
    assert ld_events.values("cart.size") == [3, 3]
    assert ld_events.values("k.success_rate") == [1.0, 1.0]
    assert [event.data for event in ld_events.of("k.duration")] == [{"n": 3}] * 2
    internal = [
        what
        for cause, what in ld.stats().warnings
        if cause == "host" and what.startswith("success=")
    ]
    assert internal == ["success= of task k"]


class _Awaitable:
    def __await__(self) -> Generator[Any, None, bool]:
        return iter(())  # type: ignore[return-value]


def _awaitable() -> Any:
    return _Awaitable()


def test_ctrl_c_during_an_extractor_is_the_users() -> None:
    """A KeyboardInterrupt is not a failure of the extractor."""

    def interrupted(result: Any) -> bool:
        raise KeyboardInterrupt

    with ld.session("u"), pytest.raises(KeyboardInterrupt):
        ld.track_task("k", success=interrupted)(_three)()


# -- expected --------------------------------------------------------------------------------------


class NotFound(Exception):
    pass


class ReallyNotFound(NotFound):
    pass


def test_expected_exceptions_are_successes() -> None:
    """They still come out; subclasses count, others fail."""
    error: BaseException | None = None

    @ld.track_task("k", expected=NotFound, success=lambda result: False)
    def work() -> None:
        assert error is not None
        raise error

    with ld.session("u") as s:
        for error, expected in (
            (NotFound(), (1, 0, 0, 0)),
            (ReallyNotFound(), (2, 0, 0, 0)),
            (KeyError(), (2, 1, 0, 0)),
        ):
            with pytest.raises(type(error)):
                work()
            assert counts(s) == expected


# -- data and record -------------------------------------------------------------------------------


def test_data_goes_with_the_events_of_its_run(ld_events: RecordingClient) -> None:
    """JSON types are copied at once; what is none costs itself; a failure has no data of the
    result.
    """
    told: dict[str, Any] = {"model": "small", "bad": object(), "list": [1]}

    @ld.track_task("k", data=lambda result: told)
    def work(fail: bool) -> None:
        if fail:
            raise KeyError

    with ld.session("u"):
        work(False)
        told["list"].append(2)
        with pytest.raises(KeyError):
            work(True)
    assert [event.data for event in ld_events.of("k.duration")] == [
        {"model": "small", "list": [1]},
        None,
    ]


@pytest.mark.parametrize("returned", [3, "text", [1]])
def test_data_that_is_no_mapping_is_said(returned: Any, ld_events: RecordingClient) -> None:
    """The event goes without it, and the log says what to give."""
    with ld.session("u"):
        ld.track_task("k", data=lambda result: returned)(_three)()
    assert ld_events.only("k.duration").data is None
    assert [(cause, subject.strip()) for cause, subject in ld.stats().warnings] == [
        ("bad_data", "k")
    ]


def test_record_feeds_metrics_of_every_kind(ld_events: RecordingClient) -> None:
    """Values, counts and occurrences, by key or by `Metric`; None and a False occurrence record
    nothing.
    """
    size = Metric(
        "cart.size", unit="items", success_criteria="HigherThanBaseline", aggregation="sum"
    )
    ld.catalog.add(
        Metric("cart.empty", measure="occurrence", success_criteria="LowerThanBaseline"),
        Metric("cart.hits", measure="count", success_criteria="HigherThanBaseline"),
        Metric("cart.price", unit="dollars", success_criteria="HigherThanBaseline"),
    )

    @ld.track_task(
        "k",
        record={
            size: len,
            "cart.empty": lambda r: not r,
            "cart.hits": len,
            "cart.price": lambda r: Decimal(len(r)) if r else None,
        },
    )
    def work(result: list[int]) -> list[int]:
        return result

    with ld.session("u"):
        for result in ([1, 2], []):
            work(result)
    assert ld_events.values("cart.size") == [2]
    assert len(ld_events.of("cart.empty")) == 1
    assert len(ld_events.of("cart.hits")) == 2
    assert ld_events.values("cart.price") == [2]
    assert adds_up()


@pytest.mark.parametrize("odd", [float("nan"), "12", object(), True])
def test_a_recorded_value_that_is_no_number(odd: Any, ld_events: RecordingClient) -> None:
    """It costs itself, is said once and counted, and never reaches an event."""
    ld.catalog.add(Metric("cart.price", unit="dollars", success_criteria="HigherThanBaseline"))
    with ld.session("u"):
        assert ld.track_task("k", record={"cart.price": lambda result: odd})(_three)() == 3
    assert ld_events.of("cart.price") == []
    assert len(ld_events.of("k.duration")) == 1
    assert ld.stats().values.discarded == {"not_a_number": 1}


# -- metrics ---------------------------------------------------------------------------------------


def test_metrics_selects(ld_events: RecordingClient) -> None:
    """Only what was asked for is emitted and declared."""
    ld.track_task("only.duration", metrics=("duration",))
    with ld.session("u"):
        ld.track_task("k", metrics="success_rate")(_three)()
    assert "only.duration.duration" in ld.catalog
    assert "only.duration.success_rate" not in ld.catalog
    assert [event.key for event in ld_events if event.key.startswith("k")] == ["k.success_rate"]


@pytest.mark.parametrize("how", ["finished", "abandoned", "collected", "failed"])
def test_time_to_the_first_item(
    how: str, monkeypatch: pytest.MonkeyPatch, ld_events: RecordingClient
) -> None:
    """Recorded as soon as it is known, however the stream ends; not before there is an item."""
    now = [0.0]
    monkeypatch.setattr("ldinstrument.tasks.runs.clock", lambda: now[0])

    @ld.track_task("k", metrics=("duration", "time_to_first_item"))
    def items() -> Generator[int, None, None]:
        now[0] += 2
        yield 1
        now[0] += 3
        if how == "failed":
            raise KeyError
        yield 2

    with ld.session("u"):
        generator = items()
        now[0] += 100
        next(generator)
        if how == "finished":
            list(generator)
        elif how == "abandoned":
            generator.close()
        elif how == "failed":
            with pytest.raises(KeyError):
                next(generator)
        del generator
        gc.collect()
        items()
    assert ld_events.values("k.time_to_first_item") == [2000]
    assert ld_events.values("k.duration") == ([5000] if how in ("finished", "failed") else [])


def test_time_to_the_first_item_of_an_async_stream(ld_events: RecordingClient) -> None:
    """The same for async generators, and with `context=` alone."""

    @ld.track_task("k", metrics=("time_to_first_item",), context="u-1")
    async def items() -> AsyncGenerator[int, None]:
        yield 1
        yield 2

    async def main() -> None:
        assert [item async for item in items()] == [1, 2]
        generator = items()
        await generator.__anext__()
        await generator.aclose()

    asyncio.run(main())
    ld.stats()
    assert len(ld_events.of("k.time_to_first_item")) == 2
    assert {event.context.key for event in ld_events} == {"u-1"}


# -- context ---------------------------------------------------------------------------------------


def test_context_makes_a_session_of_one_task(ld_events: RecordingClient) -> None:
    """Without a session: the run's own metrics for the right context, and no `session.*`; given the
    very arguments.
    """
    seen: list[Any] = []

    def who(*args: Any, **kwargs: Any) -> str:
        seen.append((args, kwargs))
        return str(args[0])

    @ld.track_interaction("k", context=who)
    def work(user: str, page: int = 1) -> None: ...

    @ld.track_task("a", context=who)
    async def awork(user: str, page: int = 1) -> None: ...

    @ld.track_task("g", context=who)
    def gwork(user: str, page: int = 1) -> Generator[int, None, None]:
        yield 1

    work("u-1")
    work("u-2", page=3)
    asyncio.run(awork("u-3"))
    assert list(gwork("u-4")) == [1]
    assert seen == [(("u-1",), {}), (("u-2",), {"page": 3}), (("u-3",), {}), (("u-4",), {})]
    assert ld_events.keys() == [
        *(f"{key}.{suffix}" for key in ("a", "g", "k") for suffix in ("duration", "success_rate")),
        "k.unfinished",
    ]
    assert [event.context.key for event in ld_events.of("k.duration")] == ["u-1", "u-2"]
    assert ld.stats().without_session == {}
    assert open_sessions() == []
    assert adds_up()


def test_inside_a_session_context_is_not_asked(ld_events: RecordingClient) -> None:
    """The session knows whose it is."""

    @ld.track_task("k", context=lambda: 1 / 0)
    def work() -> None: ...

    with ld.session("u-1"):
        work()
    assert ld_events.only("k.duration").context.key == "u-1"


def test_a_failing_context_extractor(ld_events: RecordingClient) -> None:
    """The call runs; its numbers are nobody's: dropped with the reason."""

    @ld.track_task("k", context=lambda: 1 / 0)
    def work() -> int:
        return 4

    assert work() == 4
    assert len(ld_events) == 0
    assert ld.stats().values.discarded == {"no_context": 2}


def test_a_limit_holds_outside_sessions(ld_events: RecordingClient) -> None:
    """`Metric(limit=)` is a token bucket per event key; what it withholds is counted."""
    ld.catalog.add(
        Metric(
            "limited.duration",
            unit="milliseconds",
            success_criteria="LowerThanBaseline",
            limit="2/h",
        ),
    )

    @ld.track_task("limited", metrics=("duration",), context=Context.create("u-1"))
    def work() -> None: ...

    for _ in range(5):
        work()
    assert len(ld_events.of("limited.duration")) == 2
    assert ld.stats().values.discarded == {"rate_limited": 3}
    assert adds_up()


# -- no session, disabled --------------------------------------------------------------------------


def test_disabled_is_inert(monkeypatch: pytest.MonkeyPatch, ld_events: RecordingClient) -> None:
    """`LDINSTRUMENT_DISABLED=1`: the code runs, no extractor of ours for contexts is asked, nothing
    is counted.
    """
    monkeypatch.setenv("LDINSTRUMENT_DISABLED", "1")
    asked: list[Any] = []

    @ld.track_task("k")
    def work() -> int:
        return 1

    @ld.track_task("o", context=asked.append)
    def other() -> int:
        return 1

    @ld.session(context=asked.append)
    def visit() -> int:
        return work()

    assert (work(), other(), visit()) == (1, 1, 1)
    with ld.session("u"):
        for _ in range(600):
            work()
    assert asked == []
    assert len(ld_events) == 0
    read = ld.stats()
    assert (read.values.recorded, dict(read.without_session), read.late) == (0, {}, 0)


def test_a_task_that_outlives_its_session(ld_events: RecordingClient) -> None:
    """Begun inside, ended after: it leaves at once as its own events, and counts as late."""

    @ld.track_task("k")
    def items() -> Generator[int, None, None]:
        yield 1
        yield 2

    with ld.session("u-1"):
        generator = items()
        next(generator)
        other = items()
        next(other)
    before = len(ld_events)
    assert list(generator) == [2]
    assert len(ld_events) == before + 2
    assert ld_events.only("k.success_rate").context.key == "u-1"
    other.close()
    read = ld.stats()
    assert read.late == 2
    assert len(ld_events) == before + 2
    assert adds_up()


def test_an_ended_session_is_not_current() -> None:
    """A session ended by hand inside its own block receives nothing more; the one around it
    does.
    """

    @ld.track_task("k")
    def work() -> None: ...

    with ld.session("u", name="outer") as outer, ld.session("v", name="inner") as inner:
        inner.end()
        work()
        assert (counts(outer), counts(inner)) == ((1, 0, 0, 0), (0, 0, 0, 0))
        outer.end()
        work()
    assert ld.stats().without_session == {"k": 1}
    assert current_session() is None
    set_current(None)


# -- blocks ----------------------------------------------------------------------------------------


def test_a_block_is_a_run(ld_events: RecordingClient) -> None:
    """`with` and `async with`; `fail()` and `add_data()` tell what no exception says."""

    async def main() -> None:
        async with ld.track_task("k") as task:
            task.add_data(step="async")

    with ld.session("u") as s:
        with ld.track_task("k") as task:
            task.fail("empty")
        with pytest.raises(KeyError), ld.track_task("k"):
            raise KeyError
        with pytest.raises(SystemExit), ld.track_task("k"):
            raise SystemExit(0)
        with pytest.raises(KeyboardInterrupt), ld.track_task("k"):
            raise KeyboardInterrupt
        asyncio.run(main())
        assert counts(s) == (2, 2, 1, 0)
        assert repr(task) == "<Run of k, over>"
    assert [event.data for event in ld_events.of("k.duration")] == [
        {"reason": "empty"},
        None,
        None,
        {"step": "async"},
    ]


# -- definition ------------------------------------------------------------------------------------


def test_strict_raises_after_the_host_has_its_own() -> None:
    """In strict tests a complaint is raised, but never in the place of the program's own
    exception.
    """

    @ld.track_task("k", record={"cart.undeclared": lambda result: 1})
    def work(fail: bool) -> None:
        if fail:
            raise KeyError("mine")

    with recording(strict=True), ld.session("u"):
        with pytest.raises(StrictError, match=r"cart\.undeclared"):
            work(False)
        with pytest.raises(KeyError, match="mine"):
            work(True)


def test_a_failing_run_that_we_cannot_even_note(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the limit of a recursion nothing of ours may work: the program's own exception comes out
    all the same.
    """

    @ld.track_task("k")
    def work() -> None:
        raise KeyError("mine")

    monkeypatch.setattr("ldinstrument.tasks.runs.Run", lambda *args: 1 / 0)
    monkeypatch.setattr("ldinstrument.diagnostics.log_internal_error", lambda *args: 1 / 0)
    with ld.session("u"), pytest.raises(KeyError, match="mine") as caught:
        work()
    assert caught.value.__context__ is None


def test_failures_of_ours_never_reach_the_host(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Even when the session itself breaks: the result comes back, the exception comes out, and it
    is logged once.
    """

    def broken(self: Any, entry: Any) -> None:
        raise RuntimeError("broken inside")

    @ld.track_task("k", data=lambda result: {})
    def work(fail: bool) -> int:
        if fail:
            raise KeyError("mine")
        return 3

    with ld.session("u"):
        monkeypatch.setattr(ld.Session, "append", broken)
        with caplog.at_level(logging.ERROR, "ldinstrument"):
            assert [work(False), work(False)] == [3, 3]
            with pytest.raises(KeyError, match="mine"):
                work(True)
        monkeypatch.undo()
    assert (
        len(
            [
                record
                for record in caplog.records
                if "ldinstrument bug in task" in record.getMessage()
            ]
        )
        == 1
    )


def test_a_reason_that_cannot_be_told_is_the_hosts_own_affair(ld_events: RecordingClient) -> None:
    """The run has failed all the same, and nothing comes out of `fail`."""
    with ld.session("u"), ld.track_task("k") as task:
        task.fail(Evil())  # type: ignore[arg-type]
    assert ld_events.values("k.success_rate") == [0.0]
