"""The options of `track_ai`: refused where they are written, and what they come to for one key."""

from __future__ import annotations

from typing import Any

import pytest

import ldinstrument as ld
from ldinstrument.ai.cost import Price, PriceTable
from ldinstrument.ai.options import CallOptions, ModelOptions, checked_suffixes, estimate_tokens
from ldinstrument.errors import DefinitionError
from ldinstrument.metrics.model_calls import DEFAULT_AI_METRICS

PRICES = PriceTable({"": Price(input=1, output=2)}, version="mine")


def written(**options: Any) -> ModelOptions:
    """The options of a call that says these."""
    left_out = dict.fromkeys(("model", "provider", "config", "extract", "estimate"))
    return ModelOptions(**{**left_out, "interaction": False, "cost": False, **options})


async def coroutine(result: object) -> object:
    return result


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("model", 5),
        ("provider", b"bytes"),
        ("extract", "usage"),
        ("extract", coroutine),
        ("estimate", 4),
        ("estimate", coroutine),
        ("cost", "cheap"),
    ],
)
def test_an_option_that_is_none_is_refused_by_its_name(name: str, value: object) -> None:
    """What would have to be awaited cannot be asked in the middle of a call."""
    with pytest.raises(DefinitionError, match=f"track_ai: {name}|{name}="):
        written(**{name: value})


def test_what_is_refused_is_named_in_a_few_letters() -> None:
    """However long it is."""
    with pytest.raises(DefinitionError) as caught:
        written(model=["x" * 10_000])
    assert len(str(caught.value)) < 150


def test_a_call_feeds_what_it_was_asked_for() -> None:
    """In our order, whatever theirs; each metric is declared, and the cost only with prices."""
    asked = ("cost", "tokens.total", "success_rate", "tokens.input")
    plain = written().of_key("area.plain", asked)
    assert list(plain.metrics) == ["tokens.input", "tokens.total"]
    assert plain.metrics["tokens.total"] == "area.plain.tokens.total"
    priced = written(cost=PRICES).of_key("area.priced", asked)
    assert set(priced.metrics) == {"tokens.input", "tokens.total", "cost"}
    declared = {metric.key for metric in ld.catalog if metric.key.startswith("area.")}
    assert declared == {*plain.metrics.values(), *priced.metrics.values()}


def test_the_estimate_is_ours_theirs_or_none() -> None:
    """True means ours."""
    of = {value: written(estimate=value).of_key("k", ()).estimate for value in (True, False, None)}
    assert of == {True: estimate_tokens, False: None, None: None}
    assert written(estimate=len).of_key("k", ()).estimate is len


@pytest.mark.parametrize(("text", "tokens"), [("", 0), ("a", 1), ("four", 1), ("fives", 2)])
def test_four_characters_are_about_one_token(text: str, tokens: int) -> None:
    """A part of a token is one; nothing is none."""
    assert estimate_tokens(text) == tokens


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({}, None),
        ({"model": ""}, None),
        ({"model": "m"}, {"model": "m"}),
        ({"model": "m", "provider": "p"}, {"model": "m", "provider": "p"}),
    ],
)
def test_a_call_of_which_nothing_is_read_has_the_names_it_was_given(
    options: dict[str, Any], named: dict[str, str] | None
) -> None:
    """Without any it has nothing to tell."""
    found = CallOptions({}, **options)
    assert (found.named, found.silent) == (named, named is None)


@pytest.mark.parametrize("options", [{"extract": len}, {"config": object()}])
def test_a_call_that_may_be_read_yet_is_not_silent(options: dict[str, Any]) -> None:
    """By a function of the user's, or through an AI config."""
    assert not CallOptions({}, **options).silent


def test_metrics_are_those_of_the_task_and_those_of_the_model() -> None:
    """In that order; `within=` adds its own, and one name alone may be given."""
    assert checked_suffixes(("tokens.total", "success_rate"), None) == (
        "success_rate",
        "tokens.total",
    )
    assert checked_suffixes("tokens.total", 2.0) == ("within", "tokens.total")
    assert set(checked_suffixes(None, None)) == set(DEFAULT_AI_METRICS)
    assert checked_suffixes((), None) == ()


@pytest.mark.parametrize(
    ("metrics", "said"),
    [
        ("speed", "'speed' is not one of"),
        (("within",), "'within' needs a time"),
        (("",), "'' is not one of"),
    ],
)
def test_a_metric_that_there_is_not_is_refused(metrics: Any, said: str) -> None:
    """With those that there are."""
    with pytest.raises(DefinitionError, match=f"track_ai: metrics: {said}"):
        checked_suffixes(metrics, None)
