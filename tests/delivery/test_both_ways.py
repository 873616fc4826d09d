"""One mixed program through both ways of emission: the batch of a plain client, and one `track` per
event of a client that somebody has a hand in. The wire is the same, byte by byte but for dates and
durations.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
from clients import uris
from event_server import EventServer
from ldclient import Config, Context, LDClient
from ldclient.feature_store import InMemoryFeatureStore
from ldclient.hook import Hook, Metadata
from ldclient.versioned_data_kind import FEATURES, SEGMENTS

import ldinstrument as ld
from ldinstrument import sdk, testing
from ldinstrument.devserver import experiment_flag, simple_flag
from ldinstrument.ledger import ledger

ANA = (
    Context.builder("ana")
    .name("Ana")
    .set("email", "ana@example.test")
    .set("address", {"street": "1 Some Road", "city": "Lyon"})
    .set("plan", 'pro "and" \\ \u00e9 \u2028')
    .private("email", "/address/street")
    .build()
)
ANA_AT_ACME = Context.create_multi(ANA, Context.builder("acme").kind("org").name("Acme").build())
NOBODY = Context.builder("n-1").anonymous(True).set("plan", "free").build()
FAR_AWAY = 32_503_680_000_000
FLAGS = {
    "exp": experiment_flag("exp", ("a", "b")),
    "second": experiment_flag("second", ("a", "b"), seed=3),
    "debugged": simple_flag("debugged", (False, True)) | {"debugEventsUntilDate": FAR_AWAY},
    "tracked": simple_flag("tracked", (False, True)) | {"trackEvents": True},
    "never sampled": simple_flag("never sampled", (False, True))
    | {"trackEvents": True, "samplingRatio": 0},
    "plain": simple_flag("plain", (False, True)),
}


class Counting(Hook):
    """A hook of the user's, which counts evaluations."""

    def __init__(self) -> None:
        self.evaluations = 0

    @property
    def metadata(self) -> Metadata:
        """Who it is."""
        return Metadata(name="counting")

    def before_evaluation(self, series_context: Any, data: Any) -> Any:
        """Pass."""
        return data

    def after_evaluation(self, series_context: Any, data: Any, detail: Any) -> Any:
        """Count."""
        self.evaluations += 1
        return data


class Subclassed(LDClient):
    """Somebody's own client."""


class Looking(ld.EventProcessor):
    """Somebody's own event processor, on top of ours."""

    def send_event(self, event: Any) -> None:
        """Look at each event."""
        super().send_event(event)


class Wrapper:
    """Somebody's own wrapper around a client."""

    def __init__(self, client: LDClient) -> None:
        self.client = client

    def track(self, *arguments: Any, **options: Any) -> None:
        """Pass it on."""
        self.client.track(*arguments, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.client, name)


def patched(config: Config) -> LDClient:
    """A client with its `track` replaced."""
    client = LDClient(config)
    track = client.track
    client.track = lambda *arguments, **options: track(*arguments, **options)  # type: ignore[method-assign]
    return client


ONE_BY_ONE: dict[str, Callable[[Config], Any]] = {
    "subclassed": Subclassed,
    "patched": patched,
    "wrapped": lambda config: Wrapper(LDClient(config)),
    "processor": LDClient,
}
"""Clients that get one `track` per event."""


@dataclass
class Played:
    """What came of the program: the bodies of its POSTs, the ledger, what the hook counted."""

    bodies: list[bytes]
    stats: Any
    evaluations: int
    results: list[Any]


@pytest.fixture(name="server")
def _server() -> Iterator[EventServer]:
    with EventServer() as server:
        yield server


def config_of(server: EventServer, processor: Any, hook: Hook, **options: Any) -> Config:
    """A configuration with the flags above; nothing leaves before a flush."""
    store = InMemoryFeatureStore()
    store.init({FEATURES: FLAGS, SEGMENTS: {}})
    addresses = uris(server.url)
    return Config(
        "sdk-key", use_ldd=True, feature_store=store, flush_interval=3600, hooks=[hook],
        plugins=[ld.Plugin()], event_processor_class=processor, **addresses, **options,
    )  # fmt: skip


def played(
    server: EventServer,
    make: Callable[[Config], Any],
    processor: Any = ld.EventProcessor,
    **options: Any,
) -> Played:
    """Play the program on a client of its own."""
    testing.reset()
    declare()
    hook, before = Counting(), len(server.posts)
    client = make(config_of(server, processor, hook, **options))
    try:
        # Real time: the SDK dates exposures by a clock that a fake one does not reach.
        results = program(client, partial(time.sleep, 0.003))
        assert ld.flush(30.0, getattr(client, "client", client)).ok
    finally:
        client.close()
    bodies = [post.body for post in server.posts[before:]]
    return Played(bodies, ledger.stats(), hook.evaluations, results)


