"""Followers: coroutines, generators, iterators, futures and calls, watched to their end."""

from __future__ import annotations

import asyncio
import gc
import importlib
import itertools
import types
from collections.abc import AsyncGenerator, Callable, Generator, Iterator
from typing import Any

import pytest
from heard import Heard

import ldinstrument as ld
from ldinstrument.callables.compiler import shaped
from ldinstrument.callables.followers import (
    WatchedAsyncIterator,
    WatchedIterator,
    async_generator,
    future,
    generator,
    holders,
    holders_when_fresh,
    is_lazy_iterator_type,
    is_owned,
    lazy_iterator,
    rpc,
)
from ldinstrument.callables.templates import CALL, TASK_CALL


def counts(session: ld.Session, key: str = "k") -> tuple[int, ...]:
    tasks = session.summary().tasks
    return tuple(int(number) for number in tuple(tasks[key])[:4]) if key in tasks else (0, 0, 0, 0)


def letters() -> Iterator[str]:
    yield from "abcdef"


def test_a_future_that_is_done_already() -> None:
    """It is heard at once: its event loop may be another thread's."""

    async def main() -> None:
        done = asyncio.get_running_loop().create_future()
        done.set_result(3)
        with ld.session("u") as s:
            assert await asyncio.to_thread(ld.track_task("k")(lambda: done)) is done
            assert counts(s) == (1, 0, 0, 0)

    asyncio.run(main())


def test_a_shared_future_counts_for_each_call() -> None:
    """Everybody who got it waits for the same end."""

    async def main() -> None:
        shared = asyncio.get_running_loop().create_future()
        get = ld.track_task("k")(lambda: shared)
        with ld.session("u") as s:
            assert get() is get() is shared
            assert counts(s) == (0, 0, 0, 0)
            shared.set_exception(KeyError("x"))
            with pytest.raises(KeyError):
                await shared
            await asyncio.sleep(0)
            assert counts(s) == (0, 2, 0, 0)

    asyncio.run(main())


def test_both_templates_count_the_same_holders() -> None:
    """Who is fresh is measured with one compiled wrapper, and holds for each."""
    seen: list[int] = []

    def settle(result: Any, watcher: Any) -> Any:
        seen.append(holders(result))

    def run() -> object:
        return object()

    class Rare:
        """As `RareCases`."""

        usual_type = plain_types = ()

        def run(self, *args: Any) -> None: ...

    rare: Any = Rare()
    rare.settle = settle
    shaped(CALL, run, {"_settle": settle, "_begin": lambda: Nobody()})()
    session = types.SimpleNamespace(open_entries=[])
    for found in (None, session):
        names = {"_current": lambda found=found: found, "_now": lambda: 0.0, "_rare": rare}
        shaped(TASK_CALL, run, {**names, "_success": None, "_task": None})()
    assert seen == [holders_when_fresh()] * 3


class Nobody:
    def resume(self) -> None: ...

    def pause(self) -> None: ...


LAZY: dict[str, Callable[[Iterator[str]], Any]] = {
    "map": lambda items: map(str.upper, items),
    "filter": lambda items: filter(None, items),
    "zip": lambda items: zip(items, items, strict=False),
    "enumerate": enumerate,
    "chain": lambda items: itertools.chain(items, "x"),
    "islice": lambda items: itertools.islice(items, 1, 4),
    "takewhile": lambda items: itertools.takewhile(lambda item: item < "d", items),
    "dropwhile": lambda items: itertools.dropwhile(lambda item: item < "d", items),
    "filterfalse": lambda items: itertools.filterfalse(lambda item: item == "a", items),
    "starmap": lambda items: itertools.starmap(str.__add__, zip(items, items, strict=False)),
    "accumulate": itertools.accumulate,
    "compress": lambda items: itertools.compress(items, [1, 0, 1, 0, 1]),
    "zip_longest": lambda items: itertools.zip_longest(items, "xy"),
    "pairwise": itertools.pairwise,
}


SAME_TYPE = {"map", "filter", "chain", "islice", "takewhile", "accumulate", "compress"}


@pytest.mark.parametrize("name", LAZY)
def test_iterators_of_the_standard_library_run_to_their_end(name: str) -> None:
    """They work while they are read, also below another decorator; the type stays, or is a
    subclass where Python's own cannot be made from items.
    """
    make = LAZY[name]
    stream = ld.track_task("k")(ld.session("v", name="inner")(lambda: make(letters())))
    with ld.session("u") as s:
        got = stream()
        assert counts(s) == (0, 0, 0, 0)
        assert list(got) == list(make(letters()))
        assert counts(s) == (1, 0, 0, 0)
        assert isinstance(got, type(make(letters())))
        assert (type(got) is type(make(letters()))) == (name in SAME_TYPE)
        next(stream())  # and left
        assert counts(s) == (1, 0, 0, 1)


