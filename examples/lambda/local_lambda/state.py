"""What a Lambda sandbox knows about its runtime and its extensions, and the rules it enforces.

The rules are those of AWS's own emulator (github.com/aws/aws-lambda-runtime-interface-emulator,
`internal/lambda`): registration closes when the runtime asks for its first event; the
initialisation then waits for every extension's first `next`; an invocation is over when the runtime
and every extension that subscribed to INVOKE asked again.
"""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

MAX_EXTENSIONS = 10

Outcome = Literal["running", "ok", "error", "timed out", "exited"]


class Refused(Exception):  # noqa: N818 - an answer, not a fault of ours
    """An HTTP answer with one of Lambda's error types."""

    def __init__(self, status: int, kind: str, message: str):
        super().__init__(message)
        self.status = status
        self.kind = kind


class Ended(Exception):  # noqa: N818
    """The sandbox is gone; whoever waits in `next` gets no answer any more."""


def _value(payload: bytes) -> Any:
    """A response is JSON, or the bytes that a handler returned, which AWS passes on as they are."""
    try:
        return json.loads(payload) if payload else None
    except ValueError:
        return payload


@dataclass
class Extension:
    """One registered (internal) extension."""

    name: str
    events: tuple[str, ...]
    identifier: str = field(default_factory=lambda: str(uuid.uuid4()))
    waiting: bool = False
    asked: int = 0


@dataclass
class Invocation:
    """One invocation: what went in, what came out, and when (seconds of `time.monotonic()`)."""

    event: Any
    timeout: float
    request_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    started: float = 0.0
    deadline_ms: int = 0
    responded: float | None = None
    response: Any = None
    error: dict[str, Any] | None = None
    ended: float | None = None
    frozen: float | None = None
    outcome: Outcome = "running"

    @property
    def response_ms(self) -> float:
        """Milliseconds until the caller had the answer; NaN while there is none."""
        return (
            (self.responded if self.responded is not None else float("nan")) - self.started
        ) * 1000

    @property
    def held_ms(self) -> float:
        """Milliseconds that the sandbox went on after the answer (billed, but nobody waits for
        them).
        """
        return ((self.ended or float("nan")) - (self.responded or float("nan"))) * 1000


