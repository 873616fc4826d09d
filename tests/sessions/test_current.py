"""The current session, innermost and never one that has ended; and who entered a scope."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest
from session_values import USER

import ldinstrument as ld
from ldinstrument.sessions import current
from ldinstrument.sessions.current import (
    BlockScope,
    EntryStack,
    add_finder,
    current_session,
    entered,
    identify,
)
from ldinstrument.sessions.scopes import open_session
from ldinstrument.testing import RecordingClient


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


def test_a_session_is_current_only_where_it_is_entered(ld_events: RecordingClient) -> None:
    """Also nobody's: what was current before is current again, whatever came out."""
    opened = open_session("u-1")
    assert current_session() is None
    with pytest.raises(KeyError), entered(opened):
        with entered(None) as nobody:
            assert current_session() is nobody is None
        assert current_session() is opened
        raise KeyError
    assert current_session() is None
    opened.end()


def test_work_whose_session_has_ended_asks_for_another(
    ld_events: RecordingClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Finders are asked in turn, and only where a session was; each is added once."""
    monkeypatch.setattr(current, "_finders", [])
    ended, found = open_session("u-1"), open_session("u-2")
    ended.end()
    asked: list[str] = []

    def finds_nothing() -> None:
        asked.append("nothing")

    add_finder(finds_nothing)
    add_finder(finds_nothing)
    add_finder(lambda: found)
    assert current_session() is None
    assert asked == []
    with entered(ended):
        assert current_session() is found
    assert asked == ["nothing"]
    found.end()


def test_identify_names_whose_the_current_session_is(ld_events: RecordingClient) -> None:
    """Without a session it does nothing."""
    identify("u-1")
    with ld.session() as s:
        identify("u-1")
        assert s.context == USER


def on_a_thread(work: Callable[[], Any]) -> Any:
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(work()))
    thread.start()
    thread.join(20)
    return results[0]


def test_the_innermost_is_left_first() -> None:
    """And nothing is left where nothing was entered."""
    stack: EntryStack[str] = EntryStack()
    for name in "abc":
        stack.push(name)
    assert [stack.take() for _ in range(4)] == ["c", "b", "a", None]
    assert len(stack) == 0


def test_each_thread_leaves_its_own() -> None:
    """Also when another one entered later; who has nothing of its own takes what there is."""
    stack: EntryStack[str] = EntryStack()
    stack.push("mine")
    on_a_thread(lambda: stack.push("theirs"))
    assert stack.take() == "mine"
    assert stack.take() == "theirs"


def test_each_task_leaves_its_own() -> None:
    """Tasks of one thread that are inside at once."""
    stack: EntryStack[int] = EntryStack()

    async def visit(number: int) -> bool:
        stack.push(number)
        await asyncio.sleep(0)
        return stack.take() == number

    async def all_of_them() -> list[bool]:
        return await asyncio.gather(*(visit(number) for number in range(5)))

    assert asyncio.run(all_of_them()) == [True] * 5


def test_what_is_preferred_comes_first() -> None:
    """Of those entered here; else what was entered here; else of those entered elsewhere."""
    stack: EntryStack[str] = EntryStack()
    on_a_thread(lambda: (stack.push("theirs a"), stack.push("theirs b")))
    stack.push("mine a")
    stack.push("mine b")
    for expected in ("mine a", "mine b", "theirs a", "theirs b"):
        assert stack.take(lambda entered: entered.endswith("a")) == expected


def test_threads_at_once_lose_nothing() -> None:
    """Each entry is left once."""
    stack: EntryStack[int] = EntryStack()
    left: list[int | None] = []

    def visit(number: int) -> None:
        for _ in range(300):
            stack.push(number)
            left.append(stack.take())

    threads = [threading.Thread(target=visit, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(stack) == 0
    assert sorted(map(str, left)) == sorted(str(number) for number in range(4) for _ in range(300))


class Run:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.heard: list[Any] = []

    def resume(self) -> None:
        self.heard.append("resume")

    def pause(self) -> None:
        self.heard.append("pause")

    def returned(self, result: Any) -> None:
        self.heard.append(result)

    def raised(self, error: BaseException) -> None:
        self.heard.append(error)


class Scope(BlockScope[Run]):
    """A scope of such runs."""

    def begin(self) -> Run:
        return Run()


def test_a_block_is_one_run() -> None:
    """Entered again it is another one; an exception goes through, and ends its own."""
    scope, boom = Scope(), KeyError("boom")
    with pytest.raises(KeyError) as caught, scope as outer, scope as inner:
        raise boom
    assert caught.value is boom
    assert inner is not outer
    assert inner.heard == outer.heard == ["resume", "pause", boom]


def test_a_block_on_an_event_loop_is_one_run() -> None:
    """`async with` does the same."""
    scope = Scope()

    async def main() -> Run:
        async with scope as run:
            assert run.heard == ["resume"]
        return run

    assert asyncio.run(main()).heard == ["resume", "pause", None]


def test_leaving_what_was_not_entered_is_harmless() -> None:
    """A scope that is left twice has no run for the second time."""
    scope = Scope()
    scope.__exit__(None, None, None)
    assert scope.__enter__().heard == ["resume"]
