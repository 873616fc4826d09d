"""The proof: what an experiment counts of random programs is what happened after the exposure.

`make proof` runs many more of them: PROGRAMS=2000.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from laboratory import Laboratory, laboratory
from programs import Arrived, Program, declare, differences

from ldinstrument.devserver import experiment_flag, simple_flag
from ldinstrument.stores import MemoryStore, SessionStore

PROGRAMS = int(os.environ.get("PROGRAMS", "40"))
FIRST = int(os.environ.get("FIRST_PROGRAM", "0"))


@pytest.fixture
def lab() -> Iterator[Laboratory]:
    """Two experiments, and one that is met only as a prerequisite."""
    behind = experiment_flag("behind", ["a", "b"], weights=[1, 0])
    outer = simple_flag("outer", [False, True]) | {
        "prerequisites": [{"key": "behind", "variation": 0}]
    }
    flags = [experiment_flag(name, ["a", "b"]) for name in ("first", "second")]
    with laboratory(*flags, behind, outer) as made:
        declare()
        yield made


def check(lab: Laboratory, programs: list[Program]) -> None:
    """Compare every program with what arrived of it."""
    lab.flush()
    arrived = Arrived(lab.server.events())
    wrong = {}
    for program in programs:
        if found := differences(program, arrived):
            wrong[program.name] = [*found, *program.steps]
    told = "\n".join(line for lines in list(wrong.values())[:2] for line in lines)
    assert not wrong, f"{len(wrong)} of {len(programs)} programs: {sorted(wrong)[:20]}\n{told}"


def test_a_stored_session_counts_the_same(lab: Laboratory) -> None:
    """Sessions that a store keeps are worked out when they are reported."""
    programs = []
    with SessionStore(MemoryStore(), client=lab.client, sweep=False) as store:
        for seed in range(FIRST, FIRST + PROGRAMS):
            program = Program(lab, seed, store=store)
            program.run(16)
            programs.append(program)
        assert store.sweep().complete
    check(lab, programs)


@pytest.mark.parametrize("clocks", [False, True], ids=["steady", "clocks set"])
def test_what_is_counted_is_what_came_after_the_exposure(lab: Laboratory, clocks: bool) -> None:
    """Nested sessions, threads, prerequisites, identities, late values; all metrics, each unit."""
    programs = []
    for seed in range(FIRST, FIRST + PROGRAMS):
        program = Program(lab, seed, clocks=clocks)
        program.run(16)
        programs.append(program)
    check(lab, programs)
