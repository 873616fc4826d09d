"""MCP: what a tool records lands in the session of whoever called it, in another process, too.

```python
result = await call_tool(client, "search", {"query": "tents"})      # the caller, in a session

server = MCPServer("shop", middleware=[ToolSessions()])             # the server: mcp 2
server = instrument(FastMCP("shop"))                                # the server: mcp 1
```

The request's `_meta` takes the session's id along, as W3C baggage, and says that values are wanted;
the result's `_meta` brings them back. Nobody's identity leaves the caller.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any, TypeVar

from ..diagnostics import guard, warn_once
from ..errors import DefinitionError
from ..metrics.catalogs import EventRouting
from ..metrics.metric import Metric
from ..sessions.accumulator import Sample
from ..sessions.baggage import HEADER, adopt, leaving_header
from ..sessions.clock import clock
from ..sessions.contexts import as_context
from ..sessions.current import current_session, entered
from ..sessions.inert import InertSession
from ..sessions.scopes import open_session
from ..sessions.session import Session
from ..sessions.validation import measurement
from ..settings import disabled
from ..tasks.decorators import track_task

VALUES = "ldinstrument/values"
"""In a request's `_meta`: values are wanted. In a result's: `[key, value, data]` of each."""
MOST_VALUES = 200
Server = TypeVar("Server")
_TOOL = track_task("mcp.tool", metrics=("success_rate", "duration", "unfinished"))


# -- the caller ------------------------------------------------------------------------------------


async def call_tool(
    client: Any, name: str, arguments: Mapping[str, Any] | None = None, **options: Any
) -> Any:
    """Call a tool of an MCP server, as the task `mcp.tool`; the name is `tool` in its data.

    The current session's id goes along, and what the tool records there comes back into the
    session, at most 200 values a call. Call only servers so that may tell you values.

    Args:
        client: mcp's `ClientSession` or `Client`.
        name: of the tool.
        arguments: of the tool.
        options: of the client's own `call_tool`.

    Returns:
        What the client's own `call_tool` does.
    """
    session = current_session()
    meta = _leaving_meta(session, options.get("meta"))
    if meta is not None and _takes_meta(client.call_tool):
        options["meta"] = meta
    with _TOOL as run:
        run.add_data(tool=name)
        result = await client.call_tool(name, arguments, **options)
        if getattr(result, "is_error", getattr(result, "isError", False)):
            run.fail("tool_error")
    if session is not None:
        _receive(session, getattr(result, "meta", None))
    return result


def _takes_meta(call: Any) -> bool:
    """Tell whether a client's `call_tool` takes `meta=`; mcp's did not before 1.20."""
    try:
        parameters = inspect.signature(call).parameters.values()
    except (TypeError, ValueError):
        return False
    return any(found.name == "meta" or found.kind is found.VAR_KEYWORD for found in parameters)


def _leaving_meta(session: Session | None, given: Any) -> dict[str, Any] | None:
    if session is None or disabled():
        return None if given is None else dict(given)
    meta = {**(given or {}), VALUES: True}
    header = leaving_header(session, meta.get(HEADER))
    return meta if header is None else {**meta, HEADER: header}


def _receive(session: Session, meta: Any) -> None:
    """Record what a tool has told; it was written by somebody else."""
    told = meta.get(VALUES) if isinstance(meta, Mapping) else None
    if not isinstance(told, list):
        return
    with guard("values of an MCP tool", strict=False):
        for entry in told[:MOST_VALUES]:
            if isinstance(entry, list) and len(entry) == 3 and isinstance(entry[0], str):
                key, value, data = entry
                session.record(key, value, data=data if isinstance(data, dict) else None)


# -- the server ------------------------------------------------------------------------------------


class GatheringSession(InertSession):
    """A session whose values are somebody else's: it keeps them until it is asked."""

    __slots__ = ()

    def record(
        self, metric: Metric | str, value: Any = None, *, data: Mapping[str, Any] | None = None
    ) -> None:
        """Keep the value."""
        with guard("record"):
            measured = measurement(metric, value, data)
            if measured is not None:
                self.append((*measured, clock(), None))

    def append(self, entry: Sample) -> None:
        """Keep the sample, of which a tracked function may have appended more."""
        self.entries.append(entry)
        self.fold_up()

    def append_from_finalizer(self, entry: Sample) -> None:
        """Keep the sample."""
        self.entries.append(entry)

    def fold_up(self) -> None:
        """Keep no more than a result may bring back."""
        if len(self.entries) > MOST_VALUES:
            del self.entries[MOST_VALUES:]
            warn_once(
                "mcp_values",
                "",
                f"a tool of an MCP server has recorded more than {MOST_VALUES} values in one call; "
                "the rest is left out: record sums",
            )

    def gathered(self) -> list[list[Any]]:
        """Return `[key, value, data]` of each value."""
        return [list(found) for sample in self.entries for found in _values_of(sample)]


