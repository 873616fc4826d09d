"""What a run costs whole: from the decorated call to delivered and confirmed bytes.

    python benchmarks/bench_life.py [--rounds 3] [--only life,calls,session,burst,turns,web,import]
                                    [--write]

About four minutes. A "run" is one call of a trivial `@track_task` function inside a session; it
becomes two events. Each candidate has a process of its own, whose CPU time is taken whole (our
threads count), and rounds are interleaved; its cost is the least of them, for what others do on the
machine only ever adds. The server is another process. Each line shows its wanted value; ratios are
within this run. `--write` puts the tables into docs/performance.md.

* floor: two clock reads per run, the same events as dictionaries, one `orjson.dumps` per session;
* naive: two `client.track` per run and a flush, on the same client with our event processor;
* prometheus: `Histogram.time()` and `Counter.inc()` of prometheus_client per run.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE)]
os.environ["no_proxy"] = "*"
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # nobody imports from source twice
PAGE = HERE.parent / "docs" / "performance.md"
RUNS = (1, 10, 100, 1000)


# -- candidates: each is measured in a process of its own ------------------------------------------


def client_of(url: str, **config: Any) -> Any:
    """Return a client that delivers to *url* and fetches no flags."""
    from ldclient import Config, LDClient

    from ldinstrument import EventProcessor, Plugin

    uris = {"base_uri": url, "events_uri": url, "stream_uri": url}
    ours = {"plugins": [Plugin()], "event_processor_class": EventProcessor}
    return LDClient(Config("sdk-key", use_ldd=True, flush_interval=3600, **uris, **ours, **config))


def contexts(count: int) -> list[Any]:
    """Return *count* contexts, one for each session."""
    from ldclient import Context

    return [Context.builder(f"u-{number}").name("Ana").build() for number in range(count)]


def cost(work: Callable[[int], None], runs: int, total: int, warm: int = 3) -> float:
    """Return the CPU microseconds of the whole process per run.

    Args:
        work: given how many sessions to do; returns when all of it is delivered.
        runs: how many runs a session has.
        total: how many runs to measure.
        warm: how many sessions to do before.
    """
    sessions = max(1, total // runs)
    work(warm)
    began = time.process_time()
    work(sessions)
    return (time.process_time() - began) / (sessions * runs) * 1e6


def ours(runs: int, total: int, url: str, **config: Any) -> float:
    """Measure sessions with tracked runs, delivered and confirmed."""
    import ldinstrument as ld

    client = client_of(url, **config)
    people = iter(contexts(total // runs + 10))

    @ld.track_task("answer")
    def answer() -> int:
        return 1

    def work(sessions: int) -> None:
        for _ in range(sessions):
            with ld.session(next(people), client=client):
                for _ in range(runs):
                    answer()
        confirm(client)

    return cost(work, runs, total)


def zipped(runs: int, total: int, url: str) -> float:
    """Measure the same with compressed payloads."""
    return ours(runs, total, url, enable_event_compression=True)


def confirm(client: Any) -> None:
    """Wait until everything is delivered; nothing may have been lost."""
    import ldinstrument as ld

    report = ld.flush(60.0, client)
    assert report.confirmed, report
    assert report.pending + report.failed + report.dropped == 0, report
    assert not ld.stats().events.dropped, ld.stats().events


def naive(runs: int, total: int, url: str) -> float:
    """Measure two hand-written `track` calls per run."""
    client = client_of(url)
    people = iter(contexts(total // runs + 10))

    def work(sessions: int) -> None:
        for _ in range(sessions):
            context = next(people)
            for _ in range(runs):
                began = time.perf_counter()
                ended = time.perf_counter()
                client.track("answer.success_rate", context, None, 1.0)
                client.track("answer.duration", context, None, (ended - began) * 1000)
        confirm(client)

    return cost(work, runs, total)


def floor(runs: int, total: int, url: str) -> float:
    """Measure two clock reads per run and one `orjson.dumps` of the same events per session."""
    import orjson

    people = iter(
        [{"kind": "user", "key": f"u-{n}", "name": "Ana"} for n in range(total // runs + 10)]
    )
    rate, duration = "answer.success_rate", "answer.duration"

    def work(sessions: int) -> None:
        for _ in range(sessions):
            context, events = next(people), []
            for _ in range(runs):
                began = time.perf_counter()
                ended = time.perf_counter()
                at = int(ended * 1000)
                for key, value in ((rate, 1.0), (duration, (ended - began) * 1000)):
                    events.append(
                        {
                            "kind": "custom",
                            "creationDate": at,
                            "key": key,
                            "metricValue": value,
                            "context": context,
                        }
                    )
            orjson.dumps(events)

    return cost(work, runs, total)


def prometheus(runs: int, total: int, url: str) -> float:
    """Measure what prometheus_client needs to time and count a run."""
    from prometheus_client import CollectorRegistry, Counter, Histogram

    registry = CollectorRegistry()
    histogram = Histogram("answer_seconds", "Answers", registry=registry)
    counter = Counter("answer", "Answers", registry=registry)

    def answer() -> int:
        return 1

    def work(sessions: int) -> None:
        for _ in range(sessions * runs):
            with histogram.time():
                answer()
            counter.inc()

    return cost(work, runs, total)


CANDIDATES: dict[str, Callable[..., float]] = {
    "ours": ours,
    "zipped": zipped,
    "naive": naive,
    "floor": floor,
    "prometheus": prometheus,
}


def calls(url: str) -> dict[str, float]:
    """Return p99.9 and the longest of a decorated call, in CPU microseconds of its thread."""
    import ldinstrument as ld

    client = client_of(url)

    @ld.track_task("answer")
    def answer() -> int:
        return 1

    took: list[float] = []
    clock, keep = time.thread_time, took.append
    for context in contexts(40):
        with ld.session(context, client=client):
            for _ in range(5000):
                began = clock()
                answer()
                keep(clock() - began)
    took.sort()
    return {"p999": took[int(len(took) * 0.999)] * 1e6, "most": took[-1] * 1e6}


def empty_session(url: str) -> dict[str, float]:
    """Return CPU microseconds and bytes of a session with nothing in it."""
    import ldinstrument as ld

    client = client_of(url)
    people = contexts(4000)
    for context in people[:500]:
        with ld.session(context, client=client):
            pass
    began = time.thread_time()
    for context in people[500:2500]:
        with ld.session(context, client=client):
            pass
    took = (time.thread_time() - began) / 2000 * 1e6
    confirm(client)
    tracemalloc.start()
    scopes = [ld.session(context, client=client) for context in people[2500:3500]]
    before = tracemalloc.get_traced_memory()[0]
    opened = [scope.__enter__() for scope in scopes]
    size = (tracemalloc.get_traced_memory()[0] - before) / len(opened)
    return {"cpu": took, "bytes": size}


def burst(url: str, sessions: int, runs: int) -> dict[str, float]:
    """Return how many of the events of a burst were dropped, on the default configuration."""
    import ldinstrument as ld

    client = client_of(url)

    @ld.track_task("answer")
    def answer() -> int:
        return 1

    for context in contexts(sessions):
        with ld.session(context, client=client):
            for _ in range(runs):
                answer()
    while (report := ld.flush(60.0, client)).pending or report.failed:
        pass
    events = ld.stats().events
    return {"emitted": events.emitted, "dropped": sum(events.dropped.values())}


def turns(url: str, what: str) -> dict[str, float]:
    """Return how many turns a thread got that wants one every 20 ms beside a busy one."""
    import ldinstrument as ld

    client = client_of(url)
    people = iter(contexts(200_000))

    @ld.track_task("answer")
    def answer() -> int:
        return 1

    def sessions() -> None:
        with ld.session(next(people), client=client):
            for _ in range(100):
                answer()

    def loop() -> None:
        for _ in range(1000):
            pass

    ends = time.monotonic() + 3.0
    got = 0

    def wants() -> None:
        nonlocal got
        while time.monotonic() < ends:
            time.sleep(0.02)
            got += 1

    thread = threading.Thread(target=wants)
    thread.start()
    work = sessions if what == "sessions" else loop
    while time.monotonic() < ends:
        work()
    thread.join()
    return {"turns": got}


def web(url: str, what: str) -> dict[str, float]:
    """Return the CPU microseconds of a request through one middleware."""
    import asyncio

    client = client_of(url)
    people = iter(contexts(20_000))

    def wsgi_app(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Content-Length", "2")])
        return [b"ok"]

    async def asgi_app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})

    store = "memory:" if what.endswith("memory") else None
    options: dict[str, Any] = {"client": client, "context": lambda _: next(people)}
    if store:
        options |= {"store": store, "secret": "not a real secret"}
    application: Any = wsgi_app if "wsgi" in what else asgi_app
    if what.startswith("ours wsgi"):
        from ldinstrument.integrations.wsgi import SessionMiddleware as WSGIMiddleware

        application = WSGIMiddleware(wsgi_app, **options)
    elif what.startswith("ours asgi"):
        from ldinstrument.integrations.asgi import SessionMiddleware as ASGIMiddleware

        application = ASGIMiddleware(asgi_app, **options)
    elif what == "opentelemetry wsgi":
        from opentelemetry import trace
        from opentelemetry.instrumentation.wsgi import OpenTelemetryMiddleware
        from opentelemetry.sdk.trace import TracerProvider

        trace.set_tracer_provider(TracerProvider())
        application = OpenTelemetryMiddleware(wsgi_app)
    environ = {
        "REQUEST_METHOD": "GET",
        "PATH_INFO": "/x",
        "QUERY_STRING": "",
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "wsgi.url_scheme": "http",
    }
    scope = {
        "type": "http",
        "method": "GET",
        "path": "/x",
        "headers": [],
        "query_string": b"",
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
        "scheme": "http",
        "http_version": "1.1",
    }

    def wsgi_requests(count: int) -> None:
        for _ in range(count):
            body = application(dict(environ), lambda *arguments: None)
            for _ in body:
                pass
            if hasattr(body, "close"):
                body.close()

    async def receive() -> dict[str, str]:
        return {"type": "http.request"}

    async def send(message: Any) -> None:
        return

    async def asgi_requests(count: int) -> None:
        for _ in range(count):
            await application(dict(scope), receive, send)

    if "wsgi" in what:
        wsgi_requests(300)
        began = time.process_time()
        wsgi_requests(3000)
        return {"request": (time.process_time() - began) / 3000 * 1e6}

    async def both() -> float:
        await asgi_requests(300)
        began = time.process_time()
        await asgi_requests(3000)
        return (time.process_time() - began) / 3000 * 1e6

    return {"request": asyncio.run(both())}


def imports() -> dict[str, float]:
    """Return ms of `import ldclient`, and of ours with a first decoration on top of it."""
    began = time.perf_counter()
    import ldclient

    middle = time.perf_counter()
    import ldinstrument as ld

    @ld.track_task("answer")
    def answer() -> int:
        return 1

    ended = time.perf_counter()
    assert ldclient
    return {"theirs": (middle - began) * 1000, "ours": (ended - middle) * 1000}


def recording() -> dict[str, float]:
    """Return recording alone, above the bare call, against two clock reads, both in ns."""
    import timeit

    import ldinstrument as ld

    def bare() -> int:
        return 1

    clock = time.perf_counter

    def two_clocks() -> int:
        clock()
        result = bare()
        clock()
        return result

    tracked = ld.track_task("answer")(bare)
    least = {"bare": 1.0, "clocks": 1.0, "tracked": 1.0}
    context, client = contexts(1)[0], client_of("http://127.0.0.1:9")
    for _ in range(3000):
        with ld.session(context, client=client):  # a fresh one: after 32 runs it would fold
            for name, function in (("bare", bare), ("clocks", two_clocks), ("tracked", tracked)):
                took = timeit.timeit(function, timer=time.thread_time, number=24) / 24
                least[name] = min(least[name], took)
    return {
        "tracked": (least["tracked"] - least["bare"]) * 1e9,
        "clocks": (least["clocks"] - least["bare"]) * 1e9,
    }


def instructions(sessions: int, url: str) -> None:
    """Do *sessions* sessions of 100 runs, for callgrind."""
    ours(100, sessions * 100, url)


PARTS: dict[str, Callable[..., Any]] = {
    "calls": calls,
    "empty_session": empty_session,
    "burst": burst,
    "turns": turns,
    "web": web,
    "imports": imports,
    "recording": recording,
    "instructions": instructions,
}


def measure(name: str, *arguments: Any, before: tuple[str, ...] = ()) -> Any:
    """Run one candidate or part in a process of its own; return what it printed."""
    done = subprocess.run(
        [*before, sys.executable, __file__, "--measure", json.dumps([name, *arguments])],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env={**os.environ, "PYTHONHASHSEED": "0"},
    )
    return json.loads(done.stdout.strip().splitlines()[-1])


def measured(name: str, arguments: list[Any]) -> Any:
    """Do what `measure` asked for, in this process."""
    if name in CANDIDATES:
        return CANDIDATES[name](*arguments)
    return PARTS[name](*arguments)


# -- the table -------------------------------------------------------------------------------------


class Table:
    """The rows that were measured, each beside its wanted value."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, str, str]] = []

    def add(self, what: str, value: str, wanted: str) -> None:
        """Add a row and print it."""
        self.rows.append((what, value, wanted))
        print(f"{what}: {value} (wanted: {wanted})", flush=True)


