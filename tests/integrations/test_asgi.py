"""What is ASGI's own: the lifespan, disconnects, unfinished responses, dependencies, and whose
session it is not.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

import ldinstrument as ld
from ldinstrument import stores, testing
from ldinstrument.devserver import LocalLaunchDarkly
from ldinstrument.integrations.asgi import SessionMiddleware, end_session, session_dependency
from ldinstrument.integrations.asgi_lifespan import OPEN_REQUESTS, LifespanMiddleware
from ldinstrument.integrations.request_session import RequestSessionFactory
from ldinstrument.sessions.opening import open_session


@pytest.fixture
def events() -> Iterator[testing.RecordingClient]:
    with testing.recording() as recorder:
        yield recorder


def http(path: str = "/", method: str = "GET", **scope: Any) -> dict[str, Any]:
    return {"type": "http", "path": path, "method": method, "headers": [], **scope}


async def call(app: Any, scope: dict[str, Any], *received: dict[str, Any]) -> list[dict[str, Any]]:
    """Do what a server does: hand in what was received, keep what is sent."""
    inbox, sent = list(received), []

    async def receive() -> dict[str, Any]:
        return inbox.pop(0)

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await app(scope, receive, send)
    return sent


async def ok(scope: Any, receive: Any, send: Any) -> None:
    ld.track_conversion(1.0)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"ok"})


def test_nobodys_session_leaks_in_or_out(events: testing.RecordingClient) -> None:
    """Neither into a request, nor into an ignored one, nor into what the server does next in this
    task.
    """
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(ld.current_session())
        await ok(scope, receive, send)

    async def serve() -> None:
        async with ld.session("foreign") as foreign:
            await call(SessionMiddleware(app, context="ada"), http())
            await call(SessionMiddleware(app, context="ada"), http("/health"))
            assert ld.current_session() is foreign
            assert foreign not in seen

    asyncio.run(serve())
    assert seen[1] is None
    assert events.only("request.interactions").context.key == "ada"


def test_an_application_that_stops_in_the_middle_has_failed(
    events: testing.RecordingClient,
) -> None:
    """No response, or half of one: the server says 500 or cuts the connection."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})

    asyncio.run(call(SessionMiddleware(app, context="ada"), http()))
    done = events.only("request.interactions")
    assert (done.data["failures"], done.data["endReason"]) == (1, "error")


