"""The session's id leaves with outgoing calls: in W3C baggage, by OpenTelemetry's propagator."""

from __future__ import annotations

from typing import Any

from opentelemetry import baggage, propagate
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.context import Context, get_current
from opentelemetry.propagators.composite import CompositePropagator
from opentelemetry.propagators.textmap import (
    Getter,
    Setter,
    TextMapPropagator,
    default_getter,
    default_setter,
)

from ..diagnostics import guard
from ..sessions.baggage import HEADER, KEY, leaving_id
from ..sessions.current import current_session


class SessionPropagator(TextMapPropagator):
    """Writes the current session's id into the baggage of an outgoing call, beside what the host
    has put there. It reads nothing: what arrives, the boundaries adopt.
    """

    def __init__(self) -> None:
        self._writer = W3CBaggagePropagator()

    def extract(
        self,
        carrier: Any,
        context: Context | None = None,
        getter: Getter[Any] = default_getter,
    ) -> Context:
        """Return *context*."""
        return get_current() if context is None else context

    def inject(
        self,
        carrier: Any,
        context: Context | None = None,
        setter: Setter[Any] = default_setter,
    ) -> None:
        """Write the baggage of *context* and the session's id."""
        with guard("the session's baggage", strict=False):
            id = leaving_id(current_session())
            if id is not None:
                self._writer.inject(carrier, baggage.set_baggage(KEY, id, context), setter)

    @property
    def fields(self) -> set[str]:
        """Return the header that is written."""
        return {HEADER}


def install_propagator() -> SessionPropagator:
    """Let the current session's id leave with every call that OpenTelemetry propagates its context
    with, whoever is called: a model's provider, too, where its HTTP client is instrumented.

    Call it once; twice changes nothing. A boundary of ours on the other side adopts the id.
    """
    before = propagate.get_global_textmap()
    if isinstance(before, _WithSession):
        return before.session
    made = _WithSession(before)
    propagate.set_global_textmap(made)
    return made.session


class _WithSession(CompositePropagator):
    """What was the global propagator before, and ours after it."""

    def __init__(self, before: TextMapPropagator) -> None:
        self.session = SessionPropagator()
        super().__init__([before, self.session])