def life(table: Table, url: str, rounds: int) -> dict[str, dict[int, float]]:
    """Compare whole lives; return CPU microseconds per run, by candidate and runs per session."""
    wanted = {
        name: RUNS if name in ("ours", "floor", "naive", "prometheus") else (100,)
        for name in CANDIDATES
    }
    least: dict[str, dict[int, float]] = {name: {} for name in CANDIDATES}
    for _ in range(rounds):
        for name, sizes in wanted.items():
            for runs in sizes:
                total = {1: 1000, 10: 5000, 100: 20_000, 1000: 40_000}[runs]
                took = measure(name, runs, total, url)
                least[name][runs] = min(took, least[name].get(runs, took))

    def times(other: str, *sizes: int) -> str:
        return " / ".join(f"{least['ours'][runs] / least[other][runs]:.2f}" for runs in sizes)

    table.add(
        "whole life against the orjson floor, 100 / 1,000 runs",
        times("floor", 100, 1000),
        "<= 3 / 2",
    )
    table.add(
        "against prometheus_client, 100 / 1,000", times("prometheus", 100, 1000), "<= 1.3 / 1.0"
    )
    table.add(
        "against naive track x 2, 1 / 10 / 100", times("naive", 1, 10, 100), "<= 3 / 0.6 / 0.2"
    )
    added = least["zipped"][100] - least["ours"][100]
    table.add("gzip on, added CPU us per run", f"{added:.2f}", "<= 0.4")
    return least


