"""An exception out of a signal's handler is the host's, wherever in our code it strikes.

Time limits of Celery and RQ are made of such exceptions, and so is the usual recipe with
`signal.alarm`.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import ldinstrument as ld
from ldinstrument import testing
from ldinstrument.diagnostics import diagnostics, guard, never_raises, warn_user_code, withhold
from ldinstrument.integrations.wsgi import SessionMiddleware
from ldinstrument.sessions import registry

pytestmark = pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no signals here")


class TimeLimit(Exception):
    """What the host's handler raises."""


def _raise(number: int, frame: object) -> None:
    raise TimeLimit


class Limiter:
    """A handler with a state, by method and by call."""

    def stop(self, number: int, frame: object) -> None:
        raise TimeLimit

    __call__ = stop


def _by_star(*_: object) -> None:
    _raise(0, None)


def _deleting(number: int, frame: object) -> None:
    del number, frame
    raise TimeLimit


@pytest.fixture
def handled() -> Iterator[Callable[[Any], None]]:
    """Install a handler of SIGUSR1, and at the end the one before."""
    before = signal.signal(signal.SIGUSR1, _raise)
    yield lambda handler: signal.signal(signal.SIGUSR1, handler)
    signal.signal(signal.SIGUSR1, before)


def strike(*_: object, **__: object) -> Any:
    """Let the signal strike, and its handler run, here."""
    os.kill(os.getpid(), signal.SIGUSR1)
    for _ in range(1000):  # handlers run between two instructions
        time.sleep(0.001)
    raise AssertionError("no signal struck")


def _guarded() -> None:
    with guard("here"):
        strike()


def _withheld() -> None:
    try:
        strike()
    except Exception as error:
        withhold("here", error)


def _users() -> None:
    try:
        strike()
    except Exception as error:
        warn_user_code("context=", error, "nothing is known")


@pytest.mark.parametrize(
    "handler",
    [_raise, Limiter().stop, Limiter(), functools.partial(_raise), _by_star, _deleting],
    ids=["function", "method", "object", "partial", "star", "deleting"],
)
@pytest.mark.parametrize("caught", [_guarded, _withheld, _users, never_raises(strike)])
def test_it_passes_each_of_our_guards(
    handled: Callable[[Any], None], handler: Any, caught: Callable[[], None]
) -> None:
    """And nothing is said of a bug."""
    handled(handler)
    with pytest.raises(TimeLimit):
        caught()
    assert not diagnostics.counts()


@pytest.mark.usefixtures("handled")
def test_what_a_library_makes_of_it_is_taken_back() -> None:
    """A client of a server turns the TimeoutError in its socket into an error of its own."""

    def library(explicit: bool) -> None:
        try:
            strike()
        except TimeLimit as error:
            if explicit:
                raise ConnectionError("the server does not answer") from error
            raise ConnectionError("the server does not answer")  # noqa: B904

    for explicit in (True, False):
        with pytest.raises(TimeLimit), guard("here"):
            library(explicit)
    assert not diagnostics.counts()


@pytest.mark.usefixtures("handled")
def test_what_the_host_was_handling_is_not_raised_again() -> None:
    """It caught its time limit, and then gives us something odd: that is no interruption."""

    def ours() -> None:
        with guard("here"):
            {}["odd"]

    try:
        strike()
    except TimeLimit:
        ours()
    assert list(diagnostics.counts()) == [("internal:here", "KeyError")]


def test_a_helper_that_is_given_a_frame_is_no_handler() -> None:
    """Nor is a trace function: what they raise costs what it was asked for."""

    def place(name: str, frame: object) -> int:
        raise ValueError(name)

    def about(result: int) -> dict[str, int]:
        return {"line": place("line", sys._getframe())}

    with testing.recording() as events, ld.session("ada"):
        assert ld.track_task("odd.task", data=about)(lambda: 7)() == 7
    assert len(events.values("odd.task.duration")) == 1


# -- on the ways that a value goes -----------------------------------------------------------------


class Odd:
    """A host's object; whatever is read of it is interrupted."""

    __float__ = __bool__ = __str__ = __getattr__ = keys = strike


class OddMapping(dict[str, Any]):
    """Data of the host."""

    get = items = __getitem__ = __iter__ = __len__ = strike


class Wrapped(testing.RecordingClient):
    """A client of the host's own class."""

    def track(self, *_: Any, **__: Any) -> None:
        """Be interrupted."""
        strike()


def _record(value: Any = 1, **data: Any) -> None:
    with ld.session("ada") as session:
        session.record("revenue.impact", value, **data)


def _in_session(act: Callable[[ld.Session], object]) -> Callable[[], None]:
    def run() -> None:
        with ld.session("ada") as session:
            act(session)

    return run


def _web() -> None:
    from wsgiref.util import setup_testing_defaults

    environ: dict[str, Any] = {}
    setup_testing_defaults(environ)

    def application(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [])
        return [b""]

    list(SessionMiddleware(application, context=strike)(environ, lambda *_: None))


def _ended_with(client: Any) -> None:
    with ld.session("ada", client=client) as session:
        session.revenue(1)


def _answer(result: Any) -> None:
    with ld.session("ada"):
        ld.track_ai("model")(lambda: result)()


def _logged() -> None:
    class Handler(logging.Handler):
        def handle(self, record: logging.LogRecord) -> Any:
            return strike()

    handler = Handler()
    logging.getLogger("ldinstrument").addHandler(handler)
    try:
        _record(value=float("nan"))
    finally:
        logging.getLogger("ldinstrument").removeHandler(handler)


class Answer:
    """An odd answer of a model's SDK."""

    __module__ = "openai.types"
    usage = choices = model = property(strike)


WAYS: dict[str, Callable[[], object]] = {
    "data": lambda: _record(data=OddMapping(a=1)),
    "a context that is a dict": lambda: ld.session(OddMapping(kind="user", key="a")).__enter__(),
    "a context that is a function": lambda: ld.session(context=lambda: strike())(lambda: None)(),
    "an id": lambda: ld.session("ada", id=Odd()).__enter__(),  # type: ignore[arg-type]
    "an interaction": _in_session(lambda session: session.interaction(Odd())),  # type: ignore[arg-type]
    "success=": _in_session(lambda _: ld.track_task("t", success=strike)(lambda: 1)()),
    "data=": _in_session(lambda _: ld.track_task("t", data=strike)(lambda: 1)()),
    "record=": _in_session(
        lambda _: ld.track_task("t", record={"revenue.impact": strike})(lambda: 1)()
    ),
    "context= of a task": lambda: ld.track_task("t", context=lambda: strike())(lambda: 1)(),
    "a client of the host's": lambda: _ended_with(Wrapped()),
    "a logger of the host's": _logged,
    "a request": _web,
    "the answer of a model": lambda: _answer(Answer()),
}


@pytest.mark.usefixtures("handled")
@pytest.mark.parametrize("way", WAYS)
def test_it_reaches_the_host_on_each_way(way: str) -> None:
    """It leaves no session behind, and is no bug of ours."""
    with (
        contextlib.nullcontext() if "client" in way else testing.recording(),
        pytest.raises(TimeLimit),
    ):
        WAYS[way]()
    assert not registry.open_sessions()
    assert not [cause for cause, _ in diagnostics.counts() if cause.startswith("internal")]
