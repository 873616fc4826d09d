"""Runs that do not finish: `<key>.unfinished`, `unfinished="failure"`, and what is said without."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

import ldinstrument as ld
from ldinstrument.testing import RecordingClient


def values(events: RecordingClient, key: str) -> list[float]:
    """The values of a metric, smallest first: each event has its date, their order means nothing."""
    return sorted(float(value or 0) for value in events.values(key))


def left_and_read(stream: object) -> None:
    """Leave a tracked stream after its first item, and read another to its end."""
    assert callable(stream)
    items = stream()
    next(items)
    items.close()
    list(stream())


def numbers() -> Iterator[int]:
    yield 1
    yield 2


def test_an_interaction_says_how_many_were_given_up(ld_events: RecordingClient) -> None:
    """1 for what was left, 0 for what finished, failed runs included; duration and rate as ever."""
    stream = ld.track_interaction("answer")(numbers)

    @ld.track_interaction("other")
    def fail() -> None:
        raise KeyError

    with ld.session("u"):
        left_and_read(stream)
        with pytest.raises(KeyError):
            fail()
    assert values(ld_events, "answer.unfinished") == [0.0, 1.0]
    assert values(ld_events, "answer.success_rate") == [1.0]
    assert len(ld_events.of("answer.duration")) == 1
    assert values(ld_events, "other.unfinished") == [0.0]
    assert ld.catalog["answer.unfinished"].success_criteria == "LowerThanBaseline"
    assert ld.catalog["answer.unfinished"].zero_fill is False


def test_a_cancelled_coroutine_is_unfinished(ld_events: RecordingClient) -> None:
    """A program's own `wait_for` shows in the share."""

    @ld.track_interaction("slow")
    async def slow(seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def main() -> None:
        with ld.session("u"):
            await slow(0)
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(slow(60), 0.01)

    asyncio.run(main())
    assert values(ld_events, "slow.unfinished") == [0.0, 1.0]
    assert values(ld_events, "slow.success_rate") == [1.0]


def test_a_task_says_it_when_asked(ld_events: RecordingClient) -> None:
    """`metrics=` chooses; without it there is no such metric."""
    asked = ld.track_task("asked", metrics=("success_rate", "unfinished"))(numbers)
    plain = ld.track_task("plain")(numbers)
    with ld.session("u"):
        left_and_read(asked)
        left_and_read(plain)
    assert values(ld_events, "asked.unfinished") == [0.0, 1.0]
    assert "asked.duration" not in ld.catalog
    assert "plain.unfinished" not in ld.catalog
    assert dict(ld.stats().unfinished) == {"plain": 1}


def test_unfinished_may_be_a_failure(ld_events: RecordingClient) -> None:
    """In the rate of the task and of the session; how long it took nobody knows."""
    stream = ld.track_interaction("answer", unfinished="failure")(numbers)
    with ld.session("u") as s:
        left_and_read(stream)
        assert tuple(s.summary().tasks["answer"])[:4] == (1, 1, 0, 0)
    assert values(ld_events, "answer.success_rate") == [0.0, 1.0]
    assert values(ld_events, "answer.unfinished") == [0.0, 1.0]
    assert len(ld_events.of("answer.duration")) == 1
    assert ld_events.only("session.success_rate").value == 50
    assert ld.stats().values.open == 0


def test_more_than_a_few_that_no_metric_tells_are_said(caplog: pytest.LogCaptureFixture) -> None:
    """Once, with what to do; not for a single one of a thousand."""
    often, seldom = ld.track_task("often")(numbers), ld.track_task("seldom")(numbers)
    with ld.session("u"):
        for _ in range(20):
            left_and_read(often)
        for number in range(2000):
            items = seldom()
            next(items) if number % 200 == 0 else list(items)
    said = [
        record.message for record in caplog.records if "cancelled or abandoned" in record.message
    ]
    assert len(said) == 1
    assert "task 'often'" in said[0]
    assert "metrics=('success_rate', 'duration', 'unfinished')" in said[0]
    assert dict(ld.stats().unfinished) == {"often": 20, "seldom": 10}


def test_unfinished_runs_without_a_session_add_up() -> None:
    """They are worth the value that they would have had."""
    stream = ld.track_interaction("alone")(numbers)
    left_and_read(stream)
    values = ld.stats().values
    assert dict(ld.stats().without_session) == {"alone": 2}
    assert (values.recorded, dict(values.discarded)) == (4, {"no_session": 4})
