"""A small server on the Python SDK 1.x, for what the stock servers do not show: `mcp1.py stdio`, `mcp1.py PORT`, or
`mcp1.py PORT sse` for the HTTP+SSE transport of 2024-11-05.

A cancelled call leaves a trace that another call can read, and a change of the tools is announced when no call is
open, so that only the standalone stream can carry it.
"""

import asyncio
import sys

import anyio
from mcp.server.fastmcp import Context, FastMCP
from pydantic import BaseModel

over_stdio = sys.argv[1] == "stdio"
server = FastMCP("peer-mcp1", log_level="WARNING", port=0 if over_stdio else int(sys.argv[1]))
cancelled: set[str] = set()
announcements: set[object] = set()


class Person(BaseModel):
    name: str


@server.tool()
def echo(message: str) -> str:
    return f"Echo: {message}"


@server.tool()
async def count(steps: int, context: Context) -> str:
    for step in range(1, steps + 1):
        await anyio.sleep(0.05)
        await context.report_progress(step, steps)
    return f"counted to {steps}"


@server.tool()
async def ask(context: Context) -> str:
    answer = await context.elicit("Who is there?", Person)
    return f"{answer.action}: {answer.data.name}" if answer.action == "accept" else answer.action


@server.tool()
async def sleep(name: str, context: Context) -> str:
    try:
        await context.report_progress(1, 2)
        await anyio.sleep(60)
    except anyio.get_cancelled_exc_class():
        cancelled.add(name)
        raise
    return "slept"


@server.tool()
def was_cancelled(name: str) -> str:
    return "yes" if name in cancelled else "no"


@server.tool()
async def change_tools_later(context: Context) -> str:
    session = context.session

    async def announce() -> None:
        await asyncio.sleep(0.5)
        await session.send_tool_list_changed()

    task = asyncio.create_task(announce())
    announcements.add(task)
    task.add_done_callback(announcements.discard)
    return "soon"


server.run("stdio" if over_stdio else "sse" if sys.argv[2:] == ["sse"] else "streamable-http")
