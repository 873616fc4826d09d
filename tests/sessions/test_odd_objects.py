"""Objects of the program whose special methods raise: a framework's lazy one, say, whose database
is away. They cost themselves, one line says where, and nothing reaches the program.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import wrapt

import ldinstrument as ld
from ldinstrument.ai.usage import Usage
from ldinstrument.diagnostics import diagnostics, guard
from ldinstrument.testing import RecordingClient


class Lazy:
    """Raises whatever is asked of it."""

    def __raise(self, *_: Any) -> Any:
        raise ConnectionError("the database is away: a-secret")

    def __bool__(self) -> bool:
        return bool(self.__raise())

    def __float__(self) -> float:
        return float(self.__raise())

    def __str__(self) -> str:
        return str(self.__raise())

    def __getattr__(self, name: str) -> Any:
        return self.__raise()

    @property
    def __class__(self) -> Any:
        return self.__raise()


LAZY: Any = Lazy()

SAID: dict[str, Callable[[ld.Session], object]] = {
    "record": lambda session: session.record("odd.value", LAZY),
    "record a metric": lambda session: session.record(LAZY, 1),
    "data": lambda session: session.record("odd.value", 1, data={"a": LAZY}),
    "interaction": lambda session: session.interaction(LAZY),
    "conversion": lambda session: session.conversion(LAZY),
    "revenue": lambda session: session.revenue(LAZY),
    "satisfaction": lambda session: session.satisfaction(LAZY),
    "task_success": lambda session: session.task_success("kind", LAZY),
    "feedback": lambda session: session.feedback(LAZY),
    "add_data": lambda session: session.add_data(a=LAZY),
    "identify": lambda session: session.identify(LAZY),
    "data=": lambda _: ld.track_task("odd.task", data=lambda result: result)(lambda: LAZY)(),
    "record=": lambda _: ld.track_task("odd.task", record={"odd.value": lambda result: result})(
        lambda: LAZY
    )(),
    "success=": lambda _: ld.track_task("odd.task", success=lambda result: result)(lambda: LAZY)(),
    "a result": lambda _: ld.track_task("odd.task")(lambda: LAZY)(),
    "an answer": lambda _: ld.track_ai("odd.call")(lambda: LAZY)(),
    "a judged answer": lambda _: ld.track_ai("odd.call")(lambda: {"judge_results": LAZY})(),
    "an error": lambda _: _ignored(ld.track_ai("odd.call")(_raising)),
    "flush": lambda _: ld.flush(LAZY),
    "flush a client": lambda _: ld.flush(0.1, LAZY),
}


class OddError(Exception):
    """As an SDK's, whose response is lazy."""

    response = request = LAZY


def _raising() -> None:
    raise OddError


def _ignored(call: Callable[[], object]) -> None:
    with pytest.raises(OddError):
        call()


@pytest.mark.parametrize("said", SAID)
def test_an_odd_object_costs_itself(
    said: str, ld_events: RecordingClient, caplog: pytest.LogCaptureFixture
) -> None:
    """What else the session has arrives; no bug of ours is reported, and no text is logged."""
    with ld.session("ada") as session:
        SAID[said](session)
        session.record("odd.other", 7)

    assert ld_events.values("odd.other") == [7]
    if "odd.task" in str(ld_events.keys()):
        assert len(ld_events.values("odd.task.duration")) == 1
    assert not [cause for cause, _ in diagnostics.counts() if cause.startswith("internal")]
    assert "a-secret" not in caplog.text


def test_an_odd_reason_ends_the_session_all_the_same(ld_events: RecordingClient) -> None:
    """As ended."""
    session = ld.session("ada").__enter__()
    session.revenue(3)
    session.end(LAZY)

    assert ld_events.values("revenue.impact") == [3]
    assert ld_events.only("session.duration").data["endReason"] == "ended"


class Falsy(dict[str, Any]):
    """Has no truth of its own, but entries."""

    def __bool__(self) -> bool:
        return False


def test_a_mapping_without_truth_is_data_all_the_same(ld_events: RecordingClient) -> None:
    """None and an empty one are no data."""
    for told in (Falsy(a=1), None, {}):
        with ld.session("ada"):
            ld.track_task("odd.task", data=lambda result: result)(lambda told=told: told)()

    assert [event.data for event in ld_events.of("odd.task.duration")] == [{"a": 1}, None, None]


def test_an_answer_behind_a_proxy_is_read(ld_events: RecordingClient) -> None:
    """It says that it is what it stands for."""
    answer = {"model": "m", "usage": wrapt.ObjectProxy({"input_tokens": 3, "output_tokens": 4})}
    for result in (wrapt.ObjectProxy(answer), wrapt.ObjectProxy([answer])):
        with ld.session("ada"):
            ld.track_ai("odd.call")(lambda result=result: result)()

    assert ld_events.values("odd.call.tokens.output") == [4, 4]


def test_a_mistake_in_a_class_of_ours_stays_one() -> None:
    """What `dataclass` writes has no file of its own."""
    made: dict[str, Any] = {}
    file = f"{Path(ld.__file__).parent}/mistaken.py"
    exec(compile("def mistake(usage): usage.input = 2", file, "exec"), made)
    with guard("here"):
        made["mistake"](Usage(input=1))
    assert list(diagnostics.counts()) == [("internal:here", "FrozenInstanceError")]


def test_an_odd_object_of_a_package_is_told_apart_everywhere(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Without an environment, packages lie in the folder of the standard library."""
    file = f"{Path(warnings.__file__).parent}/site-packages/lazy/local.py"
    made: dict[str, Any] = {}
    source = "class Lazy:\n def __bool__(self): raise ConnectionError"
    exec(compile(source, file, "exec"), made)
    with ld.session("ada") as session:
        session.interaction(made["Lazy"]())
    (line,) = [line for line in caplog.messages if "given" in line]
    assert file in line


def test_where_it_raised_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """A mistake of ours stays one: only special methods of others' objects are told apart."""
    with ld.session("ada") as session:
        session.interaction(LAZY)
    (line,) = [line for line in caplog.messages if "given" in line]
    assert line.startswith("interaction: an object that was given raised ConnectionError at ")
    assert __file__ in line
