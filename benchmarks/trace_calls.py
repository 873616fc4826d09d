"""How long the ways through the package are: functions and files that a value passes.

    python benchmarks/trace_calls.py            # the figures
    python benchmarks/trace_calls.py --list     # and each function, by file

A call trace over all threads of two warm runs against a local LaunchDarkly:

* `task`: open a session, run one tracked function, record one value, end, flush;
* `request`: one request through the WSGI middleware with a SQLite store, then the sweep that
  reports the visit.

Prints the different functions of ldinstrument and the files that they are in. Importing the module
does nothing; `measured()` returns the figures.
"""

from __future__ import annotations

import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from ldclient import LDClient
from ldclient.config import Config

import ldinstrument as ld
from ldinstrument.delivery.program_warnings import ProgramWarnings
from ldinstrument.devserver import LocalLaunchDarkly
from ldinstrument.integrations.wsgi import SessionMiddleware
from ldinstrument.stores import open_store
from ldinstrument.values import Fields

PACKAGE = str(Path(ld.__file__).resolve().parent)
# What stands in for LaunchDarkly is not on the way.
NOT_ON_THE_WAY = tuple(str(Path(PACKAGE, name)) for name in ("devserver", "cli", "values.py"))


class CallTrace:
    """The functions of ours that any thread enters while `of` runs.

    Installed before the first thread starts: Python 3.11 cannot reach a running one later.
    """

    def __init__(self) -> None:
        self._entered: set[CodeType] | None = None
        threading.setprofile(self._profile)
        sys.setprofile(self._profile)

    def _profile(self, frame: FrameType, event: str, _: Any) -> None:
        if event == "call" and self._entered is not None and not is_asked_locally(frame):
            self._entered.add(frame.f_code)

    def of(self, work: Callable[[], None]) -> set[CodeType]:
        """Run *work* once to warm up, once traced."""
        work()
        self._entered = entered = set()
        work()
        self._entered = None
        return {code for code in entered if is_ours(code)}

    def close(self) -> None:
        """Stop tracing."""
        sys.setprofile(None)
        threading.setprofile(None)


def is_asked_locally(frame: FrameType) -> bool:
    """Tell whether it runs because the answer came from a local LaunchDarkly, which asks what a
    program has warned about; LaunchDarkly's own answer ends that at once.
    """
    caller = frame.f_back
    return caller is not None and caller.f_code is ProgramWarnings.tell.__code__


def is_ours(code: CodeType) -> bool:
    """Tell whether *code* is a function of the package that a value passes.

    Comprehensions are none: Python 3.12 runs most of them inside their function. Neither is what
    makes or compares a value, as a dataclass's generated methods are none.
    """
    name = code.co_filename
    if code.co_name in ("<listcomp>", "<setcomp>", "<dictcomp>", "<genexpr>"):
        return False
    if code in constructors(Fields):
        return False
    return name.startswith(PACKAGE) and not name.startswith(NOT_ON_THE_WAY)


def constructors(kind: type) -> set[CodeType]:
    """Return the code of `__init__` of the classes of values under *kind*."""
    found = {vars(kind)["__init__"].__code__} if "__init__" in vars(kind) else set()
    return found.union(*map(constructors, kind.__subclasses__()))


@ld.track_task("trace.task")
def task() -> int:
    """Do nothing, measured."""
    return 1


def session_with_a_task(client: LDClient) -> None:
    """Open a session, run a task, record a value, end; then flush."""
    with ld.session("user-1", client=client) as session:
        task()
        session.record("cart.size", 3)
    assert ld.flush(timeout=10.0, client=client).confirmed


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
    """Answer."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"hello"]


def request(app: Any, cookie: str = "") -> None:
    """Send one request through *app* and read its body."""
    environ = {
        "REQUEST_METHOD": "GET",
        "PATH_INFO": "/",
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "wsgi.url_scheme": "http",
        "HTTP_COOKIE": cookie,
    }
    body = app(environ, lambda status, headers, exc_info=None: None)
    try:
        b"".join(body)
    finally:
        getattr(body, "close", lambda: None)()


def measured() -> dict[str, set[CodeType]]:
    """Return the functions on each way: `task` and `request`."""
    trace = CallTrace()
    try:
        with LocalLaunchDarkly() as local, tempfile.TemporaryDirectory() as folder:
            return ways(trace, local.url, folder)
    finally:
        trace.close()


def ways(trace: CallTrace, url: str, folder: str) -> dict[str, set[CodeType]]:
    """Trace both ways against the local LaunchDarkly at *url*."""
    ld.catalog.add(ld.Metric("cart.size", unit="items", success_criteria="HigherThanBaseline"))
    addresses = {"base_uri": url, "events_uri": url, "stream_uri": url}
    parts: dict[str, Any] = {"plugins": [ld.Plugin()], "event_processor_class": ld.EventProcessor}
    client = LDClient(Config("sdk-trace", **addresses, **parts, flush_interval=3600))
    found = {"task": trace.of(lambda: session_with_a_task(client))}
    store = open_store(f"sqlite:///{folder}/sessions.db", idle=0.001, client=client, sweep=False)
    app = SessionMiddleware(
        application, context=lambda environ: "user-1", store=store, secret="s" * 32
    )

    def request_and_sweep() -> None:
        request(app)
        time.sleep(0.05)
        assert store.sweep().delivered > 0

    found["request"] = trace.of(request_and_sweep)
    store.close()
    client.close()
    return found


def main() -> None:
    """Print the figures."""
    for name, codes in measured().items():
        files = {code.co_filename for code in codes}
        print(f"{name:8} {len(codes):4} functions in {len(files):3} files")
        if "--list" in sys.argv:
            for file in sorted(files):
                names = sorted(
                    c.co_qualname if sys.version_info >= (3, 11) else c.co_name
                    for c in codes
                    if c.co_filename == file
                )
                print(f"    {file.removeprefix(PACKAGE)[1:]}: {', '.join(names)}")


if __name__ == "__main__":
    main()
