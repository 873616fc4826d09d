"""ASGI's lifespan: at the end of the server sessions end, stores close, events leave."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from asgi_calls import SHUTDOWN, STARTUP, Server, call, http, lives, ok

import ldinstrument as ld
from ldinstrument import stores, testing
from ldinstrument.devserver import LocalLaunchDarkly
from ldinstrument.integrations.asgi import SessionMiddleware
from ldinstrument.integrations.asgi_lifespan import OPEN_REQUESTS, Lifespan, LifespanMiddleware
from ldinstrument.integrations.request_session import RequestSessionFactory
from ldinstrument.sessions.scopes import open_session


@pytest.fixture
def events() -> Iterator[testing.RecordingClient]:
    with testing.recording() as recorder:
        yield recorder


async def knows_no_lifespan(scope: Any, receive: Any, send: Any) -> None:
    assert scope["type"] == "http"


async def returns_at_once(scope: Any, receive: Any, send: Any) -> None:
    return


@pytest.mark.parametrize("lifespan", [knows_no_lifespan, returns_at_once, lives])
def test_the_end_of_the_server_ends_its_sessions_and_delivers_them(
    lifespan: Any, launchdarkly: LocalLaunchDarkly, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the server hears that shutdown is complete, LaunchDarkly has what its requests and the
    sessions inside them held; any application will do.
    """
    import ldclient

    client = ldclient.LDClient(
        ld.launchdarkly_config("sdk-test", events_only=True, flush_interval=300)
    )
    arrived: list[int] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await lifespan(scope, receive, send)
            return
        with ld.session(name="inside", client=client) as inside:
            inside.interaction()
            server.hanging.set()
            await asyncio.sleep(60)

    class Observed(SessionMiddleware):
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            async def sending(message: Any) -> None:
                if message["type"] == "lifespan.shutdown.complete":
                    for name in ("request", "inside"):
                        arrived.append(len(launchdarkly.custom_events(f"{name}.interactions")))
                await send(message)

            await super().__call__(scope, receive, sending)

    server = Server(Observed(app, context="ada", client=client))
    asyncio.run(server.stop([]))
    client.close()
    assert arrived == [1, 1]


def test_the_end_of_the_server_leaves_other_peoples_sessions_open(
    events: testing.RecordingClient,
) -> None:
    """Of a second application, of a test around the server, of Lambda around Mangum."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await lives(scope, receive, send)
            return
        if scope["path"] == "/hang":
            server.hanging.set()
        await asyncio.sleep(60)

    server = Server(SessionMiddleware(app, context="ada"))
    second = SessionMiddleware(app, context="bob", name="second")
    told: list[str] = []

    async def run() -> None:
        with ld.session("eve", name="around") as around:
            other = asyncio.create_task(call(second, http("/other")))
            await asyncio.sleep(0)
            await server.stop(told)
            assert not around.ended
            assert [event.data["endReason"] for event in events.of("second.interactions")] == []
            other.cancel()
            await asyncio.wait([other])

    asyncio.run(run())

    assert told[-1] == "lifespan.shutdown.complete"
    assert events.only("around.interactions").data["endReason"] == "ended"
    assert events.only("request.interactions").data["endReason"] == "abandoned"


def test_a_failed_startup_is_the_applications_own(events: testing.RecordingClient) -> None:
    """It listened and raised: that must stop the server, so nobody speaks for it."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        raise RuntimeError("no database")

    with pytest.raises(RuntimeError, match="no database"):
        asyncio.run(call(SessionMiddleware(app), {"type": "lifespan"}, STARTUP))


def test_only_the_orderly_end_for_who_has_sessions_inside() -> None:
    """Django's: requests are none of its business; at the end the sessions of its requests, stores
    and events are all seen to.
    """
    events = testing.RecordingClient()
    store = stores.open_store("memory:", client=events, sweep=False)
    sessions = RequestSessionFactory("ada", client=events)
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            raise NotImplementedError
        seen.append(ld.current_session())
        scope[OPEN_REQUESTS].add(request := sessions.open("GET"))
        request.identify("ada")
        server.hanging.set()
        await asyncio.sleep(60)
        request.end()

    server = Server(LifespanMiddleware(app))
    visit = open_session("bob", client=events)
    visit.interaction()
    stores.end_request(visit, store, "v-1")
    foreign = open_session("eve", name="foreign", client=events)
    told: list[str] = []
    asyncio.run(server.stop(told))

    assert told == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert seen == [None]
    assert events.only("request.interactions").data["endReason"] == "abandoned"
    assert not foreign.ended
    foreign.end()
    ended = events.only("session.interactions")
    assert (ended.context.key, ended.value) == ("bob", 1)