class Sandbox:
    """The state of one execution environment; every method may be called from any thread.

    Args:
        freeze: called, with the lock held, the moment everybody has asked for the next event.
        thaw: called, with the lock held, before an invocation is handed out.
    """

    def __init__(
        self, freeze: Callable[[], None] = lambda: None, thaw: Callable[[], None] = lambda: None
    ):
        self.changed = threading.Condition()
        self.extensions: dict[str, Extension] = {}
        self.registration_open = True
        self.initialised: float | None = None
        self.init_error: dict[str, Any] | None = None
        self.refusals: list[str] = []
        self.current: Invocation | None = None
        self.over: str | None = None
        self._freeze = freeze
        self._thaw = thaw
        self._runtime_waiting = False

    # -- the Extensions API ------------------------------------------------------------------------
    def register(self, name: str | None, body: bytes) -> Extension:
        """`POST /extension/register`: refuse what AWS refuses, all of it with 403."""
        with self.changed:
            if not name:
                raise self._refusal("Extension.InvalidExtensionName", "Empty extension name")
            events = self._events(body)
            if not self.registration_open:
                raise self._refusal(
                    "Extension.RegistrationClosed", "Extension registration closed already"
                )
            if len(self.extensions) >= MAX_EXTENSIONS:
                raise self._refusal(
                    "Extension.TooManyExtensions", f"Extension limit ({MAX_EXTENSIONS}) reached"
                )
            if any(extension.name == name for extension in self.extensions.values()):
                raise self._refusal(
                    "Extension.InvalidExtensionState", "Extension with this name already registered"
                )
            extension = Extension(name, events)
            self.extensions[extension.identifier] = extension
            self.changed.notify_all()
            return extension

    def _events(self, body: bytes) -> tuple[str, ...]:
        try:
            events = tuple(json.loads(body)["events"])
        except (ValueError, KeyError, TypeError) as error:
            raise self._refusal("InvalidRequestFormat", str(error)) from None
        for event in events:
            if event == "SHUTDOWN":
                raise self._refusal(
                    "Extension.InvalidEventType", "SHUTDOWN: event not supported for internal agent"
                )
            if event != "INVOKE":
                raise self._refusal("Extension.InvalidEventType", f"{event}: invalid event type")
        return events

    def extension_next(self, identifier: str | None) -> Invocation:
        """`GET /extension/event/next`: blocks until the next invocation."""
        with self.changed:
            extension = self._known(identifier)
            if extension.waiting:
                raise self._refusal(
                    "Extension.InvalidExtensionState", "Extension already waits for its next event"
                )
            extension.waiting = True
            extension.asked += 1
            self._asked()
            self.changed.wait_for(lambda: self.over is not None or not extension.waiting)
            if self.over is not None or self.current is None:
                raise Ended(self.over)
            return self.current

    def extension_failed(self, identifier: str | None, kind: str) -> None:
        """`POST /extension/init/error` and `/exit/error`: the extension gives up, and the sandbox
        with it.
        """
        with self.changed:
            self.end(f"{self._known(identifier).name}: {kind}")

    def _known(self, identifier: str | None) -> Extension:
        if not identifier:
            raise self._refusal(
                "Extension.MissingExtensionIdentifier", "Missing Lambda-Extension-Identifier header"
            )
        try:
            return self.extensions[identifier]
        except KeyError:
            raise self._refusal(
                "Extension.UnknownExtensionIdentifier", "Unknown extension"
            ) from None

    def _refusal(self, kind: str, message: str, status: int = 403) -> Refused:
        self.refusals.append(kind)
        return Refused(status, kind, message)

    # -- the Runtime API ---------------------------------------------------------------------------
    def runtime_next(self) -> Invocation:
        """`GET /runtime/invocation/next`: blocks until the next invocation; the first call closes
        registration.
        """
        with self.changed:
            if self.current is not None and self.current.responded is None:
                raise self._refusal("InvalidStateTransition", "next before a response")
            self.registration_open = False
            self._runtime_waiting = True
            self._asked()
            self.changed.wait_for(lambda: self.over is not None or not self._runtime_waiting)
            if self.over is not None or self.current is None:
                raise Ended(self.over)
            return self.current

    def restore_next(self) -> None:
        """`GET /runtime/restore/next` (SnapStart): a snapshot is taken when everybody waits, and
        restored at once.
        """
        with self.changed:
            self.registration_open = False
            self.changed.wait_for(lambda: self.over is not None or self._extensions_wait())
            if self.over is not None:
                raise Ended(self.over)
            self._freeze()
            self._thaw()

    def respond(self, request_id: str, payload: bytes, *, error: bool) -> None:
        """`POST /runtime/invocation/ID/response` or `/error`: the caller has its answer at this
        moment.
        """
        with self.changed:
            invocation = self.current
            if invocation is None or invocation.request_id != request_id:
                raise self._refusal("InvalidRequestID", "Invalid request ID", 400)
            if invocation.responded is not None:
                raise self._refusal("InvalidStateTransition", "a response was sent already")
            value = _value(payload)
            invocation.error, invocation.response = (value, None) if error else (None, value)
            invocation.responded = time.monotonic()
            self.changed.notify_all()

    def init_failed(self, payload: bytes) -> None:
        """`POST /runtime/init/error`: the handler's module could not be loaded."""
        with self.changed:
            self.init_error = json.loads(payload)
            self.end("Runtime.InitError")

    # -- the platform ------------------------------------------------------------------------------
    def wait_initialised(self, seconds: float) -> bool:
        """Wait for the runtime's and every extension's first `next`; False when that took longer,
        or never came.
        """
        with self.changed:
            self.changed.wait_for(
                lambda: self.initialised is not None or self.over is not None, seconds
            )
            if self.initialised is None and self.over is None:
                self.end("Sandbox.InitTimedout")
            return self.initialised is not None

    def start(self, invocation: Invocation) -> None:
        """Thaw, and hand *invocation* to the runtime and to every extension that subscribed to
        INVOKE.
        """
        with self.changed:
            if self.over is not None:
                raise Ended(self.over)
            self._thaw()
            invocation.started = time.monotonic()
            invocation.deadline_ms = int((time.time() + invocation.timeout) * 1000)
            self.current = invocation
            self._runtime_waiting = False
            for extension in self.extensions.values():
                extension.waiting = extension.waiting and "INVOKE" not in extension.events
            self.changed.notify_all()

    def wait_responded(self, invocation: Invocation) -> bool:
        """Wait until the runtime answered, at most until the function's time-out."""
        with self.changed:
            left = invocation.started + invocation.timeout - time.monotonic()
            self.changed.wait_for(
                lambda: invocation.responded is not None or self.over is not None, left
            )
            return invocation.responded is not None

    def wait_ended(self, invocation: Invocation) -> None:
        """Wait until everybody asked for the next event; past the time-out the invocation has
        failed, answer or not.
        """
        with self.changed:
            left = invocation.started + invocation.timeout - time.monotonic()
            self.changed.wait_for(
                lambda: invocation.ended is not None or self.over is not None, left
            )
            if invocation.ended is None:
                invocation.ended = time.monotonic()
                invocation.outcome = "timed out" if self.over is None else "exited"
                self.end("Sandbox.Timedout")

    def end(self, reason: str) -> None:
        """Nobody gets an event any more (the first reason is kept)."""
        with self.changed:
            self.over = self.over or reason
            self.changed.notify_all()

    def _asked(self) -> None:
        self.changed.notify_all()
        if not self._runtime_waiting or not self._extensions_wait():
            return
        now = time.monotonic()
        self._freeze()
        if self.initialised is None:
            self.initialised = now
        if self.current is not None and self.current.ended is None:
            self.current.ended = self.current.frozen = now
            self.current.outcome = "error" if self.current.error is not None else "ok"

    def _extensions_wait(self) -> bool:
        return all(extension.waiting for extension in self.extensions.values())
