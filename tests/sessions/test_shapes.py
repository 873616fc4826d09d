"""What an experiment counts in the shapes that programs have: coroutines, decorators, executors.

Each value is tracked twice at the same moment: through the package, and naively by one
`client.track`. An experiment must count the same of both.
"""

from __future__ import annotations

import asyncio
import random
import time
from pathlib import Path
from typing import Any

import pytest
from laboratory import Laboratory, client_of, laboratory
from ldclient import Context

import ldinstrument as ld
from ldinstrument.devserver import LocalLaunchDarkly, experiment_flag, simple_flag
from ldinstrument.stores import end_session, open_store, sweep

NAIVE = "naive.conversion"


def naive(lab: Laboratory, unit: str, value: float) -> None:
    """Track *value* as somebody without the package would."""
    lab.client.track(NAIVE, Context.create(unit), None, value)


def convert(lab: Laboratory, session: Any, unit: str, value: float) -> None:
    """Record a conversion, and track it naively."""
    session.conversion(value)
    naive(lab, unit, value)


def equal_sums(lab: Laboratory, unit: str, flag: str = "flag") -> float:
    """What both count, which must be the same."""
    lab.flush()
    ours = sum(lab.counted("business.conversion", unit, flag))
    assert ours == sum(lab.counted(NAIVE, unit, flag))
    return float(ours)


def test_a_decorated_coroutine_whose_exposure_is_made_in_a_thread(lab: Laboratory) -> None:
    """Everybody exposed has a rate, whatever they did afterwards; only what came after counts."""
    chance = random.Random(3)

    @ld.session(context=lambda unit: unit, client=lab.client)
    async def visit(unit: str) -> int:
        session = ld.current_session()
        assert session is not None
        for _ in range(5):
            session.interaction(chance.random() < 0.6)
        arm = await asyncio.to_thread(lab.expose, unit)
        more = 0
        for _ in range(1 if arm == "a" else 3):
            if chance.random() < (0.5 if arm == "a" else 0.2):
                session.interaction(chance.random() < 0.6)
                more += 1
        return more

    async def everybody() -> dict[str, int]:
        return {f"u-{n}": await visit(f"u-{n}") for n in range(30)}

    afterwards = asyncio.run(everybody())
    lab.flush()

    for unit, more in afterwards.items():
        assert len(lab.counted("session.success_rate", unit)) == 1
        assert sum(lab.counted("session.interactions", unit)) == more


def test_an_executor_and_a_request_beside_a_websocket(lab: Laboratory) -> None:
    """Neither runs in the context of the session that holds values back."""

    async def main() -> None:
        async with ld.session("u-1", client=lab.client) as s:
            convert(lab, s, "u-1", 100)
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(None, lab.expose, "u-1")
            convert(lab, s, "u-1", 10)
        async with ld.session("u-2", client=lab.client, name="websocket") as socket:
            convert(lab, socket, "u-2", 5)

            async def request() -> None:
                with ld.session("u-2", client=lab.client, name="request") as s:
                    lab.expose("u-2")
                    convert(lab, s, "u-2", 7)

            await asyncio.gather(request())
            convert(lab, socket, "u-2", 3)

    asyncio.run(main())

    assert (equal_sums(lab, "u-1"), equal_sums(lab, "u-2")) == (10, 10)


def test_a_prerequisite_names_whose_an_async_session_is() -> None:
    """Its exposure is met in a thread's copy of the context."""
    inner = experiment_flag("inner", ["a", "b"], weights=[1, 0])
    outer = simple_flag("outer", [False, True])
    outer |= {"prerequisites": [{"key": "inner", "variation": 0}]}
    with laboratory(inner, outer) as lab:

        async def main() -> None:
            async with ld.session(client=lab.client) as s:
                convert(lab, s, "u-1", 100)
                s.interaction()
                await asyncio.to_thread(lab.expose, "u-1", "outer")
                convert(lab, s, "u-1", 10)
                s.interaction()

        asyncio.run(main())

        assert equal_sums(lab, "u-1", "inner") == 10
        assert sum(lab.counted("session.interactions", "u-1", "inner")) == 1


