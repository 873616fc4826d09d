"""A confirmed flush against one raw keep-alive POST of the same bytes, in the same run, on
loopback.

Prints medians and p99, as ratios within this run: `python benchmarks/bench_delivery.py [--rounds
N]`.

* raw: `http.client`, one connection kept alive, the very bytes and headers of the payload;
* flush: `flush()` after `track`, until the receipt is there; formatting and JSON are inside;
* the server is a process of its own; once one that only reads and answers, once the local
  LaunchDarkly, which checks and stores every event as an intake must, once behind 20 ms of
  network.
"""

from __future__ import annotations

import argparse
import http.client
import json
import multiprocessing
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))
os.environ["no_proxy"] = "*"
MOST_AT_20_MS = 1.15
"""A confirmed flush of 1 or 100 events against one raw POST, behind 20 ms of network."""


def serve(ready: Any, delay: float) -> None:
    """Answer 202 to everything, `delay` seconds after it has been read."""
    listener = socket.create_server(("127.0.0.1", 0))
    ready.send(listener.getsockname()[1])
    import threading

    def one(connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        buffer = b""
        while True:
            while b"\r\n\r\n" not in buffer:
                chunk = connection.recv(65536)
                if not chunk:
                    return
                buffer += chunk
            head, _, rest = buffer.partition(b"\r\n\r\n")
            size = int(
                next(
                    line
                    for line in head.lower().split(b"\r\n")
                    if line.startswith(b"content-length")
                ).split(b":")[1]
            )
            missing = size - len(rest)
            while missing > 0:
                missing -= len(connection.recv(min(missing, 1 << 20)))
            buffer = b""
            if delay:
                time.sleep(delay)
            connection.sendall(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n")

    while True:
        connection, _ = listener.accept()
        threading.Thread(target=one, args=(connection,), daemon=True).start()


def serve_local(ready: Any, delay: float) -> None:
    """The local LaunchDarkly: it reads, checks and stores every event before it answers."""
    from ldinstrument.devserver import LocalLaunchDarkly

    with LocalLaunchDarkly() as local:
        ready.send(local.port)
        time.sleep(3600)


class Keeper:
    """The transport that a client gets by itself, which remembers its last payload."""

    def __init__(self, config: Any) -> None:
        from ldinstrument.delivery.transport import transport_of

        self._real = transport_of(config)
        self.close = self._real.close
        self.payload: Any = None
        self.headers: Any = None

    def post(self, payload: Any, headers: Any) -> Any:
        self.payload, self.headers = payload, headers
        return self._real.post(payload, headers)


def percentiles(times: list[float]) -> tuple[float, float]:
    """Median and p99, in milliseconds."""
    ordered = sorted(times)
    return statistics.median(ordered) * 1000, ordered[
        min(len(ordered) - 1, int(len(ordered) * 0.99))
    ] * 1000


def measure(delay: float, events: int, rounds: int, server_of: Any = serve) -> None:
    """One line: *events* per flush."""
    from ldclient import Config, Context, LDClient

    from ldinstrument.delivery import EventProcessor, Plugin, event_queue, flush

    here, there = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(
        target=server_of, args=(there, delay), daemon=True
    )
    server.start()
    port = here.recv()
    url = f"http://127.0.0.1:{port}"
    keepers: list[Keeper] = []

    def transport(config: Any) -> Keeper:
        keepers.append(Keeper(config))
        return keepers[-1]

    client = LDClient(
        Config(
            "sdk-key",
            base_uri=url,
            events_uri=url,
            stream_uri=url,
            use_ldd=True,
            flush_interval=3600,
            plugins=[Plugin()],
            event_processor_class=partial(EventProcessor, transport=transport),
        )
    )
    # Nothing may leave before the flush that is measured.
    client._event_processor.worker.events._early = event_queue.EARLY_BYTES = 10**9
    context = Context.builder("u-1").name("Ana").set("plan", "pro").build()
    raw_connection = http.client.HTTPConnection("127.0.0.1", port)
    raw, confirmed, dumps = [], [], []
    for number in range(rounds + 5):
        for place in range(events):
            client.track("session.duration", context, {"sessionId": "s-1", "place": place}, 1834.2)
        began = time.perf_counter()
        report = flush(30.0, client)
        took = time.perf_counter() - began
        assert (report.delivered, report.confirmed) == (events, True), report
        # An id of its own: a repeated one is answered without reading the events.
        payload, headers = (
            keepers[-1].payload,
            {**keepers[-1].headers, "X-LaunchDarkly-Payload-ID": str(uuid.uuid4())},
        )
        began = time.perf_counter()
        raw_connection.request("POST", "/bulk", payload.body, headers)
        raw_connection.getresponse().read()
        posted = time.perf_counter() - began
        if number >= 5:
            confirmed.append(took)
            raw.append(posted)
            dumps.append(serialisation(events, context))
    client.close()
    raw_connection.close()
    server.terminate()
    server.join()
    (raw_median, raw_p99), (median, p99), (dump_median, _) = map(
        percentiles, (raw, confirmed, dumps)
    )
    where = (
        "local LaunchDarkly" if server_of is serve_local else f"round trip {delay * 1000:3.0f} ms"
    )
    bound = f"SDK's serialisation {dump_median:.2f} ms; (flush - it) / raw {(median - dump_median) / raw_median:.2f}"
    asked = delay == 0.02 and events <= 100
    wanted = f" (wanted: at most {MOST_AT_20_MS})" if asked else ""
    print(
        f"{where}, {events:5d} events: raw POST {raw_median:.2f} / {raw_p99:.2f} ms, "
        f"confirmed flush {median:.2f} / {p99:.2f} ms (median / p99): {median / raw_median:.2f} and "
        f"{p99 / raw_p99:.2f} times{wanted}; {bound}",
        flush=True,
    )


def serialisation(events: int, context: Any) -> float:
    """What the SDK itself needs to make the body of *events* events."""
    from ldclient.impl.events import event_processor as theirs
    from ldclient.impl.events.types import EventInputCustom

    formatter = theirs.EventOutputFormatter(_plain())
    inputs = [
        EventInputCustom(
            1, context, "session.duration", {"sessionId": "s-1", "place": place}, 1834.2
        )
        for place in range(events)
    ]
    began = time.perf_counter()
    json.dumps([formatter.make_output_event(event) for event in inputs], separators=(",", ":"))
    return time.perf_counter() - began


def _plain() -> Any:
    from ldclient import Config

    return Config("sdk-key")


def import_weight(rounds: int = 9) -> None:
    """What our import costs on top of a loaded `ldclient`, against `import ldclient` itself."""
    program = (
        "import time; a=time.perf_counter(); import ldclient; b=time.perf_counter();"
        "from ldinstrument.delivery import EventProcessor, Plugin, flush, attach; print(b-a, "
        "time.perf_counter()-b)"
    )
    pairs = []
    with tempfile.TemporaryDirectory() as compiled:
        # Installed packages come compiled; a checkout must be given the same, or it is the compiler
        # that is measured.
        environment = {**os.environ, "PYTHONPYCACHEPREFIX": compiled}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        for number in range(rounds + 1):
            done = subprocess.run(
                [sys.executable, "-c", program],
                capture_output=True,
                text=True,
                check=True,
                env=environment,
            )
            if number:
                pairs.append([float(part) for part in done.stdout.split()])
    theirs, ours = (statistics.median(column) * 1000 for column in zip(*pairs, strict=True))
    print(f"import ldclient {theirs:.0f} ms, ours on top of it {ours:.1f} ms: {ours / theirs:.0%}")


def deadlines(timeout: float = 0.3, rounds: int = 20) -> None:
    """How late a flush comes back at worst, in the states in which a flush usually hangs."""
    sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "delivery"))
    import faults
    from event_server import EventServer
    from ldclient import LDClient

    def late(state: str, client: Any) -> None:
        worst = 0.0
        for _ in range(rounds):
            began = time.monotonic()
            report = faults.flush(timeout, client)
            assert report.timed_out, report
            worst = max(worst, time.monotonic() - began - timeout)
        print(
            f"flush({timeout}) with {state}: at worst {worst * 1000:.1f} ms after the deadline",
            flush=True,
        )

    with EventServer() as server:
        server.answer(stall=True)
        stuck = LDClient(
            faults.config(server.url, read_timeout=30, flush_interval=3600, pending=10)
        )
        for _ in range(6):
            stuck.track("a", faults.CONTEXT)
            faults.flush(0.02, stuck)
        late("every thread stuck in a black hole", stuck)
        for _ in range(1000):
            stuck.track("a", faults.CONTEXT)
        late("a full queue besides", stuck)
        resolve, socket.getaddrinfo = socket.getaddrinfo, lambda *_, **__: time.sleep(60) or []  # type: ignore
        nowhere = LDClient(faults.config("http://events.example.test", flush_interval=3600))
        nowhere.track("a", faults.CONTEXT)
        late("a name that never resolves", nowhere)
        socket.getaddrinfo = resolve
        if (child := os.fork()) == 0:
            stuck.track("a", faults.CONTEXT)
            late("a black hole, in a forked child", stuck)
            os._exit(0)
        os.waitpid(child, 0)
        for client in (stuck, nowhere):
            client.close()


if __name__ == "__main__":
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--rounds", type=int, default=300)
    rounds = arguments.parse_args().rounds
    import_weight()
    deadlines()
    for delay in (0.02, 0.0):
        for events, share in ((1, 1.0), (100, 1.0), (5000, 0.1)):
            measure(delay, events, max(5, int(rounds * share * (0.3 if delay else 1.0))))
    for events, share in ((1, 1.0), (100, 1.0), (5000, 0.1)):
        measure(0.0, events, max(5, int(rounds * share)), serve_local)
