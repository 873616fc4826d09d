"""What `track_ai` costs where no answer of a model is read, as a ratio to `track_task`, interleaved
in one process.

    python benchmarks/bench_ai.py [--rounds 100]

In a session, each run recorded and its list emptied; a ratio is the middle of those within single
rounds, so that a slow moment falls on both. A stream's first item is a value of its own, of
`track_task` when it is asked for: both are asked for it. Wanted: at most 1.5. It exits with 1
above that.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import statistics
import sys
import timeit
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import ldinstrument as ld
from ldinstrument.testing import RecordingClient

WANTED = 1.5
CALLS = 1_000
RUN_METRICS = ("success_rate", "duration")
OPTIONS: dict[str, dict[str, Any]] = {
    "track_task": {"metrics": (*RUN_METRICS, "time_to_first_item")},
    "track_ai": {"metrics": (*RUN_METRICS, "time_to_first_token", "tokens.total")},
}
"""Of streams."""


def plain() -> int:
    """Do nothing, as cheaply as a function can."""
    return 1


async def coroutine() -> int:
    """Do nothing, in a coroutine."""
    return 1


def stream() -> Iterator[str]:
    """Yield one text."""
    yield "a"


def long_stream() -> Iterator[str]:
    """Yield twenty texts."""
    for _ in range(20):
        yield "a"


def returned_stream() -> Iterator[str]:
    """Return a generator of twenty texts."""
    return long_stream()


async def async_stream() -> AsyncIterator[str]:
    """Yield twenty texts, asynchronously."""
    for _ in range(20):
        yield "a"


def calls(fn: Callable[[], Any]) -> None:
    """Call *fn* as its callers do."""
    for _ in range(CALLS):
        fn()


def awaits(fn: Callable[[], Any]) -> None:
    """Await *fn* as its callers do."""

    async def main() -> None:
        for _ in range(CALLS):
            await fn()

    asyncio.run(main())


def reads(fn: Callable[[], Any]) -> None:
    """Read the generators of *fn* to their ends."""
    for _ in range(CALLS):
        list(fn())


def async_reads(fn: Callable[[], Any]) -> None:
    """Read the async generators of *fn* to their ends."""

    async def main() -> None:
        for _ in range(CALLS):
            async for _ in fn():
                pass

    asyncio.run(main())


def blocks(scope: Any) -> None:
    """Enter and leave *scope*."""
    for _ in range(CALLS):
        with scope:
            pass


Driver = Callable[[Any], None]
KINDS: dict[str, tuple[Any, Driver, bool]] = {
    "call": (plain, calls, False),
    "coroutine": (coroutine, awaits, False),
    "with block": (None, blocks, False),
    "generator, 1 text": (stream, reads, True),
    "generator, 20 texts": (long_stream, reads, True),
    "returned generator, 20 texts": (returned_stream, reads, True),
    "async generator, 20 texts": (async_stream, async_reads, True),
}
"""What is decorated, how it is run, and whether it is a stream."""


@contextlib.contextmanager
def recording() -> Iterator[None]:
    """A session that somebody is known in, whose values go nowhere."""
    with ld.session("u-1", client=RecordingClient()):
        yield


def tracked(decorate: Any, fn: Any, *, streams: bool) -> Any:
    """Return *fn*, decorated; a scope where there is no function."""
    options = OPTIONS[decorate.__name__] if streams else {}
    scope = decorate(f"bench.{decorate.__name__}.{getattr(fn, '__name__', 'block')}", **options)
    return scope if fn is None else scope(fn)


def ratio(kind: str, rounds: int) -> tuple[float, float, float]:
    """Return microseconds per run of each, and the middle ratio."""
    fn, drive, streams = KINDS[kind]
    both = [tracked(decorate, fn, streams=streams) for decorate in (ld.track_task, ld.track_ai)]
    seconds: list[list[float]] = [[], []]
    chance = random.Random(1)
    for _ in range(rounds):
        for place in chance.sample((0, 1), 2):
            with recording():
                taken = timeit.timeit(lambda: drive(both[place]), number=1)  # noqa: B023
                seconds[place].append(taken / CALLS)
    task, call = (min(found) * 1e6 for found in seconds)
    return task, call, statistics.median(b / a for a, b in zip(*seconds, strict=True))


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=100)
    rounds = parser.parse_args().rounds
    print(f"{'kind':30} track_task   track_ai   ratio")
    worst = 0.0
    for kind in KINDS:
        task, call, found = ratio(kind, rounds)
        print(f"{kind:30} {task:7.2f} us {call:7.2f} us   {found:5.2f}")
        worst = max(worst, found)
    print(f"wanted: at most {WANTED}")
    return int(worst > WANTED)


if __name__ == "__main__":
    sys.exit(main())
