"""The server of `mcp1.py` on the Python SDK 2.x, which serves both eras: `mcp2.py stdio` or `mcp2.py PORT`."""

import asyncio
import sys
from typing import Annotated

import anyio
from mcp.server.mcpserver import Context, Elicit, ElicitationResult, MCPServer, Resolve
from pydantic import BaseModel

server = MCPServer("peer-mcp2")
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


def who_is_there() -> Elicit[Person]:
    return Elicit("Who is there?", Person)


@server.tool()
async def ask(answer: Annotated[ElicitationResult[Person], Resolve(who_is_there)]) -> str:
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
    """Announces on the session's standalone stream and to the subscriptions of the modern era."""

    async def announce() -> None:
        await asyncio.sleep(0.5)
        await context.notify_tools_changed()
        if context.session.protocol_version < "2026":
            await context.session.send_tool_list_changed()

    task = asyncio.create_task(announce())
    announcements.add(task)
    task.add_done_callback(announcements.discard)
    return "soon"


if sys.argv[1] == "stdio":
    server.run("stdio")
else:
    server.run("streamable-http", port=int(sys.argv[1]))
