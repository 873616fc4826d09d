"""`track_ai`: its key, its options, what it declares, and what it refuses."""

from __future__ import annotations

import pickle
from types import ModuleType
from typing import Any

import pytest
from recorded_calls import values

import ldinstrument as ld
from ldinstrument.ai.cost import Price, PriceTable
from ldinstrument.errors import DefinitionError
from ldinstrument.testing import RecordingClient

PRICES = PriceTable({"": Price(input=1, output=2)}, version="mine")


def test_context_without_a_session(
    models: Any, sdks: ModuleType, ld_events: RecordingClient
) -> None:
    """`context=` makes a session of one call; its events are for that context."""

    @ld.track_ai("k", context=lambda user: user)
    def ask(user: str) -> Any:
        return sdks.openai_chat(models.url)

    ask("u-7")
    assert values(ld_events)["tokens.total"] == [26]
    assert {event.context.key for event in ld_events} == {"u-7"}
    assert not ld_events.of("session.interactions")


def test_no_session_counts(models: Any, sdks: ModuleType, ld_events: RecordingClient) -> None:
    """Without a session and a context nothing is sent, and the call is counted as without one."""
    ld.track_ai("k")(sdks.openai_chat)(models.url)
    ld.track_ai("k2")(lambda: "x")()
    assert not ld_events.events
    assert dict(ld.stats().without_session) == {"k": 1, "k2": 1}


def test_metrics_are_declared() -> None:
    """What a call can feed is in the catalog, as LaunchDarkly defines its own: averaged, lower is
    better, units without events left out.
    """
    ld.track_ai("support.answer", cost=PRICES)
    tokens = ld.catalog["support.answer.tokens.total"]
    assert (tokens.measure, tokens.aggregation, tokens.success_criteria) == (
        "value", "average", "LowerThanBaseline",
    )  # fmt: skip
    assert tokens.zero_fill is not True
    declared = {metric.key for metric in ld.catalog if metric.key.startswith("support.answer.")}
    assert len(declared) == 13


def test_fewer_metrics(ld_events: RecordingClient) -> None:
    """`metrics=` chooses; without prices no cost is declared."""
    with ld.session("u-1"):
        ld.track_ai("k", metrics=("success_rate", "tokens.total"))(
            lambda: {"usage": {"input_tokens": 1, "output_tokens": 2}}
        )()
    assert set(values(ld_events)) == {"success_rate", "tokens.total"}
    ld.track_ai("free", cost=False)
    assert "free.cost" not in ld.catalog


@pytest.mark.parametrize(
    "options",
    [
        {"metrics": ("speed",)}, {"model": 5}, {"extract": 5}, {"estimate": "x"}, {"cost": "cheap"},
        {"success": 5}, {"within": -1},
    ],
)  # fmt: skip
def test_refused_options(options: dict[str, Any]) -> None:
    """A wrong option is refused where it is written, by its name."""
    with pytest.raises(DefinitionError, match=next(iter(options))):
        ld.track_ai("k", **options)


def test_refused_targets() -> None:
    """No class, no function without a name, no `with` without a key."""
    with pytest.raises(DefinitionError, match="class"):
        ld.track_ai("k")(int)  # type: ignore[type-var]
    with pytest.raises(DefinitionError, match="no name"):
        ld.track_ai(lambda: 1)
    with pytest.raises(DefinitionError, match="needs a key"), ld.track_ai():
        pass


def test_bare_decorator(ld_events: RecordingClient) -> None:
    """`@track_ai` takes its key from the function's name."""

    @ld.track_ai
    def answer_briefly() -> dict[str, Any]:
        return {"usage": {"prompt_tokens": 1, "completion_tokens": 2}}

    with ld.session("u-1"):
        answer_briefly()
    assert values(ld_events, "task.answer_briefly")["tokens.total"] == [3]


def test_a_scope_is_a_value(ld_events: RecordingClient) -> None:
    """It survives pickling, and the copy has its key, its options and its metrics."""
    copied = pickle.loads(pickle.dumps(ld.track_ai("k", metrics="tokens.total", model="m")))
    with ld.session("u-1"), copied as call:
        assert (call.key, call.known.model) == ("k", "m")
        call.read({"input": 1, "output": 2})
    assert values(ld_events) == {"tokens.total": [3]}


@pytest.mark.usefixtures("ld_events")
def test_a_call_that_is_begun_by_hand_is_nobodys_current_one() -> None:
    """`begin` returns it; without a key there is none, and the message shows how to write one."""
    with ld.session("u-1"):
        call = ld.track_ai("k").begin()
        assert ld.ai.current_call() is None
        call.returned({"input": 1, "output": 2})
    assert call.known.usage is not None
    with pytest.raises(DefinitionError, match=r"with track_ai\(.support.answer.\) as call"):
        ld.track_ai().begin()