def parts(table: Table, url: str, only: set[str]) -> None:
    """Measure everything that is no whole life."""
    if "life" in only:
        count_instructions(table, url)
    if "calls" in only:
        found = measure("calls", url)
        value = f"{found['p999']:.0f} / {found['most']:.0f}"
        table.add("a decorated call, CPU us of its thread, p99.9 / most", value, "<= 60 / 300")
        found = min((measure("recording") for _ in range(3)), key=lambda one: one["tracked"])
        ratio = found["tracked"] / found["clocks"]
        table.add("recording alone against two clock reads", f"{ratio:.2f}", "<= 1.2")
    if "session" in only:
        found = measure("empty_session", url)
        value = f"{found['cpu']:.0f} us / {found['bytes']:.0f}"
        table.add("a session with nothing in it, CPU / bytes", value, "<= 20 us / 1,024")
    if "burst" in only:
        for sessions, runs in ((1000, 100), (10_000, 10)):
            found = measure("burst", url, sessions, runs)
            value = f"{found['dropped']} of {found['emitted']}"
            table.add(f"dropped of a burst of {sessions:,} x {runs}", value, "0")
    if "turns" in only:
        bare, beside = measure("turns", url, "loop"), measure("turns", url, "sessions")
        ratio = beside["turns"] / bare["turns"]
        table.add(
            "turns of a host thread beside sessions, against a bare loop", f"{ratio:.2f}", ">= 0.9"
        )
    if "web" in only:
        compare_web(table, url)
    if "import" in only:
        compare_imports(table)


