"""What is ASGI's own: dependencies, stores on an event loop, and whose session it is not."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from asgi_calls import call, http, ok

import ldinstrument as ld
from ldinstrument import stores, testing
from ldinstrument.integrations.asgi import SessionMiddleware, end_session, session_dependency


@pytest.fixture
def events() -> Iterator[testing.RecordingClient]:
    with testing.recording() as recorder:
        yield recorder


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
