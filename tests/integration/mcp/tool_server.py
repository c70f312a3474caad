"""An MCP server with a few tools, for flows: over stdio, or with `--http PORT` over streamable HTTP."""

from __future__ import annotations

import os
import sys
import time
from typing import Any

from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError

server = MCPServer("tools")


@server.tool()
def add(a: int, b: int) -> dict[str, int]:
    """Add two numbers."""
    return {"sum": a + b}


@server.tool(structured_output=False)
def token() -> str:
    """Say which credential this server was given."""
    return os.environ.get("TOOL_TOKEN", "none")


@server.tool(structured_output=False)
def header(context: Context[Any]) -> str:
    """Say which credential the request has."""
    return str((context.headers or {}).get("authorization", "none"))


@server.tool()
def fail(text: str) -> str:
    """Go wrong."""
    print(f"about to fail with {text}", file=sys.stderr, flush=True)
    raise ToolError(f"cannot do {text}")


@server.tool()
def die() -> str:
    """End the server."""
    os._exit(3)


@server.tool()
def sleep(seconds: float) -> str:
    """Take time."""
    time.sleep(seconds)
    return "slept"


if __name__ == "__main__":
    if "--http" in sys.argv:
        server.run("streamable-http", port=int(sys.argv[-1]))
    else:
        server.run("stdio")