def count_instructions(table: Table, url: str) -> None:
    """Count instructions per run with callgrind, where valgrind is installed."""
    if shutil.which("valgrind") is None:
        print("instructions: no valgrind here", flush=True)
        return
    counts = []
    for sessions in (10, 60):
        done = subprocess.run(
            [
                "valgrind",
                "--tool=callgrind",
                "--callgrind-out-file=/dev/null",
                sys.executable,
                __file__,
                "--measure",
                json.dumps(["instructions", sessions, url]),
            ],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONHASHSEED": "0"},
        )
        found = re.search(r"Collected : (\d+)", done.stderr)
        assert found is not None, done.stderr
        counts.append(int(found[1]))
    table.add("instructions per run at 100", f"{(counts[1] - counts[0]) / 5000:,.0f}", "<= 20,000")


def compare_web(table: Table, url: str) -> None:
    """Compare middleware, above the bare application."""
    names = [
        "bare wsgi",
        "bare asgi",
        "ours wsgi",
        "ours asgi",
        "ours wsgi memory",
        "ours asgi memory",
    ]
    try:
        metadata.version("opentelemetry-instrumentation-wsgi")
        names.append("opentelemetry wsgi")
    except metadata.PackageNotFoundError:
        print("opentelemetry-instrumentation-wsgi is not installed", flush=True)
    least: dict[str, float] = {}
    for _ in range(3):
        for name in names:
            took = measure("web", url, name)["request"]
            least[name] = min(took, least.get(name, took))
    above = {name: took - least[f"bare {name.split()[1]}"] for name, took in least.items()}
    shown = ", ".join(f"{name} {took:.0f} us" for name, took in above.items() if "bare" not in name)
    print(f"above the bare application: {shown}", flush=True)
    if "opentelemetry wsgi" in above:
        ratio = above["ours wsgi"] / above["opentelemetry wsgi"]
        table.add("WSGI middleware against OpenTelemetry's", f"{ratio:.2f}", "<= 0.8")
    ratio = above["ours asgi memory"] / above["ours wsgi memory"]
    table.add('ASGI with store="memory:" against WSGI with it', f"{ratio:.2f}", "<= 1.1")


