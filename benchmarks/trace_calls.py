"""How long the ways through the package are: functions and files that a value passes.

    python benchmarks/trace_calls.py            # the figures
    python benchmarks/trace_calls.py --list     # and each function, by file

A call trace over all threads of warm runs, against a server that answers as LaunchDarkly does:

* `task`: open a session, run one tracked function, record one value, end, flush;
* `request`: one request through the WSGI middleware with a SQLite store, then the sweep that
  reports the visit.

Prints the different functions of ldinstrument and the files that they are in. Left out, and printed
as left out, is what a dataclass would have generated: constructors and comparisons of values, which
`values.Fields` spares an import. Importing the module does nothing; `measured()` returns the
figures.
"""

from __future__ import annotations

import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from ldclient import LDClient
from ldclient.config import Config

import ldinstrument as ld
from ldinstrument.integrations.wsgi import SessionMiddleware
from ldinstrument.stores import open_store
from ldinstrument.values import Fields

PACKAGE = str(Path(ld.__file__).resolve().parent)
VALUES = str(Path(PACKAGE, "values.py"))


class Server(ThreadingHTTPServer):
    """Takes every POST, as LaunchDarkly does."""

    daemon_threads = True

    class RequestHandlerClass(BaseHTTPRequestHandler):
        """Answers 202 with an empty body."""

        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            """Read the body and answer."""
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(202)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Print nothing."""


class CallTrace:
    """The functions of ours that any thread enters while `of` runs.

    Installed before the first thread starts: Python 3.11 cannot reach a running one later.
    """

    def __init__(self) -> None:
        self._entered: set[CodeType] | None = None
        threading.setprofile(self._profile)
        sys.setprofile(self._profile)

    def _profile(self, frame: FrameType, event: str, _: Any) -> None:
        if event == "call" and self._entered is not None:
            self._entered.add(frame.f_code)

    def of(self, work: Callable[[], None]) -> set[CodeType]:
        """Run *work* once to warm up, three times traced; return the least: on a full machine a
        wait for a lock or a store adds to it.
        """
        work()
        runs = []
        for _ in range(3):
            self._entered = entered = set()
            work()
            self._entered = None
            runs.append({code for code in entered if is_ours(code)})
        return min(runs, key=len)

    def close(self) -> None:
        """Stop tracing."""
        sys.setprofile(None)
        threading.setprofile(None)


def is_ours(code: CodeType) -> bool:
    """Tell whether *code* is a function of the package.

    Comprehensions are none: Python 3.12 runs most of them inside their function.
    """
    inlined = code.co_name in ("<listcomp>", "<setcomp>", "<dictcomp>", "<genexpr>")
    return code.co_filename.startswith(PACKAGE) and not inlined


def is_of_a_value(code: CodeType) -> bool:
    """Tell whether *code* makes or compares a value, as a dataclass's generated methods do."""
    return code.co_filename == VALUES or code in constructors(Fields)


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
    """Return the functions on each way, `task` and `request`, without those of values."""
    return {
        name: {code for code in codes if not is_of_a_value(code)}
        for name, codes in traced().items()
    }


def traced() -> dict[str, set[CodeType]]:
    """Return all functions of the package that are entered on each way."""
    server = Server(("127.0.0.1", 0), Server.RequestHandlerClass)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    trace = CallTrace()
    try:
        with tempfile.TemporaryDirectory() as folder:
            return ways(trace, f"http://127.0.0.1:{server.server_address[1]}", folder)
    finally:
        trace.close()
        server.shutdown()
        server.server_close()


def ways(trace: CallTrace, url: str, folder: str) -> dict[str, set[CodeType]]:
    """Trace both ways against the server at *url*."""
    ld.catalog.add(ld.Metric("cart.size", unit="items", success_criteria="HigherThanBaseline"))
    addresses = {"base_uri": url, "events_uri": url, "stream_uri": url}
    parts: dict[str, Any] = {"plugins": [ld.Plugin()], "event_processor_class": ld.EventProcessor}
    client = LDClient(Config("sdk-trace", use_ldd=True, **addresses, **parts, flush_interval=3600))
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


def by_file(codes: Iterable[CodeType]) -> dict[str, list[str]]:
    """Return the names of *codes* by file, sorted."""
    found: dict[str, list[str]] = {}
    for code in codes:
        name = code.co_qualname if sys.version_info >= (3, 11) else code.co_name
        found.setdefault(code.co_filename.removeprefix(PACKAGE)[1:], []).append(name)
    return {file: sorted(names) for file, names in sorted(found.items())}


def main() -> None:
    """Print the figures."""
    for way, codes in traced().items():
        files = by_file(code for code in codes if not is_of_a_value(code))
        values = by_file(filter(is_of_a_value, codes))
        count = sum(map(len, files.values()))
        left_out = sum(map(len, values.values()))
        print(f"{way:8} {count:4} functions in {len(files):3} files; {left_out} of values left out")
        if "--list" in sys.argv:
            for file, names in files.items():
                print(f"    {file}: {', '.join(names)}")
            for file, names in values.items():
                print(f"    left out, {file}: {', '.join(names)}")


if __name__ == "__main__":
    main()
