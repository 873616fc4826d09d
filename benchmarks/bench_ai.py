"""What `track_ai` costs where nothing is read, as a ratio to `track_task`, interleaved in one
process.

    python benchmarks/bench_ai.py [--rounds 100]

In a session, each run recorded and its list emptied; a ratio is the middle of those within single
rounds, so that a slow moment falls on both. Wanted: at most 1.5. It exits with 1 above that.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import statistics
import sys
import timeit
from collections.abc import Callable, Iterator
from typing import Any

import ldinstrument as ld
from ldinstrument.testing import RecordingClient

WANTED = 1.5
CALLS = 2_000


def plain() -> int:
    """Do nothing, as cheaply as a function can."""
    return 1


async def coroutine() -> int:
    """Do nothing, in a coroutine."""
    return 1


def stream() -> Iterator[int]:
    """Yield one thing."""
    yield 1


def driver(kind: str, fn: Callable[[], Any]) -> Callable[[], None]:
    """Return what runs *fn* `CALLS` times as its callers do."""

    def calls() -> None:
        for _ in range(CALLS):
            fn()

    def streams() -> None:
        for _ in range(CALLS):
            list(fn())

    async def awaits() -> None:
        for _ in range(CALLS):
            await fn()

    return {"call": calls, "generator": streams, "coroutine": lambda: asyncio.run(awaits())}[kind]


@contextlib.contextmanager
def recording() -> Iterator[None]:
    """A session that somebody is known in, whose values go nowhere."""
    with ld.session("u-1", client=RecordingClient()):
        yield


def ratio(kind: str, fn: Any, rounds: int) -> tuple[float, float, float]:
    """Return microseconds per run of each, and the middle ratio."""
    runs = [
        driver(kind, decorate(f"bench.{decorate.__name__}.{kind}")(fn))
        for decorate in (ld.track_task, ld.track_ai)
    ]
    seconds: list[list[float]] = [[], []]
    chance = random.Random(1)
    for _ in range(rounds):
        for place in chance.sample((0, 1), 2):
            with recording():
                seconds[place].append(timeit.timeit(runs[place], number=1) / CALLS)
    task, call = (min(found) * 1e6 for found in seconds)
    return task, call, statistics.median(b / a for a, b in zip(*seconds, strict=True))


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=100)
    rounds = parser.parse_args().rounds
    print("kind         track_task   track_ai   ratio")
    worst = 0.0
    for kind, fn in (("call", plain), ("coroutine", coroutine), ("generator", stream)):
        task, call, found = ratio(kind, fn, rounds)
        print(f"{kind:12} {task:7.2f} us {call:7.2f} us   {found:5.2f}")
        worst = max(worst, found) if kind != "generator" else worst
    print(f"wanted: at most {WANTED} for calls and coroutines (a stream is read item by item)")
    return int(worst > WANTED)


if __name__ == "__main__":
    sys.exit(main())