class Life:
    """A server's life for an application, which begins and ends when the test says so."""

    def __init__(self, app: Any) -> None:
        self._inbox: asyncio.Queue[Any] = asyncio.Queue()
        self._told: asyncio.Queue[Any] = asyncio.Queue()
        self._running = asyncio.ensure_future(
            app({"type": "lifespan"}, self._inbox.get, self._told.put)
        )

    async def start(self) -> None:
        await self._inbox.put(STARTUP)
        assert (await self._told.get())["type"] == "lifespan.startup.complete"

    async def stop(self) -> None:
        await self._inbox.put(SHUTDOWN)
        await self._running


async def shop(scope: Any, receive: Any, send: Any) -> None:
    await (lives if scope["type"] == "lifespan" else ok)(scope, receive, send)


def with_store(store: Any, middleware: str) -> Any:
    """An application whose visits are in *store*, by our middleware or by one inside it."""
    if middleware == "SessionMiddleware":
        return SessionMiddleware(shop, context="ada", store=store, cookie=False)
    sessions = RequestSessionFactory("ada", store=store, cookie=False)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            raise NotImplementedError
        request = sessions.open("GET", who="ada")
        scope[OPEN_REQUESTS].add(request)
        await ok(scope, receive, send)
        request.returned()
        request.end()

    return LifespanMiddleware(app)


@pytest.mark.parametrize("middleware", ["SessionMiddleware", "LifespanMiddleware"])
def test_a_store_goes_on_with_the_next_life_of_the_application(middleware: str) -> None:
    """Mangum begins and ends it in every invocation, and so does each block of a test client."""
    client = testing.RecordingClient()
    store = stores.open_store("memory:", client=client, interval=3600)
    app = with_store(store, middleware)

    async def lives_once() -> None:
        life = Life(app)
        await life.start()
        await call(app, http())
        assert "closed" not in repr(store)
        await life.stop()
        assert "closed" in repr(store)

    for number in (1, 2):
        asyncio.run(lives_once())
        assert client.values("session.interactions") == [1] * number


@pytest.mark.parametrize("middleware", ["SessionMiddleware", "LifespanMiddleware"])
def test_the_end_of_one_application_leaves_the_visits_of_another_open(middleware: str) -> None:
    """A store that both were given closes with the last of them."""
    client = testing.RecordingClient()
    store = stores.open_store("memory:", client=client, interval=3600)
    first, second = with_store(store, "SessionMiddleware"), with_store(store, middleware)

    async def run() -> None:
        lives = Life(first), Life(second)
        for life in lives:
            await life.start()
        await call(second, http())
        await lives[0].stop()
        assert (store.holdings().open, client.values("session.interactions")) == (1, [])
        await call(second, http())
        await lives[1].stop()

    asyncio.run(run())
    assert client.values("session.interactions") == [2]


def test_an_application_that_has_its_own_lifespan_goes_through_it(
    events: testing.RecordingClient,
) -> None:
    """Each message reaches it and the server, in order, once, in nobody's session."""
    seen: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert ld.current_session() is None
        for _ in range(2):
            kind = (await receive())["type"]
            seen.append(kind)
            await send({"type": f"{kind}.complete"})

    async def serve() -> list[dict[str, Any]]:
        with ld.session("eve"):
            return await call(SessionMiddleware(app), {"type": "lifespan"}, STARTUP, SHUTDOWN)

    told = [message["type"] for message in asyncio.run(serve())]
    assert seen == ["lifespan.startup", "lifespan.shutdown"]
    assert told == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


def test_a_failed_shutdown_is_told_after_the_delivery(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server hears what the application said, once everything has been seen to."""
    order: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.failed", "message": "no disk"})

    async def flushed(timeout: float) -> None:
        order.append(f"flush {timeout}")

    monkeypatch.setattr("ldinstrument.delivery.aflush", flushed)

    async def serve() -> None:
        inbox = [STARTUP, SHUTDOWN]

        async def receive() -> Any:
            return inbox.pop(0)

        async def send(message: Any) -> None:
            order.append(message["type"])

        lifespan = Lifespan(app, lambda: order.append("end"), lambda: order.append("close"), 3.0)
        await lifespan.run({"type": "lifespan"}, receive, send)

    asyncio.run(serve())
    assert order == [
        "lifespan.startup.complete",
        "end",
        "close",
        "flush 3.0",
        "lifespan.shutdown.failed",
    ]
