"""What a model call costs: by published prices (`genai-prices`), or by a table of the user's own.

A cost is a `Decimal` in dollars, with the version of the prices it was reckoned by. It is reckoned
only where input and output are both known: half a bill is no bill. A model without a price costs
nothing, and that is said once.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any, Protocol

from ..diagnostics import raise_if_interrupted, warn_once
from ..errors import DefinitionError
from .usage import Generation, Usage

PER = 1_000_000


@dataclass(frozen=True, slots=True)
class Cost:
    """Dollars, and the version of the prices."""

    dollars: Decimal
    version: str


class Prices(Protocol):
    """Knows what tokens cost."""

    def cost(self, generation: Generation) -> Cost | None:
        """Return what *generation* cost; None when a figure or the price is not known."""


# -- the user's own table --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Price:
    """Dollars for a million tokens of one model: a text (exact), a whole number or a `Decimal`.

    Args:
        input: of input read afresh.
        output: of output, reasoning included.
        cached: of input from a cache; None: as *input*.
        cache_written: of input that is written to a cache; None: as *input*.
    """

    input: Any
    output: Any
    cached: Any = None
    cache_written: Any = None

    def __post_init__(self) -> None:
        for name in ("input", "output", "cached", "cache_written"):
            value = getattr(self, name)
            if value is not None or name in ("input", "output"):
                object.__setattr__(self, name, _dollars(name, value))

    def of(self, usage: Usage) -> Decimal | None:
        """Return the dollars for *usage*; None when input or output is not known."""
        if usage.input is None or usage.output is None:
            return None
        cached, written = usage.cached or 0, usage.cache_written or 0
        afresh = max(usage.input - cached - written, 0)
        total = (
            afresh * self.input
            + cached * _either(self.cached, self.input)
            + written * _either(self.cache_written, self.input)
            + usage.output * self.output
        )
        return Decimal(total) / PER


def _dollars(name: str, value: Any) -> Decimal:
    try:
        dollars = Decimal(str(value)) if not isinstance(value, bool) else Decimal("nan")
    except InvalidOperation:
        dollars = Decimal("nan")
    if not dollars.is_finite() or dollars < 0:
        raise DefinitionError(
            f"Price: {name}: give dollars for a million tokens, such as '2.50', not {value!r:.40}"
        )
    return dollars


def _either(price: Decimal | None, otherwise: Decimal) -> Decimal:
    return otherwise if price is None else price


class PriceTable:
    """The user's own prices, by the model's name as the provider tells it, or a prefix of that.

    Args:
        prices: `{"gpt-4o": Price(input="2.50", output="10", cached="1.25")}`; the longest name
            that the model's name begins with counts.
        version: goes into the data of the events as `priceVersion`.
    """

    advice = "add it to the PriceTable"

    def __init__(self, prices: Mapping[str, Price], *, version: str = "own") -> None:
        for model, price in prices.items():
            if not isinstance(price, Price):
                raise DefinitionError(
                    f"PriceTable: {model!r:.60}: give a Price(input=, output=), "
                    f"not {type(price).__name__}"
                )
        self._prices = {model: prices[model] for model in sorted(prices, key=len, reverse=True)}
        self._version = version

    def cost(self, generation: Generation) -> Cost | None:
        """Return what *generation* cost by this table."""
        if not _is_known(generation):
            return None
        model = _bare(generation.model or "")
        price = next(
            (price for name, price in self._prices.items() if model.startswith(name)), None
        )
        assert generation.usage is not None
        dollars = None if price is None else price.of(generation.usage)
        return None if dollars is None else Cost(dollars, self._version)


# -- published prices ------------------------------------------------------------------------------

# What the SDKs and OpenTelemetry call a provider, in the words of genai-prices.
_PROVIDERS = {
    "aws.bedrock": "aws",
    "bedrock": "aws",
    "bedrock_converse": "aws",
    "gcp.gemini": "google",
    "gemini": "google",
    "google_genai": "google",
    "gcp.vertex_ai": "google",
    "vertex_ai": "google",
    "google_vertexai": "google",
    "azure.ai.openai": "azure",
    "azure.ai.inference": "azure",
    "azure_openai": "azure",
    "mistral_ai": "mistral",
    "x_ai": "x-ai",
    "xai": "x-ai",
}


class PublishedPrices:
    """The prices of `genai-prices`, from the data in its package: no request is made.

    Importing it takes a fifth of a second, so it is done when something is decorated.
    """

    advice = "update genai-prices or give cost=PriceTable({...})"

    def __init__(self) -> None:
        import genai_prices

        self._calc_price = genai_prices.calc_price
        self._usage = genai_prices.Usage
        self._version = f"genai-prices {genai_prices.__version__}"
        # The first reckoning builds its tables.
        self.cost(Generation(Usage(input=1, output=1), "gpt-4o", "openai"))

    def cost(self, generation: Generation) -> Cost | None:
        """Return what *generation* cost by the published prices of today."""
        if not _is_known(generation):
            return None
        assert generation.usage is not None
        model, provider = _bare(generation.model or ""), generation.provider
        tokens = self._tokens(generation.usage)
        known = (provider or "").lower()
        for name in dict.fromkeys((_PROVIDERS.get(known, known) or None, None)):
            try:
                price = self._calc_price(tokens, model, provider_id=name)
            except LookupError:
                continue
            except ValueError:  # figures that contradict each other
                return None
            return Cost(Decimal(price.total_price), self._version)
        return None

    def _tokens(self, usage: Usage) -> Any:
        return self._usage(
            input_tokens=usage.input,
            output_tokens=usage.output,
            cache_read_tokens=usage.cached,
            cache_write_tokens=usage.cache_written,
        )


_published: list[PublishedPrices | None] = []


def prices_of(wanted: Any) -> Prices | None:
    """Return the prices that `cost=` asks for: None: the published ones where they are installed.

    Raises:
        DefinitionError: *wanted* is neither None, a bool nor something with a method `cost`.
    """
    if wanted is False:
        return None
    if wanted is None or wanted is True:
        return _published_prices(asked=bool(wanted))
    if isinstance(wanted, Mapping):
        return PriceTable(wanted)
    if not callable(getattr(wanted, "cost", None)):
        raise DefinitionError(
            "track_ai: cost: give a PriceTable({'model': Price(input=, output=)}), True or False"
        )
    prices: Prices = wanted
    return prices


def _published_prices(*, asked: bool) -> PublishedPrices | None:
    if not _published:
        try:
            found = importlib.util.find_spec("genai_prices") is not None
            _published.append(PublishedPrices() if found else None)
        except Exception as error:  # a broken installation is not the host's problem
            raise_if_interrupted(error)
            warn_once(
                "prices",
                "",
                f"genai-prices cannot be used ({type(error).__name__}), so no cost is "
                "recorded: install it anew, or give cost=",
            )
            _published.append(None)
    if _published[0] is None and asked:
        needs = "" if sys.version_info >= (3, 11) else " (it needs Python 3.11)"
        raise DefinitionError(
            f"track_ai: cost: published prices need genai-prices{needs}: "
            "pip install 'ldinstrument[cost]'"
        )
    return _published[0]


def warn_unpriced(key: str, prices: Prices, generation: Generation) -> None:
    """Say once of each task and model that there is no price for it."""
    usage = generation.usage
    if not _is_known(generation) or usage is None or (usage.cached or 0) > (usage.input or 0):
        return  # it is the figures that are missing, or contradict each other
    model, provider = _bare(generation.model or ""), generation.provider
    of = f" of {provider}" if provider else ""
    warn_once(
        "unknown_price",
        f"{key} {model}",
        f"{key}: no price is known for model {model}{of}, so it costs nothing: "
        f"{getattr(prices, 'advice', 'let cost= know it')}",
    )


def _is_known(generation: Generation) -> bool:
    usage = generation.usage
    return bool(generation.model) and usage is not None and None not in (usage.input, usage.output)


def _bare(model: str) -> str:
    """Return *model* without the `openai/` that LiteLLM puts before it."""
    return model.rpartition("/")[2]
