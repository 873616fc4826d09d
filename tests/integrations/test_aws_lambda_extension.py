"""The extension against a strict Extensions API: its promises to Lambda, and each way to break
them.
"""

from __future__ import annotations

import contextlib
import http.client
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "examples" / "lambda"))

from local_lambda.api import Api
from local_lambda.state import Ended, Invocation, Refused, Sandbox

from ldinstrument.integrations.aws_lambda import extension as extensions
from ldinstrument.integrations.aws_lambda.extension import Extension


class Lambda:
    """A sandbox with its API, and a runtime that does what the test says."""

    def __init__(self, sandbox: Sandbox):
        self.sandbox = sandbox
        self.api = Api(sandbox)
        self._runtime: threading.Thread | None = None

    def initialise(self) -> bool:
        """The runtime asks for its first event; whether the initialisation then ends."""
        self.ask()
        return self.sandbox.wait_initialised(5)

    def invoke(self, timeout: float = 30.0, request_id: str | None = None) -> Invocation:
        invocation = Invocation({}, timeout)
        invocation.request_id = request_id or invocation.request_id
        self.sandbox.start(invocation)
        self._asked()
        return invocation

    def respond(self, invocation: Invocation) -> None:
        """The runtime posts the answer and asks for the next event."""
        self.sandbox.respond(invocation.request_id, b'"ok"', error=False)
        self.ask()

    def ask(self) -> None:
        self._runtime = threading.Thread(target=self._next, daemon=True)
        self._runtime.start()

    def _next(self) -> None:
        try:
            self.sandbox.runtime_next()
        except Ended:
            pass

    def _asked(self) -> None:
        assert self._runtime is not None
        self._runtime.join(5)

    def close(self) -> None:
        self.sandbox.end("closed")
        self.api.close()


@pytest.fixture(name="aws")
def _aws() -> Iterator[Lambda]:
    with running(Sandbox()) as aws:
        yield aws


@contextlib.contextmanager
def running(sandbox: Sandbox) -> Iterator[Lambda]:
    aws = Lambda(sandbox)
    try:
        yield aws
    finally:
        aws.close()


@pytest.fixture(autouse=True)
def _leave_no_thread() -> Iterator[None]:
    """An extension outlives everything by design; with its identifier gone, its loop ends at the
    next error.
    """
    made: list[Extension] = []
    original = Extension.__init__

    def remember(self: Extension, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        made.append(self)

    Extension.__init__ = remember  # type: ignore[method-assign]
    yield
    Extension.__init__ = original  # type: ignore[method-assign]
    for extension in made:
        extension._identifier = None
    assert eventually(lambda: not extension_threads())


def extension_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "ldinstrument-lambda"]


def eventually(condition: Callable[[], object], seconds: float = 60.0) -> bool:
    """Whether *condition* comes true in time."""
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            return False
        time.sleep(0.005)
    return True


def test_it_registers_for_invoke_and_asks_at_once(aws: Lambda) -> None:
    """An initialisation waits for every extension's first `next`, so this is what keeps a function
    alive.
    """
    Extension(aws.api.address).register()

    (registered,) = aws.sandbox.extensions.values()
    assert (registered.name, registered.events) == ("ldinstrument", ("INVOKE",))
    assert aws.initialise()
    assert registered.asked == 1