def declare() -> None:
    """Declare a metric of every rollup."""
    higher = {"unit": "items", "success_criteria": "HigherThanBaseline"}
    ld.catalog.add(
        ld.Metric("mix.sum", aggregation="sum", **higher),
        ld.Metric("mix.each", **higher),
        ld.Metric("mix.seen", "occurrence"),
        ld.Metric("mix.count", "count"),
        ld.Metric("mix.limited", limit="2/h", **higher),
        ld.Metric("mix.org", analysis_units=("org",), **higher),
    )


@ld.track_task("mix.plain")
def plain(number: int) -> int:
    """Succeed, or fail for each seventh."""
    if number % 7 == 6:
        raise ValueError(number)
    return number


@ld.track_interaction("mix.answer", data=lambda result: {"n": result, "text": '\u00e9\u2028"\\'})
def answer(number: int) -> int:
    """Succeed, with data."""
    return number


@ld.track_task(
    "mix.all",
    success=lambda result: result % 2 == 0,
    record={"mix.sum": lambda result: result, "mix.each": lambda result: result / 3},
    metrics=("success_rate", "duration", "unfinished"),
)
def everything(number: int) -> int:
    """Succeed when even, and record values."""
    return number


@ld.track_task("mix.timed", within=30.0, metrics=("success_rate",))
def timed(number: int) -> int:
    """Succeed in time."""
    return number


@ld.track_task("mix.stream", metrics=("success_rate", "duration", "unfinished"))
def stream(count: int) -> Iterator[int]:
    """Yield *count* items."""
    yield from range(count)


@ld.track_task("mix.coroutine")
async def coroutine(number: int) -> int:
    """Succeed."""
    return number


def program(client: Any, step: Callable[[], None]) -> list[Any]:
    """Do a little of everything; return what the user's own code saw.

    Args:
        client: whose events they are.
        step: lets time pass, so that what folds does not depend on how fast a way is.
    """
    results: list[Any] = []
    with ld.session(
        ANA, id="s-1", client=client, data={"channel": "web", "n": [1, None]}
    ) as session:
        runs(results)
        session.record("mix.sum", 2)
        session.record("mix.seen")
        step()
        client.track("user.own", ANA, {"by": "hand"}, 1)
        results += [client.variation(flag, ANA, None) for flag in FLAGS]
        step()
        values(session)
        step()
        results.append(client.variation("second", ANA_AT_ACME, None))
        step()
        session.identify(ANA_AT_ACME)
        runs(results)
        values(session)
    session.record("mix.each", 9)  # late
    with ld.session(client=client, id="s-2", name="chat") as chat:
        chat.record("mix.sum", 1.5)
        results.append(client.variation("exp", NOBODY, None))
        with ld.session(
            "bob", client=client, id="s-3", metrics=("duration", "successes", "unfinished")
        ) as inner:
            values(inner)
        chat.interaction(success=False)
        chat.feedback(True)
        chat.identify(Context.create("eve"))
        chat.record("mix.each", 4)
    ld.track_conversion(49.0, context=ANA, client=client, category="books")
    ld.track_satisfaction(88, context="bob", client=client)
    client.identify(ANA_AT_ACME)
    return results


