"""The proof: what an experiment counts of random programs is what happened after the exposure.

`make proof` runs many more of them: PROGRAMS=2000.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from laboratory import Laboratory, laboratory
from programs import (
    Arrived,
    Program,
    Trackers,
    Visits,
    declare,
    differences,
    of_variations,
)

from ldinstrument.devserver import experiment_flag, simple_flag
from ldinstrument.stores import SessionStore, open_store

PROGRAMS = int(os.environ.get("PROGRAMS", "24"))
FIRST = int(os.environ.get("FIRST_PROGRAM", "0"))
SEEDS = range(FIRST, FIRST + PROGRAMS)
STEPS = 16


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


def _servers() -> ModuleType:
    """What the tests of the stores start Redis with."""
    path = Path(__file__).parents[1] / "stores" / "servers.py"
    spec = importlib.util.spec_from_file_location("servers_of_the_stores", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(params=["memory", "sqlite", "redis"])
def store(request: Any, lab: Laboratory, tmp_path: Path) -> Iterator[SessionStore]:
    """Each store that there is; Redis where a server is installed."""
    servers = _servers()
    server = None
    if request.param == "redis":
        if servers.redis_binary() is None:
            pytest.skip("no redis-server is installed")
        server = servers.RedisServer(servers.redis_binary(), tmp_path)
    address = {
        "memory": "memory:",
        "sqlite": f"sqlite:///{tmp_path}/sessions.db?timeout=10",
        "redis": f"{server.url if server else ''}?timeout=10",
    }[request.param]
    with open_store(address, client=lab.client, sweep=False) as opened:
        yield opened
    if server is not None:
        server.stop()


def check(lab: Laboratory, programs: list[Program]) -> None:
    """Compare every program, and all of them by variation, with what arrived of them."""
    lab.flush()
    arrived = Arrived(lab.server.events())
    wrong = {}
    for program in programs:
        if found := differences(program, arrived):
            wrong[program.name] = [*found, *program.steps]
    told = "\n".join(line for lines in list(wrong.values())[:2] for line in lines)
    assert not wrong, f"{len(wrong)} of {len(programs)} programs: {sorted(wrong)[:20]}\n{told}"
    assert of_variations(programs, arrived) == []


def played(kind: Callable[..., Program], lab: Laboratory, **options: Any) -> list[Program]:
    """Play the programs of all seeds."""
    programs = []
    for seed in SEEDS:
        programs.append(kind(lab, seed, **options))
        programs[-1].run(STEPS)
    return programs


@pytest.mark.parametrize("clocks", [False, True], ids=["steady", "clocks set"])
@pytest.mark.parametrize("kind", [Program, Visits], ids=["blocks", "requests that overlap"])
def test_a_stored_session_counts_the_same(
    lab: Laboratory, store: SessionStore, kind: type[Program], clocks: bool
) -> None:
    """Sessions that a store keeps are worked out when they are reported."""
    programs = played(kind, lab, store=store, changes=kind is Visits, clocks=clocks)
    assert store.sweep().complete
    check(lab, programs)


@pytest.mark.parametrize("clocks", [False, True], ids=["steady", "clocks set"])
@pytest.mark.parametrize("changes", [False, True], ids=["experiments run", "experiments change"])
def test_what_is_counted_is_what_came_after_the_exposure(
    lab: Laboratory, clocks: bool, changes: bool
) -> None:
    """Nested sessions, threads, prerequisites, identities, late values, lost exposures."""
    check(lab, played(Program, lab, clocks=clocks, changes=changes))


@pytest.mark.parametrize("clocks", [False, True], ids=["steady", "clocks set"])
def test_a_trackers_sessions_count_the_same(
    lab: Laboratory, store: SessionStore, clocks: bool
) -> None:
    """By ids, in a store: each call is one by itself."""
    programs = played(Trackers, lab, store=store, changes=True, clocks=clocks)
    assert store.sweep().complete
    check(lab, programs)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_child_counts_the_same(lab: Laboratory) -> None:
    """Children that record and expose while the parent's sessions are open."""
    programs = []
    for seed in SEEDS[: max(4, PROGRAMS // 20)]:
        programs.append(Program(lab, seed, forks=True))
        programs[-1].run(STEPS)
    check(lab, programs)
