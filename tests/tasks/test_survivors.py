"""Survivors: with the default metrics an experimenter sees that b is worse (docs/survivors.md).

Each world is simulated with real tracked functions, sessions and flag evaluations against the local
LaunchDarkly; only the clock is ours, so that minutes of waiting take none.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ldclient.client import LDClient
from ldclient.config import Config

import ldinstrument as ld
from ldinstrument.devserver import LocalLaunchDarkly, experiment_flag
from ldinstrument.devserver.readout.readout import Readout
from ldinstrument.sessions.clock import clock

USERS = 400
PAGE = (Path(__file__).resolve().parents[2] / "docs" / "survivors.md").read_text()
SOME_LEAVE = 0.02


class Time:
    """The clock of tracked runs: it stands still, but for what the simulated work takes."""

    def __init__(self) -> None:
        self.now = clock()

    def __call__(self) -> float:
        return self.now

    def catch_up(self) -> None:
        """Leave no run dated before an exposure of just now."""
        self.now = max(self.now, clock())

    def work(self, milliseconds: float) -> None:
        self.now += milliseconds / 1000


# A user who leaves: the server cancels the handler that still works for them.
Left = asyncio.CancelledError


def slow_and_left(time: Time, luck: random.Random, variation: str) -> None:
    """b is twice as slow; whoever waits for more than their patience leaves."""
    needed = luck.expovariate(1 / 10) * (2 if variation == "b" else 1)
    patience = luck.expovariate(1 / 20)
    time.work(min(needed, patience))
    if needed > patience:
        raise Left


def cached_or_very_slow(time: Time, luck: random.Random, variation: str) -> None:
    """b serves 65 % from a cache, and the rest so slowly that most of those leave."""
    needed = luck.expovariate(1 / 10)
    if variation == "b":
        needed = 4.0 if luck.random() < 0.65 else needed * 5
    time.work(min(needed, 20.0))
    if needed > 20.0:
        raise Left


def hangs_where_a_fails(time: Time, luck: random.Random, variation: str) -> None:
    """One in ten goes wrong: a raises, b never comes back."""
    time.work(luck.expovariate(1 / 10))
    if luck.random() < SOME_LEAVE:
        raise Left
    if luck.random() < 0.1:
        time.work(30)
        raise Left if variation == "b" else RuntimeError("it failed")


def cut_off(time: Time, luck: random.Random, variation: str) -> None:
    """The program's own time limit cuts off one in three of b's runs."""
    time.work(luck.expovariate(1 / 10))
    if luck.random() < (1 / 3 if variation == "b" else SOME_LEAVE):
        raise Left


World = Callable[[Time, random.Random, str], None]
WORLDS: dict[str, World] = {
    "twice as slow": slow_and_left,
    "cached or very slow": cached_or_very_slow,
    "hangs where a fails": hangs_where_a_fails,
    "cut off": cut_off,
}
METRICS = ("unfinished", "within", "success_rate", "duration")


@pytest.fixture(name="server", scope="module")
def _server() -> Iterator[LocalLaunchDarkly]:
    with LocalLaunchDarkly(flags=[experiment_flag("exp", ("a", "b"))]) as running:
        yield running


@pytest.fixture(name="client")
def _client(server: LocalLaunchDarkly) -> Iterator[LDClient]:
    server.reset()
    made = LDClient(
        Config(
            "sdk-key",
            base_uri=server.url,
            events_uri=server.url,
            stream=False,
            plugins=[ld.Plugin()],
            event_processor_class=ld.EventProcessor,
        )
    )
    yield made
    made.close()


def live(world: World, client: LDClient, time: Time) -> None:
    """Let each user meet the flag and ask up to four times, as long as they have not left."""
    luck = random.Random(7)
    variation = "a"

    @ld.track_interaction("answer", within=0.025)
    def answer() -> None:
        world(time, luck, variation)

    for number in range(USERS):
        with ld.session(f"user-{number}", client=client) as s:
            assert s.context is not None
            variation = client.variation("exp", s.context, "a")
            time.catch_up()
            for _ in range(4):
                try:
                    answer()
                except RuntimeError:
                    continue
                except Left:
                    break


def line(name: str, metric: str, readout: Readout) -> str:
    """Return a row of the page's table."""
    a, b = (readout.row(f"answer.{metric}", "exp", variation).estimate for variation in (0, 1))
    word = readout.result(f"answer.{metric}", "exp").comparisons[0].verdict.word
    assert a is not None
    assert b is not None
    return f"| {name} | `answer.{metric}` | {a:.3f} | {b:.3f} | {word} |"


@pytest.mark.parametrize("name", WORLDS)
def test_an_experimenter_sees_that_b_is_worse(
    name: str, server: LocalLaunchDarkly, client: LDClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A default metric says so, where others are blind or say the opposite; the page has it all."""
    time = Time()
    for module in ("wrapper", "runs"):
        monkeypatch.setattr(f"ldinstrument.tasks.{module}.clock", time)
    live(WORLDS[name], client, time)
    ld.bootstrap("default", token="api-local", base_uri=server.url)
    assert ld.flush(timeout=60, client=client).confirmed
    readout = server.readout()
    lines = {metric: line(name, metric, readout) for metric in METRICS}
    assert lines["unfinished"].endswith("| worse |")
    assert [row for row in lines.values() if row not in PAGE] == []
    assert dict(ld.stats().unfinished) == {}, "every run that did not finish is in a metric"


def test_without_the_default_metric_the_ledger_tells(client: LDClient) -> None:
    """`track_task` feeds no share of unfinished runs by itself: then it is counted and said."""
    time, luck = Time(), random.Random(7)

    @ld.track_task("answer.task")
    def answer() -> None:
        cut_off(time, luck, "b")

    with ld.session("user-1", client=client):
        for _ in range(100):
            try:
                answer()
            except Left:
                continue
    assert ld.stats().unfinished["answer.task"] > 20
    assert ("unfinished", "answer.task") in ld.stats().warnings