def test_a_disconnect_before_the_end_is_abandoned_and_after_it_nothing(
    events: testing.RecordingClient,
) -> None:
    """Servers report the same message for both."""

    async def early(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await ok(scope, receive, send)

    async def late(scope: Any, receive: Any, send: Any) -> None:
        await ok(scope, receive, send)
        await receive()

    for app in (early, late):
        asyncio.run(
            call(SessionMiddleware(app, context="ada"), http(), {"type": "http.disconnect"})
        )

    assert [
        (event.data["abandoned"], event.data["successes"])
        for event in events.of("request.interactions")
    ] == [
        (1, 0),
        (0, 1),
    ]


def test_a_send_that_fails_is_a_client_that_has_left(events: testing.RecordingClient) -> None:
    """From ASGI 2.4 on servers raise OSError; the application hears of it unchanged."""

    async def serve() -> None:
        async def send(message: Any) -> None:
            raise BrokenPipeError

        async def receive() -> Any:
            raise AssertionError

        with pytest.raises(BrokenPipeError):
            await SessionMiddleware(ok, context="ada")(http(), receive, send)

    asyncio.run(serve())
    assert events.only("request.interactions").data["abandoned"] == 1


def test_a_cancelled_request_is_neither_success_nor_failure(
    events: testing.RecordingClient,
) -> None:
    """A server that shuts down, or a time-out around the application."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(60)

    async def serve() -> None:
        task = asyncio.create_task(call(SessionMiddleware(app, context="ada"), http()))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(serve())
    done = events.only("request.interactions")
    assert (done.data["cancelled"], done.value, done.data["endReason"]) == (1, 0, "abandoned")


def test_the_context_may_be_asked_asynchronously_and_again_at_the_end(
    events: testing.RecordingClient,
) -> None:
    """An inner middleware fills the scope after ours has looked into it."""

    async def context(scope: Any) -> str:
        await asyncio.sleep(0)
        return str(scope["session"]["user"])

    async def app(scope: Any, receive: Any, send: Any) -> None:
        scope["session"] = {"user": "late"}
        await ok(scope, receive, send)

    asyncio.run(call(SessionMiddleware(app, context=context), http()))
    assert {"late"} == {event.context.key for event in events}


# -- lifespan --------------------------------------------------------------------------------------

STARTUP, SHUTDOWN = {"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}


async def knows_no_lifespan(scope: Any, receive: Any, send: Any) -> None:
    assert scope["type"] == "http"


async def returns_at_once(scope: Any, receive: Any, send: Any) -> None:
    return


async def lives(scope: Any, receive: Any, send: Any) -> None:
    assert ld.current_session() is None
    for _ in range(2):
        kind = (await receive())["type"]
        await send({"type": f"{kind}.complete"})


class Server:
    """An application that is served, with one request that hangs until the server stops."""

    def __init__(self, middleware: Any) -> None:
        self.app = middleware
        self.hanging = asyncio.Event()

    async def stop(self, told: list[str]) -> None:
        """Begin a request that hangs, and go through the server's life meanwhile."""
        request = asyncio.create_task(call(self.app, http("/hang")))
        await self.hanging.wait()
        for message in await call(self.app, {"type": "lifespan"}, STARTUP, SHUTDOWN):
            told.append(message["type"])
        request.cancel()
        await asyncio.wait([request])


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


# -- FastAPI's dependency --------------------------------------------------------------------------


def fastapi_shop(**options: Any) -> Any:
    import fastapi

    app = fastapi.FastAPI()
    ours = fastapi.Depends(
        session_dependency(context=lambda connection: connection.headers.get("x-user"))
    )

    async def item(session: Any = ours) -> str:
        assert ld.current_session() is session
        ld.track_conversion(4.0)
        return str(session.name)

    async def refused(session: Any = ours) -> str:
        raise fastapi.HTTPException(404)

    async def broken(session: Any = ours) -> str:
        raise fastapi.HTTPException(502)

    app.get("/items/{item}")(item)
    app.get("/refused")(refused)
    app.get("/broken")(broken)
    return SessionMiddleware(app, **options) if options else app


def get(app: Any, path: str) -> httpx.Response:
    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://shop") as client:
            return await client.get(path, headers={"X-User": "ada"})

    return asyncio.run(ask())


@pytest.mark.parametrize(
    "options", [{}, {"context": "somebody"}], ids=["alone", "behind the middleware"]
)
def test_a_dependency_gives_an_endpoint_its_session(
    events: testing.RecordingClient, options: Any
) -> None:
    """Alone it opens one; behind the middleware it says whose the request's is."""
    assert get(fastapi_shop(**options), "/items/7").text == '"request"'

    done = events.only("request.interactions")
    assert (done.context.key, done.data["successes"], done.data["route"]) == (
        "ada",
        1,
        "/items/{item}",
    )
    assert events.only("business.conversion").context.key == "ada"


@pytest.mark.parametrize(("path", "failures"), [("/refused", 0), ("/broken", 1)])
def test_a_dependency_knows_what_an_endpoint_raises(
    events: testing.RecordingClient, path: str, failures: int
) -> None:
    """It sees no response, and an HTTPException below 500 is no failure."""
    get(fastapi_shop(), path)
    assert events.only("request.interactions").data["failures"] == failures


def test_a_session_opened_in_a_sync_dependency_is_lost(events: testing.RecordingClient) -> None:
    """FastAPI runs it in another thread, so the endpoint cannot see it: the reason why ours is
    async.
    """
    import fastapi

    app = fastapi.FastAPI()

    def sync_dependency() -> Iterator[None]:
        with ld.session("ada"):
            yield

    async def who(_: None = fastapi.Depends(sync_dependency)) -> str:
        return "none" if ld.current_session() is None else "there"

    app.get("/who")(who)
    assert get(app, "/who").text == '"none"'


def test_a_dependency_of_the_application_may_identify_the_user(
    events: testing.RecordingClient,
) -> None:
    """Behind the middleware: an async dependency that knows the user from other dependencies says
    it.
    """
    import fastapi

    async def current_user() -> str:
        return "ada"

    async def known(user: str = fastapi.Depends(current_user)) -> None:
        session = ld.current_session()
        assert session is not None
        session.identify(user)

    async def item(item: int) -> str:
        ld.track_conversion(1.0)
        return "ok"

    app = fastapi.FastAPI(dependencies=[fastapi.Depends(known)])
    app.get("/items/{item}")(item)
    get(SessionMiddleware(app), "/items/7")

    assert {"ada"} == {event.context.key for event in events}
    assert 4 == len(events)


@pytest.mark.parametrize(
    ("code", "failures"),
    [(1000, 0), (1001, 0), (1008, 0), (4003, 0), (1011, 1), (1012, 1), (1013, 1), (1014, 1)],
)
def test_a_websocket_fails_when_its_server_says_so(
    events: testing.RecordingClient, code: int, failures: int
) -> None:
    """By its close code; a refusal of the application's own is none."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close", "code": code})

    scope = {"type": "websocket", "path": "/chat", "headers": []}
    asyncio.run(call(SessionMiddleware(app, context="ada"), scope))

    done = events.only("websocket.interactions")
    assert (done.data["failures"], done.data["successes"]) == (failures, 1 - failures)


def test_the_event_loop_does_not_wait_for_a_store(events: testing.RecordingClient) -> None:
    """The round trip is made on a thread, with a sweeper and without."""
    threads: list[threading.Thread] = []

    class Remote(stores.MemoryStore):
        shared = True

        def merge(self, *arguments: Any) -> Any:
            threads.append(threading.current_thread())
            return super().merge(*arguments)

    with stores.SessionStore(Remote(), client=testing.RecordingClient(), sweep=False) as store:
        asyncio.run(call(SessionMiddleware(ok, context="ada", store=store, cookie=False), http()))
        assert store.holdings().open == 1

    assert len(threads) == 1
    assert threads[0] is not threading.current_thread()


def test_cookies_in_several_headers_are_all_read(events: testing.RecordingClient) -> None:
    """As HTTP/2 clients send them, whichever place ours has."""
    with stores.open_store("memory:", client=testing.RecordingClient(), sweep=False) as store:
        wrapped = SessionMiddleware(ok, context="ada", store=store, secret="s")
        first = asyncio.run(call(wrapped, http()))
        ours = dict(first[0]["headers"])[b"set-cookie"].partition(b";")[0]
        for cookies in (
            (ours, b"theme=dark"),
            (b"theme=dark", ours),
            (b"theme=dark; " + ours, b"a=b"),
        ):
            headers = [(b"cookie", cookie) for cookie in cookies]
            answer = asyncio.run(call(wrapped, http(headers=headers)))
            assert answer[0]["headers"] == []
        assert store.holdings().open == 1


def test_a_logout_is_in_the_store_before_its_last_byte_is_out() -> None:
    """What the client asks for when it has read it belongs to the next visit, whoever is faster."""
    seen: list[tuple[str, int]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"see", "more_body": True})
        assert end_session()
        await send({"type": "http.response.body", "body": b" you"})

    async def serve(store: Any) -> None:
        async def send(message: Any) -> None:
            seen.append((message["type"], store.holdings().ended))

        async def receive() -> Any:
            raise AssertionError

        await SessionMiddleware(app, context=lambda scope: "ada", store=store, cookie=False)(
            http(), receive, send
        )

    client = testing.RecordingClient()
    with stores.open_store("memory:", client=client, sweep=False) as store:
        asyncio.run(serve(store))
        assert (store.holdings().open, store.holdings().ended) == (0, 1)
        store.sweep()

    assert seen == [
        ("http.response.start", 0),
        ("http.response.body", 0),
        ("http.response.body", 1),
    ]
    assert client.only("session.interactions").data["successes"] == 1


@pytest.mark.parametrize(("scheme", "secure"), [("https", True), ("http", False)])
def test_over_tls_the_cookie_is_secure_and_a_shared_page_has_none(
    scheme: str, secure: bool
) -> None:
    """As the server says, which has asked its proxy."""
    answers = []
    with stores.open_store("memory:", sweep=False) as store, testing.recording():
        for cacheable in (b"private", b"public, max-age=9"):

            async def app(scope: Any, receive: Any, send: Any, told: bytes = cacheable) -> None:
                headers = [(b"Cache-Control", told)]
                await send({"type": "http.response.start", "status": 200, "headers": headers})
                await send({"type": "http.response.body", "body": b""})

            wrapped = SessionMiddleware(
                app, context="ada", store=store, secret="s", header="X-Visitor"
            )
            answers.append(asyncio.run(call(wrapped, http(scheme=scheme)))[0]["headers"])

    private, public = (dict(headers) for headers in answers)
    assert (b"; Secure" in private[b"set-cookie"]) is secure
    assert private[b"x-visitor"]
    assert list(public) == [b"Cache-Control"]


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


def test_a_route_of_an_included_router_has_its_prefixes(events: testing.RecordingClient) -> None:
    """Two versions of an API are two routes, however deep their routers are nested."""
    import fastapi

    async def item(item: int) -> str:
        return "ok"

    shop, api = fastapi.APIRouter(prefix="/shops/{shop}"), fastapi.FastAPI()
    items = fastapi.APIRouter()
    items.get("/items/{item}")(item)
    shop.include_router(items)
    for version in ("/v1", "/v2"):
        api.include_router(shop, prefix=version)
    app = SessionMiddleware(api, context="ada")
    for path in ("/v1/shops/alpine/items/7", "/v2/shops/alpine/items/7"):
        assert get(app, path).status_code == 200

    routes = [event.data["route"] for event in events.of("request.interactions")]
    assert routes == ["/v1/shops/{shop}/items/{item}", "/v2/shops/{shop}/items/{item}"]


@pytest.mark.parametrize(
    ("method", "status", "left"), [("HEAD", 200, 0), ("GET", 304, 0), ("GET", 200, 1)]
)
def test_a_response_without_a_body_is_complete_with_its_head(
    events: testing.RecordingClient, method: str, status: int, left: int
) -> None:
    """Some servers say that the client has left as soon as the head is out: only a body could still
    be missing.
    """

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": status, "headers": []})
        assert (await receive())["type"] == "http.disconnect"

    asyncio.run(
        call(
            SessionMiddleware(app, context="ada"), http(method=method), {"type": "http.disconnect"}
        )
    )

    done = events.only("request.interactions")
    assert (done.data["abandoned"], done.data["successes"]) == (left, 1 - left)


def test_a_store_in_memory_is_met_on_the_loop_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """It answers at once: a thread would only cost time."""
    with stores.open_store("memory:", client=testing.RecordingClient(), sweep=False) as store:
        app = SessionMiddleware(ok, context="ada", store=store, cookie=False)

        async def serve() -> None:
            loop = asyncio.get_running_loop()
            monkeypatch.setattr(loop, "run_in_executor", lambda *_: pytest.fail("a thread"))
            await call(app, http())

        asyncio.run(serve())
        assert store.holdings().open == 1


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
