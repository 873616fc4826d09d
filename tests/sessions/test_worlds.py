"""Worlds of equal truth and different behaviour: no default metric sees a winner where none is.

Worlds in which people leave or runs hang are in tests/tasks/test_survivors.py. `make proof` runs
more trials: TRIALS=400.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from scipy import stats
from worlds import SimulatedTime, World, simulated_time

import ldinstrument as ld
from ldinstrument import testing
from ldinstrument.sessions.outcomes import Outcome

TRIALS = int(os.environ.get("TRIALS", "40"))
PEOPLE = 120
LEVEL = 0.1
DEFAULTS = (
    "session.duration",
    "session.success_rate",
    "session.interactions",
    "w.run.success_rate",
    "w.run.duration",
    "w.run.unfinished",
    "business.conversion",
)

Behaviour = Callable[[World, Any, str, int], None]


@pytest.fixture
def clock() -> Iterator[SimulatedTime]:
    """Simulated time."""
    with simulated_time() as simulated:
        yield simulated


def alike(world: World, session: Any, unit: str, arm: int) -> None:
    """A/A: both arms do the same, before the exposure and after it."""
    for _ in range(world.random.integers(0, 3)):
        world.run(session, world.random.exponential(), _outcome(world, 0.7))
    world.expose(unit)
    for _ in range(world.random.integers(1, 4)):
        world.run(session, world.random.exponential(), _outcome(world, 0.7))
        session.conversion(float(world.random.integers(1, 50)))


def second_flag(world: World, session: Any, unit: str, arm: int) -> None:
    """Arm b evaluates another flag a while after its last interaction: that is no activity."""
    world.expose(unit)
    for _ in range(world.random.integers(1, 4)):
        world.run(session, world.random.exponential(), _outcome(world, 0.7))
    world.clock.wait(5.0)
    if arm:
        from ldclient import Context

        from ldinstrument.sessions import hook

        hook.exposed("second", 1, Context.create(unit), int(world.clock.wall() * 1000))


def quiet_afterwards(world: World, session: Any, unit: str, arm: int) -> None:
    """Five interactions, then the exposure; a does nothing more, b goes on as before."""
    for _ in range(5):
        world.run(session, 0.2, _outcome(world, 0.6))
    world.expose(unit)
    for _ in range(3 if arm else 0):
        world.run(session, 0.2, _outcome(world, 0.6))


def exposed_elsewhere(world: World, session: Any, unit: str, arm: int) -> None:
    """The exposure is made on another thread; before it b is busier, after it both are alike.

    What came before an exposure is in no metric that folds.
    """
    session.conversion(float(world.random.integers(1, 50)))
    session.interaction()
    with ld.session("somebody-else", client=world.sink):
        world.expose(unit)
    session.conversion(float(world.random.integers(1, 50)))
    world.run(session, world.random.exponential(), _outcome(world, 0.7))


def retries(world: World, session: Any, unit: str, arm: int) -> None:
    """Under b, who fails tries again, in vain: successes are alike."""
    world.expose(unit)
    if world.chance(0.6):
        session.interaction()
    else:
        for _ in range(3 if arm else 1):
            session.interaction(False)


def _outcome(world: World, probability: float) -> Outcome:
    return Outcome.SUCCESS if world.chance(probability) else Outcome.FAILURE


EQUAL: list[tuple[Behaviour, tuple[str, ...]]] = [
    (alike, DEFAULTS),
    (second_flag, ("session.duration", "session.success_rate", "w.run.duration")),
    (quiet_afterwards, ("session.success_rate", "session.unfinished")),
    (exposed_elsewhere, ("session.duration", "business.conversion", "session.interactions")),
    (retries, ("session.successes",)),
]


@pytest.mark.parametrize(("behave", "keys"), EQUAL, ids=[behave.__name__ for behave, _ in EQUAL])
def test_no_winner_where_none_is(
    clock: SimulatedTime, behave: Behaviour, keys: tuple[str, ...]
) -> None:
    """False positives stay at the level, within what that many trials can tell."""
    positives = dict.fromkeys(keys, 0)
    for seed in range(TRIALS):
        testing.reset()
        world = World(clock, seed, PEOPLE).play(behave)
        for key in keys:
            positives[key] += world.p_value(key) < LEVEL

    for key, count in positives.items():
        surprise = stats.binomtest(count, TRIALS, LEVEL, alternative="greater").pvalue
        assert surprise > 0.001, f"{key}: {count} of {TRIALS}"


def test_retries_raise_interactions(clock: SimulatedTime) -> None:
    """Which is why `successes` can be asked for: interactions alone reward retries."""
    world = World(clock, 1, 600).play(retries)

    assert world.p_value("session.interactions") < 0.001
    assert world.effect("session.interactions") > 0.3


def test_casual_people_drawn_in_are_told_by_their_share(clock: SimulatedTime) -> None:
    """A rate without zero-fill compares those who have one: the share check says they differ."""

    def drawn_in(world: World, session: Any, unit: str, arm: int) -> None:
        casual = world.chance(0.5)
        world.expose(unit)
        if not casual or arm:
            for _ in range(3):
                session.interaction(world.chance(0.5 if casual else 0.9))

    world = World(clock, 1, 600).play(drawn_in)
    assert world.p_value("session.success_rate") < 0.001
    assert world.effect("session.success_rate") < -0.1
    assert world.share_p_value("session.success_rate") < 0.001
