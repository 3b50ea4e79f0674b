"""A client on the Python SDK 2.x; see `checks.py`. The profile's `mode` is the SDK's: `auto` or `legacy`."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import mcp.types as types
from mcp import Client, StdioServerParameters

import checks

MODERN = "2026"


class Peer:
    def __init__(self, client: Client, heard: "Notifications") -> None:
        self.client, self.version, self.heard = client, client.protocol_version, heard

    async def tools(self) -> list[str]:
        return [tool.name for tool in (await self.client.list_tools()).tools]

    async def call(self, tool: str, arguments: dict[str, Any], progress: checks.Progress | None = None) -> str:
        result = await self.client.call_tool(tool, arguments, progress_callback=progress)
        text = "".join(block.text for block in result.content if isinstance(block, types.TextContent))
        if result.is_error:
            raise RuntimeError(f"{tool}: {text}")
        return text

    async def cancelled_call(self, tool: str, arguments: dict[str, Any]) -> None:
        """In this SDK the one who waits for a call cancels it by not waiting any longer."""
        working = asyncio.Event()

        async def started(*_: Any) -> None:
            working.set()

        call = asyncio.create_task(self.call(tool, arguments, started))
        await working.wait()
        call.cancel()
        await asyncio.wait([call])
        if not call.cancelled():
            raise AssertionError(f"the cancelled call ended with {call.exception() or call.result()!r}")

    @asynccontextmanager
    async def changes(self, method: str) -> AsyncIterator[Any]:
        if self.version < MODERN:
            yield self.heard.watch(method).wait
            return
        kind = method.removeprefix("notifications/").replace("/", "_")
        async with self.client.listen(**{kind: True}) as subscription:
            yield subscription.__anext__


class Notifications:
    """Who waits for which notification."""

    def __init__(self) -> None:
        self.watched: dict[str, asyncio.Event] = {}

    def watch(self, method: str) -> asyncio.Event:
        """An event that the next notification of this method sets."""
        self.watched[method] = asyncio.Event()
        return self.watched[method]

    def hear(self, method: str) -> None:
        if method in self.watched:
            self.watched[method].set()

    async def __call__(self, message: Any) -> None:
        if not isinstance(message, Exception):
            self.hear(message.method)


@asynccontextmanager
async def connected(target: dict[str, Any], profile: dict[str, Any]) -> AsyncIterator[Peer]:
    async def answer(_context: Any, _params: Any) -> types.ElicitResult:
        return types.ElicitResult(action="accept", content=profile["answer"])

    async def list_roots(_context: Any) -> types.ListRootsResult:
        return types.ListRootsResult(roots=[types.Root(uri=uri) for uri in profile["roots"]])

    if "url" in target:
        server: Any = target["url"]
    else:
        command, *arguments = target["command"]
        server = StdioServerParameters(command=command, args=arguments, env=dict(os.environ))
    heard = Notifications()
    asks = {"elicitation_callback": answer}
    if "roots" in profile:
        asks["list_roots_callback"] = list_roots
    async with Client(server, mode=profile["mode"], message_handler=heard, **asks) as client:
        yield Peer(client, heard)


if __name__ == "__main__":
    target, profile = map(json.loads, sys.argv[1:3])
    asyncio.run(checks.play(connected(target, profile), profile))
