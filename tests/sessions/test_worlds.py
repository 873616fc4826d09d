"""Worlds of equal truth and different behaviour: no default metric sees a winner where none is.

Worlds in which people leave or runs hang are in tests/tasks/test_survivors.py. `make proof` runs
more trials: TRIALS=400.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from ldclient import Context
from scipy import stats
from worlds import SimulatedTime, World, simulated_time

import ldinstrument as ld
from ldinstrument import testing
from ldinstrument.sessions.outcomes import Outcome

TRIALS = int(os.environ.get("TRIALS", "20"))
PEOPLE = 120
LEVEL = 0.1
DIFFERENT_PEOPLE = 0.001
"""Below this p the share check of rule 7 says that the means are of different people."""
DEFAULTS = (
    "session.duration",
    "session.success_rate",
    "session.interactions",
    "session.successes",
    "session.unfinished",
    "w.run.success_rate",
    "w.run.duration",
    "w.run.unfinished",
    "business.conversion",
)
RATES = ("session.success_rate", "w.run.success_rate", "w.run.duration")
COUNTS = ("session.interactions", "session.successes")

Behaviour = Callable[[World, Any, str, int], None]


@pytest.fixture
def clock() -> Iterator[SimulatedTime]:
    """Simulated time."""
    with simulated_time() as simulated:
        yield simulated


def run(world: World, session: Any, probability: float = 0.7) -> None:
    """One interaction."""
    outcome = Outcome.SUCCESS if world.chance(probability) else Outcome.FAILURE
    world.run(session, world.random.exponential(), outcome)


def use(world: World, session: Any, least: int = 1, most: int = 3) -> None:
    """Some interactions, and a purchase with each."""
    for _ in range(world.random.integers(least, most + 1)):
        run(world, session)
        session.conversion(float(world.random.integers(1, 50)))


# -- the worlds: in each the truth of the metrics that are listed is the same in both arms ---------


def alike(world: World, session: Any, unit: str, arm: int) -> None:
    """A/A: both arms do the same, before the exposure and after it."""
    use(world, session, 0, 2)
    world.expose(unit)
    use(world, session)


def second_flag(world: World, session: Any, unit: str, arm: int) -> None:
    """Arm b evaluates another flag a while after its last interaction: that is no activity."""
    world.expose(unit)
    use(world, session)
    world.clock.wait(5.0)
    if arm:
        world.expose(unit, "second")


def second_flag_in_between(world: World, session: Any, unit: str, arm: int) -> None:
    """Arm b meets a second experiment, and a restarted one, in the midst of its work."""
    use(world, session, 0, 2)
    world.expose(unit)
    use(world, session)
    if arm:
        world.expose(unit, "second", wait=0.0)
        world.expose(unit, "second", version=2, wait=0.0)
    use(world, session)


def polling(world: World, session: Any, unit: str, arm: int) -> None:
    """Arm b evaluates its flag again and again, which takes no time."""
    use(world, session, 0, 2)
    world.expose(unit)
    for _ in range(20 * arm):
        world.expose(unit, wait=0.0)
    use(world, session)
    for _ in range(20 * arm):
        world.expose(unit)


def quiet_afterwards(world: World, session: Any, unit: str, arm: int) -> None:
    """Five interactions, then the exposure; a does nothing more, b goes on as before."""
    for _ in range(5):
        run(world, session, 0.6)
    world.expose(unit)
    for _ in range(3 if arm else 0):
        run(world, session, 0.6)


def lingering(world: World, session: Any, unit: str, arm: int) -> None:
    """Under b people leave the page open: nothing happens in it any more."""
    use(world, session, 0, 2)
    world.expose(unit)
    use(world, session)
    world.clock.wait(600.0 * arm)


def exposed_elsewhere(world: World, session: Any, unit: str, arm: int) -> None:
    """The exposure is made in another session while this one is open."""
    use(world, session, 1, 3)
    with ld.session("somebody-else", client=world.sink):
        world.expose(unit)
    use(world, session)


def exposed_after_all(world: World, session: Any, unit: str, arm: int) -> None:
    """The flag is evaluated when the work is done; b then touches the session once more."""
    use(world, session)
    world.expose(unit)
    if arm:
        session.touch()


def more_use(world: World, session: Any, unit: str, arm: int) -> None:
    """Under b people run more, neither better nor faster."""
    world.expose(unit)
    use(world, session, 1 + 3 * arm, 2 + 4 * arm)


def small_coins(world: World, session: Any, unit: str, arm: int) -> None:
    """Under b each purchase arrives in a hundred parts: more than a session holds at once."""
    use(world, session, 0, 2)
    world.expose(unit)
    use(world, session)
    total = float(world.random.integers(1, 50))
    for _ in range(100 if arm else 1):
        session.conversion(total / (100 if arm else 1))


def coming_back(world: World, session: Any, unit: str, arm: int) -> None:
    """Under b people come back twice; each visit is like the first."""
    world.expose(unit)
    use(world, session)
    session.end()
    for _ in range(2 * arm):
        world.clock.wait(60.0)
        with world.visit(unit) as again:
            use(world, again)


def retries(world: World, session: Any, unit: str, arm: int) -> None:
    """Under b, who fails tries again, in vain: successes are alike."""
    world.expose(unit)
    if world.chance(0.6):
        session.interaction()
    else:
        for _ in range(3 if arm else 1):
            session.interaction(False)


def drawn_in(world: World, session: Any, unit: str, arm: int) -> None:
    """Casual people use b, and would not use a; they succeed less often."""
    casual = world.chance(0.5)
    world.expose(unit)
    if not casual or arm:
        for _ in range(3):
            run(world, session, 0.5 if casual else 0.9)


def leaving(world: World, session: Any, unit: str, arm: int) -> None:
    """In both arms people leave runs that take long; then their visit is over."""
    use(world, session, 0, 1)
    world.expose(unit)
    for _ in range(3):
        seconds = world.random.exponential()
        if seconds > 1.5:
            world.run(session, 1.5, Outcome.ABANDONED)
            return
        world.run(session, seconds, Outcome.SUCCESS if world.chance(0.7) else Outcome.FAILURE)


def leaving_more(world: World, session: Any, unit: str, arm: int) -> None:
    """Under b more people leave, whatever they were doing: those who stay fare alike."""
    world.expose(unit)
    for _ in range(3):
        if world.chance(0.1 + 0.4 * arm):
            world.run(session, 0.1, Outcome.ABANDONED)
            return
        run(world, session)


def hanging(world: World, session: Any, unit: str, arm: int) -> None:
    """In both arms some runs never end: the process ends, and the session is abandoned."""
    use(world, session, 0, 1)
    world.expose(unit)
    use(world, session)
    if world.chance(0.3):
        session.end("abandoned")


def late(world: World, session: Any, unit: str, arm: int) -> None:
    """Under b the purchase is booked after the visit is over, by work in the background."""
    world.expose(unit)
    use(world, session)
    amount = float(world.random.integers(1, 50))
    if arm:
        session.end()
        world.clock.wait(3.0)
    session.conversion(amount)


def logging_in(world: World, session: Any, unit: str, arm: int) -> None:
    """Under b people log in: the unit, such as their device, stays, and somebody joins it."""
    use(world, session, 0, 2)
    world.expose(unit)
    use(world, session)
    if arm:
        account = Context.create(f"account of {unit}", "account")
        session.identify(Context.create_multi(Context.create(unit), account))
    use(world, session)


def socket_beside(world: World, session: Any, unit: str, arm: int) -> None:
    """Under b a socket of theirs is open beside the visit, longer than that, and hears things."""
    world.expose(unit)
    with ld.session(unit, client=world.sink, name="socket") as socket:
        for _ in range(5 * arm):
            socket.interaction()
        use(world, session)
        session.end()
        world.clock.wait(30.0)


EQUAL: list[tuple[Behaviour, tuple[str, ...]]] = [
    (alike, DEFAULTS),
    (second_flag, DEFAULTS),
    (second_flag_in_between, DEFAULTS),
    (polling, DEFAULTS),
    (quiet_afterwards, ("session.success_rate", "session.unfinished", *RATES)),
    (lingering, DEFAULTS),
    (exposed_elsewhere, DEFAULTS),
    (exposed_after_all, (*COUNTS, *RATES, "business.conversion", "session.unfinished")),
    (more_use, (*RATES, "w.run.unfinished", "session.unfinished")),
    (small_coins, DEFAULTS),
    (coming_back, ("session.duration", *RATES, "w.run.unfinished", "session.unfinished")),
    (retries, ("session.successes", "session.unfinished")),
    (drawn_in, RATES),
    (leaving, DEFAULTS),
    (leaving_more, (*RATES, "session.unfinished")),
    (hanging, DEFAULTS),
    (late, DEFAULTS),
    (logging_in, DEFAULTS),
    (socket_beside, DEFAULTS),
]


@pytest.mark.parametrize(("behave", "keys"), EQUAL, ids=[behave.__name__ for behave, _ in EQUAL])
def test_no_winner_where_none_is(
    clock: SimulatedTime, behave: Behaviour, keys: tuple[str, ...]
) -> None:
    """False positives stay at the level, within what that many trials can tell, but for those of
    which the share check says that they are of different people.
    """
    positives = dict.fromkeys(keys, 0)
    for seed in range(TRIALS):
        testing.reset()
        world = World(clock, seed, PEOPLE).play(behave)
        for key in positives:
            told = world.share_p_value(key) < DIFFERENT_PEOPLE
            positives[key] += world.p_value(key) < LEVEL and not told

    for key, count in positives.items():
        surprise = stats.binomtest(count, TRIALS, LEVEL, alternative="greater").pvalue
        assert surprise > 0.0005, f"{key}: {count} of {TRIALS}"


@pytest.mark.parametrize("key", DEFAULTS)
def test_a_true_effect_is_seen(clock: SimulatedTime, key: str) -> None:
    """The same tests can fail: where b does twice as much, half as well, each metric tells."""

    def worse(world: World, session: Any, unit: str, arm: int) -> None:
        world.expose(unit)
        for _ in range(3 + 3 * arm):
            seconds = world.random.exponential() * (1 + arm)
            success = world.chance(0.9 - 0.5 * arm)
            world.run(session, seconds, Outcome.SUCCESS if success else Outcome.FAILURE)
            session.conversion(float(world.random.integers(1, 50)))
        if arm and world.chance(0.5):
            world.run(session, 0.1, Outcome.ABANDONED)
            session.end("abandoned")

    def fewer_successes(world: World, session: Any, unit: str, arm: int) -> None:
        world.expose(unit)
        for _ in range(3):
            session.interaction(world.chance(0.9 - 0.5 * arm))

    behave = fewer_successes if key == "session.successes" else worse
    assert World(clock, 1, 400).play(behave).p_value(key) < 0.001


def test_retries_raise_interactions(clock: SimulatedTime) -> None:
    """Which is why `successes` can be asked for: interactions alone reward retries."""
    world = World(clock, 1, 600).play(retries)

    assert world.p_value("session.interactions") < 0.001
    assert world.effect("session.interactions") > 0.3


def test_casual_people_drawn_in_are_told_by_their_share(clock: SimulatedTime) -> None:
    """A rate without zero-fill compares those who have one: the share check says they differ."""
    world = World(clock, 1, 600).play(drawn_in)
    assert world.p_value("session.success_rate") < 0.001
    assert world.effect("session.success_rate") < -0.1
    assert world.share_p_value("session.success_rate") < DIFFERENT_PEOPLE
