"""Spans of model calls as an instrumentor makes them, and what the bridge made of them."""

from __future__ import annotations

from typing import Any

from ldinstrument.testing import RecordingClient


def values(events: RecordingClient, key: str = "gen_ai") -> dict[str, list[float]]:
    """The values by suffix."""
    return {
        name.removeprefix(f"{key}."): [float(value or 0) for value in events.values(name)]
        for name in events.keys()  # noqa: SIM118
        if name.startswith(f"{key}.")
    }


def model_span(tracer: Any, **attributes: Any) -> Any:
    """A span of a model call, as an instrumentor makes it."""
    same = {
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": "m",
        "gen_ai.provider.name": "p",
    }
    named = {name.replace("__", "."): value for name, value in attributes.items()}
    return tracer.start_as_current_span("chat m", attributes={**same, **named})


def told(span: Any, input: int = 20, output: int = 6) -> None:
    """Let a span tell its usage and end."""
    span.set_attribute("gen_ai.usage.input_tokens", input)
    span.set_attribute("gen_ai.usage.output_tokens", output)
    span.set_attribute("gen_ai.response.finish_reasons", ["stop"])
