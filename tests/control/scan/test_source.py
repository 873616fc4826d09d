"""What only the source of a module tells: keys in function bodies, boundaries, options."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from scanned import keys, runs

from ldinstrument.scan import scan
from ldinstrument.scan.source import uses_in


def test_decorators_at_the_top_level(package: Callable[..., str]) -> None:
    """Every form of the decorators, through every way of importing them, with file and line."""
    name = package(
        a="""
            import ldinstrument as ld
            from ldinstrument import track_task, track_interaction as interaction
            from ldinstrument.tasks.decorators import track_task as direct

            KEY = "from.constant"

            @track_task
            def plain(): ...

            @ld.track_task("with.key", metrics=("duration",))
            async def keyed(): ...

            @interaction(KEY)
            def talk(): ...

            class Shop:
                @direct("shop.buy")
                def buy(self): ...

            for number in range(2):
                direct(f"looped.n{number}")(plain)
        """
    )
    found = scan(name)
    assert keys(found) == runs(
        "task.plain", "from.constant", "shop.buy", "looped.n0", "looped.n1"
    ) | {"with.key.duration", "from.constant.unfinished"}
    assert found.place("with.key.duration") == f"{name}/a.py:11"
    assert found.place("shop.buy.duration") == f"{name}/a.py:18"
    assert found.dynamic == ()
    assert found.modules == (name, f"{name}.a")


def test_what_only_function_bodies_declare(package: Callable[..., str]) -> None:
    """`with` blocks, closures, record, patterns, sessions: read from the source, never run."""
    name = package(
        keys="TALK = 'talk.' + 'back'",
        a="""
            import ldinstrument as ld
            from ldinstrument import Metric, Session, current_session
            from . import keys

            PRICE = Metric("cart.price", unit="dollars", success_criteria="HigherThanBaseline")

            def work(request):
                raise SystemExit("must not run")
                with ld.track_task("rerank") as task:
                    task.fail("empty")

                @ld.track_interaction(keys.TALK, record={"cart.price": len})
                def closure(): ...

                @ld.track_task
                def bare_closure(): ...

                with ld.session("user-1", name="chat") as s:
                    s.record(PRICE, 3)
                    s.record(Metric("cart.adds", measure="count"))
                    s.satisfaction(80)
                if (found := current_session()) is not None:
                    found.revenue(3)
                ld.track_task_success("x", True)

            def takes(s: Session | None):
                s.conversion(2)

            async def streams():
                async with ld.track_task("stream", metrics=["time_to_first_item"]):
                    yield
        """,
    )
    found = scan(name)
    assert keys(found) == runs("rerank", "talk.back", "task.bare_closure") | {
        "talk.back.unfinished",
        "chat.duration",
        "chat.success_rate",
        "chat.interactions",
        "cart.price",
        "cart.adds",
        "user.satisfaction",
        "user.negative_feedback",
        "revenue.impact",
        "task.success_rate",
        "business.conversion",
        "stream.time_to_first_item",
    }
    assert found.undeclared == ()
    assert found.place("rerank.duration") == f"{name}/a.py:10"


@pytest.mark.parametrize(
    ("source", "name"),
    [
        (
            "from ldinstrument.integrations.wsgi import SessionMiddleware\napp = "
            "SessionMiddleware(print)",
            "request",
        ),
        (
            "from ldinstrument.integrations import wsgi\napp = wsgi.SessionMiddleware(print, "
            "name='page')",
            "page",
        ),
        (
            "from ldinstrument.integrations.flask import instrument\ndef make(app): "
            "instrument(app)",
            "request",
        ),
        (
            "from ldinstrument.integrations.aws_lambda import "
            "lambda_handler\n@lambda_handler\ndef f(e, c): ...",
            "invocation",
        ),
        ("MIDDLEWARE = ['ldinstrument.integrations.django.SessionMiddleware']", "request"),
        ("from ldinstrument.integrations.celery import instrument\ninstrument(print)", "job"),
        (
            "from ldinstrument.integrations import flask\nflask.instrument(print, "
            "store='sqlite:///x.db')",
            "session",
        ),
        (
            "from ldinstrument.integrations.wsgi import SessionMiddleware as W\nW(print, "
            "store=None, name=None)",
            "request",
        ),
    ],
)
def test_boundaries_open_sessions(source: str, name: str) -> None:
    """Flask, WSGI, Lambda and Django's settings: their sessions' metrics, under their default or
    given name.
    """
    assert {(use.kind, use.key) for use in uses_in(source)} == {("session", name)}


def test_djangos_settings_name_the_sessions(package: Callable[..., str]) -> None:
    """`LDINSTRUMENT = {...}` beside MIDDLEWARE."""
    middleware = "MIDDLEWARE = ['ldinstrument.integrations.django.SessionMiddleware']\n"
    assert "page.duration" in keys(
        scan(package(settings=f"{middleware}LDINSTRUMENT = {{'name': 'page'}}"))
    )
    visits = package(settings=f"{middleware}LDINSTRUMENT = {{'store': 'sqlite:///x.db'}}")
    assert "session.duration" in keys(scan(visits))


def test_helpers_of_the_integrations_are_no_boundaries() -> None:
    """Not everything in there opens sessions."""
    source = (
        "from ldinstrument.integrations.gunicorn import post_fork\n"
        "from ldinstrument.integrations.flask import logged_in, end_session\n"
        "post_fork(1, 2); logged_in(3); end_session()\n"
    )
    assert list(uses_in(source)) == []


def test_strangers_with_the_same_names_are_left_alone(package: Callable[..., str]) -> None:
    """`record`, `session` and `Metric` are other libraries' words, too."""
    name = package(
        a="""
            class Recorder:
                def record(self, key): ...
            import ldinstrument
            measured = ldinstrument.track_task
            def session(name): ...
            def track_task(key): ...
            def shadowed(measured):
                measured("not.ours")
            def work(session_factory):
                Recorder().record("not.ours")
                session("not-ours")
                track_task("not.ours")
                s = session_factory()
                s.record("not.ours")
        """
    )
    found = scan(name)
    assert (keys(found), found.undeclared, found.dynamic) == (set(), (), ())


