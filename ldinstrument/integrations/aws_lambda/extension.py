"""An internal Lambda extension: it holds the sandbox, not the caller, until the events are
delivered.

AWS returns the response as soon as the runtime posts it, and freezes the sandbox when the runtime
*and* every extension asked for their next event. A thread of the runtime's own process may be such
an extension, so no layer is needed.

A mistake here takes a function down: an extension that registered and never asks for its first
event keeps the initialisation from ending, and one that holds on past the time-out turns a good
invocation into "Task timed out". So the thread runs before anything is registered, it asks again
whatever happens in between, and every wait has an end. Protocol:
https://docs.aws.amazon.com/lambda/latest/dg/runtimes-extensions-api.html
"""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Callable
from typing import Any

from ...backoff import exponential
from ...diagnostics import log_internal_error, log_once
from ...process import on_fork

NAME = "ldinstrument"
REGISTER_SECONDS = 5.0
GRACE = 0.25
"""Seconds that the handler may take to begin after the extension heard of the invocation. It may
never begin: the event is no JSON, or a decorator above ours answers from a cache. If it begins
later than this, it delivers by itself."""
LAST_MOMENT = 0.1
"""Seconds before the function's time-out at which the extension lets go, whatever the handler
does.
"""
RETRY_FIRST, RETRY_LONGEST = 0.05, 1.0

_PATH = "/2020-01-01/extension/"


class ExtensionRefused(Exception):  # noqa: N818 - an answer of Lambda's
    """Lambda did not answer 200; the text is its status and error type."""


class Extension:
    """The one internal extension of this process.

    Args:
        address: host and port of the Extensions API, as in `AWS_LAMBDA_RUNTIME_API`.
        grace: seconds that a handler may take to begin, see `GRACE`.
    """

    def __init__(self, address: str, grace: float = GRACE):
        self._address = address
        self._grace = grace
        self._in_child = False
        self._identifier: str | None = None
        self._decided = threading.Event()
        self._failures = 0
        # Below: what the handler's thread and the extension's thread agree on, under one lock.
        self._changed = threading.Condition()
        self._asking = False
        self._seen = ""
        self._holding = ""
        self._begun = ""
        self._finished = ""
        self._deliver: Callable[[], object] | None = None

    # -- while the function initialises ------------------------------------------------------------
    def register(self) -> None:
        """Register with Lambda, for INVOKE only; the thread that will ask for events runs already.

        Raises:
            ExtensionRefused: Lambda said no; nothing is registered.
            OSError, RuntimeError: no answer, or no thread; nothing is registered that we know of.
        """
        on_fork(in_child=self._forked)
        threading.Thread(target=self._run, name="ldinstrument-lambda", daemon=True).start()
        try:
            self._identifier = self._registered()
        finally:
            self._decided.set()

    def _forked(self) -> None:
        """Step aside in a forked child: it has no thread, and the lock may have been held."""
        self._in_child = True

    def _registered(self) -> str:
        headers = {"Lambda-Extension-Name": NAME, "Content-Type": "application/json"}
        body = json.dumps({"events": ["INVOKE"]})
        answer, _ = self._call("POST", "register", headers, body, REGISTER_SECONDS)
        identifier = answer.headers.get("Lambda-Extension-Identifier")
        if not identifier:
            raise ExtensionRefused("200 without an identifier")
        return str(identifier)

    def _call(
        self,
        method: str,
        path: str,
        headers: dict[str, str],
        body: str | None,
        timeout: float | None,
    ) -> tuple[http.client.HTTPResponse, bytes]:
        # A connection per call: on loopback it costs nothing, and a stale one cannot be met.
        connection = http.client.HTTPConnection(self._address, timeout=timeout)
        try:
            connection.request(method, _PATH + path, body, headers)
            answer = connection.getresponse()
            content = answer.read()
        except http.client.HTTPException as error:
            raise ExtensionRefused(f"no HTTP answer ({type(error).__name__})") from error
        finally:
            connection.close()
        if answer.status != 200:
            raise ExtensionRefused(f"{answer.status} {_error_type(content)}".strip())
        return answer, content

    # -- the handler's side ------------------------------------------------------------------------
    def begin(self, request_id: str) -> None:
        """Say that the handler of *request_id* has begun, so there will be an end to wait for."""
        if self._in_child:
            return
        with self._changed:
            self._begun = request_id
            self._changed.notify()

    def finish(self, request_id: str, deliver: Callable[[], object]) -> bool:
        """Say that the handler has ended.

        Returns:
            True: the extension calls *deliver* before the sandbox freezes. False: it cannot, the
                caller must.
        """
        if self._in_child:
            return False
        with self._changed:
            self._begun = ""
            # Asking, and this invocation not seen yet: its INVOKE is under way to us.
            coming = self._asking and self._seen != request_id
            if not (coming or self._holding == request_id):
                return False
            self._finished, self._deliver = request_id, deliver
            self._changed.notify()
            return True

    # -- the extension's own thread ----------------------------------------------------------------
    def _run(self) -> None:
        self._decided.wait()
        while self._identifier is not None:
            try:
                self._serve_event(self._identifier)
            except BaseException:
                # Nothing may end this loop: a function whose extension is gone hangs.
                time.sleep(RETRY_LONGEST)

    def _serve_event(self, identifier: str) -> None:
        try:
            self._hold(self._next(identifier))
            self._failures = 0
        except BaseException as error:
            time.sleep(exponential(self._failures, RETRY_FIRST, RETRY_LONGEST))
            self._failures += 1
            _log_failure(error)
        finally:
            self._release()

    def _next(self, identifier: str) -> dict[str, Any]:
        with self._changed:
            self._asking = True
        # No time-out: days may pass until the next invocation, and asking twice at once is refused.
        _, content = self._call(
            "GET", "event/next", {"Lambda-Extension-Identifier": identifier}, None, None
        )
        event: dict[str, Any] = json.loads(content)
        return event

    def _hold(self, event: dict[str, Any]) -> None:
        """Hold the sandbox until the handler of this invocation has ended; a time-out comes first
        all the same.
        """
        request_id = str(event["requestId"])
        end = time.monotonic() + event["deadlineMs"] / 1000 - time.time() - LAST_MOMENT
        with self._changed:
            self._asking, self._seen, self._holding = False, request_id, request_id
            self._changed.wait_for(lambda: request_id in (self._begun, self._finished), self._grace)
            self._changed.wait_for(lambda: self._begun != request_id, end - time.monotonic())

    def _release(self) -> None:
        """Let go of the sandbox, and deliver what was handed over.

        Outside the lock, so that the handler's thread never waits.
        """
        with self._changed:
            deliver, self._deliver = self._deliver, None
            self._asking, self._holding, self._finished = False, "", ""
        if deliver is None:
            return
        try:
            deliver()
        except BaseException as error:
            log_internal_error("deliver after response", error)


def _log_failure(error: BaseException) -> None:
    reason = str(error) if isinstance(error, ExtensionRefused) else type(error).__name__
    log_once(
        "lambda_extension",
        reason,
        f"the request for Lambda's next event failed: {reason}; it is repeated, and until it "
        "succeeds events are flushed before the response",
    )


def _error_type(body: bytes) -> str:
    try:
        return str(json.loads(body)["errorType"])
    except (ValueError, KeyError, TypeError):
        return ""
