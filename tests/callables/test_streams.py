"""What a call returned is followed to its end; what somebody else may hold stays as it is."""

from __future__ import annotations

import asyncio
import collections
import functools
import importlib
import itertools
from collections.abc import AsyncGenerator, Callable, Generator, Iterator
from typing import Any

import pytest

import ldinstrument as ld
from ldinstrument.callables.compiler import shaped
from ldinstrument.callables.followers import holders, holders_when_fresh
from ldinstrument.callables.templates import CALL, TASK_CALL

pytestmark = pytest.mark.filterwarnings("ignore:.*use this key, so their runs are one metric")
TRACKED = ld.track_task("k")
BOTH = pytest.mark.parametrize(
    "decorate", [TRACKED, ld.session(name="visit")], ids=["track_task", "session"]
)


def counts(session: ld.Session, key: str = "k") -> tuple[int, ...]:
    tasks = session.summary().tasks
    return tuple(int(number) for number in tuple(tasks[key])[:4]) if key in tasks else (0, 0, 0, 0)


def letters() -> Iterator[str]:
    yield from "abcdef"


async def aletters() -> AsyncGenerator[str, None]:
    for letter in "abcdef":
        yield letter


# -- what somebody else holds, too -----------------------------------------------------------------


@BOTH
def test_a_generator_that_the_object_keeps(decorate: Any) -> None:
    """The caller takes two items, later two more: nothing was closed in between."""

    class Tail:
        def __init__(self) -> None:
            self._lines = letters()

        @decorate
        def lines(self) -> Iterator[str]:
            return self._lines

    tail = Tail()
    assert tail.lines() is tail._lines
    assert list(itertools.islice(tail.lines(), 2)) == ["a", "b"]
    assert list(itertools.islice(tail.lines(), 2)) == ["c", "d"]


@BOTH
def test_an_async_generator_that_the_object_keeps(decorate: Any) -> None:
    """A loop that is left and a second one."""

    class Feed:
        def __init__(self) -> None:
            self._items = aletters()

        @decorate
        def items(self) -> AsyncGenerator[str, None]:
            return self._items

    async def main() -> list[str]:
        feed, found = Feed(), []
        for _ in range(2):
            async for item in feed.items():
                found.append(item)
                break
            await asyncio.sleep(0)
        await feed._items.aclose()
        return found

    assert asyncio.run(main()) == ["a", "b"]


HOLDERS: dict[str, Callable[[Any], Any]] = {
    "a list": lambda thing: [thing],
    "a dictionary": lambda thing: {1: thing},
    "a queue": lambda thing: collections.deque([thing]),
    "an attribute": lambda thing: type("Holder", (), {"thing": thing})(),
    "a closure": lambda thing: lambda: thing,
}


@BOTH
@pytest.mark.parametrize("holder", HOLDERS)
def test_a_coroutine_that_is_kept_and_awaited_later(decorate: Any, holder: str) -> None:
    """Each of them is the one object that there is."""
    kept: list[Any] = []

    @decorate
    def add(job: Any) -> Any:
        kept.append(HOLDERS[holder](job))
        return job

    @decorate
    def make(result: int) -> Any:
        made = work(result)
        kept.append(HOLDERS[holder](made))
        return made

    async def work(result: int) -> int:
        return result

    async def main() -> list[int]:
        jobs = [work(1), work(2)]
        assert [add(job) for job in jobs] == jobs
        return await asyncio.gather(*jobs, make(3))

    assert asyncio.run(main()) == [1, 2, 3]


@BOTH
def test_what_comes_out_of_a_cache(decorate: Any) -> None:
    """A cached stream belongs to the cache."""

    @decorate
    @functools.cache
    def stream() -> Iterator[str]:
        return letters()

    first = stream()
    assert stream() is first
    assert next(stream()) == "a"
    del first
    assert next(stream()) == "b"


@BOTH
def test_an_argument_that_comes_back(decorate: Any) -> None:
    """The caller may hold what it gave: the very object is returned."""
    given = letters()
    assert decorate(lambda items: items)(given) is given
    assert next(given) == "a"


@BOTH
def test_a_generator_out_of_a_coroutine_that_somebody_holds(decorate: Any) -> None:
    """The same for what an `await` gives."""
    kept = letters()

    @decorate
    async def get() -> Iterator[str]:
        return kept

    assert asyncio.run(get()) is kept


class Lazy:
    """A query: chained, counted, awaited; a type that libraries test."""

    def __await__(self) -> Generator[Any, None, str]:
        return iter(())  # type: ignore[return-value]

    def order_by(self) -> Lazy:
        return self


class Client:
    """Returns itself from `connect`, and can be awaited."""

    def __await__(self) -> Generator[Any, None, Client]:
        yield from ()
        return self

    def add_done_callback(self, callback: Any) -> None:
        raise AssertionError("not a future: nobody said so")


@BOTH
@pytest.mark.parametrize("kind", [Lazy, Client])
def test_what_merely_can_be_awaited_is_a_value(decorate: Any, kind: type) -> None:
    """Of its very type, and counted at the return."""
    made: list[Any] = []

    def start() -> Any:
        made.append(kind())
        return made[-1]

    with ld.session("u") as s:
        got = decorate(start)()
        assert got is made[0]
        assert type(got) is kind
        assert counts(s) == ((1, 0, 0, 0) if decorate is TRACKED else (0, 0, 0, 0))


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


# -- what only the wrapper holds -------------------------------------------------------------------