@pytest.mark.parametrize(
    "make",
    [
        lambda: iter([1]),
        lambda: itertools.count(),
        lambda: itertools.tee([1])[0],
        lambda: reversed([1]),
    ],
)
def test_other_iterators_are_values(make: Callable[[], Any]) -> None:
    """What has no work left, or no end: the run is the call."""
    with ld.session("u") as s:
        assert type(ld.track_task("k")(lambda: make())()) is type(make())
        assert counts(s) == (1, 0, 0, 0)


def test_a_failing_map_is_a_failure() -> None:
    """The exception comes out where it is read."""
    stream = ld.track_task("k")(lambda: map(int, ["1", "x"]))
    with ld.session("u") as s:
        with pytest.raises(ValueError, match="invalid literal"):
            list(stream())
        assert counts(s) == (0, 1, 0, 0)


async def until(true: Callable[[], bool]) -> None:
    """Wait until *true* says so: another thread tells the event loop of the end of a call."""
    for _ in range(6000):
        if true():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("not in a minute")


def test_grpc_calls_stay_calls() -> None:
    """Sync and async: the caller awaits, reads metadata or cancels; the run ends with the call."""
    grpc = pytest.importorskip("grpc")
    importlib.import_module("grpc.aio")

    async def handler(request: bytes, context: Any) -> bytes:
        await asyncio.sleep(0.02)
        if request == b"bad":
            await context.abort(grpc.StatusCode.NOT_FOUND, "none")
        return b"re:" + request

    async def main() -> None:
        server = grpc.aio.server()
        method = grpc.unary_unary_rpc_method_handler(handler)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("S", {"U": method}),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            stub = channel.unary_unary("/S/U")
            call = ld.track_task("k")(lambda payload: stub(payload))
            with ld.session("u") as s:
                started = call(b"a")
                assert isinstance(started, grpc.aio.Call)
                assert await started == b"re:a"
                assert await started.code() is grpc.StatusCode.OK
                with pytest.raises(grpc.aio.AioRpcError):
                    await call(b"bad")
                cancelled = call(b"c")
                cancelled.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await cancelled
                await until(lambda: counts(s) == (1, 1, 1, 0))
                expected = ld.track_task("e", expected=grpc.aio.AioRpcError)
                with pytest.raises(grpc.aio.AioRpcError):
                    await expected(lambda: stub(b"bad"))()
                await until(lambda: counts(s, "e") == (1, 0, 0, 0))
        await server.stop(None)

    asyncio.run(main())


def failing() -> Iterator[int]:
    yield 1
    raise KeyError("mine")


BODIES: dict[str, tuple[Callable[[], Iterator[Any]], list[str]]] = {
    "whole": (letters, ["first", "returned None"]),
    "empty": (lambda: iter(()), ["returned None"]),
    "failing": (failing, ["first", "raised KeyError"]),
}


@pytest.mark.parametrize("name", BODIES)
def test_a_body_is_watched_to_its_end(name: str) -> None:
    """Each step is resumed and paused, and the end is heard once, whatever is closed later."""
    make, ends = BODIES[name]
    heard = Heard()
    body = WatchedIterator(make(), heard)
    if name == "failing":
        with pytest.raises(KeyError, match="mine"):
            list(body)
    else:
        assert list(body) == list(make())
    assert heard.all.count("resume") == heard.all.count("pause")
    body.close()
    assert heard.ends == ends


@pytest.mark.parametrize("steps", [0, 2])
def test_a_body_that_is_closed_early(steps: int) -> None:
    """Before its first item it never began; what is inside is closed, too."""
    heard, inner = Heard(), letters()
    body = WatchedIterator(inner, heard)
    taken = [next(body) for _ in range(steps)]
    body.close()
    assert taken == ["a", "b"][:steps]
    assert heard.ends == (["first", "raised GeneratorExit"] if steps else ["unstarted"])
    assert list(inner) == []


def test_a_body_that_is_no_iterator_is_made_one_when_it_is_read() -> None:
    """A list of parts, as WSGI allows; it cannot be closed, which is no error."""
    heard = Heard()
    body = WatchedIterator([b"a", b"b"], heard)
    assert heard.all == []
    assert list(body) == [b"a", b"b"]
    body.close()
    assert heard.ends == ["first", "returned None"]


