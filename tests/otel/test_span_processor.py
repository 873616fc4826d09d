"""Span processors without OpenTelemetry's SDK: all that it calls is there, and nothing raises."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider

from ldinstrument.otel.span_processor import SpanHandler, scope_of


def test_everything_that_the_sdk_may_call_is_there() -> None:
    """Also what newer SDKs call of their own processors; other names are not ours."""
    listener = SpanHandler()
    for name in dir(SpanProcessor):
        if not name.startswith("__"):
            assert callable(getattr(listener, name)), name
    assert listener._on_something_new(1, odd=2) is None
    assert listener.force_flush(5)
    with pytest.raises(AttributeError, match="nothing"):
        _ = listener.nothing


def test_a_listener_hears_of_each_span(provider: TracerProvider) -> None:
    """In a real provider, with nothing exported."""
    heard: list[str] = []

    class Listener(SpanHandler):
        def on_start(self, span: Any, parent_context: Any = None) -> None:
            heard.append(f"start {span.name}")

        def on_end(self, span: Any) -> None:
            heard.append(f"end {span.name} of {scope_of(span)}")

    provider.add_span_processor(Listener())  # type: ignore[arg-type]
    with provider.get_tracer("mine").start_as_current_span("work"):
        pass
    assert provider.force_flush()
    assert heard == ["start work", "end work of mine"]


@pytest.mark.parametrize(
    "span",
    [
        SimpleNamespace(),
        SimpleNamespace(instrumentation_scope=None),
        SimpleNamespace(instrumentation_scope=SimpleNamespace(name="")),
    ],
)
def test_a_span_of_nobody_has_a_scope_all_the_same(span: Any) -> None:
    """A name that no library has."""
    assert scope_of(span) == "?"