def test_both_templates_count_the_same_holders() -> None:
    """Who is fresh is measured with one compiled wrapper, and holds for each."""
    seen: list[int] = []

    def settle(result: Any, watcher: Any) -> Any:
        seen.append(holders(result))

    def run() -> object:
        return object()

    common = {"_settle": settle, "_begin": lambda: Nobody()}
    task = {
        "_current": lambda: None,
        "_open_session": None,
        "_raised": None,
        "_plain_types": set(),
        "_plain_run": lambda *args: None,
        "_take": None,
        "_refill": None,
        "_now": None,
        "_success": None,
        "_task": None,
    }
    shaped(CALL, run, common)()
    shaped(TASK_CALL, run, {**common, **task})()
    assert seen == [holders_when_fresh()] * 2


class Nobody:
    def resume(self) -> None: ...

    def pause(self) -> None: ...


def test_a_fresh_generator_is_followed() -> None:
    """Also one of which the function has taken the first item already."""

    @ld.track_task("k")
    def peeked() -> Iterator[str]:
        made = letters()
        next(made)
        return made

    with ld.session("u") as s:
        items = peeked()
        assert counts(s) == (0, 0, 0, 0)
        assert list(items) == list("bcdef")
        assert counts(s) == (1, 0, 0, 0)


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


# -- calls and responses of other libraries --------------------------------------------------------


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
                await asyncio.sleep(0.05)
                assert counts(s) == (1, 1, 1, 0)
                expected = ld.track_task("e", expected=grpc.aio.AioRpcError)
                with pytest.raises(grpc.aio.AioRpcError):
                    await expected(lambda: stub(b"bad"))()
                await asyncio.sleep(0.02)
                assert counts(s, "e") == (1, 0, 0, 0)
        await server.stop(None)

    asyncio.run(main())


async def chunks() -> AsyncGenerator[bytes, None]:
    for _ in range(4):
        await asyncio.sleep(0.01)
        yield b"x"


def sync_chunks() -> Iterator[bytes]:
    yield from [b"x"] * 4


@pytest.mark.parametrize("body", ["async", "sync", "function", "events"])
def test_litestar_streams(body: str) -> None:
    """To the last chunk, through the framework's own server code."""
    litestar, httpx = pytest.importorskip("litestar"), pytest.importorskip("httpx")
    from litestar.response import ServerSentEvent, Stream

    make: dict[str, Callable[[], Any]] = {
        "async": lambda: Stream(chunks()),
        "sync": lambda: Stream(sync_chunks()),
        "function": lambda: Stream(chunks),
        "events": lambda: ServerSentEvent(chunks()),
    }

    @litestar.get("/")
    @ld.track_task("k")
    async def view() -> Any:
        return make[body]()

    async def main() -> tuple[str, tuple[int, ...]]:
        transport = httpx.ASGITransport(litestar.Litestar([view]))
        with ld.session("u") as s:
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                return (await client.get("/")).text, counts(s)

    text, counted = asyncio.run(main())
    assert text.count("x") == 4
    assert counted == (1, 0, 0, 0)


@pytest.mark.parametrize("shape", ["tuple", "response", "generator"])
def test_quart_streams(shape: str) -> None:
    """In a tuple with status and headers, in a `Response`, and bare."""
    quart = pytest.importorskip("quart")
    app = quart.Quart("streams")

    @app.route("/")
    @ld.track_task("k")
    async def view() -> Any:
        if shape == "tuple":
            return chunks(), 200, {"X-A": "1"}
        return quart.Response(chunks()) if shape == "response" else chunks()

    async def main() -> tuple[str, tuple[int, ...]]:
        with ld.session("u") as s:
            response = await app.test_client().get("/")
            return await response.get_data(as_text=True), counts(s)

    assert asyncio.run(main()) == ("xxxx", (1, 0, 0, 0))


def webob_application(body: Callable[[], Any]) -> Any:
    """A view of WebOb, whose response Pyramid's is a subclass of."""
    webob = pytest.importorskip("webob")
    return pytest.importorskip("webob.dec").wsgify(
        ld.track_task("k")(lambda request: webob.Response(app_iter=body()))
    )


def bottle_application(body: Callable[[], Any]) -> Any:
    """A view of Bottle that answers with a response of its own."""
    bottle = pytest.importorskip("bottle")
    app = bottle.Bottle()
    app.route("/", callback=ld.track_task("k")(lambda: bottle.HTTPResponse(body(), 201)))
    return app.wsgi


@pytest.mark.parametrize("application", [webob_application, bottle_application])
def test_wsgi_responses_with_a_generator(application: Callable[..., Any]) -> None:
    """To the last chunk; a body that is left is abandoned, and one that is ready has ended."""
    from wsgiref.util import setup_testing_defaults

    environ: dict[str, Any] = {}
    setup_testing_defaults(environ)
    with ld.session("u") as s:
        body = application(sync_chunks)(environ, lambda *answer: None)
        items = iter(body)
        assert next(items) == b"x"
        assert counts(s) == (0, 0, 0, 0)
        assert list(items) == [b"x"] * 3
        assert counts(s) == (1, 0, 0, 0)

        body = application(sync_chunks)(environ, lambda *answer: None)
        next(iter(body))
        body.close()
        assert counts(s) == (1, 0, 0, 1)

        application(lambda: [b"ready"])(environ, lambda *answer: None)
        assert counts(s) == (2, 0, 0, 1)
