"""What a decorated call costs, beside the bare call and beside other libraries, in one process and
one run.

    python benchmarks/bench_tasks.py [--rounds 100] [--only
    sync,method,coroutine,generator,others,emission]

Every round times each candidate once, in a new random order, so that a slow moment of the machine
falls on all of them. The clock is the thread's own CPU time, and a candidate's cost the least of
its rounds: what others do on the machine only ever adds. Beside it stands the middle half of the
ratios within single rounds, to show how quiet the machine was. Overhead is above the bare call. `x
two clocks` is the issue's measure: the overhead of the smallest closure that reads two clocks.
Recording alone empties the session's list without folding it; with emission, every run becomes two
events.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import gc
import logging
import os
import platform
import random
import sys
import time
import timeit
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any

import wrapt

import ldinstrument as ld
from ldinstrument.sessions import session as sessions
from ldinstrument.sessions.accumulator import FOLD_AT
from ldinstrument.sessions.unattached import count_unattached_runs

now = time.perf_counter


@dataclass
class Candidate:
    """One thing to time: *statement* with *names*, worth *per* calls or items."""

    name: str
    statement: str
    names: dict[str, Any]
    per: int = 1
    around: Callable[[], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext
    seconds: list[float] = field(default_factory=list)

    def time_once(self, target: float) -> None:
        """Time one round of about *target* seconds."""
        with self.around():
            timer = timeit.Timer(self.statement, timer=time.thread_time, globals=self.names)
            if not hasattr(self, "loops"):
                first = max(timer.timeit(20) / 20, 1e-9)
                self.loops = max(5, int(target / first))
                timer.timeit(self.loops)
            self.seconds.append(timer.timeit(self.loops) / self.loops / self.per)


def measure(candidates: list[Candidate], rounds: int, target: float = 0.004) -> None:
    """Time all *candidates*, interleaved, in a new order each round."""
    order = list(candidates)
    chance = random.Random(1)
    for _ in range(rounds):
        chance.shuffle(order)
        gc.collect()
        gc.disable()
        try:
            for candidate in order:
                candidate.time_once(target)
        finally:
            gc.enable()


def report(
    title: str, candidates: list[Candidate], bare: str, unit: str, wanted: dict[str, str]
) -> None:
    """Print overheads and ratios; *unit* names the candidate whose overhead is 1.0."""
    by_name = {candidate.name: candidate for candidate in candidates}
    base, scale = by_name[bare], by_name[unit]
    print(f"\n{title}\n{'':32}{'ns':>9}{'overhead':>10}{'x two clocks':>14}   middle half   wanted")
    for candidate in candidates:
        ratios = sorted(
            (mine - low) / max(whole - low, 1e-12)
            for mine, low, whole in zip(candidate.seconds, base.seconds, scale.seconds, strict=True)
        )
        quarter = len(ratios) // 4
        middle = f"{ratios[quarter]:.2f}-{ratios[-quarter - 1]:.2f}"
        spent, floor = min(candidate.seconds) * 1e9, min(base.seconds) * 1e9
        above = spent - floor
        ratio = "" if candidate is base else f"{above / (min(scale.seconds) * 1e9 - floor):.2f}"
        middle = middle if ratio else ""
        print(
            f"{candidate.name:32}{spent:9.0f}{above:10.0f}{ratio:>14}   {middle:13} {wanted.get(candidate.name, '')}"
        )


# -- what is called --------------------------------------------------------------------------------


def trivial() -> Callable[[int], int]:
    """A new trivial function, local as at the moment of `@decorator`."""

    def work(x: int) -> int:
        return x

    return work


def two_clocks(fn: Callable[..., Any]) -> Callable[..., Any]:
    """The smallest closure that reads two clocks."""

    @functools.wraps(fn)
    def timed(*args: Any, **kwargs: Any) -> Any:
        started = now()
        result = fn(*args, **kwargs)
        now() - started
        return result

    return timed


def async_two_clocks(fn: Callable[..., Any]) -> Callable[..., Any]:
    """The same for a coroutine function."""

    @functools.wraps(fn)
    async def timed(*args: Any, **kwargs: Any) -> Any:
        started = now()
        result = await fn(*args, **kwargs)
        now() - started
        return result

    return timed


def empty_wrapt(fn: Callable[..., Any]) -> Any:
    """A `wrapt.FunctionWrapper` that does nothing."""
    return wrapt.FunctionWrapper(
        fn, lambda wrapped, instance, args, kwargs: wrapped(*args, **kwargs)
    )


@contextlib.contextmanager
def recording_alone() -> Iterator[None]:
    """In a session whose list is emptied instead of folded."""
    before = sessions.Session.fold_up
    sessions.Session.fold_up = lambda self: self.entries.clear()  # type: ignore[method-assign]
    try:
        with ld.session("u", client=Discarding()) as s:
            s.fold_at = FOLD_AT  # as with a client that carries our Plugin
            yield
            s.entries.clear()
    finally:
        sessions.Session.fold_up = before  # type: ignore[method-assign]


@contextlib.contextmanager
def with_emission() -> Iterator[None]:
    """In a session that folds its list and hands each event to a client that takes it and forgets
    it.
    """
    with ld.session("u", client=Discarding()):
        yield


class Discarding:
    """A client that is done with an event as soon as it has it."""

    sees_exposures = True
    """Values may fold, as they do for a client whose exposures are seen."""

    def track(
        self, event_name: str, context: Any, data: Any = None, metric_value: Any = None
    ) -> None:
        """Take it."""


@contextlib.contextmanager
def without_session() -> Iterator[None]:
    """No session; the runs are counted at the end, as `stats()` would."""
    yield
    count_unattached_runs()


def drive(coroutine: Any) -> None:
    """Run a coroutine that never waits."""
    try:
        coroutine.send(None)
    except StopIteration:
        pass


# -- the groups ------------------------------------------------------------------------------------


def module_level(x: int) -> int:
    """Found by pickle under its name: `other = track_task("key")(module_level)` is a proxy."""
    return x


def bench_sync(rounds: int) -> None:
    """A trivial function, in a session and without one."""
    call = "f(1)"
    tracked = ld.track_task("bench.sync")(trivial())
    options = ld.track_task("bench.options", data=lambda result: None)(trivial())
    candidates = [
        Candidate("bare", call, {"f": trivial()}),
        Candidate("two clocks", call, {"f": two_clocks(trivial())}),
        Candidate("empty wrapt.FunctionWrapper", call, {"f": empty_wrapt(trivial())}),
        Candidate("track_task, no session", call, {"f": tracked}, around=without_session),
        Candidate("track_task", call, {"f": tracked}, around=recording_alone),
        Candidate(
            "track_task of a global",
            call,
            {"f": ld.track_task("bench.global")(module_level)},
            around=recording_alone,
        ),
        Candidate("track_task(data=)", call, {"f": options}, around=recording_alone),
    ]
    measure(candidates, rounds)
    wanted = {"track_task": "<= 2.0", "track_task, no session": "<= 1.0"}
    report("A trivial sync function", candidates, "bare", "two clocks", wanted)


def bench_method(rounds: int) -> None:
    """A method called through its instance."""

    def method(self: Any, x: int) -> int:
        return x

    wrapped = {
        "bare": method, "two clocks": two_clocks(method), "empty wrapt.FunctionWrapper": empty_wrapt(method),
        "track_task": ld.track_task("bench.method")(method),
        "track_task above lru_cache": ld.track_task("bench.cached")(functools.lru_cache(method)),
    }  # fmt: skip
    candidates = [
        Candidate(
            name, "k.m(1)", {"k": type("K", (), {"m": fn})()},
            around=recording_alone if name.startswith("track") else contextlib.nullcontext,
        )
        for name, fn in wrapped.items()
    ]  # fmt: skip
    measure(candidates, rounds)
    report("A method, k.m(1)", candidates, "bare", "two clocks", {"track_task": "<= 2.5"})


def bench_coroutine(rounds: int) -> None:
    """A coroutine function, driven by hand: an event loop would hide the difference."""

    def make() -> Callable[..., Any]:
        async def work(x: int) -> int:
            return x

        return work

    names = {"drive": drive}
    tracked = ld.track_task("bench.coroutine")(make())
    candidates = [
        Candidate("bare", "drive(f(1))", {**names, "f": make()}),
        Candidate("two clocks", "drive(f(1))", {**names, "f": async_two_clocks(make())}),
        Candidate(
            "track_task, no session", "drive(f(1))", {**names, "f": tracked}, around=without_session
        ),
        Candidate("track_task", "drive(f(1))", {**names, "f": tracked}, around=recording_alone),
    ]
    measure(candidates, rounds)
    report("A coroutine function", candidates, "bare", "two clocks", {"track_task": "<= 2.5"})


def bench_generator(rounds: int) -> None:
    """A generator of 1000 items, per item: 1.0 is the smallest `yield from` wrapper's whole cost,
    not its overhead.
    """
    count = 1000

    def make() -> Callable[..., Any]:
        def items(n: int) -> Generator[int, None, None]:
            yield from range(n)

        return items

    def plain(fn: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(fn)
        def delegating(*args: Any, **kwargs: Any) -> Any:
            return (yield from fn(*args, **kwargs))

        return delegating

    def looping() -> Callable[..., Any]:
        def items(n: int) -> Generator[int, None, None]:
            for number in range(n):  # noqa: UP028 - the body to measure
                yield number

        return items

    each = f"for x in f({count}): pass"
    first = ("duration", "time_to_first_item")
    candidates = [
        Candidate("bare", each, {"f": looping()}, count),
        Candidate("yield from", each, {"f": plain(looping())}, count),
        Candidate(
            "track_task", each, {"f": ld.track_task("bench.g")(looping())}, count, recording_alone
        ),
        Candidate(
            "... time_to_first_item",
            each,
            {"f": ld.track_task("bench.t", metrics=first)(looping())},
            count,
            recording_alone,
        ),
        Candidate("... as @session", each, {"f": ld.session(name="bench")(looping())}, count),
    ]
    measure(candidates, rounds)
    print(f"\nA generator of {count} items, per item\n{'':32}{'ns':>9}   x yield from   wanted")
    base = candidates[1].seconds
    for candidate in candidates:
        ratio = min(candidate.seconds) / min(base)
        print(
            f"{candidate.name:32}{min(candidate.seconds) * 1e9:9.1f}{ratio:15.2f}   {'<= 1.1' if candidate.name == 'track_task' else ''}"
        )


def bench_emission(rounds: int) -> None:
    """The same sync call with folding and emission: two events per run, to a client that forgets
    them.
    """
    candidates = [
        Candidate("bare", "f(1)", {"f": trivial()}),
        Candidate("two clocks", "f(1)", {"f": two_clocks(trivial())}),
        Candidate(
            "recording alone",
            "f(1)",
            {"f": ld.track_task("bench.alone")(trivial())},
            around=recording_alone,
        ),
        Candidate("one sum per session", "f(1)", {"f": _summed()}, around=with_emission),
        Candidate(
            "two events per run",
            "f(1)",
            {"f": ld.track_task("bench.both")(trivial())},
            around=with_emission,
        ),
    ]
    measure(candidates, rounds, target=0.01)
    report("With emission, to a client that forgets", candidates, "bare", "two clocks", {})


def _summed() -> Callable[..., Any]:
    """A task that nobody but its session's totals hears of."""
    return ld.track_interaction("bench.totals", metrics=())(trivial())


