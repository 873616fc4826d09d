"""Read the attributes of spans of model calls, agents and tools, of whatever generation."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from ..ai.usage import Generation, Usage
from . import conventions as names
from .conventions import Kind

Attributes = Mapping[str, Any]


def kind_of(name: str, attributes: Attributes) -> Kind:
    """Return what a span is about; LaunchDarkly's handlers and OpenLLMetry name the operation only
    later, so the span's own name counts, too.
    """
    kind = attributes.get(names.OPENINFERENCE_KIND)
    if isinstance(kind, str):
        return names.KIND_OF_OPENINFERENCE.get(kind, "other")
    operation = _text(attributes, names.OPERATION)
    if operation is not None:
        return names.KIND_OF_OPERATION.get(operation, "other")
    named = f"{name} "  # LaunchDarkly's `invoke_agent` names no agent
    return next(
        (kind for prefix, kind in names.KIND_OF_PREFIX if named.startswith(prefix)), "other"
    )


def generation_of(attributes: Attributes, *, retries_told: bool = False) -> Generation:
    """Return what a span says of its model call.

    Args:
        attributes: of the span, at its end.
        retries_told: whether this scope tells its retries, so that none told means none.
    """
    usage = Usage(
        input=_figure(attributes, names.INPUT_TOKENS),
        output=_figure(attributes, names.OUTPUT_TOKENS),
        cached=_figure(attributes, names.CACHED_TOKENS),
        cache_written=_figure(attributes, names.CACHE_WRITTEN_TOKENS),
        reasoning=_figure(attributes, names.REASONING_TOKENS),
    )
    resent = _figure(attributes, (names.RESENT,))
    return Generation(
        usage=None if usage.empty else _with_total(usage),
        model=_text(attributes, names.MODEL),
        provider=_text(attributes, names.PROVIDER),
        finish_reason=_finish_reason(attributes),
        attempts=resent + 1 if resent is not None else 1 if retries_told else None,
        id=_text(attributes, names.RESPONSE_ID),
    )


def aggregated(attributes: Attributes) -> Generation:
    """Return what an agent's span says of all its model calls together."""
    renamed = {
        f"gen_ai.usage.{name.removeprefix(names.AGGREGATED)}": value
        for name, value in attributes.items()
        if name.startswith(names.AGGREGATED)
    }
    return generation_of({**attributes, **renamed})


def first_chunk_of(attributes: Attributes) -> float | None:
    """Return the seconds to the first chunk, as the provider's client saw it."""
    seconds = attributes.get(names.FIRST_CHUNK)
    return float(seconds) if isinstance(seconds, (int, float)) else None


def agent_of(name: str, attributes: Attributes) -> str | None:
    """Return the agent's name; else what its span's own name says after `invoke_agent`."""
    return _text(attributes, names.AGENT_NAME) or _rest(name, "invoke_agent ")


def tool_of(name: str, attributes: Attributes) -> str | None:
    """Return the tool's name; else what its span's own name says after `execute_tool`."""
    told = _text(attributes, names.TOOL_NAME)
    return told or _rest(name, "execute_tool ") or _rest(name, "tools/call ")


def _rest(name: str, prefix: str) -> str | None:
    return name.removeprefix(prefix) if name.startswith(prefix) else None


def conversation_of(attributes: Attributes) -> str | None:
    """Return the id of the conversation that a span belongs to."""
    return _text(attributes, names.CONVERSATION_ID)


def failure_of(span: Any) -> str | None:
    """Return the kind of error that a span ended with; None when it did not."""
    for name, failure in names.BROKEN_OFF_BY.items():
        if (span.attributes or {}).get(name) is True:
            return failure
    status = getattr(getattr(span, "status", None), "status_code", None)
    if getattr(status, "name", "") != "ERROR":
        return None
    told = (span.attributes or {}).get(names.ERROR_TYPE) or _recorded_exception(span)
    return str(told or "error")


def _recorded_exception(span: Any) -> Any:
    """Return the kind of the last exception among the events of *span*."""
    events = reversed(getattr(span, "events", None) or ())
    recorded = (event.attributes or {} for event in events if event.name == "exception")
    return next(recorded, {}).get(names.EXCEPTION_TYPE)


def broken_off(failure: str | None) -> BaseException | None:
    """Return the exception of a span that nobody's failure has ended; None for the others."""
    if failure not in names.BROKEN_OFF:
        return None
    asyncio = sys.modules.get("asyncio")
    if asyncio is None or failure == "GeneratorExit":
        return GeneratorExit()
    cancelled: BaseException = asyncio.CancelledError()
    return cancelled


def _with_total(usage: Usage) -> Usage:
    if usage.input is None or usage.output is None:
        return usage
    return Usage(
        usage.input,
        usage.output,
        usage.input + usage.output,
        usage.cached,
        usage.cache_written,
        usage.reasoning,
    )


def _figure(attributes: Attributes, names: tuple[str, ...]) -> int | None:
    found = (attributes.get(name) for name in names)
    return next((figure for figure in found if type(figure) is int and figure >= 0), None)


def _text(attributes: Attributes, names: tuple[str, ...]) -> str | None:
    found = (attributes.get(name) for name in names)
    return next((value for value in found if isinstance(value, str) and value), None)


def _finish_reason(attributes: Attributes) -> str | None:
    for name in names.FINISH_REASONS:
        found = attributes.get(name)
        if isinstance(found, (list, tuple)) and found:
            found = found[0]
        if isinstance(found, str) and found:
            return found.lower()
    return None
