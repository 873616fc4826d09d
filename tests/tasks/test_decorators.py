"""`track_task` and `track_interaction`: their keys, and scopes that many enter at once."""

from __future__ import annotations

import asyncio
import pickle

import pytest

import ldinstrument as ld
from ldinstrument.errors import DefinitionError
from ldinstrument.testing import RecordingClient


def counts(session: ld.Session, key: str = "k") -> tuple[int, ...]:
    tasks = session.summary().tasks
    return tuple(int(number) for number in tuple(tasks[key])[:4]) if key in tasks else (0, 0, 0, 0)


def test_a_block_needs_a_key() -> None:
    """There is no function to take a name from."""
    with pytest.raises(DefinitionError, match="a with block needs a key"), ld.track_task():
        pass


def test_one_scope_entered_by_many_tasks() -> None:
    """A scope kept in a variable is reusable: nested, and by tasks that interleave."""
    scope = ld.track_task("k")

    async def one(wait: float, fail: bool) -> None:
        async with scope as task, scope:
            await asyncio.sleep(wait)
            if fail:
                task.fail()

    async def main() -> None:
        await asyncio.gather(*(one(0.001 * (5 - number), number % 2 == 0) for number in range(6)))

    with ld.session("u") as s:
        asyncio.run(main())
        assert counts(s) == (9, 3, 0, 0)
    assert len(scope._runs) == 0


@pytest.mark.parametrize("key", ["session", "task", "", "with space", "$ld:x", "otel.x", "-x"])
def test_bad_keys_are_refused(key: str) -> None:
    """Reserved, empty, or none that LaunchDarkly takes."""
    with pytest.raises(DefinitionError):
        ld.track_task(key)


def test_a_reserved_key_says_why() -> None:
    """Its metrics are those of LaunchDarkly's recipe."""
    with pytest.raises(DefinitionError, match=r"task\.success_rate is LaunchDarkly's recipe's own"):
        ld.track_interaction("task")


def test_an_interaction_counts_in_its_session_and_a_task_does_not() -> None:
    """It is what the user sees as one; it also says how many were given up."""
    with ld.session("u") as s:
        with ld.track_task("area.task"), ld.track_interaction("area.seen"):
            pass
        assert s.summary().interactions == 1
        assert set(s.summary().tasks) == {"area.task", "area.seen"}
    assert "area.seen.unfinished" in ld.catalog
    assert "area.task.unfinished" not in ld.catalog


def test_a_run_can_be_ended_by_hand() -> None:
    """By whoever began it, once, in the session that it began in; a key is needed."""
    scope = ld.track_task("k")
    with ld.session("u") as s:
        runs = [scope.begin() for _ in range(3)]
        runs[0].returned(None)
        runs[0].raised(KeyError())
        runs[1].raised(KeyError())
        assert counts(s) == (1, 1, 0, 0)
        with ld.session("v", name="other") as other:
            runs[2].returned(None)
            assert counts(other) == (0, 0, 0, 0)
        assert counts(s) == (2, 1, 0, 0)
    with pytest.raises(DefinitionError, match="a with block needs a key"):
        ld.track_task().begin()


def test_a_scope_is_a_value(ld_events: RecordingClient) -> None:
    """It survives pickling, and the copy has its key, its options and its metrics."""
    scope = ld.track_interaction("k", expected=KeyError, unfinished="failure")
    copied = pickle.loads(pickle.dumps(scope))
    with ld.session("u"):
        with pytest.raises(KeyError), copied:
            raise KeyError
        with pytest.raises(KeyboardInterrupt), copied:
            raise KeyboardInterrupt
    assert ld_events.values("k.success_rate") == [1, 0]
    assert ld_events.values("k.unfinished") == [0, 1]
    assert ld_events.only("session.interactions").value == 2