def bench_others(rounds: int) -> None:
    """Other libraries' decorators around the same trivial function, each with a sink in memory."""
    candidates = [
        Candidate("bare", "f(1)", {"f": trivial()}),
        Candidate("two clocks", "f(1)", {"f": two_clocks(trivial())}),
        Candidate("empty wrapt.FunctionWrapper", "f(1)", {"f": empty_wrapt(trivial())}),
        Candidate(
            "track_task",
            "f(1)",
            {"f": ld.track_task("bench.ours")(trivial())},
            around=recording_alone,
        ),
        Candidate(
            "track_task, with emission",
            "f(1)",
            {"f": ld.track_task("bench.sent")(trivial())},
            around=with_emission,
        ),
    ]
    for make in (prometheus, opentelemetry, sentry, langfuse):
        try:
            candidates.append(make())
        except Exception as error:  # absent, or another major
            print(
                f"{make.__name__}: left out ({type(error).__name__}: {str(error)[:100]})",
                file=sys.stderr,
            )
    measure(candidates, max(10, rounds // 2), target=0.01)
    report("Beside other libraries", candidates, "bare", "two clocks", {})


def prometheus() -> Candidate:
    """`Histogram.time()` of prometheus_client."""
    from prometheus_client import CollectorRegistry, Histogram

    histogram = Histogram("bench", "bench", registry=CollectorRegistry())
    return Candidate(
        f"prometheus {metadata.version('prometheus_client')}",
        "f(1)",
        {"f": histogram.time()(trivial())},
    )


def opentelemetry() -> Candidate:
    """OpenTelemetry SDK: `start_as_current_span` as a decorator, with a processor that keeps
    nothing.
    """
    from opentelemetry.sdk.trace import SpanProcessor, TracerProvider

    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SpanProcessor())
    decorate = provider.get_tracer("bench").start_as_current_span("bench")
    return Candidate(
        f"OpenTelemetry SDK {metadata.version('opentelemetry-sdk')}",
        "f(1)",
        {"f": decorate(trivial())},
    )


def sentry() -> Candidate:
    """Sentry: `@trace` inside a sampled transaction, with a transport that keeps nothing."""
    import sentry_sdk
    from sentry_sdk.transport import Transport

    class Nowhere(Transport):
        def capture_envelope(self, envelope: Any) -> None:
            pass

    sentry_sdk.init(
        dsn="http://key@127.0.0.1:9/1",
        transport=Nowhere,
        traces_sample_rate=1.0,
        default_integrations=False,
    )

    @contextlib.contextmanager
    def transaction() -> Iterator[None]:
        with sentry_sdk.start_transaction(op="bench", name="bench"):
            yield

    decorated = sentry_sdk.trace(trivial())
    return Candidate(
        f"Sentry {metadata.version('sentry-sdk')}", "f(1)", {"f": decorated}, around=transaction
    )


def langfuse() -> Candidate:
    """Langfuse: `@observe()`, with an exporter that keeps nothing."""
    os.environ.setdefault("LANGFUSE_TRACING_ENVIRONMENT", "bench")
    from langfuse import Langfuse, observe
    from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

    class Nowhere(SpanExporter):
        def export(self, spans: Any) -> Any:
            return SpanExportResult.SUCCESS

    Langfuse(
        public_key="pk", secret_key="sk", base_url="http://127.0.0.1:9", span_exporter=Nowhere()
    )
    return Candidate(
        f"Langfuse {metadata.version('langfuse')}", "f(1)", {"f": observe()(trivial())}
    )


GROUPS: dict[str, Callable[[int], None]] = {
    "sync": bench_sync,
    "method": bench_method,
    "coroutine": bench_coroutine,
    "generator": bench_generator,
    "emission": bench_emission,
    "others": bench_others,
}


def main() -> None:
    """Run the groups that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--only", default=",".join(GROUPS))
    asked = parser.parse_args()
    logging.disable(logging.CRITICAL)
    print(
        f"{platform.python_implementation()} {platform.python_version()}, wrapt {metadata.version('wrapt')}, "
        f"{os.cpu_count()} cores, {asked.rounds} interleaved rounds"
    )
    for name in asked.only.split(","):
        GROUPS[name](asked.rounds)


if __name__ == "__main__":
    main()
