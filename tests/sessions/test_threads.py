"""Sessions in threads: only where they are carried, and given back afterwards."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

import ldinstrument as ld
from ldinstrument.sessions.current import current_session, entered
from ldinstrument.testing import RecordingClient


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


def test_nobodys_session_is_carried_too(ld_events: RecordingClient) -> None:
    """What was prepared outside runs outside, whatever the thread has; that is given back."""
    carried = ld.propagate(current_session)
    with ld.session("u-1") as s:
        assert carried() is None
        assert current_session() is s


def test_what_is_carried_behaves_as_without(ld_events: RecordingClient) -> None:
    """Arguments, results and exceptions pass through, and the thread has its own afterwards."""

    def divide(one: int, *, by: int) -> float:
        """Divide."""
        return one / by

    with ld.session("u-1"):
        carried = ld.propagate(divide)
    assert carried(6, by=3) == 2
    assert (carried.__name__, carried.__doc__) == ("divide", "Divide.")
    with pytest.raises(ZeroDivisionError):
        carried(6, by=0)
    assert current_session() is None


def test_a_carried_coroutine_stays_one(ld_events: RecordingClient) -> None:
    """It runs in the session to its end, also when that was opened on another thread."""

    async def look() -> object:
        await asyncio.sleep(0)
        return current_session()

    with ld.session("u-1") as s:
        carried = ld.propagate(look)
    with entered(None):
        with ld.session("u-2", name="kept") as kept:
            carried_here = ld.propagate(look)
            assert asyncio.iscoroutinefunction(carried_here)
            assert asyncio.run(carried_here()) is kept  # type: ignore[arg-type]
    assert s.ended
    assert asyncio.run(carried()) is None  # type: ignore[arg-type]
