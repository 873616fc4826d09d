"""What is Flask's own: its user, its static files, its session, its async views."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import ldinstrument as ld
from ldinstrument import stores, testing

flask = pytest.importorskip("flask")

from ldinstrument.integrations.flask import instrument  # noqa: E402

HERE = Path(__file__).parent


@pytest.fixture
def events() -> Iterator[testing.RecordingClient]:
    with testing.recording() as recorder:
        yield recorder


def shop(**options: Any) -> Any:
    app = flask.Flask("shop", static_folder=str(HERE), static_url_path="/static")
    app.add_url_rule("/items/<int:item>", "item", lambda item: "item")
    return instrument(instrument(app, **options), context="nobody: the second time changes nothing")


def get(app: Any, path: str, **headers: str) -> Any:
    with app.test_client().get(path, headers=headers, buffered=True) as answer:
        return answer


def test_flask_logins_user_is_found_by_itself(events: testing.RecordingClient) -> None:
    """Logged in before: from the first moment. Logged in by this very request: in time."""
    flask_login = pytest.importorskip("flask_login")
    app = shop()
    app.secret_key = "s"
    manager = flask_login.LoginManager(app)

    class User(flask_login.UserMixin):  # type: ignore[misc]
        id = "ada"

    manager.user_loader(lambda key: User())

    @app.get("/login")
    def login() -> str:
        ld.track_conversion(1.0)
        flask_login.login_user(User())
        return "welcome"

    client = app.test_client()
    for path in ("/items/7", "/login", "/items/8"):
        client.get(path, buffered=True).close()

    assert [event.context.key for event in events.of("request.interactions")] == ["ada", "ada"]
    assert events.only("business.conversion").context.key == "ada"


def test_the_context_is_given_flasks_request(events: testing.RecordingClient) -> None:
    """The real object, not the proxy; the route is the rule."""
    kinds: list[type] = []

    def context(request: Any) -> Any:
        kinds.append(type(request))
        return request.headers.get("X-User")

    get(shop(context=context), "/items/7", **{"X-User": "ada"})

    done = events.only("request.interactions")
    assert (done.context.key, done.data["route"]) == ("ada", "/items/<int:item>")
    assert [flask.Request] == kinds


def test_a_check_of_rights_that_was_there_before_is_inside_the_session(
    events: testing.RecordingClient,
) -> None:
    """However early it was registered, ours is first: a refusal has its user and its route, and may
    record.
    """
    app = flask.Flask("shop")
    app.add_url_rule("/items/<int:item>", "item", lambda item: "item")

    @app.before_request
    def refuse() -> tuple[str, int]:
        ld.track_conversion(1.0)
        return "not you", 403

    get(instrument(app, context="ada"), "/items/7")

    done = events.only("request.interactions")
    assert (done.context.key, done.data["route"], done.data["status"]) == (
        "ada",
        "/items/<int:item>",
        403,
    )
    assert events.only("business.conversion").context.key == "ada"


def test_static_files_make_no_session(events: testing.RecordingClient) -> None:
    """They are no interactions; the user's own patterns come on top."""
    app = shop(context="ada", ignore="/items/*")
    assert get(app, f"/static/{Path(__file__).name}").status_code == 200
    get(app, "/items/7")

    assert events.events == []


def test_an_async_view_is_in_the_session(events: testing.RecordingClient) -> None:
    """Flask runs it on an event loop in another thread, with a copy of the context."""
    app = shop(context="ada")

    @app.get("/async")
    async def view() -> str:
        ld.track_conversion(1.0)
        return "ok"

    get(app, "/async")
    assert events.only("business.conversion").context.key == "ada"


def test_a_login_after_the_first_request_of_a_visit_is_the_same_visit() -> None:
    """The visitor's id is in Flask's own session, beside whatever the application keeps there."""
    with stores.open_store("memory:", sweep=False) as store:
        app = shop(store=store)
        app.secret_key = "s"
        client = app.test_client()
        for item in range(3):
            client.get(f"/items/{item}", buffered=True).close()
        with client.session_transaction() as kept:
            assert list(kept) == ["_ld_visitor"]
        assert store.holdings().open == 1


def test_a_login_that_clears_the_session_is_the_same_visit_and_a_logout_ends_the_visitor() -> None:
    """As Flask's tutorial does both: what came before the login belongs to the user, what comes
    after is new.
    """
    events = testing.RecordingClient()
    with stores.open_store("memory:", client=events, sweep=False) as store:
        app = shop(store=store, client=events, context=lambda request: flask.session.get("user"))
        app.secret_key = "s"

        @app.get("/login")
        def login() -> str:
            flask.session.clear()
            flask.session["user"] = "ada"
            return "welcome"

        @app.get("/logout")
        def logout() -> str:
            flask.session.clear()
            return "bye"

        client = app.test_client()
        for path in ("/items/1", "/login", "/items/2", "/logout", "/items/3"):
            client.get(path, buffered=True).close()
        assert store.holdings().open == 2

    assert [(event.context.key, event.value) for event in events.of("session.interactions")] == [
        ("ada", 4)
    ]


