"""What OpenTelemetry's SDK expects of a span processor, without the SDK. Nothing here raises: an
exception of a processor would come out of the user's code.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

OURS = "ldinstrument"
"""The instrumentation scope of spans that we make ourselves."""


class SpanHandler:
    """A span processor that reads spans and exports nothing."""

    def on_start(self, span: Any, parent_context: Any = None) -> None:
        """Hear of a span that starts."""

    def on_end(self, span: Any) -> None:
        """Hear of a span that has ended, perhaps on another thread."""

    def shutdown(self) -> None:
        """Let go of what has not ended."""

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Return True: nothing waits here."""
        return True

    def __getattr__(self, name: str) -> Callable[..., None]:
        # Newer SDKs call more of their processors, such as `_on_ending`, in the user's model call.
        if name.startswith("_on_"):
            return lambda *args, **kwargs: None
        raise AttributeError(name)


def scope_of(span: Any) -> str:
    """Return the name of what made *span*."""
    scope = getattr(span, "instrumentation_scope", None)
    return getattr(scope, "name", None) or "?"
