"""The traps of model calls, as the program that met them has said."""

from __future__ import annotations

from ..metrics.model_calls import AI_METRICS

SAID_OF_MODEL_CALLS: dict[str, tuple[str, str]] = {
    "untold_usage": (
        "OpenAI tells the tokens of a stream only when it is asked: tokens and cost are missing",
        "stream_options={'include_usage': True} in the call",
    ),
    "unknown_price": (
        "a call without a price has no cost: an average of cost leaves that model out",
        "pip install -U genai-prices, or cost=PriceTable({...}) on track_ai",
    ),
    "doubled_spans": (
        "an SDK and an instrumentor each make a span of one call; here it counts once, but "
        "whatever sums spans counts its tokens twice",
        "switch the instrumentor of that SDK off",
    ),
    "sampled_spans": (
        "a sampler hides model calls from the bridge: what it counts is a part of them",
        "decorate the calls with track_ai, which needs no spans, or sample all of them",
    ),
}


def task_of_metric(key: str) -> str | None:
    """Return the key of the task that feeds the metric *key* of a model call; None for others."""
    found = [key.removesuffix(f".{suffix}") for suffix in AI_METRICS if key.endswith(f".{suffix}")]
    return found[0] if found else None