BOUNDARIES_AS_VALUES = {
    "starlette": (
        "app.add_middleware(asgi.SessionMiddleware, context=who)",
        {"request.duration", "request.interactions", "request.success_rate"},
    ),
    "middleware list": (
        "app = Starlette(middleware=[Middleware(asgi.SessionMiddleware)])",
        {"request.duration", "request.interactions", "request.success_rate"},
    ),
    "a bare name in a list": (
        "middleware = [asgi.SessionMiddleware]",
        {"request.duration", "request.interactions", "request.success_rate"},
    ),
    "with a store": (
        "app.add_middleware(asgi.SessionMiddleware, store=open_store('memory:'))",
        {"session.duration", "session.interactions", "session.success_rate"},
    ),
    "with a store that only running tells": (
        "def make(app, store): app.add_middleware(asgi.SessionMiddleware, store=store)",
        {
            f"{name}.{what}"
            for name in ("request", "session")
            for what in ("duration", "interactions", "success_rate")
        },
    ),
    "with a name": (
        "app.add_middleware(asgi.SessionMiddleware, name='page')",
        {"page.duration", "page.interactions", "page.success_rate"},
    ),
}


@pytest.mark.parametrize("case", BOUNDARIES_AS_VALUES)
def test_a_boundary_that_is_given_to_a_framework_is_found(
    package: Callable[..., str], case: str
) -> None:
    """FastAPI and Starlette take the class and its options, and call it themselves."""
    source, wanted = BOUNDARIES_AS_VALUES[case]
    name = package(app=f"import no_such\nfrom ldinstrument.integrations import asgi\n{source}")

    assert {key for key in keys(scan(name)) if not key.startswith("websocket.")} == wanted


CHOSEN = {
    "a session with metrics of its own": (
        "def f():\n    with ld.session(name='visit', metrics=('successes', 'unfinished')): ...",
        {"visit.successes", "visit.unfinished"},
    ),
    "a tracker with metrics of its own": (
        "def f():\n    return ld.SessionMetricsTracker(metrics=('successes',))",
        {"session.successes"},
    ),
    "a boundary with metrics of its own": (
        "app.add_middleware(asgi.SessionMiddleware, metrics=['duration'], websocket=None)",
        {"request.duration"},
    ),
    "requests as units": (
        "def f(): return wsgi.SessionMiddleware(app, metrics='duration', request_metrics=True)",
        {
            "request.duration",
            "http.request.duration_ms",
            "http.response.4xx",
            "http.response.5xx",
        },
    ),
    "requests that are no units": (
        "def f(): return wsgi.SessionMiddleware(app, metrics='duration', request_metrics=False)",
        {"request.duration"},
    ),
    "websockets": (
        "app.add_middleware(asgi.SessionMiddleware, metrics='duration', websocket='socket')",
        {"request.duration", "socket.duration"},
    ),
    "websockets in a store": (
        "app.add_middleware(asgi.SessionMiddleware, metrics='duration', store='sqlite:///s.db')",
        {"session.duration"},
    ),
    "tasks with metrics of their own": (
        "@ld.track_task('a.b', metrics=('unfinished',), within=2.0)\ndef f(): ...",
        {"a.b.unfinished", "a.b.within"},
    ),
}


@pytest.mark.parametrize("case", CHOSEN)
def test_the_metrics_that_are_asked_for_are_found(package: Callable[..., str], case: str) -> None:
    """`metrics=`, `request_metrics=`, `websocket=` and `within=` decide, in bodies, too."""
    source, wanted = CHOSEN[case]
    heads = "import no_such\nimport ldinstrument as ld\nfrom ldinstrument.integrations import"
    name = package(app=f"{heads} asgi, wsgi\n{source}")

    assert keys(scan(name)) == wanted