def runs(results: list[Any]) -> None:
    """Run every kind of task, more often than a session holds runs."""
    for number in range(80):
        try:
            results.append(plain(number))
        except ValueError as error:
            results.append(str(error))
        if number % 20 == 0:
            results += [answer(number), everything(number // 20), list(stream(2))]
            results.append(asyncio.run(coroutine(number)))
    for _ in stream(3):  # left early
        break
    with ld.track_task("mix.block") as task:
        task.fail("empty")


def values(session: Any) -> None:
    """Record values of every rollup, and some that are none."""
    for number in range(3):
        session.record("mix.sum", number + 0.1, data={"same": "for all"})
        session.record("mix.each", number / 7)
        session.record("mix.limited", number)
        session.record("mix.count")
    session.record("mix.seen", data={"a": {"b": ["\u00e9", 1e300, -0.0, True]}})
    session.record("mix.each", float("nan"))
    session.record("mix.org", 7)
    session.revenue(12.5, source="upsell")
    session.conversion(49.0, category="books")
    session.satisfaction(88)
    session.record("mix.big", 12345678901234567890)


DATES = re.compile(rb'"(creationDate|startDate|endDate)":\d+')
DURATIONS = re.compile(rb'("key":"[\w.]+\.duration"(?:,"data":\{.*?\})?,"metricValue":)[\d.e-]+')


def masked(body: bytes) -> bytes:
    """Return *body* without its dates and durations."""
    return DURATIONS.sub(rb"\1_", DATES.sub(rb'"\1":_', body))


@pytest.mark.parametrize("way", list(ONE_BY_ONE))
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"private_attributes": {"name", "/address/city"}},
        {"all_attributes_private": True, "enable_event_compression": True},
        {"omit_anonymous_contexts": True},
    ],
    ids=lambda options: "-".join(options) or "default",
)
def test_both_ways_send_the_same(server: EventServer, way: str, options: dict[str, Any]) -> None:
    """Bytes, the ledger, the user's results and hooks."""
    processor = Looking if way == "processor" else ld.EventProcessor
    at_once = played(server, LDClient, **options)
    one_by_one = played(server, ONE_BY_ONE[way], processor, **options)

    assert len(at_once.bodies) == len(one_by_one.bodies) == 1
    assert events_of(at_once.bodies[0]) == events_of(one_by_one.bodies[0])
    assert masked(at_once.bodies[0]) == masked(one_by_one.bodies[0])
    assert at_once.results == one_by_one.results
    assert at_once.evaluations == one_by_one.evaluations == len(FLAGS) + 2
    assert without_durations(at_once.stats) == without_durations(one_by_one.stats)
    assert at_once.stats.events.delivered > 300


def without_durations(stats: Any) -> Any:
    """Return the ledger's reading without how long sessions lasted."""
    sessions = {
        name: counted.replace(milliseconds=0.0, milliseconds_before=0.0)
        for name, counted in stats.sessions.items()
    }
    return stats.replace(sessions=sessions)


def events_of(body: bytes) -> list[bytes]:
    """Return the masked events one by one, so that a failure shows which differ."""
    return masked(body).split(b'{"kind":')


def test_what_the_deadlines_record_is_the_same_both_ways(server: EventServer) -> None:
    """Their thread records when it gets its turn, so that the order is not held here."""

    def events(make: Callable[[Config], Any]) -> list[bytes]:
        testing.reset()
        before = len(server.posts)
        client = make(config_of(server, ld.EventProcessor, Counting()))
        with ld.session(ANA, client=client, metrics=()):
            for number in range(40):
                timed(number)
        assert ld.flush(30.0, client).ok
        client.close()
        (body,) = [post.body for post in server.posts[before:]]
        return sorted(event.rstrip(b",]") for event in events_of(body))

    at_once = events(LDClient)

    assert at_once == events(Subclassed)
    assert sum(b'"key":"mix.timed.within"' in event for event in at_once) == 40


def test_the_program_is_mixed(server: EventServer) -> None:
    """It has every kind of event, and what must not leave does not."""
    (body,) = played(server, LDClient).bodies
    kinds = {kind.decode() for kind in re.findall(rb'\{"kind":"(\w+)"', body)}
    assert kinds >= {"custom", "index", "feature", "debug", "summary", "identify"}
    assert b"ana@example.test" not in body
    assert b"Some Road" not in body
    redacted = set(re.findall(rb'"redactedAttributes":\[(.*?)\]', body))
    assert {frozenset(names.split(b",")) for names in redacted} == {
        frozenset({b'"/address/street"', b'"email"'}),
        frozenset({b'"plan"'}),  # all that an anonymous context has, in an evaluation
    }
    assert b'"never sampled"' in body  # in the summary
    keys = set(re.findall(rb'"key":"([\w.]+)"', body))
    assert {b"mix.sum", b"mix.each", b"mix.seen", b"mix.count", b"mix.plain.duration",
            b"mix.stream.unfinished", b"user.own", b"session.duration", b"chat.success_rate",
            b"business.conversion", b"revenue.impact"} <= keys  # fmt: skip


def test_which_way_is_taken(server: EventServer) -> None:
    """Only a plain client with our event processor gets its events at once."""
    hook = Counting()
    clients = {"plain": LDClient(config_of(server, ld.EventProcessor, hook))}
    clients |= {
        name: make(
            config_of(server, Looking if name == "processor" else partial(ld.EventProcessor), hook)
        )
        for name, make in ONE_BY_ONE.items()
    }
    try:
        takers = {name: sdk.batch_taker(client) for name, client in clients.items()}
        taken = {name for name, take in takers.items() if take is not None and take([], ANA)}
    finally:
        for client in clients.values():
            client.close()
    assert taken == {"plain"}
