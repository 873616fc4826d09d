"""Handlers of LaunchDarkly's new AI SDK (`launchdarkly_ai_server`), measured.

A handler is told the run of the AI config in `variables["__ld"]` and the context in
`variables["ldContext"]`; nobody else is, when the call is cancelled or its stream abandoned. The
judges of a config use the same handlers: their calls are not the user's, and pass.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing
from typing import Any

from .calls import Call
from .config_runs import adopt_context, run_of

Follow = Callable[[Any, Call], Any]


def is_handler(thing: Any) -> bool:
    """Tell whether *thing* is a handler of the new SDK."""
    module = sys.modules.get("launchdarkly_ai_server")
    return module is not None and isinstance(thing, module.ProviderHandler)


def bound_handler(handler: Any, begin: Callable[[], Call], follow: Follow) -> Any:
    """Return a handler that does what *handler* does, each call measured and bound to its run.

    Args:
        handler: a `ProviderHandler`.
        begin: begins a call.
        follow: reads an async generator for a call.
    """

    async def invoke(config: Any, user_input: Any, tools: Any, variables: Any, history: Any) -> Any:
        if _is_judge(variables):
            return await handler(config, user_input, tools, variables, history)
        call = _begun(begin, variables)
        call.resume()
        try:
            result = await handler(config, user_input, tools, variables, history)
        except BaseException as error:
            call.pause()
            call.raised(error)
            raise
        call.pause()
        call.usage_is_sent(bool(isinstance(result, Mapping) and result.get("usage")))
        call.returned(result)
        return result

    async def stream(
        config: Any, user_input: Any, tools: Any, variables: Any, history: Any
    ) -> AsyncIterator[Any]:
        call = None if _is_judge(variables) else _begun(begin, variables)
        inner = await handler.stream(config, user_input, tools, variables, history)
        async with aclosing(inner if call is None else follow(inner, call)) as events:
            async for event in events:
                if call is not None and isinstance(event, Mapping) and event.get("type") == "done":
                    call.usage_is_sent(bool(event.get("usage")))
                yield event

    return _bound(handler, invoke, stream if handler.has_stream else None)


def _bound(handler: Any, invoke: Any, stream: Any) -> Any:
    from launchdarkly_ai_server import ProviderHandler

    class TrackedHandler(ProviderHandler):  # type: ignore[misc]
        """A measured handler; whether content is captured is asked of the one inside."""

        @property
        def capture_content(self) -> bool:
            """Tell what the handler inside says."""
            return bool(handler.capture_content)

        @capture_content.setter
        def capture_content(self, value: bool) -> None:
            handler.capture_content = value

    return TrackedHandler(invoke, handler.provides_for, stream)


def _begun(begin: Callable[[], Call], variables: Any) -> Call:
    call = begin()
    if isinstance(variables, Mapping) and isinstance(variables.get("__ld"), Mapping):
        call.bind_run(run_of(variables["__ld"], variables.get("ldContext")))
        adopt_context(call.session, variables.get("ldContext"))
    return call


def _is_judge(variables: Any) -> bool:
    return isinstance(variables, Mapping) and "response_to_evaluate" in variables
