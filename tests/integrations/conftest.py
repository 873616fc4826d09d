"""Real servers on loopback for the applications of `applications.py`, and a recorder of what their
sessions emit.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from ldinstrument import testing
from ldinstrument.devserver import LocalLaunchDarkly
from ldinstrument.sessions import registry

sys.path.insert(0, str(Path(__file__).parent))


def _load(name: str) -> Any:
    """A helper module of this folder, which is no package."""
    full = f"integration_{name}"
    if full not in sys.modules:
        spec = importlib.util.spec_from_file_location(full, Path(__file__).parent / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[full] = module
        spec.loader.exec_module(module)
    return sys.modules[full]


applications = _load("applications")


@dataclass(frozen=True)
class Kind:
    """One way to run the application."""

    name: str
    make: Callable[..., Any]
    is_async: bool = False
    prefix: str = ""
    features: frozenset[str] = frozenset()


KINDS = (
    Kind("wsgi", applications.wsgi_app),
    Kind("flask", applications.flask_app, features=frozenset({"route"})),
    Kind("django", applications.django_wsgi_app, features=frozenset({"route"})),
    Kind("asgi", applications.asgi_app, is_async=True, features=frozenset({"websocket"})),
    Kind(
        "starlette",
        applications.starlette_app,
        True,
        features=frozenset({"route", "websocket", "background"}),
    ),
    Kind(
        "fastapi",
        applications.fastapi_app,
        True,
        features=frozenset({"route", "websocket", "background"}),
    ),
    Kind(
        "django-async", applications.django_asgi_app, True, "/async", features=frozenset({"route"})
    ),
    Kind(
        "django-wrapped",
        applications.django_wrapped_app,
        True,
        "/async",
        features=frozenset({"route"}),
    ),
)


class Running:
    """A served application and a client for it."""

    def __init__(self, kind: Kind, port: int) -> None:
        self.kind = kind
        self.port = port
        # A server closes the connection after an exception; a client that reuses it races against
        # that.
        once = httpx.Limits(max_keepalive_connections=0)
        self.http = httpx.Client(
            base_url=f"http://127.0.0.1:{port}", timeout=30, trust_env=False, limits=once
        )

    def get(self, path: str, user: str | None = "ada", **headers: str) -> httpx.Response:
        given = headers if user is None else {"X-User": user, **headers}
        return self.http.get(path, headers=given)

    @contextlib.contextmanager
    def connection(self) -> Iterator[httpx.Client]:
        """A client that keeps its connection, and so stays with one thread of a threading
        server.
        """
        address = f"http://127.0.0.1:{self.port}"
        with httpx.Client(
            base_url=address, headers={"X-User": "ada"}, timeout=30, trust_env=False
        ) as client:
            yield client

    def path(self, path: str) -> str:
        """The path of the async twin where a framework has both."""
        return self.kind.prefix + path


def serve_wsgi(app: Any) -> tuple[int, Callable[[], None]]:
    """Serve with Werkzeug's threading server."""
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Quiet(WSGIRequestHandler):
        def log(self, type: str, message: str, *args: Any) -> None:
            pass

    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=Quiet)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()

    def stop() -> None:
        server.shutdown()
        thread.join(20)
        server.server_close()

    return server.server_port, stop


def serve_asgi(app: Any) -> tuple[int, Callable[[], None]]:
    """Serve with uvicorn in a thread."""
    import uvicorn

    config = uvicorn.Config(
        app,
        port=0,
        log_config=None,
        log_level="critical",
        ws="websockets-sansio",
        timeout_graceful_shutdown=2,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    until(lambda: server.started, "uvicorn started")

    def stop() -> None:
        server.should_exit = True
        thread.join(20)

    return server.servers[0].sockets[0].getsockname()[1], stop


def until(predicate: Callable[[], Any], what: str, timeout: float = 60.0) -> Any:
    """Wait until *predicate* is true: an end is seen a moment after the client has its last
    byte.
    """
    deadline = time.monotonic() + timeout
    while not (found := predicate()):
        assert time.monotonic() < deadline, f"not in {timeout} s: {what}"
        time.sleep(0.005)
    return found


@contextlib.contextmanager
def served(kind: Kind, **options: Any) -> Iterator[Running]:
    """The application in one framework, served over real HTTP."""
    for noisy in ("shop", "uvicorn.error", "django.request", "asyncio", "werkzeug"):
        logging.getLogger(noisy).setLevel(logging.CRITICAL)
    port, stop = (serve_asgi if kind.is_async else serve_wsgi)(kind.make(**options))
    found = Running(kind, port)
    try:
        yield found
    finally:
        found.http.close()
        stop()


@pytest.fixture(scope="module", params=KINDS, ids=lambda kind: kind.name)
def running(request: pytest.FixtureRequest) -> Iterator[Running]:
    """Each framework in turn."""
    with served(request.param) as found:
        yield found


@pytest.fixture(params=KINDS, ids=lambda kind: kind.name)
def serving(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """A context manager for each framework in turn, with options for our part of it."""
    return functools.partial(served, request.param)


@pytest.fixture
def asgi_server() -> Callable[[Any], Any]:
    """`with asgi_server(app) as port`: any application under uvicorn."""

    @contextlib.contextmanager
    def serve(app: Any) -> Iterator[int]:
        port, stop = serve_asgi(app)
        try:
            yield port
        finally:
            stop()

    return serve


@pytest.fixture
def launchdarkly(monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalLaunchDarkly]:
    """A LaunchDarkly on loopback, and the environment that leads there."""
    with LocalLaunchDarkly() as local:
        monkeypatch.setenv("LDINSTRUMENT_URL", local.url)
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        yield local


@pytest.fixture
def events() -> Iterator[Events]:
    """What the sessions of one test emit."""
    with testing.recording() as recorder:
        yield Events(recorder)
        until(lambda: not registry.open_sessions(), "every session has ended")


class Events:
    """The recorded events, awaited."""

    def __init__(self, recorder: testing.RecordingClient) -> None:
        self.recorder = recorder

    def of(self, key: str, count: int = 1) -> list[testing.RecordedEvent]:
        """Exactly *count* events of *key*, awaited."""
        try:
            until(
                lambda: len(self.recorder.of(key)) >= count and not registry.open_sessions(),
                f"{count} of {key}",
            )
        except AssertionError as error:
            raise AssertionError(
                f"{error}; {self.recorder.keys()}; open: {registry.open_sessions()}"
            ) from error
        found = self.recorder.of(key)
        assert len(found) == count, [event.data for event in found]
        return found

    def only(self, key: str) -> testing.RecordedEvent:
        return self.of(key)[0]

    def none(self) -> bool:
        return not self.recorder.events and not registry.open_sessions()
