"""The local LaunchDarkly under load: intake, read-out, and what a POST waits for one.

`bench_devserver.py [EVENTS] [--rate EVENTS] [--against CHECKOUT]` posts the same events to this
checkout and to another one (an older commit in a git worktree), in turn and in processes of their
own, and prints both with their ratio. Without a rate one client posts as fast as it can.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

PER_POST = 5_000
START = 1_795_422_752_000
METRIC = {
    "kind": "custom",
    "isNumeric": True,
    "unit": "milliseconds",
    "successCriteria": "LowerThanBaseline",
    "eventDefault": {"disabled": True},
}
KEYS = ("session.duration", "session.success_rate", "session.interactions")
SERVER = """
import sys, threading
from ldinstrument.devserver import serve
ended = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
serve(port=0, experiments=["new-prompt=short,long"], until=ended, ready=lambda ld: print(ld.port, flush=True))
"""


def events(count: int) -> Iterator[dict]:
    """Ten events for each exposure, those of a unit spread among those of a thousand others."""
    for i in range(count):
        unit, step = i // 11_000 * 1000 + i % 1000, i % 11_000 // 1000
        context = {"kind": "user", "key": f"user-{unit:07}"}
        if step == 0:
            reason = {"kind": "FALLTHROUGH", "inExperiment": True}
            yield {
                "kind": "feature",
                "creationDate": START + i,
                "key": "new-prompt",
                "version": 1,
                "variation": unit % 2,
                "value": ("short", "long")[unit % 2],
                "reason": reason,
                "context": context,
            }
        else:
            yield {
                "kind": "custom",
                "creationDate": START + i,
                "key": KEYS[step % 3],
                "context": context,
                "data": {"sessionId": f"s-{i}", "interactions": 3, "endReason": "ended"},
                "metricValue": 100.0 + (i * 7919 % 1000) + 20 * (unit % 2),
            }


def bodies(count: int) -> list[bytes]:
    """The events as POSTs."""
    batch: list[dict] = []
    found = []
    for event in events(count):
        batch.append(event)
        if len(batch) == PER_POST:
            found.append(json.dumps(batch).encode())
            batch = []
    return [*found, json.dumps(batch).encode()] if batch else found


class Client:
    """One kept-alive connection."""

    def __init__(self, port: int):
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)

    def send(self, method: str, path: str, body: bytes = b"", payload: str = "") -> bytes:
        headers = {"Authorization": "api-token", "X-LaunchDarkly-Payload-ID": payload}
        self.connection.request(method, path, body, headers)
        response = self.connection.getresponse()
        content = response.read()
        assert response.status < 300, (response.status, content[:300])
        return content


def resident(pid: int) -> float:
    """Megabytes of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def measure(checkout: Path, posts: list[bytes], rate: int) -> dict[str, float]:
    """Post everything, read out, and post single events during read-outs."""
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    command = [sys.executable, "-c", SERVER]
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd="/"
    ) as server:
        assert server.stdout is not None
        port = int(server.stdout.readline())
        try:
            return figures(Client(port), Client(port), server.pid, posts, rate)
        finally:
            server.communicate(b"")


def cpu_seconds(pid: int) -> float:
    """Return the processor time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def figures(
    client: Client, other: Client, pid: int, posts: list[bytes], rate: int
) -> dict[str, float]:
    """Return what the server took for each step; a POST is made every 10 ms while it reads."""
    for key in KEYS:
        body = json.dumps({**METRIC, "key": key, "eventKey": key}).encode()
        client.send("POST", "/api/v2/metrics/default", body)
    began, used, longest = time.perf_counter(), cpu_seconds(pid), 0.0
    for number, body in enumerate(posts):
        if rate:
            time.sleep(max(0.0, began + number * PER_POST / rate - time.perf_counter()))
        sent = time.perf_counter()
        client.send("POST", "/bulk", body, f"p{number}")
        longest = max(longest, time.perf_counter() - sent)
    found = {"intake s": time.perf_counter() - began, "intake CPU s": cpu_seconds(pid) - used}
    found["POST ms, intake"] = longest * 1000
    for name, path, times in (
        ("first page", "/", 1),
        ("first read-out", "/dev/readout", 1),
        ("page", "/", 5),
        ("read-out", "/dev/readout", 5),
    ):
        found[f"{name} s"], found[f"POST ms, {name}"] = read_and_post(client, other, path, times)
    assert sum(row["units"] for row in json.loads(other.send("GET", "/dev/readout"))["rows"]) > 0
    found["CPU s of all"] = cpu_seconds(pid) - used
    found["memory MB"] = resident(pid)
    return found


def read_and_post(client: Client, other: Client, path: str, times: int) -> tuple[float, float]:
    """Read some times while single POSTs change what is read.

    Returns:
        Seconds of one reading, and the longest wait of a POST in milliseconds.
    """
    ended, longest, taken = threading.Event(), 0.0, []

    def read() -> None:
        for _ in range(times):
            began = time.perf_counter()
            other.send("GET", path)
            taken.append(time.perf_counter() - began)
        ended.set()

    reader = threading.Thread(target=read)
    reader.start()
    while not ended.is_set():
        body = json.dumps([*events(11)]).encode()
        began = time.perf_counter()
        client.send("POST", "/bulk", body, f"single-{time.monotonic_ns()}")
        longest = max(longest, time.perf_counter() - began)
        time.sleep(0.01)
    reader.join()
    return sum(taken) / times, longest * 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("events", nargs="?", type=int, default=110_000)
    parser.add_argument("--rate", type=int, default=0, help="events a second")
    parser.add_argument("--against", type=Path)
    asked = parser.parse_args()
    posts = bodies(asked.events)
    here = measure(Path(__file__).resolve().parent.parent, posts, asked.rate)
    there = measure(asked.against, posts, asked.rate) if asked.against else {}
    print(f"{asked.events:,} events in {len(posts)} POSTs")
    for name, value in here.items():
        line = f"{name:24} {value:10.2f}"
        if name in there:
            line += f"   other checkout {there[name]:10.2f}   ratio {there[name] / value:6.2f}"
        print(line)


if __name__ == "__main__":
    main()
