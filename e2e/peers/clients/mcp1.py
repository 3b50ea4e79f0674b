"""A client on the Python SDK 1.x; see `checks.py`."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import mcp.types as types
from mcp import ClientSession, McpError, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client

import checks


class Peer:
    def __init__(self, session: ClientSession, version: str, heard: "Notifications") -> None:
        self.session, self.version, self.heard = session, version, heard

    async def tools(self) -> list[str]:
        return [tool.name for tool in (await self.session.list_tools()).tools]

    async def call(self, tool: str, arguments: dict[str, Any], progress: checks.Progress | None = None) -> str:
        result = await self.session.call_tool(tool, arguments, progress_callback=progress)
        text = "".join(block.text for block in result.content if isinstance(block, types.TextContent))
        if result.isError:
            raise RuntimeError(f"{tool}: {text}")
        return text

    async def cancelled_call(self, tool: str, arguments: dict[str, Any]) -> None:
        """This SDK has no way to cancel a call but to send the notification; servers may answer it or not."""
        working = asyncio.Event()

        async def started(*_: Any) -> None:
            working.set()

        request_id = self.session._request_id
        call = asyncio.create_task(self.call(tool, arguments, started))
        await working.wait()
        params = types.CancelledNotificationParams(requestId=request_id, reason="enough")
        await self.session.send_notification(types.ClientNotification(types.CancelledNotification(params=params)))
        done, _ = await asyncio.wait([call], timeout=1)
        call.cancel()
        if done and not isinstance(call.exception(), McpError):
            raise AssertionError(f"the cancelled call ended with {call.exception() or call.result()!r}")

    @asynccontextmanager
    async def changes(self, method: str) -> AsyncIterator[Any]:
        changed = self.heard.watch(method)
        yield changed.wait


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
        if isinstance(message, types.ServerNotification):
            self.hear(message.root.method)


@asynccontextmanager
async def connected(target: dict[str, Any], profile: dict[str, Any]) -> AsyncIterator[Peer]:
    async def answer(_context: Any, _params: Any) -> types.ElicitResult:
        return types.ElicitResult(action="accept", content=profile["answer"])

    async def list_roots(_context: Any) -> types.ListRootsResult:
        return types.ListRootsResult(roots=[types.Root(uri=uri) for uri in profile["roots"]])

    if "url" in target:
        transport = streamable_http_client(target["url"])
    else:
        command, *arguments = target["command"]
        transport = stdio_client(StdioServerParameters(command=command, args=arguments, env=dict(os.environ)))
    heard = Notifications()
    asks = {"elicitation_callback": answer}
    if "roots" in profile:
        asks["list_roots_callback"] = list_roots
    leaving = False
    try:
        async with (
            transport as (read, write, *_),
            ClientSession(read, write, message_handler=heard, **asks) as session,
        ):
            yield Peer(session, (await session.initialize()).protocolVersion, heard)
            leaving = True
    except* anyio.BrokenResourceError:
        # What a server says while this SDK is leaving has nowhere to go in it, and it raises.
        if not leaving:
            raise


if __name__ == "__main__":
    target, profile = map(json.loads, sys.argv[1:3])
    asyncio.run(checks.play(connected(target, profile), profile))
