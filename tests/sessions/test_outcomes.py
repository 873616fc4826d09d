"""Outcomes: which one each exception is, groups and closed streams included."""

from __future__ import annotations

import asyncio
import builtins
import concurrent.futures
import functools
import os
import signal
import sys
import time
from typing import Any

import pytest

import ldinstrument as ld
from ldinstrument.sessions.outcomes import (
    FINISHED,
    OUTCOMES,
    Outcome,
    added,
    current_task,
    is_cancelling,
    is_closing,
    outcome_of,
)
from ldinstrument.testing import RecordingClient


class CancelledError(Exception):
    """A business exception that happens to have this name."""


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (ValueError(), Outcome.FAILURE),
        (SystemExit(), Outcome.SUCCESS),
        (SystemExit(0), Outcome.SUCCESS),
        (SystemExit(1), Outcome.FAILURE),
        (KeyboardInterrupt(), Outcome.CANCELLED),
        (asyncio.CancelledError(), Outcome.CANCELLED),
        (concurrent.futures.CancelledError(), Outcome.CANCELLED),
        (CancelledError(), Outcome.FAILURE),
        (GeneratorExit(), Outcome.ABANDONED),
        (asyncio.TimeoutError(), Outcome.FAILURE),
    ],
    ids=repr,
)
def test_the_table(error: BaseException, outcome: Outcome) -> None:
    """By the kind of exception; a library's cancellation is told from a
    namesake.
    """
    assert outcome_of(error) is outcome


class Stopper:
    """What programs do about SIGTERM, as a bound method."""

    def stop(self, number: int, frame: object) -> None:
        sys.exit()


def _stop(number: int, frame: object) -> None:
    sys.exit(0)


@pytest.mark.parametrize(
    "handler",
    [_stop, Stopper().stop, functools.partial(_stop), lambda *_: sys.exit(0)],
    ids=["function", "method", "partial", "lambda"],
)
def test_a_run_that_a_signals_handler_ends_is_no_success(
    handler: Any, ld_events: RecordingClient
) -> None:
    """It hung, perhaps, until the program was stopped: unfinished, and so is its session."""
    before = signal.signal(signal.SIGTERM, handler)
    try:
        with (
            pytest.raises(SystemExit),
            ld.session("u-1", metrics=("unfinished",)),
            ld.track_interaction("hang"),
        ):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert ld_events.values("hang.unfinished") == [1]
    assert ld_events.values("hang.success_rate") == []
    assert ld_events.values("session.unfinished") == [1]


def test_another_exit_code_of_a_signals_handler_is_a_failure() -> None:
    """As a server says it that stops a worker because it does not answer."""
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)
    except SystemExit as error:
        assert outcome_of(error) is Outcome.FAILURE
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_generator_closed_by_a_cancelled_consumer() -> None:
    """What the consumer was handling when it closed the stream says why."""
    closing = GeneratorExit()
    closing.__context__ = asyncio.CancelledError()
    assert outcome_of(closing) is Outcome.CANCELLED
    looped = GeneratorExit()
    looped.__context__ = other = ValueError()
    other.__context__ = looped
    assert outcome_of(looped) is Outcome.ABANDONED


def _group(*members: BaseException) -> BaseException:
    home = builtins if sys.version_info >= (3, 11) else pytest.importorskip("exceptiongroup")
    group: BaseException = home.BaseExceptionGroup("several", members)
    return group


@pytest.mark.parametrize(
    ("members", "outcome"),
    [
        ((ValueError(), KeyError()), Outcome.FAILURE),
        ((asyncio.CancelledError(), KeyboardInterrupt()), Outcome.CANCELLED),
        ((asyncio.CancelledError(), ValueError()), Outcome.FAILURE),
        ((LookupError(), IndexError()), Outcome.SUCCESS),
        ((LookupError(), asyncio.CancelledError()), Outcome.CANCELLED),
        ((LookupError(), OSError()), Outcome.FAILURE),
    ],
    ids=repr,
)
def test_exception_groups(members: tuple[BaseException, ...], outcome: Outcome) -> None:
    """A group is as bad as the worst of its members, however deep; expected ones are successes."""
    expected = (LookupError,) if any(type(member) is LookupError for member in members) else ()
    assert outcome_of(_group(*members), expected) is outcome
    assert outcome_of(_group(_group(*members)), expected) is outcome


def test_an_exception_with_members_of_its_own_is_no_group() -> None:
    """Some libraries' errors carry a list called `exceptions`."""

    class RetryError(Exception):
        exceptions = (asyncio.CancelledError(),)

    assert outcome_of(RetryError()) is Outcome.FAILURE


def test_each_outcome_is_finished_unfinished_or_neither() -> None:
    """Suspended work goes on elsewhere."""
    assert {outcome for outcome in Outcome if outcome.finished} == FINISHED
    assert [outcome for outcome in Outcome if outcome.unfinished] == [
        Outcome.CANCELLED,
        Outcome.ABANDONED,
    ]
    assert not Outcome.SUSPENDED.finished
    assert set(OUTCOMES) == set(Outcome) - {Outcome.SUSPENDED}
    assert added((1, 2, 3, 4), (10, 20, 30, 40)) == (11, 22, 33, 44)


def test_an_expected_exception_is_a_success() -> None:
    """Whatever it is; a subclass, too."""
    assert outcome_of(KeyError(), (LookupError,)) is Outcome.SUCCESS
    assert outcome_of(KeyboardInterrupt(), (KeyboardInterrupt,)) is Outcome.SUCCESS
    assert outcome_of(OSError(), (LookupError,)) is Outcome.FAILURE


def test_closing_is_seen_in_what_was_being_handled() -> None:
    """An error out of a `finally` during a close counts; a loop in the chain ends."""
    error, close = ValueError(), GeneratorExit()
    assert not is_closing(error)
    assert is_closing(close)
    error.__context__ = close
    assert is_closing(error)
    one, other = ValueError(), ValueError()
    one.__context__, other.__context__ = other, one
    assert not is_closing(one)


def test_a_stream_closed_by_a_task_that_is_cancelled() -> None:
    """Outside asyncio nobody is cancelled."""
    seen: list[Any] = []

    async def main() -> None:
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            seen.append((outcome_of(GeneratorExit()), is_cancelling(current_task())))

    async def cancelled() -> None:
        task = asyncio.create_task(main())
        await asyncio.sleep(0)
        assert not is_cancelling(task)
        task.cancel()
        await task
        seen.append(is_cancelling(current_task()))

    asyncio.run(cancelled())
    here = sys.version_info >= (3, 11)  # before, a task only shows that it was cancelled
    assert seen[-1] is False
    if here:
        assert seen[0] == (Outcome.CANCELLED, True)
    assert (current_task(), is_cancelling(None)) == (None, False)