def _values_of(sample: Sample) -> Iterator[tuple[str, Any, Any]]:
    what, value, third, fourth, data = sample
    if isinstance(what, EventRouting):
        yield what.event_key, value, third
        return
    milliseconds = max(0.0, (fourth - third) * 1000)
    for routing, worth in what.plan().values(value, milliseconds):
        yield routing.event_key, worth, data


class ToolSessions:
    """A middleware of mcp 2's servers: `MCPServer("shop", middleware=[ToolSessions()])`.

    A caller that wants the tool's values gets them. Without one, and outside a session, each call
    of a tool is a session of its own called `tool`.

    Args:
        context: whose calls those are: a Context, a key of kind `user`, or a callable that is given
            the request's `_meta`.
        client: takes their events.
    """

    def __init__(self, context: Any = None, *, client: Any = None) -> None:
        self._context = context
        self._client = client

    async def __call__(self, ctx: Any, call_next: Callable[[Any], Awaitable[Any]]) -> Any:
        """Handle one request."""
        if ctx.method != "tools/call":
            return await call_next(ctx)
        return await self.run(ctx.meta or {}, lambda: call_next(ctx))

    async def run(self, meta: Mapping[str, Any], call: Callable[[], Awaitable[Any]]) -> Any:
        """Run a tool in the session that its request's *meta* asks for."""
        session = None if disabled() else self._opened(meta)
        if session is None:
            return await call()
        try:
            with entered(session):
                result = await call()
        except BaseException:
            session.end("error")
            raise
        session.end()
        if isinstance(session, GatheringSession):
            with guard("values of an MCP tool", strict=False):
                result = _with_values(result, session.gathered())
        return result

    def _opened(self, meta: Mapping[str, Any]) -> Session | None:
        with guard("the session of an MCP tool"):
            if meta.get(VALUES) is True:
                session: Session = GatheringSession(None, name="tool")
            elif current_session() is not None:
                return None
            else:
                given = self._context
                who = given(meta) if callable(given) else given
                session = open_session(as_context(who), name="tool", client=self._client)
            adopt(session, meta.get(HEADER))
            return session
        return None


def _with_values(result: Any, values: list[list[Any]]) -> Any:
    """Return the result of a tool with *values* in its `_meta`."""
    if not values:
        return result
    if isinstance(result, dict):
        return {**result, "_meta": {**(result.get("_meta") or {}), VALUES: values}}
    inner = getattr(result, "root", result)
    inner.meta = {**(inner.meta or {}), VALUES: values}
    return result


def instrument(server: Server, context: Any = None, *, client: Any = None) -> Server:
    """Let the tools of a server of mcp 1 (`FastMCP`, or the low-level `Server`) record for whoever
    calls them; as `ToolSessions`, which is for mcp 2.

    Raises:
        DefinitionError: *server* is none of mcp 1.
    """
    handlers = getattr(getattr(server, "_mcp_server", server), "request_handlers", None)
    request = next((kind for kind in handlers or () if kind.__name__ == "CallToolRequest"), None)
    if handlers is None or request is None:
        raise DefinitionError(
            "mcp.instrument: give a FastMCP or Server of mcp 1 that has tools; for mcp 2 say "
            "MCPServer(..., middleware=[ToolSessions()])"
        )
    sessions, handler = ToolSessions(context, client=client), handlers[request]
    if getattr(handler, "instrumented", False):
        return server

    async def handling(call: Any) -> Any:
        meta = getattr(call.params, "meta", None)
        extra = getattr(meta, "model_extra", None) or {}
        return await sessions.run(extra, lambda: handler(call))

    handling.instrumented = True  # type: ignore[attr-defined]
    handlers[request] = handling
    return server