def test_a_header_is_for_clients_without_cookies_beside_those_with() -> None:
    """Whichever of the two a client sends back, its requests are one visit."""
    with stores.open_store("memory:", sweep=False) as store:
        app = flask.Flask("shop")
        app.secret_key = "s"
        app.add_url_rule("/items/<int:item>", "item", lambda item: "item")
        instrument(app, store=store, header="X-Visitor")
        browser = app.test_client()
        told = [browser.get("/items/1", buffered=True).headers.get("X-Visitor") for _ in range(3)]
        opened_by_browser = store.holdings().open
        program = app.test_client(use_cookies=False)
        token = program.get("/items/1", buffered=True).headers["X-Visitor"]
        repeated = [
            program.get("/items/1", headers={"X-Visitor": token}, buffered=True) for _ in range(3)
        ]

        assert (opened_by_browser, store.holdings().open) == (1, 2)
    assert [token is not None for token in told] == [True, False, False]
    assert [answer.headers.get("X-Visitor") for answer in repeated] == [None] * 3
    assert [answer.headers.get("Set-Cookie") for answer in repeated] == [None] * 3


def test_pages_that_a_shared_cache_may_keep_stay_nobodys() -> None:
    """Neither a visitor's id on them, nor a reason to vary by cookie: the page does not depend on
    it.
    """
    with stores.open_store("memory:", sweep=False) as store:
        app = shop(store=store)
        app.secret_key = "s"

        @app.get("/news")
        def news() -> Any:
            return "news", {"Cache-Control": "Public, max-age=60"}

        client = app.test_client()
        fresh = client.get("/news", buffered=True)
        marked = client.get("/items/1", buffered=True)
        known = client.get("/news", buffered=True)
        private = client.get("/items/1", buffered=True)

    assert [name for name in ("Set-Cookie", "Vary") if name in fresh.headers] == []
    assert "session=" in marked.headers["Set-Cookie"]
    for answer in (known, private):
        assert [name for name in ("Set-Cookie", "Vary") if name in answer.headers] == []
    assert store.holdings().open == 0


def test_an_odd_session_costs_the_visit_and_never_the_page(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A session backend that is away must not break pages that do not use it."""
    from flask.sessions import SecureCookieSession, SessionInterface

    class Away(SecureCookieSession):
        def get(self, *arguments: Any) -> Any:
            raise ConnectionError("away")

    class Odd(SessionInterface):
        def open_session(self, app: Any, request: Any) -> Any:
            return Away()

        def save_session(self, app: Any, session: Any, response: Any) -> None:
            pass

    with stores.open_store("memory:", sweep=False) as store:
        app = shop(store=store, context="ada")
        app.secret_key, app.session_interface = "s", Odd()
        assert [get(app, "/items/1").status_code for _ in range(2)] == [200, 200]
        assert store.holdings().open == 1


def test_only_the_metrics_of_its_own_sessions_are_declared() -> None:
    """`bootstrap` would create the others in LaunchDarkly, where nothing ever feeds them."""
    ld.catalog.clear()
    with stores.open_store("memory:", sweep=False) as store:
        shop(store=store, name="visit", cookie=False)

    declared = {metric.key.partition(".")[0] for metric in ld.catalog}
    assert "visit" in declared
    assert "request" not in declared


def test_without_a_secret_key_visits_go_by_context(caplog: pytest.LogCaptureFixture) -> None:
    """Said once, with what to do."""
    with (
        stores.open_store("memory:", sweep=False) as store,
        caplog.at_level(logging.WARNING, "ldinstrument"),
    ):
        app = shop(store=store, context=lambda request: request.headers["X-User"])
        for user in ("ada", "bob", "ada"):
            get(app, "/items/1", **{"X-User": user})
        assert store.holdings().open == 2
    assert caplog.text.count("app.secret_key") == 1


def test_a_secret_of_ones_own_means_a_cookie_of_its_own() -> None:
    """For applications that must not touch Flask's session."""
    with stores.open_store("memory:", sweep=False) as store:
        answer = get(shop(store=store, secret="other", cookie="visit"), "/items/1")
    assert answer.headers["Set-Cookie"].startswith("visit=")


def test_without_a_store_nothing_is_kept_of_a_visitor() -> None:
    """Flask's session stays empty, and there is no cookie."""
    app = shop()
    app.secret_key = "s"
    client = app.test_client()
    with client.get("/items/1", buffered=True) as answer:
        assert "Set-Cookie" not in answer.headers
    with client.session_transaction() as kept:
        assert list(kept) == []
