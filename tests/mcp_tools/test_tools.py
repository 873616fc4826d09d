"""What a tool of an MCP server in another process records lands in the caller's session."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

import ldinstrument as ld
from ldinstrument import testing

pytest.importorskip("mcp", reason="needs MCP")

from ldinstrument.integrations.mcp import (
    MOST_VALUES,
    VALUES,
    ToolSessions,
    call_tool,
    instrument,
)

MCP_2 = int(metadata.version("mcp").split(".")[0]) >= 2
SERVER = str(Path(__file__).with_name("mcp_server.py"))


def with_client(work: Callable[[Any], Awaitable[None]]) -> None:
    """Run *work* with a real client of the real server, which is another process."""
    from mcp import ClientSession, StdioServerParameters
    from mcp.client.stdio import stdio_client

    async def main() -> None:
        parameters = StdioServerParameters(command=sys.executable, args=[SERVER])
        async with (
            stdio_client(parameters) as (reading, writing),
            ClientSession(reading, writing) as client,
        ):
            await client.initialize()
            await work(client)

    asyncio.run(main())


def test_a_tools_values_land_in_the_callers_session(ld_events: testing.RecordingClient) -> None:
    """Its own values and its tasks', for the caller's context; the call is a task, too."""

    async def work(client: Any) -> None:
        async with ld.session("ada"):
            answer = await call_tool(client, "search", {"query": "tents"}, meta={"mine": 1})
            assert answer.content[0].text == "TENTS"
            await call_tool(client, "search", {"query": "odd"})

    with_client(work)
    assert ld_events.values("search.hits") == [5]
    assert ld_events.only("search.hits").context.key == "ada"
    assert ld_events.only("search.hits").data == {"kind": "tent"}
    assert ld_events.values("search.success_rate") == [1, 0]
    assert sorted(ld_events.values("mcp.tool.success_rate")) == [0, 1]
    assert ld_events.of("mcp.tool.duration")[0].data["tool"] == "search"
    assert ld_events.only("session.interactions").value == 0


def test_the_tool_runs_under_the_callers_id(ld_events: testing.RecordingClient) -> None:
    """The id is there in the other process, too."""

    async def work(client: Any) -> None:
        async with ld.session("ada", id="visit-7"):
            answer = await call_tool(client, "whose")
            assert answer.content[0].text == "visit-7"

    with_client(work)


@pytest.mark.skipif(not MCP_2, reason="mcp 1 does not propagate by itself")
def test_by_opentelemetrys_propagator(ld_events: testing.RecordingClient) -> None:
    """A plain call of mcp 2 takes the id along where the propagator is installed."""
    from opentelemetry import propagate

    from ldinstrument.otel import install_propagator

    before = propagate.get_global_textmap()
    install_propagator()

    async def work(client: Any) -> None:
        async with ld.session("ada", id="visit-7"):
            answer = await client.call_tool("whose")
            assert answer.content[0].text == "visit-7"

    try:
        with_client(work)
    finally:
        propagate.set_global_textmap(before)


def test_outside_a_session_nothing_is_asked_for(ld_events: testing.RecordingClient) -> None:
    """The tool's values are the server's then."""

    async def work(client: Any) -> None:
        answer = await call_tool(client, "search", {"query": "tents"})
        assert answer.content[0].text == "TENTS"
        assert VALUES not in (answer.meta or {})

    with_client(work)
    assert ld_events.values("search.hits") == []


class Answer:
    """A result with any `_meta`."""

    is_error = False

    def __init__(self, meta: Any) -> None:
        self.meta = meta


class Client:
    """A client whose server tells anything."""

    def __init__(self, told: Any) -> None:
        self.told = told
        self.meta: Any = None

    async def call_tool(self, name: str, arguments: Any, *, meta: Any = None) -> Answer:
        self.meta = meta
        return Answer(self.told)


@pytest.mark.parametrize(
    "told",
    [
        None,
        "odd",
        {VALUES: "odd"},
        {VALUES: [1, None, ["k"], ["k", 1, None, 2], [7, 1, None], {"k": 1}]},
        {VALUES: [["$ld:ai:tokens:total", 5, None], ["a.key", float("nan"), None]]},
    ],
)
def test_what_an_odd_server_tells_is_left_out(
    told: Any, ld_events: testing.RecordingClient
) -> None:
    """Nothing of it reaches the caller's code, nor LaunchDarkly."""

    async def work() -> None:
        async with ld.session("ada"):
            await call_tool(Client(told), "search")

    asyncio.run(work())
    assert {event.key.partition(".")[0] for event in ld_events.events} == {"mcp", "session"}


def test_the_values_of_one_call_are_bounded(ld_events: testing.RecordingClient) -> None:
    """A server cannot fill the session."""

    async def work() -> None:
        async with ld.session("ada"):
            await call_tool(Client({VALUES: [["a.key", 1.0, None]] * 5000}), "search")

    asyncio.run(work())
    assert len(ld_events.values("a.key")) == MOST_VALUES


def test_the_sessions_id_goes_along(ld_events: testing.RecordingClient) -> None:
    """As baggage in `_meta`, and a server that gives no values back adopts it."""
    client = Client(None)

    async def work() -> None:
        async with ld.session("ada", id="visit-7"):
            await call_tool(client, "search", meta={"baggage": "tenant=a"})

    async def tool() -> dict[str, Any]:
        session = ld.current_session()
        assert session is not None
        assert session.id == "visit-7"
        return {}

    asyncio.run(work())
    assert client.meta["baggage"] == "tenant=a,session.id=visit-7"
    del client.meta[VALUES]
    sessions = ToolSessions(lambda meta: "u-2")
    asyncio.run(sessions.run(client.meta, tool))
    event = ld_events.of("tool.duration")[0]
    assert (event.context.key, event.data["sessionId"]) == ("u-2", "visit-7")


def test_instrument_refuses_what_is_no_server() -> None:
    """With the way for mcp 2."""
    with pytest.raises(ld.LDInstrumentError, match="middleware="):
        instrument(object())


def test_a_client_without_meta(ld_events: testing.RecordingClient) -> None:
    """An older mcp 1, and a client that raises: the caller sees what it would without us."""

    class Older:
        async def call_tool(self, name: str, arguments: Any = None) -> str:
            if name == "odd":
                raise ConnectionError("odd")
            return name

    async def work() -> None:
        async with ld.session("ada"):
            assert await call_tool(Older(), "search") == "search"
            with pytest.raises(ConnectionError):
                await call_tool(Older(), "odd")

    asyncio.run(work())
    assert sorted(ld_events.values("mcp.tool.success_rate")) == [0, 1]
