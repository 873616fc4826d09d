"""What is Django's own: its user, its settings, its files and its session, sync and async."""

from __future__ import annotations

import asyncio
import io
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import ldinstrument as ld
from ldinstrument import stores, testing
from ldinstrument.errors import DefinitionError
from ldinstrument.sessions import registry

pytest.importorskip("django")

OURS = "ldinstrument.integrations.django.SessionMiddleware"
THEIRS = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
]


@pytest.fixture
def events() -> Iterator[testing.RecordingClient]:
    with testing.recording() as recorder:
        yield recorder


@pytest.fixture(scope="module")
def user() -> Any:
    """A user in a real database."""
    sys.modules["integration_applications"].django_settings()
    from django.contrib.auth.models import User
    from django.core.management import call_command

    call_command("migrate", verbosity=0)
    return User.objects.create_user("ada", password="secret")


@pytest.fixture(params=["sync", "async"])
def browse(request: pytest.FixtureRequest, user: Any) -> Callable[..., Any]:
    """Ask for pages, logged in or not, with Django's own test clients."""
    from django.test import AsyncClient, Client, override_settings

    def get(*paths: str, login: bool = False, **options: Any) -> list[Any]:
        with override_settings(MIDDLEWARE=[OURS, *THEIRS], LDINSTRUMENT=options):
            client = Client() if request.param == "sync" else AsyncClient()
            if login:
                client.force_login(user)
            if request.param == "sync":
                return [client.get(path) for path in paths]
            return asyncio.run(get_async(client, paths))

    async def get_async(client: Any, paths: Any) -> list[Any]:
        return [await client.get(path) for path in paths]

    return get


def test_the_user_is_found_by_itself(
    browse: Any, user: Any, events: testing.RecordingClient
) -> None:
    """The middleware is first, and asks when the authentication has run."""
    browse("/items/7", login=True)

    assert str(user.pk) == events.only("request.interactions").context.key
    assert str(user.pk) == events.only("business.conversion").context.key


def test_a_page_for_everybody_stays_cacheable(browse: Any, events: testing.RecordingClient) -> None:
    """Looking for a user must not make the response vary by a cookie that the request does not
    have.
    """
    (answer,) = browse("/items/7")

    assert "Cookie" not in answer.headers.get("Vary", "")
    assert events.events == []  # nobody to send it for


@pytest.mark.parametrize("is_async", [False, True])
def test_a_function_of_the_project_says_who_it_is(
    browse: Any, user: Any, events: testing.RecordingClient, is_async: bool
) -> None:
    """It may ask the database, also under ASGI; it may be async."""
    from django.contrib.auth.models import User

    def ask(request: Any) -> str:
        return f"team-{User.objects.get(username='ada').pk}"

    async def ask_async(request: Any) -> str:
        found = await User.objects.aget(username="ada")
        return f"team-{found.pk}"

    browse("/items/7", context=ask_async if is_async else ask)
    assert f"team-{user.pk}" == events.only("request.interactions").context.key


def test_an_unknown_option_is_said_at_start_up(browse: Any) -> None:
    """With the ones that there are."""
    with pytest.raises(DefinitionError, match=r"contxt.*context"):
        browse("/who", contxt=1)


def test_a_file_response_stays_one(user: Any, events: testing.RecordingClient) -> None:
    """The server may use `sendfile`; the session ends when the response is closed."""
    from django.http import FileResponse
    from django.test import RequestFactory, override_settings

    from ldinstrument.integrations.django import SessionMiddleware

    with override_settings(LDINSTRUMENT={"context": lambda request: "ada"}):
        middleware = SessionMiddleware(lambda request: FileResponse(io.BytesIO(b"content")))
    response = middleware(RequestFactory().get("/file"))

    assert response.file_to_stream is not None
    assert len(registry.open_sessions()) == 1
    response.close()
    assert events.only("request.interactions").data["successes"] == 1


