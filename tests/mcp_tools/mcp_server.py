"""An MCP server on stdio with one tool, of whichever major version is installed."""

from __future__ import annotations

import ldinstrument as ld
from ldinstrument.integrations.mcp import ToolSessions, instrument

ld.catalog.add(ld.Metric("search.hits", success_criteria="HigherThanBaseline", unit="hits"))


@ld.track_task("search")
async def search(query: str) -> str:
    """Search for something."""
    if query == "odd":
        raise ValueError("odd query")
    session = ld.current_session()
    assert session is not None
    session.record("search.hits", len(query), data={"kind": "tent"})
    return query.upper()


async def whose() -> str:
    """Return the id of the session that the tool runs in."""
    session = ld.current_session()
    return "none" if session is None else session.id


try:
    from mcp.server import MCPServer
except ImportError:
    from mcp.server.fastmcp import FastMCP

    server = FastMCP("shop", log_level="CRITICAL")
    server.tool()(search)
    server.tool()(whose)
    instrument(instrument(server))
else:
    server = MCPServer("shop", log_level="CRITICAL", middleware=[ToolSessions()])
    server.tool()(search)
    server.tool()(whose)

if __name__ == "__main__":
    server.run("stdio")