def test_items_of_a_list_do_not_name_the_session() -> None:
    """Two hundred evaluations for items, in tracked coroutines: every event is the user's."""
    ranking = experiment_flag("rank", ["x", "y"], context_kind="item")
    with laboratory(experiment_flag("flag", ["a", "b"]), ranking) as lab:

        @ld.track_interaction("shop.rank")
        async def rank(number: int) -> Any:
            return lab.client.variation("rank", Context.create(f"i-{number}", "item"), None)

        async def main() -> None:
            async with ld.session("u-1", client=lab.client):
                lab.expose("u-1")
                for number in range(200):
                    await rank(number)

        asyncio.run(main())
        lab.flush()

        kinds = {event["context"]["kind"] for event in lab.server.custom_events()}
        assert kinds == {"user"}
        assert sum(lab.counted("session.interactions", "u-1")) == 200


def test_an_experiment_that_starts_between_two_requests_of_a_visit(tmp_path: Path) -> None:
    """The flag was evaluated before; the store keeps the visit meanwhile."""
    flag = experiment_flag("flag", ["a", "b"])
    with (
        laboratory(flag | {"on": False}) as lab,
        open_store(f"sqlite:///{tmp_path}/v.db", client=lab.client, sweep=False) as store,
    ):
        with ld.session("u-1", id="v", client=lab.client, store=store) as s:
            lab.expose("u-1")
            convert(lab, s, "u-1", 1)
            s.interaction()
        lab.change(flag)
        with ld.session("u-1", id="v", client=lab.client, store=store) as s:
            convert(lab, s, "u-1", 2)
            lab.expose("u-1")
            convert(lab, s, "u-1", 4)
            s.interaction()
        end_session(store, "v")
        assert sweep(store).error == ""

        assert equal_sums(lab, "u-1") == 4
        assert sum(lab.counted("session.interactions", "u-1")) == 1


def test_two_environments_and_a_coroutine() -> None:
    """Conversions follow the exposure that was made in a thread of the session's context."""
    with LocalLaunchDarkly() as elsewhere, laboratory() as lab:
        other = client_of(elsewhere, "sdk-other")
        try:

            async def main() -> None:
                for number in range(20):
                    async with ld.session(f"u-{number}") as s:
                        await asyncio.to_thread(lab.expose, f"u-{number}")
                        s.conversion(10)

            asyncio.run(main())
            ld.flush(5)
            assert len(lab.server.custom_events("business.conversion")) == 20
            assert elsewhere.custom_events("business.conversion") == []
        finally:
            other.close()


# -- the end of an iteration, which no process sees ------------------------------------------------


@pytest.mark.parametrize("afterwards", [True, False])
def test_a_sum_that_is_open_when_an_iteration_ends(lab: Laboratory, afterwards: bool) -> None:
    """It counts whole by its last value, the rest is exact: the table in docs/experiments.md."""
    ld.catalog.add(
        ld.Metric("e.each", unit="items", success_criteria="HigherThanBaseline"),
        ld.Metric("e.seen", "occurrence"),
    )
    lab.expose("u-1")
    with ld.session("u-1", client=lab.client) as s:
        for _ in range(2):
            s.conversion(10)
            s.record("e.each", 1)
            s.record("e.seen")
            time.sleep(0.003)
        ended = int(time.time() * 1000)
        time.sleep(0.003)
        if afterwards:
            s.conversion(20)
            s.record("e.each", 2)
            s.record("e.seen")
    lab.flush()

    counted = {
        key: [
            event.get("metricValue")
            for event in lab.server.custom_events(key)
            if event["creationDate"] < ended
        ]
        for key in ("business.conversion", "e.each", "e.seen", "session.duration")
    }
    assert counted == {
        "business.conversion": [] if afterwards else [20],
        "e.each": [1, 1],
        "e.seen": [None] if afterwards else [None, None],
        "session.duration": [],
    }
