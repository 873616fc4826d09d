"""Costs: by a table of one's own, by published prices, and when there is none."""

from __future__ import annotations

import logging
import sys
from decimal import Decimal
from typing import Any

import pytest

from ldinstrument import track_ai
from ldinstrument.ai import cost as costs
from ldinstrument.ai.cost import Cost, Price, PriceTable, prices_of
from ldinstrument.ai.usage import Generation, Usage
from ldinstrument.errors import DefinitionError

NEEDS_311 = pytest.mark.skipif(sys.version_info < (3, 11), reason="genai-prices needs Python 3.11")
TABLE = PriceTable(
    {
        "small": Price(input="0.15", output="0.60", cached="0.075"),
        "small-2": Price("1", "2", "0.5", "4"),
    },
    version="mine 7",
)


def generation(
    model: str | None = "small", provider: str | None = None, **figures: Any
) -> Generation:
    return Generation(Usage(**{"input": 1000, "output": 100, **figures}), model, provider)


def test_own_table() -> None:
    """Dollars for a million tokens, exact; cached tokens at their own price."""
    assert TABLE.cost(generation()) == Cost(Decimal("0.00021"), "mine 7")
    assert TABLE.cost(generation(cached=400)) == Cost(Decimal("0.00018"), "mine 7")


def test_longest_name() -> None:
    """A dated name is found by its beginning, and the longest one counts; a router's prefix is left out."""
    assert TABLE.cost(generation("small-2-2026-01-01", cached=200, cache_written=100)) == Cost(
        Decimal("0.0014"), "mine 7"
    )
    assert TABLE.cost(generation("openai/small")) == TABLE.cost(generation())


def test_no_price_of_its_own() -> None:
    """Cached tokens without a price of their own cost what others do."""
    table = PriceTable({"m": Price(input=1, output=1)})
    assert table.cost(generation("m", cached=500)) == Cost(Decimal("0.0011"), "own")


@pytest.mark.parametrize(
    "unknown",
    [generation(None), generation(output=None), generation(input=None), Generation(model="small")],
)
def test_half_a_bill(unknown: Generation) -> None:
    """Without the model, the input or the output there is no cost, rather than a part of one."""
    assert TABLE.cost(unknown) is None


def test_unknown_model(caplog: pytest.LogCaptureFixture) -> None:
    """A model without a price costs nothing, and that is said once."""
    with caplog.at_level(logging.WARNING, "ldinstrument"):
        for _ in range(2):
            with track_ai("answer", cost=TABLE) as call:
                call.read({"input": 12, "output": 3, "model": "nobody's"})
    assert [record.message for record in caplog.records if "price" in record.message] == [
        "answer: no price is known for model nobody's, so it costs nothing: add it to the "
        "PriceTable"
    ]


def test_contradicting_figures_are_no_missing_price(caplog: pytest.LogCaptureFixture) -> None:
    """More cached tokens than input tokens, if only by one: no price would help."""
    with caplog.at_level(logging.WARNING, "ldinstrument"):
        costs.warn_unpriced("answer", TABLE, generation("nobody's", cached=1001))
        assert not caplog.records
        costs.warn_unpriced("answer", TABLE, generation("nobody's", cached=1000))
    assert "no price is known for model nobody's" in caplog.text


@pytest.mark.parametrize("price", ["x", None, -1, float("nan"), float("inf"), True])
def test_price_that_is_none(price: Any) -> None:
    """A price that is no amount of money is refused where it is written."""
    with pytest.raises(DefinitionError, match="Price: input"):
        Price(input=price, output=1)


def test_table_of_something_else() -> None:
    """A table takes prices only, `cost=` a table only."""
    with pytest.raises(DefinitionError, match="PriceTable"):
        PriceTable({"m": 5})  # type: ignore[dict-item]
    with pytest.raises(DefinitionError, match="track_ai: cost"):
        prices_of("cheap")


def test_what_cost_may_be() -> None:
    """A dictionary is a table, False is none at all, an object with `cost` is taken as it is."""
    made = prices_of({"m": Price(1, 1)})
    assert made is not None
    assert made.cost(generation("m")) == Cost(Decimal("0.0011"), "own")
    assert prices_of(False) is None
    assert prices_of(TABLE) is TABLE


@NEEDS_311
@pytest.mark.parametrize(
    ("model", "provider"),
    [
        ("gpt-4o-mini-2024-07-18", "openai"), ("claude-sonnet-4-6", "anthropic"), ("gemini-2.5-flash", "gcp.gemini"),
        ("anthropic.claude-sonnet-4-5-20250929-v1:0", "aws.bedrock"), ("openai/gpt-4o-mini", "openai"),
        ("gpt-4o-mini", None), ("gpt-4o-mini", "my-gateway"),
    ],
)  # fmt: skip
def test_published_prices(model: str, provider: str | None) -> None:
    """The published prices know the models of every provider, by OpenTelemetry's and LangChain's names, too."""
    import genai_prices

    published = prices_of(True)
    assert published is not None
    found = published.cost(generation(model, provider))
    cached = published.cost(generation(model, provider, cached=400))
    assert found is not None
    assert cached is not None
    assert found.version == f"genai-prices {genai_prices.__version__}"
    assert isinstance(found.dollars, Decimal)
    assert Decimal(0) < cached.dollars < found.dollars < Decimal("0.1")


@NEEDS_311
def test_published_agree_with_the_list() -> None:
    """The cost is the list's: 0.15 and 0.60 dollars a million for gpt-4o-mini."""
    published = prices_of(None)
    assert published is not None
    assert published.cost(generation("gpt-4o-mini", "openai")) == published.cost(
        generation("gpt-4o-mini")
    )
    assert published.cost(generation("gpt-4o-mini", "openai")).dollars == Decimal("0.00021")  # type: ignore[union-attr]


@NEEDS_311
def test_unknown_published(caplog: pytest.LogCaptureFixture) -> None:
    """An unknown model costs nothing and is named once; contradicting figures cost nothing."""
    published = prices_of(None)
    assert published is not None
    with caplog.at_level(logging.WARNING, "ldinstrument"):
        for _ in range(2):
            with track_ai("answer") as call:
                call.read({"input": 12, "output": 3, "model": "nobody's", "provider": "openai"})
    (told,) = [record.message for record in caplog.records if "price" in record.message]
    assert "nobody's of openai" in told
    assert published.advice in told
    caplog.clear()
    with track_ai("answer") as call:
        call.read({"input": 12, "output": 3, "cached": 500, "model": "gpt-4o-mini"})
    assert "no price" not in caplog.text
    assert published.cost(generation("gpt-4o-mini", "openai", cached=5000)) is None


def test_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where genai-prices is not installed there is no cost, and who asks for it is told what to install."""
    monkeypatch.setattr(costs, "_published", [None])
    assert prices_of(None) is None
    with pytest.raises(DefinitionError, match=r"ldinstrument\[cost\]"):
        prices_of(True)