def compare_imports(table: Table) -> None:
    """Compare our import and a first decoration with the import of the SDK."""
    pairs = [measure("imports") for _ in range(8)][1:]  # the first compiles
    theirs, mine = (statistics.median(pair[name] for pair in pairs) for name in ("theirs", "ours"))
    value = f"{mine / theirs:.0%} ({mine:.1f} of {theirs:.0f} ms)"
    table.add("import plus first decoration on top of `import ldclient`", value, "<= 12%")


# -- the page --------------------------------------------------------------------------------------


def write_page(table: Table, lives: dict[str, dict[int, float]]) -> None:
    """Put the tables and the plot between the marks of docs/performance.md."""
    lines = [f"Measured {versions()}.", "", "| | measured | wanted |", "| --- | --: | --: |"]
    lines += [f"| {what} | {value} | {wanted} |" for what, value, wanted in table.rows]
    if lives:
        lines += ["", "CPU microseconds of the whole process per run, by runs per session:", ""]
        lines += ["| runs per session | " + " | ".join(f"{runs:,}" for runs in RUNS) + " |"]
        lines += ["| --- |" + " --: |" * len(RUNS)]
        for name in ("ours", "naive", "prometheus", "floor"):
            cells = " | ".join(f"{lives[name][runs]:.2f}" for runs in RUNS)
            lines.append(f"| {name} | {cells} |")
        lines += plot(lives)
    page = PAGE.read_text(encoding="utf-8")
    before, _, rest = page.partition("<!-- life -->")
    _, _, after = rest.partition("<!-- /life -->")
    text = "\n".join(["<!-- life -->", *lines, "<!-- /life -->"])
    PAGE.write_text(f"{before}{text}{after}", encoding="utf-8")


def plot(lives: dict[str, dict[int, float]]) -> list[str]:
    """Return the cost against runs per session as a chart in text, on a logarithmic scale."""
    import math

    names = ("ours", "naive", "prometheus", "floor")
    highest = max(lives[name][runs] for name in names for runs in RUNS)
    scale = 50 / math.log10(highest * 10)
    lines = ["", "```", "us per run, logarithmic"]
    for runs in RUNS:
        for name in names:
            bar = "#" * max(1, round(scale * math.log10(max(0.11, lives[name][runs]) * 10)))
            lines.append(f"{runs:>5,} {name:<10} {bar} {lives[name][runs]:.2f}")
    return [*lines, "```"]


def versions() -> str:
    """Say on what this was measured."""
    names = ("launchdarkly-server-sdk", "urllib3", "orjson", "prometheus-client")
    packages = ", ".join(f"{name} {metadata.version(name)}" for name in names)
    return f"with Python {platform.python_version()}, {packages}, {os.cpu_count()} cores"


def main() -> None:
    """Print each row beside its wanted value."""
    from bench_delivery import serve

    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="life,calls,session,burst,turns,web,import")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    only = set(options.only.split(","))
    print("This takes about four minutes.", flush=True)
    here, there = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(
        target=serve, args=(there, 0.0), daemon=True
    )
    server.start()
    url = f"http://127.0.0.1:{here.recv()}"
    table = Table()
    try:
        lives = life(table, url, options.rounds) if "life" in only else {}
        parts(table, url, only)
    finally:
        server.terminate()
        server.join()
    if options.write:
        write_page(table, lives)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        wanted_name, *wanted_arguments = json.loads(sys.argv[2])
        print(json.dumps(measured(wanted_name, wanted_arguments)))
    else:
        main()