async def aletters() -> AsyncGenerator[str, None]:
    for letter in "abc":
        yield letter


def test_an_async_body_is_watched_to_its_end_or_its_close() -> None:
    """Or to when nobody has it any more; then what is inside stays open for others."""

    async def main() -> list[list[str]]:
        told = []
        for way in ("whole", "closed", "dropped"):
            heard, inner = Heard(), aletters()
            body = WatchedAsyncIterator(inner, heard)
            if way == "whole":
                assert [item async for item in body] == ["a", "b", "c"]
            else:
                assert await body.__anext__() == "a"
            if way == "closed":
                await body.aclose()
                assert [item async for item in inner] == []
            del body
            gc.collect()
            if way == "dropped":
                assert [item async for item in inner] == ["b", "c"]
            told.append(heard.ends)
        return told

    assert asyncio.run(main()) == [
        ["first", "returned None"],
        ["first", "raised GeneratorExit"],
        ["first", "raised GeneratorExit"],
    ]


def test_a_watched_generator_is_one_in_all_its_ways() -> None:
    """`send`, `throw` and `close` reach it, it keeps its name, and its result is heard."""

    def echo() -> Generator[Any, Any, str]:
        got = yield "ready"
        with pytest.raises(ValueError):
            yield got
        return "done"

    heard = Heard()
    watched = generator(echo(), heard)
    assert watched.__name__ == "echo"
    assert next(watched) == "ready"
    assert watched.send(5) == 5
    with pytest.raises(StopIteration, match="done"):
        watched.throw(ValueError())
    assert heard.ends == ["first", "returned done"]
    never = Heard()
    generator(letters(), never).close()
    assert never.ends in ([], ["unstarted"])
    assert async_generator(aletters(), never).__name__ == "aletters"


def test_lazy_iterators_are_told_from_values() -> None:
    """By their type; what was remade is one again."""
    for kind in (map, filter, zip, enumerate, itertools.chain, itertools.pairwise):
        assert is_lazy_iterator_type(kind)
    for kind in (itertools.count, itertools.cycle, itertools.repeat, list, type(iter([]))):
        assert not is_lazy_iterator_type(kind)
    remade = lazy_iterator(enumerate("ab"), Heard())
    assert is_lazy_iterator_type(type(remade))
    assert list(lazy_iterator(remade, Heard())) == [(0, "a"), (1, "b")]


def test_a_future_says_itself_how_it_ended() -> None:
    """With its result, its exception or cancelled; asyncio still complains of what nobody reads."""

    async def main() -> list[list[str]]:
        told = []
        for end in ("result", "error", "cancel"):
            heard, made = Heard(), asyncio.get_running_loop().create_future()
            assert future(made, heard) is made
            assert heard.all == []
            if end == "result":
                made.set_result(3)
            elif end == "error":
                made.set_exception(KeyError())
                assert made._log_traceback
            else:
                made.cancel()
            await asyncio.sleep(0)
            if end == "error":
                assert made._log_traceback
                made.exception()
            told.append(heard.all)
        return told

    assert asyncio.run(main()) == [["returned 3"], ["raised KeyError"], ["raised CancelledError"]]


class Call:
    """A call of a library, done at once."""

    def __init__(self, code: Any, *, cancelled: bool = False) -> None:
        self._code, self._cancelled = code, cancelled

    def add_done_callback(self, heard: Callable[[Any], None]) -> None:
        heard(self)

    def cancelled(self) -> bool:
        return self._cancelled

    def code(self) -> Any:
        return self._code


def test_a_call_says_itself_how_it_ended() -> None:
    """By its status; a status that cannot be read is no success."""
    for call, end in (
        (Call(types.SimpleNamespace(name="OK")), ["returned None"]),
        (Call(None, cancelled=True), ["raised CancelledError"]),
    ):
        heard = Heard()
        assert rpc(call, heard) is call
        assert heard.all == end
    for code in (types.SimpleNamespace(name="NOT_FOUND"), None):
        heard = Heard()
        rpc(Call(code), heard)
        assert [what.partition(" ")[0] for what in heard.all] == ["raised"]


def test_what_nobody_else_holds_is_owned() -> None:
    """A second reference makes it somebody else's, too."""
    owner = types.SimpleNamespace(body=letters())
    assert is_owned(owner, "body")
    shared = owner.body
    assert not is_owned(owner, "body")
    del shared
    assert is_owned(owner, "body")