def test_without_a_thread_to_spare_nothing_is_registered(
    aws: Lambda, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A registered extension that cannot ask would be the end of the function."""

    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError):
            Extension(aws.api.address).register()
    assert aws.sandbox.extensions == {}
    assert aws.initialise()


def test_it_waits_for_the_next_event_as_long_as_that_takes(
    aws: Lambda, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Days may pass; asking again meanwhile is refused. Everything else has a time-out."""
    asked: dict[str, float | None] = {}
    original = http.client.HTTPConnection.request

    def request(self: http.client.HTTPConnection, method: str, path: str, *rest: Any) -> None:
        asked[path] = self.timeout
        original(self, method, path, *rest)

    monkeypatch.setattr(http.client.HTTPConnection, "request", request)
    Extension(aws.api.address).register()
    assert aws.initialise()

    assert asked == {
        "/2020-01-01/extension/register": extensions.REGISTER_SECONDS,
        "/2020-01-01/extension/event/next": None,
    }


def test_an_extension_that_never_asks_takes_the_function_down(aws: Lambda) -> None:
    """Why the thread runs before anything is registered: the sandbox is as strict about it as
    AWS.
    """
    aws.sandbox.register("silent", b'{"events": ["INVOKE"]}')
    aws.ask()

    assert not aws.sandbox.wait_initialised(0.3)
    assert aws.sandbox.over == "Sandbox.InitTimedout"


def test_the_sandbox_is_held_between_the_response_and_the_delivery(aws: Lambda) -> None:
    """The caller has the answer, the invocation is not over; it is when the delivery is."""
    extension, delivering, delivered = (
        Extension(aws.api.address),
        threading.Event(),
        threading.Event(),
    )
    extension.register()
    assert aws.initialise()
    invocation = aws.invoke()
    extension.begin(invocation.request_id)

    assert extension.finish(invocation.request_id, lambda: (delivering.set(), delivered.wait(20)))
    aws.respond(invocation)

    assert delivering.wait(60)
    assert invocation.responded is not None
    assert invocation.ended is None
    delivered.set()
    aws.sandbox.wait_ended(invocation)
    assert invocation.outcome == "ok"


def test_no_handler_waits_for_a_delivery(aws: Lambda) -> None:
    """A delivery may take seconds: a handler of somebody else's loop may begin and end
    meanwhile.
    """
    extension, delivering, delivered = (
        Extension(aws.api.address),
        threading.Event(),
        threading.Event(),
    )
    extension.register()
    assert aws.initialise()
    invocation = aws.invoke()
    extension.begin(invocation.request_id)
    assert extension.finish(invocation.request_id, lambda: (delivering.set(), delivered.wait(60)))
    aws.respond(invocation)
    assert delivering.wait(60)

    other = threading.Thread(
        target=lambda: (extension.begin("other"), extension.finish("other", lambda: None))
    )
    other.start()
    other.join(30)
    assert not other.is_alive()
    delivered.set()


def test_the_end_may_be_known_before_the_invocation_is(aws: Lambda) -> None:
    """A handler of microseconds is over before Lambda told the extension about it; nothing is
    delivered twice.
    """
    reach = threading.Event()

    class Late(Sandbox):
        def extension_next(self, identifier: str | None) -> Invocation:
            invocation = super().extension_next(identifier)
            assert reach.wait(60)
            return invocation

    with running(Late()) as aws:
        extension, delivered = Extension(aws.api.address), []
        extension.register()
        assert aws.initialise()
        invocation = aws.invoke()
        extension.begin(invocation.request_id)
        assert extension.finish(invocation.request_id, lambda: delivered.append("once"))
        aws.respond(invocation)
        assert delivered == []
        reach.set()
        aws.sandbox.wait_ended(invocation)
        assert (invocation.outcome, delivered) == ("ok", ["once"])


def test_a_handler_that_never_begins_is_not_waited_for(aws: Lambda) -> None:
    """The event was no JSON, or a cache answered: the extension lets go after a moment, not at the
    time-out.
    """
    extension = Extension(aws.api.address, grace=0.05)
    extension.register()
    assert aws.initialise()

    for _ in range(3):
        invocation = aws.invoke(timeout=60)
        aws.respond(invocation)
        aws.sandbox.wait_ended(invocation)
        assert invocation.outcome == "ok"
        assert invocation.held_ms < 30_000


def test_a_handler_that_begins_too_late_delivers_by_itself(aws: Lambda) -> None:
    """The extension has let go and asked again: it must not promise what the freeze would cut
    off.
    """
    extension = Extension(aws.api.address, grace=0.05)
    extension.register()
    assert aws.initialise()
    (registered,) = aws.sandbox.extensions.values()
    invocation = aws.invoke()
    assert eventually(lambda: registered.asked == 2)

    extension.begin(invocation.request_id)
    assert (
        extension.finish(invocation.request_id, lambda: pytest.fail("nobody may deliver this"))
        is False
    )
    aws.respond(invocation)
    aws.sandbox.wait_ended(invocation)

    assert invocation.outcome == "ok"


def test_a_repeated_request_id_is_a_new_invocation(aws: Lambda) -> None:
    """Lambda retries an asynchronous invocation under the same id, perhaps in the same sandbox."""
    extension, delivered = Extension(aws.api.address, grace=0.05), []
    extension.register()
    assert aws.initialise()

    for attempt in range(3):
        invocation = aws.invoke(request_id="same", timeout=60)
        extension.begin("same")
        if not extension.finish("same", lambda number=attempt: delivered.append(number)):
            delivered.append(attempt)
        aws.respond(invocation)
        aws.sandbox.wait_ended(invocation)
        assert invocation.outcome == "ok"
        assert invocation.held_ms < 30_000

    assert delivered == [0, 1, 2]


def test_it_lets_go_before_the_time_out(aws: Lambda, monkeypatch: pytest.MonkeyPatch) -> None:
    """A handler that never ends would be a time-out anyway; one whose answer is out must not become
    one.
    """
    monkeypatch.setattr(
        extensions, "LAST_MOMENT", 19.0
    )  # of twenty seconds: a slow machine has time, too
    extension = Extension(aws.api.address)
    extension.register()
    assert aws.initialise()
    invocation = aws.invoke(timeout=20.0)
    extension.begin(invocation.request_id)
    aws.respond(invocation)  # and no finish()

    aws.sandbox.wait_ended(invocation)

    assert invocation.outcome == "ok"


def test_an_extension_that_holds_past_the_time_out_ruins_a_good_invocation(aws: Lambda) -> None:
    """What the promise above is worth: the sandbox calls it a time-out though the caller has the
    answer.
    """
    other = aws.sandbox.register("clumsy", b'{"events": ["INVOKE"]}')
    waiting = threading.Thread(
        target=aws.sandbox.extension_next, args=(other.identifier,), daemon=True
    )
    waiting.start()
    assert aws.initialise()
    invocation = aws.invoke(timeout=2.0)
    aws.respond(invocation)

    aws.sandbox.wait_ended(invocation)

    assert (invocation.response, invocation.outcome) == ("ok", "timed out")


@pytest.mark.parametrize("error", [ValueError("broken"), SystemExit(1), KeyboardInterrupt()])
def test_nothing_ends_the_loop(aws: Lambda, error: BaseException) -> None:
    """A delivery that raises, whatever it raises, costs itself; the next event is asked for."""
    extension, delivered = Extension(aws.api.address), []
    extension.register()
    assert aws.initialise()

    def deliver() -> None:
        delivered.append(1)
        raise error

    for _ in range(3):
        invocation = aws.invoke()
        extension.begin(invocation.request_id)
        assert extension.finish(invocation.request_id, deliver)
        aws.respond(invocation)
        aws.sandbox.wait_ended(invocation)
        assert invocation.outcome == "ok"

    assert len(delivered) == 3


class Rude(Sandbox):
    """Answers the first questions for the next event with a 500, or not at all."""

    def __init__(self, error: Exception):
        super().__init__()
        self.error = error
        self.rude = 0

    def extension_next(self, identifier: str | None) -> Invocation:
        if self.rude < 3:
            self.rude += 1
            raise self.error
        return super().extension_next(identifier)


@pytest.mark.parametrize("error", [Refused(500, "Extension.Internal", "container error"), Ended()])
def test_a_refused_question_is_asked_again(error: Exception, caplog: Any) -> None:
    """A 500, or a closed connection, is said once and repeated; the initialisation ends all the
    same.
    """
    caplog.set_level(logging.WARNING, "ldinstrument")
    with running(Rude(error)) as aws:
        extension = Extension(aws.api.address)
        extension.register()
        assert aws.initialise()
        invocation = aws.invoke()
        extension.begin(invocation.request_id)
        assert extension.finish(invocation.request_id, lambda: None)
        aws.respond(invocation)
        aws.sandbox.wait_ended(invocation)
        assert invocation.outcome == "ok"
        assert caplog.text.count("the request for Lambda's next event failed") == 1


def test_what_was_handed_over_while_the_question_failed_is_delivered() -> None:
    """Without an open question Lambda does not freeze us, so there is time for it."""
    delivered = threading.Event()

    class Failing(Sandbox):
        def extension_next(self, identifier: str | None) -> Invocation:
            assert extension.finish("early", delivered.set)
            raise Ended

    with running(Failing()) as aws:
        extension = Extension(aws.api.address)
        extension.register()
        assert delivered.wait(60)
        extension._identifier = None


def test_after_a_fork_the_child_delivers_by_itself(aws: Lambda) -> None:
    """The thread did not come along, and the lock was held by another thread."""
    extension = Extension(aws.api.address)
    extension.register()
    assert aws.initialise()
    invocation = aws.invoke()
    extension.begin(invocation.request_id)
    held, release = threading.Event(), threading.Event()

    def hold() -> None:
        with extension._changed:
            held.set()
            release.wait(20)

    holding = threading.Thread(target=hold)
    holding.start()
    held.wait(20)
    child = os.fork()
    if child == 0:
        signal.alarm(10)  # a child that waits for the lock dies
        extension.begin(invocation.request_id)
        os._exit(extension.finish(invocation.request_id, lambda: None))
    release.set()
    holding.join(20)

    assert os.waitpid(child, 0)[1] == 0
    assert extension.finish(invocation.request_id, lambda: None)  # in the parent it goes on


@pytest.mark.parametrize(
    ("before", "said"),
    [
        ("late", "403 Extension.RegistrationClosed"),
        ("taken", "403 Extension.InvalidExtensionState"),
        ("full", "403 Extension.TooManyExtensions"),
        ("broken", "500 Extension.Internal"),
        ("silent", "no HTTP answer"),
    ],
)
def test_any_answer_but_200_is_refused_and_leaves_nothing_behind(before: str, said: str) -> None:
    """The reason is in the error, the thread has gone, and the function initialises without an
    extension of ours.
    """

    class Odd(Sandbox):
        def register(self, name: str | None, body: bytes) -> Any:
            if before == "broken":
                raise Refused(500, "Extension.Internal", "container error")
            if before == "silent":
                raise Ended
            return super().register(name, body)

    with running(Odd()) as aws:
        names = {
            "taken": ["ldinstrument"],
            "full": [f"other-{number}" for number in range(10)],
        }.get(before, [])
        for name in names:
            other = aws.sandbox.register(name, b'{"events": []}')
            threading.Thread(
                target=_ask_for_ever, args=(aws.sandbox, other.identifier), daemon=True
            ).start()
        if before == "late":
            assert aws.initialise()
        with pytest.raises(extensions.ExtensionRefused, match=said):
            Extension(aws.api.address).register()
        assert before == "late" or aws.initialise()
        assert len(aws.sandbox.extensions) == len(names)
    assert eventually(lambda: not extension_threads())


def _ask_for_ever(sandbox: Sandbox, identifier: str) -> None:
    try:
        while True:
            sandbox.extension_next(identifier)
    except Ended:
        pass
