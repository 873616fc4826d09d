"""Options of a task: checked where they are written, with what to write instead."""

from __future__ import annotations

from typing import Any

import pytest

import ldinstrument as ld
from ldinstrument.errors import DefinitionError
from ldinstrument.tasks.options import (
    PLAIN,
    TaskOptions,
    checked_metrics,
    checked_options,
    checked_unfinished,
)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"success": 3}, "success: give a function"),
        ({"data": {"a": 1}}, "data: give a function"),
        ({"record": {"k2": 3}}, "k2: give a function"),
        ({"expected": (3,)}, "expected: give exception classes"),
        ({"metrics": ("speed",)}, "'speed' is not one of"),
    ],
)
def test_bad_options_are_refused_where_they_are_written(
    options: dict[str, Any], message: str
) -> None:
    """At definition, not in production."""
    with pytest.raises(DefinitionError, match=message):
        ld.track_task("k", **options)


def test_an_async_extractor_is_refused() -> None:
    """Its coroutine would be truthy, and every run a success."""

    async def check(result: Any) -> bool:
        return False

    with pytest.raises(DefinitionError, match="not an async one"):
        ld.track_task("k", success=check)


def test_an_option_without_its_time_or_word_is_refused() -> None:
    """At definition, with the fix."""
    with pytest.raises(DefinitionError, match="unfinished= is 'failure' or None, not 'ignore'"):
        ld.track_task("k", unfinished="ignore")  # type: ignore[call-overload]
    with pytest.raises(DefinitionError, match=r"'within' needs a time: within=2\.0"):
        ld.track_task("k", metrics=("within",))
    with pytest.raises(DefinitionError, match="within= is a number of seconds above 0"):
        ld.track_task("k", within=0)


NOTHING: dict[str, Any] = dict.fromkeys(("success", "data", "record", "context", "within")) | {
    "expected": ()
}


def test_options_that_ask_for_nothing_are_plain() -> None:
    """Only clock and outcome are wanted then: the shortest way."""
    assert PLAIN.plain
    assert checked_options("track_task", **NOTHING) == PLAIN
    assert checked_options("track_task", **{**NOTHING, "record": {}}).plain


@pytest.mark.parametrize(
    "asked",
    [
        {"success": bool},
        {"expected": KeyError},
        {"data": dict},
        {"record": {"cart.size": len}},
        {"context": "u-1"},
        {"within": 0.5},
    ],
    ids=lambda asked: next(iter(asked)),
)
def test_each_option_by_itself_is_not_plain(asked: dict[str, Any]) -> None:
    """Whoever asks for it gets it."""
    assert not checked_options("track_task", **{**NOTHING, **asked}).plain


def test_options_are_kept_as_they_were_written() -> None:
    """One expected exception is a tuple of one; a mapping that changes later changes nothing."""
    record = {"cart.size": len}
    options = checked_options("track_task", **{**NOTHING, "expected": KeyError, "record": record})
    record["cart.late"] = len
    assert options == TaskOptions(expected=(KeyError,), record={"cart.size": len})


@pytest.mark.parametrize("within", [0, -1, float("nan"), "2", True])
def test_a_time_is_a_number_above_0(within: Any) -> None:
    """The error names the option."""
    with pytest.raises(DefinitionError, match="track_task: within="):
        checked_options("track_task", **{**NOTHING, "within": within})


def test_a_time_adds_its_own_metric() -> None:
    """Once; a single name is one metric, not its letters."""
    assert checked_metrics("track_task", "duration", None) == ("duration",)
    assert checked_metrics("track_task", ["duration"], 2.0) == ("duration", "within")
    assert checked_metrics("track_task", ("within", "duration"), 2.0) == ("within", "duration")


def test_an_unfinished_run_is_a_failure_when_the_word_is_said() -> None:
    """No other word is taken for it."""
    assert checked_unfinished("track_task", "failure")
    assert not checked_unfinished("track_task", None)
    for word in ("success", True, "fail", ""):
        with pytest.raises(DefinitionError, match="unfinished= is 'failure' or None"):
            checked_unfinished("track_task", word)
