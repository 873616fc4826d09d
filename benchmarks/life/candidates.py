"""What is compared over a whole life: ours, `track` by hand, prometheus_client, the orjson floor.

Each returns the CPU microseconds of its whole process per run, delivery included, and is called in
a process of its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any


def client_of(url: str, **config: Any) -> Any:
    """Return a client with our event processor that delivers to *url* and fetches no flags."""
    from ldclient import Config, LDClient

    from ldinstrument import EventProcessor, Plugin

    uris = {"base_uri": url, "events_uri": url, "stream_uri": url}
    mine = {"plugins": [Plugin()], "event_processor_class": EventProcessor}
    return LDClient(Config("sdk-key", use_ldd=True, **uris, **mine, **config))


def contexts(count: int) -> list[Any]:
    """Return *count* contexts, one for each session."""
    from ldclient import Context

    return [Context.builder(f"u-{number}").name("Ana").build() for number in range(count)]


def confirm(client: Any) -> None:
    """Wait until everything is delivered; nothing may have been lost."""
    import ldinstrument as ld

    report = ld.flush(60.0, client)
    assert report.confirmed, report
    assert report.pending + report.failed + report.dropped == 0, report
    assert not ld.stats().events.dropped, ld.stats().events


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

    client = client_of(url, flush_interval=3600, **config)
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


def naive(runs: int, total: int, url: str) -> float:
    """Measure two hand-written `track` calls per run and a flush, on our event processor."""
    client = client_of(url, flush_interval=3600)
    people = iter(contexts(total // runs + 10))

    def work(sessions: int) -> None:
        for _ in range(sessions):
            context = next(people)
            for _ in range(runs):
                track_by_hand(client, context)
        confirm(client)

    return cost(work, runs, total)


def track_by_hand(client: Any, context: Any) -> None:
    """Time nothing, and send its success and its duration."""
    began = time.perf_counter()
    ended = time.perf_counter()
    client.track("answer.success_rate", context, None, 1.0)
    client.track("answer.duration", context, None, (ended - began) * 1000)


def naive_sdk(runs: int, total: int, url: str) -> float:
    """Measure the same on the SDK's own event processor, which confirms nothing; closed at the end.

    Its queue is made large enough to hold everything: it drops what does not fit.
    """
    from ldclient import Config, LDClient

    uris = {"base_uri": url, "events_uri": url, "stream_uri": url}
    people = iter(contexts(total // runs + 10))

    def work(sessions: int) -> None:
        client = LDClient(
            Config("sdk-key", use_ldd=True, flush_interval=3600, events_max_pending=400_000, **uris)
        )
        for _ in range(sessions):
            context = next(people)
            for _ in range(runs):
                track_by_hand(client, context)
        client.flush()
        client.close()

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
    "naive_sdk": naive_sdk,
    "floor": floor,
    "prometheus": prometheus,
}
