"""What is measured of a part of the life of a run; each in a process of its own."""

from __future__ import annotations

import gc
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

from .candidates import client_of, confirm, contexts, ours


def tracked_answer() -> Callable[[], int]:
    """Return a trivial tracked function."""
    import ldinstrument as ld

    @ld.track_task("answer")
    def answer() -> int:
        return 1

    return answer


def calls(url: str) -> dict[str, float]:
    """Return p99.9 and the longest of a decorated call, in CPU microseconds of its thread."""
    import ldinstrument as ld

    client, answer = client_of(url, flush_interval=3600), tracked_answer()
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
    """Return CPU microseconds of its thread, and bytes, of a session with nothing in it.

    The bytes are all that a `with session(...)` block holds while it is open.
    """
    import ldinstrument as ld

    client = client_of(url, flush_interval=3600)
    people = contexts(4000)

    def empty(context: Any) -> None:
        with ld.session(context, client=client):
            pass

    for context in people[:500]:
        empty(context)
    began = time.thread_time()
    for context in people[500:2500]:
        empty(context)
    took = (time.thread_time() - began) / 2000 * 1e6
    confirm(client)
    return {"cpu": took, "bytes": bytes_per_open_session(client, people[2500:3500])}


def bytes_per_open_session(client: Any, people: list[Any]) -> float:
    """Return the bytes that an open `with session(...)` block holds, none inside another."""
    import ldinstrument as ld
    from ldinstrument.sessions.current import set_current

    held: list[Any] = []

    def open_for(context: Any) -> None:
        scope = ld.session(context, client=client)
        held.append((scope, scope.__enter__()))
        set_current(None)

    for context in people[:100]:
        open_for(context)
    size = bytes_of(lambda: [open_for(context) for context in people[100:]])
    for _, opened in held:
        opened.end()
    return size / (len(people) - 100)


def bytes_of(work: Callable[[], Any]) -> int:
    """Return how many bytes more are allocated after *work* than before it."""
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    work()
    size = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    return size


def memory(url: str) -> dict[str, float]:
    """Return what is allocated, in bytes and in blocks.

    `session`: bytes of an open session with nothing in it; `blocks`: that a recorded run holds
    until it is folded; `left`: that a session of 100 runs leaves behind once it is delivered.
    """
    import ldinstrument as ld

    client, answer = client_of(url, flush_interval=3600), tracked_answer()
    people = contexts(1400)
    blocks, counted = sys.getallocatedblocks, range(24)
    with ld.session(people[0], client=client):
        answer()
        before = blocks()
        for _ in counted:
            answer()
        held = (blocks() - before) / len(counted)

    def sessions(some: list[Any]) -> None:
        for context in some:
            with ld.session(context, client=client):
                for _ in range(100):
                    answer()
        confirm(client)
        gc.collect()

    sessions(people[:100])
    before = blocks()
    sessions(people[:100])
    left = (blocks() - before) / 100
    opened = bytes_per_open_session(client, people[200:])
    confirm(client)
    return {"session": opened, "blocks": held, "left": left}


def burst(url: str, sessions: int, runs: int) -> dict[str, float]:
    """Return how many of the events of a burst were dropped, on the default configuration."""
    import ldinstrument as ld

    client, answer = client_of(url), tracked_answer()
    for context in contexts(sessions):
        with ld.session(context, client=client):
            for _ in range(runs):
                answer()
    while (report := ld.flush(60.0, client)).pending or report.failed:
        pass
    events = ld.stats().events
    return {"emitted": events.emitted, "dropped": sum(events.dropped.values())}


def turns(url: str, what: str, seconds: float = 3.0) -> float:
    """Return how many turns a thread got that wants one every 20 ms beside a busy one."""
    import ldinstrument as ld

    client, answer = client_of(url), tracked_answer()
    people = iter(contexts(200_000))

    def sessions() -> None:
        with ld.session(next(people), client=client):
            for _ in range(100):
                answer()

    def loop() -> None:
        for _ in range(1000):
            pass

    ends = time.monotonic() + seconds
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
    return got


def recording() -> dict[str, float]:
    """Return nanoseconds above the bare call: recording alone, and two closures with two clocks.

    As in `bench_tasks.py`: `clocks` is the smallest decorator that reads two clocks, which must
    pass on any arguments; `written` is the same written for a function without arguments. Recording
    empties the session's list instead of folding it.
    """
    import bench_tasks as tasks

    import ldinstrument as ld

    bare = tasks.trivial()
    candidates = {
        "bare": tasks.Candidate("bare", "f(1)", {"f": bare}),
        "clocks": tasks.Candidate("clocks", "f(1)", {"f": tasks.two_clocks(tasks.trivial())}),
        "written": tasks.Candidate("written", "f(1)", {"f": two_clocks_written(tasks.trivial())}),
        "tracked": tasks.Candidate(
            "tracked",
            "f(1)",
            {"f": ld.track_task("answer")(tasks.trivial())},
            around=tasks.recording_alone,
        ),
    }
    tasks.measure(list(candidates.values()), 100)
    least = {name: min(candidate.seconds) * 1e9 for name, candidate in candidates.items()}
    return {name: took - least["bare"] for name, took in least.items()}


def two_clocks_written(fn: Callable[[int], int]) -> Callable[[int], int]:
    """Return *fn* between two clocks, as written by hand for its one argument."""
    now = time.perf_counter

    def timed(x: int) -> int:
        now()
        result = fn(x)
        now()
        return result

    return timed


def instructions(sessions: int, url: str) -> None:
    """Do *sessions* sessions of 100 runs, for callgrind."""
    ours(100, sessions * 100, url)


def ways() -> dict[str, list[int]]:
    """Return how many functions and files are on each way: see `trace_calls.py`."""
    import trace_calls

    found = {}
    for name, codes in trace_calls.measured().items():
        found[name] = [len(codes), len({code.co_filename for code in codes})]
    return found


PARTS: dict[str, Callable[..., Any]] = {
    "calls": calls,
    "empty_session": empty_session,
    "burst": burst,
    "turns": turns,
    "recording": recording,
    "instructions": instructions,
    "ways": ways,
    "memory": memory,
}
