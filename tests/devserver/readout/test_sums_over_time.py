"""The sums of units by time, in bounded memory."""

from __future__ import annotations

import random

from ldinstrument.devserver.readout.sums_over_time import MOST_STEPS, SumsOverTime, together


def sums(over_time: SumsOverTime, variation: int) -> list[float]:
    held = [step[variation] for step in over_time.steps.values() if variation in step]
    return [sum(column) for column in zip(*held, strict=True)]


def test_steps_stay_few_and_nothing_is_lost():
    """Dates of a century, one in 1970 and one in a time that never comes."""
    rng = random.Random(3)
    over_time, firsts = SumsOverTime(), [0, 2**62, -(2**62)]
    firsts += [1_795_422_752_000 + rng.randrange(10**10) for _ in range(5_000)]
    for first in firsts:
        over_time.add(first, 1, 2.0)
    assert len(over_time.steps) <= MOST_STEPS
    assert sums(over_time, 1) == [len(firsts), 2.0 * len(firsts), 4.0 * len(firsts)]


def test_what_is_taken_out_leaves_nothing():
    """Sums come back to zero."""
    over_time = SumsOverTime()
    for first in range(1_000):
        over_time.add(first, 0, 3.0)
        over_time.add(first, 0, 3.0, -1)
    over_time.add(5, 0, None)
    assert sums(over_time, 0) == [0, 0.0, 0.0]


def test_two_of_them_are_read_at_the_coarser_steps_of_them_in_the_order_of_time():
    """No unit and no value is lost in it."""
    exposed, valued = SumsOverTime(), SumsOverTime()
    for first in range(MOST_STEPS * 4):
        exposed.add(first, first % 2, 0.0)
    valued.add(7, 1, 5.0)
    steps = list(together(exposed, valued))
    assert len(steps) <= MOST_STEPS
    assert sum(units for step in steps for units, _ in step.values()) == MOST_STEPS * 4
    assert [step[1][1] for step in steps if step[1][1][0]] == [[1, 5.0, 25.0]]
    assert steps[0][1][1] != steps[1][1][1]
