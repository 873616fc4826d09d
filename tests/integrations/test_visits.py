"""Visits of many requests, in every framework, over real HTTP, the real client and a local
LaunchDarkly.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import ldclient
import pytest

import ldinstrument as ld
from ldinstrument import stores
from ldinstrument.devserver import LocalLaunchDarkly
from ldinstrument.integrations import asgi, wsgi

SECRET = "only for tests"


@pytest.fixture
def client(launchdarkly: LocalLaunchDarkly) -> Iterator[ldclient.LDClient]:
    with contextlib.closing(
        ldclient.LDClient(ld.launchdarkly_config("sdk-test", events_only=True))
    ) as made:
        yield made


class Counting(stores.SessionStore):
    """Knows how many requests have been brought in, which most are after their last byte."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._received, self._news = 0, threading.Condition()

    def end_request(self, *arguments: Any, **options: Any) -> Any:
        found = super().end_request(*arguments, **options)
        with self._news:
            self._received += 1
            self._news.notify_all()
        return found

    @contextlib.contextmanager
    def one_more(self) -> Iterator[None]:
        """Wait until the block's one request has been brought in; the stores' own suite has those
        that are late.
        """
        before = self._received
        yield
        with self._news:
            assert self._news.wait_for(lambda: self._received > before, 20)


@pytest.fixture
def store(client: ldclient.LDClient) -> Iterator[Counting]:
    with Counting(stores.MemoryStore(), client=client, sweep=False) as opened:
        yield opened


def visit(client: httpx.Client, running: Any, store: Counting) -> None:
    """A page, a stream, a page that breaks, and the way out."""
    for path in ("/items/7", running.path("/stream"), "/boom", "/logout"):
        ask(client, path, store)


def ask(client: httpx.Client, path: str, store: Counting) -> None:
    with store.one_more(), contextlib.suppress(httpx.HTTPError):
        client.get(path)


@contextlib.contextmanager
def browser(running: Any, user: str | None = "ada") -> Iterator[httpx.Client]:
    """A client with a cookie jar of its own."""
    address, headers = f"http://127.0.0.1:{running.port}", {} if user is None else {"X-User": user}
    once = httpx.Limits(max_keepalive_connections=0)
    with httpx.Client(
        base_url=address, headers=headers, timeout=100, trust_env=False, limits=once
    ) as client:
        yield client


def reported(launchdarkly: LocalLaunchDarkly, store: Counting) -> list[Any]:
    """The visits that LaunchDarkly has heard of, after a sweep of those that have ended."""
    assert store.sweep().complete
    found: list[Any] = launchdarkly.custom_events("session.interactions")
    return found


def test_requests_of_one_visitor_are_one_visit(
    serving: Any, launchdarkly: LocalLaunchDarkly, client: Any, store: Any
) -> None:
    """Four requests, one session; the next request after the logout opens the next one, which names
    the one before.
    """
    with serving(store=store, secret=SECRET, client=client) as running, browser(running) as visitor:
        visit(visitor, running, store)
        visit(visitor, running, store)

    first, second = sorted(reported(launchdarkly, store), key=lambda event: event["creationDate"])
    for done in (first, second):
        assert 4 == done["metricValue"] == done["data"]["interactions"]
        assert (done["data"]["successes"], done["data"]["failures"]) == (3, 1)
        assert done["context"]["key"] == "ada"
        assert "route" not in done["data"]
    assert second["data"]["previousId"] == first["data"]["sessionId"]
    assert [
        event["metricValue"] for event in launchdarkly.custom_events("business.conversion")
    ] == [6.0, 6.0]
    assert launchdarkly.custom_events("request.interactions") == []


def test_two_browsers_are_two_visits(
    serving: Any, launchdarkly: LocalLaunchDarkly, client: Any, store: Any
) -> None:
    """Also of the same user: each device has its own cookie."""
    with serving(store=store, secret=SECRET, client=client) as running:
        for _ in range(2):
            with browser(running) as visitor:
                visit(visitor, running, store)

    assert [event["metricValue"] for event in reported(launchdarkly, store)] == [4, 4]


def test_without_a_cookie_visits_go_by_context(
    serving: Any, launchdarkly: LocalLaunchDarkly, client: Any, store: Any
) -> None:
    """`cookie=False` marks nobody: what is known of the user is all there is."""
    with serving(store=store, cookie=False, client=client) as running:
        for user in ("ada", "ada", "bob"):
            with browser(running, user) as visitor:
                with store.one_more():
                    assert "set-cookie" not in visitor.get("/items/1").headers
        with browser(running, "ada") as visitor:
            ask(visitor, "/logout", store)
        with browser(running, "bob") as visitor:
            ask(visitor, "/logout", store)

    found = {
        event["context"]["key"]: event["metricValue"] for event in reported(launchdarkly, store)
    }
    assert found == {"ada": 3, "bob": 2}


def test_a_login_in_the_middle_of_a_visit_keeps_it_together(
    serving: Any, launchdarkly: LocalLaunchDarkly, client: Any, store: Any
) -> None:
    """The pages before the login were nobody's; the visit becomes the user's."""
    with (
        serving(store=store, secret=SECRET, client=client) as running,
        browser(running, None) as visitor,
    ):
        for path in ("/items/1", "/login", "/items/2", "/logout"):
            ask(visitor, path, store)

    (done,) = reported(launchdarkly, store)
    assert (done["context"]["key"], done["metricValue"]) == ("late", 4)
    assert (
        sum(event["metricValue"] for event in launchdarkly.custom_events("business.conversion"))
        == 6.0
    )


def test_the_cookie_is_modest(serving: Any, client: Any, store: Any) -> None:
    """Random, HTTP only, same site; not sent again while it is young, and never where a health
    check asks.
    """
    with (
        serving(store=store, secret=SECRET, client=client) as running,
        browser(running, "ada") as visitor,
    ):
        assert "set-cookie" not in visitor.get("/health").headers
        cookie = visitor.get("/items/1").headers["set-cookie"]
        again = visitor.get("/items/1").headers

    assert "HttpOnly" in cookie
    assert "ada" not in cookie
    if running.kind.name != "flask":  # Flask's own session has Flask's own attributes
        assert "SameSite=Lax" in cookie
        assert "set-cookie" not in again


@pytest.mark.parametrize("make", [wsgi.SessionMiddleware, asgi.SessionMiddleware])
def test_a_store_without_a_secret_still_serves(
    make: Any, store: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Visits go by context then, which is said once, with the way out."""
    for _ in range(2):
        assert make(lambda *arguments: [], store=store).sessions.visitors is None

    assert caplog.text.count("LDINSTRUMENT_SECRET") == 1


def test_ending_a_visit_where_there_is_none_is_harmless() -> None:
    """Outside a request, and without a store."""
    assert wsgi.end_session() is False
    with ld.session("ada", client=object()):
        assert wsgi.end_session() is False
