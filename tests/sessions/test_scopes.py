"""`session(...)`: blocks and decorated functions, what ends them, and what is refused."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import sys
import threading
import time
from collections.abc import Generator
from typing import Any

import pytest
from ldclient import Context
from session_values import USER

import ldinstrument as ld
from ldinstrument.errors import DefinitionError
from ldinstrument.sessions.current import current_session
from ldinstrument.testing import RecordingClient


def test_an_exception_passes_through_and_is_the_end_reason(ld_events: RecordingClient) -> None:
    """The host's exception is untouched."""
    boom = KeyError("boom")
    with pytest.raises(KeyError) as caught, ld.session("u-1"):
        raise boom

    assert caught.value is boom
    assert ld_events.only("session.duration").data["endReason"] == "error"


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
            go.wait(60)

    with scope as s:
        thread = threading.Thread(target=ld.propagate(background))
        thread.start()
        assert inside.wait(60)
    assert current_session() is None
    assert s.ended
    go.set()
    thread.join()

    assert len(ld_events.of("session.duration")) == 1


def test_one_scope_in_many_threads_at_once(ld_events: RecordingClient) -> None:
    """Each leaves the session that it opened, however their turns fall."""
    scope, wrong = ld.session("u-1"), []
    before = sys.getswitchinterval()

    def visits() -> None:
        for _ in range(300):
            with scope as mine:
                time.sleep(0)
                if current_session() is not mine or mine.ended:
                    wrong.append("inside")
            if current_session() is not None or not mine.ended:
                wrong.append("after")

    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=visits) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    finally:
        sys.setswitchinterval(before)
    assert wrong == []
    assert len(ld_events.of("session.duration")) == 1200


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


def test_a_failing_extractor_costs_identity_only(ld_events: RecordingClient) -> None:
    """The host's function runs and returns."""

    @ld.session(context=lambda: 1 / 0)
    def work() -> int:
        return 7

    assert work() == 7
    assert len(ld_events) == 0


def test_a_session_used_before_it_is_entered_says_so() -> None:
    """`with` is missing: the error says what to write."""
    with pytest.raises(
        AttributeError, match=r"enter it first, with session\(\.\.\.\) as s: s\.record"
    ):
        ld.session("u-1").record("area.a", 1)  # type: ignore[union-attr]
    assert not hasattr(ld.session("u-1"), "nothing_of_ours")


def test_a_session_left_open_inside_does_not_leak() -> None:
    """Whatever the body entered and forgot, the caller has its own session back."""
    forgotten: list[Any] = []

    @ld.session(context="u-1")
    def call() -> None:
        forgotten.append(ld.session("u-2", name="forgotten").__enter__())

    call()
    assert ld.current_session() is None
    with ld.session("u-3", name="mine") as mine:
        call()
        assert ld.current_session() is mine
    for session in forgotten:
        session.end()


def test_a_coroutine_that_ends_in_a_foreign_context() -> None:
    """It leaves alone what is current there."""

    class Once:
        def __await__(self) -> Generator[None, None, None]:
            yield

    @ld.session(context="u-1")
    async def visit() -> None:
        await Once()

    coroutine = visit()
    with ld.session("u-2", name="outer"):
        contextvars.copy_context().run(coroutine.send, None)
        elsewhere = contextvars.Context()
        with pytest.raises(StopIteration):
            elsewhere.run(coroutine.send, None)
        assert elsewhere.run(ld.current_session) is None
    assert ld.current_session() is None


def test_a_session_inside_the_body_of_a_decorated_generator(ld_events: RecordingClient) -> None:
    """A block that is open across a `yield` stays inside: the consumer never sees it."""

    @ld.session(context="u-1", name="visit")
    def items() -> Generator[Any, None, None]:
        with ld.session("u-2", name="inner") as inner:
            yield inner
            assert ld.current_session() is inner
        yield ld.current_session()

    with ld.session("u-3") as mine:
        generator = items()
        inner = next(generator)
        assert ld.current_session() is mine
        visit = next(generator)
        assert (inner.ended, visit.ended, visit.name) == (True, False, "visit")
        generator.close()
        assert ld.current_session() is mine
    assert ld_events.only("inner.duration").context.key == "u-2"
    assert ld_events.only("visit.duration").context.key == "u-1"


def test_a_scope_that_is_entered_in_two_contexts_is_left_in_each(
    ld_events: RecordingClient,
) -> None:
    """What is current where it is left is what ends, whoever entered last."""
    scope = ld.session(name="visit")
    one, other = contextvars.copy_context(), contextvars.copy_context()
    first, second = one.run(scope.__enter__), other.run(scope.__enter__)
    one.run(scope.__exit__, None, None, None)
    assert (first.ended, second.ended) == (True, False)
    assert other.run(current_session) is second
    other.run(scope.__exit__, None, None, None)
    assert second.ended


def test_a_stand_in_that_cannot_say_what_it_is_opens_a_session_of_nobody(
    ld_events: RecordingClient,
) -> None:
    """Frameworks' lazy objects compute `__class__`, and may fail in it."""

    class Lazy:
        @property
        def __class__(self) -> type:
            raise RuntimeError("the database is away")

    with ld.session(Lazy()) as opened:
        assert opened.context is None
        opened.identify("u-1")
        opened.conversion(3)
    assert [event.value for event in ld_events.of("business.conversion")] == [3]
