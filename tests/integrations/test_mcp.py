"""A stateful MCP server behind the middleware, with a real client."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

import ldinstrument as ld
from ldinstrument import testing
from ldinstrument.integrations.asgi import SessionMiddleware, session_of_mcp_request

fastmcp = pytest.importorskip("mcp.server.fastmcp", reason="needs MCP 1.x")


@ld.track_interaction("tool.search")
async def search(query: str) -> str:
    """Search for something."""
    ld.track_conversion(2.0)
    return query.upper()


async def call_tool(address: str, user: str, *queries: str) -> list[str]:
    """Do what a client does, in one MCP session of many requests."""
    from mcp import ClientSession
    from mcp.client.streamable_http import streamablehttp_client

    found = []
    async with (
        streamablehttp_client(address, headers={"X-User": user}) as (reading, writing, _),
        ClientSession(reading, writing) as client,
    ):
        await client.initialize()
        for query in queries:
            answer: Any = await client.call_tool("search", {"query": query})
            found.append(answer.content[0].text)
    return found


@pytest.mark.filterwarnings("ignore:Use `streamable_http_client`:DeprecationWarning")
def test_what_a_tool_records_belongs_to_the_request_that_called_it(
    events: Any, asgi_server: Any
) -> None:
    """It runs in the task of the client's first request, whose session has ended."""
    for noisy in ("mcp", "httpx"):
        logging.getLogger(noisy).setLevel(logging.CRITICAL)
    server = fastmcp.FastMCP("shop", log_level="CRITICAL")
    server.tool()(search)
    app = SessionMiddleware(
        server.streamable_http_app(),
        context=lambda scope: dict(scope["headers"]).get(b"x-user", b"").decode() or None,
    )
    with asgi_server(app) as port:
        for user in ("ada", "bob"):
            answers = asyncio.run(call_tool(f"http://127.0.0.1:{port}/mcp", user, "tent", "lamp"))
            assert answers == ["TENT", "LAMP"]

    assert [event.context.key for event in events.of("business.conversion", 4)] == [
        *["ada"] * 2,
        *["bob"] * 2,
    ]
    assert len(events.of("tool.search.success_rate", 4)) == 4
    assert ld.stats().values.discarded.get("no_session", 0) == 0


def test_outside_an_mcp_request_there_is_no_session_of_one(
    ld_events: testing.RecordingClient,
) -> None:
    """Work whose session has ended is then nobody's, as ever."""
    with ld.session("ada") as session:
        session.end()
        assert session_of_mcp_request() is None
        assert ld.current_session() is None