@pytest.mark.parametrize(("method", "left"), [("head", 0), ("get", 1)])
def test_a_stream_that_nobody_reads(
    user: Any, events: testing.RecordingClient, method: str, left: int
) -> None:
    """The answer to a HEAD is complete without its body; a GET's is not, and its client has
    left.
    """
    from django.http import StreamingHttpResponse
    from django.test import RequestFactory, override_settings

    from ldinstrument.integrations.django import SessionMiddleware

    with override_settings(LDINSTRUMENT={"context": lambda request: "ada"}):
        middleware = SessionMiddleware(lambda request: StreamingHttpResponse(iter([b"a", b"b"])))
    middleware(getattr(RequestFactory(), method)("/stream")).close()

    done = events.only("request.interactions")
    assert (done.data["abandoned"], done.data["successes"]) == (left, 1 - left)


def test_a_missing_page_is_no_failure_and_has_no_route(
    browse: Any, events: testing.RecordingClient
) -> None:
    """No view was found, so nobody was asked there; the second question is in time."""
    browse("/typed-by-user", context=lambda request: "ada")

    data = events.only("request.interactions").data
    assert (data["status"], data["successes"]) == (404, 1)
    assert "route" not in data


def test_djangos_own_session_carries_the_visitor(
    browse: Any, user: Any, events: testing.RecordingClient
) -> None:
    """A request that has one needs no cookie of ours; one that has none gets one."""
    with stores.open_store("memory:", sweep=False) as store:
        first, second = browse("/items/1", "/items/2", login=True, store=store)
        (anonymous,) = browse("/items/1", store=store)

        assert "ld_visitor" not in first.cookies
        assert "sessionid" in first.cookies  # the id was put into it
        assert "sessionid" not in second.cookies
        assert "ld_visitor" in anonymous.cookies
        assert store.holdings().open == 2
    assert ld.current_session() is None


def test_over_tls_the_cookie_is_secure_and_a_shared_page_has_none(user: Any) -> None:
    """Django says which; a header may carry the id as well, and an old secret is accepted."""
    from django.http import HttpResponse
    from django.test import RequestFactory, override_settings

    from ldinstrument.integrations.django import SessionMiddleware

    def answered(told: str, secret: str, *fallbacks: str, **request: Any) -> Any:
        options = {"context": lambda request: "ada", "store": store, "header": "X-Visitor"}
        with override_settings(
            LDINSTRUMENT=options, SECRET_KEY=secret, SECRET_KEY_FALLBACKS=list(fallbacks)
        ):
            middleware = SessionMiddleware(
                lambda request: HttpResponse("", headers={"Cache-Control": told})
            )
            return middleware(RequestFactory().get("/", **request))

    with stores.open_store("memory:", sweep=False) as store, testing.recording():
        plain, safe = answered("private", "one"), answered("private", "one", secure=True)
        shared = answered("public, max-age=9", "one")
        token = plain["X-Visitor"]
        known = answered("private", "two", "one", headers={"X-Visitor": token})
        stranger = answered("private", "two", headers={"X-Visitor": token})

    assert (plain.cookies["ld_visitor"]["secure"], safe.cookies["ld_visitor"]["secure"]) == (
        "",
        True,
    )
    assert (list(shared.cookies), "X-Visitor" in shared.headers) == ([], False)
    assert (list(known.cookies), "X-Visitor" in known.headers) == ([], False)
    assert stranger["X-Visitor"] != token


def test_a_store_that_is_not_used_is_said(user: Any, caplog: pytest.LogCaptureFixture) -> None:
    """An ASGI middleware around Django opens the sessions; behind one for the lifespan only,
    Django's own does.
    """
    import httpx

    from ldinstrument.integrations.asgi import SessionMiddleware
    from ldinstrument.integrations.asgi_lifespan import LifespanMiddleware

    async def get(app: Any) -> None:
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://testserver") as client:
            for _ in range(2):
                assert (await client.get("/async/who")).status_code in (200, 404)

    with stores.open_store("memory:", sweep=False) as store, testing.recording():
        app = sys.modules["integration_applications"].django_asgi_app(store=store)
        asyncio.run(get(SessionMiddleware(app)))
        assert (caplog.text.count("LifespanMiddleware"), store.holdings().open) == (1, 0)
        asyncio.run(get(LifespanMiddleware(app)))
        assert store.holdings().open == 1
    assert caplog.text.count("LifespanMiddleware") == 1
