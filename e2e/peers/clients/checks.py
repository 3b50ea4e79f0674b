"""What a Python client does with a server, apart from which SDK it is built on.

A client program is started as `CLIENT.py TARGET PROFILE`. TARGET is `{"url": ...}` or `{"command": [...]}`; PROFILE
names, per check, what to call and what must come of it (see `catalog.py`). It prints one JSON object a line:
`{"check": ..., "passed": ..., "detail": ...}`.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

Progress = Callable[[float, float | None, str | None], Awaitable[None]]
CHECK_SECONDS = 60


class Peer(Protocol):
    """A connected client."""

    version: str

    async def tools(self) -> list[str]:
        """The names of the server's tools."""

    async def call(self, tool: str, arguments: dict[str, Any], progress: Progress | None = None) -> str:
        """Calls a tool and gives the text of its result. Raises if the result says that it is an error."""

    async def cancelled_call(self, tool: str, arguments: dict[str, Any]) -> None:
        """Calls a tool, cancels the call at its first progress, and returns once it is over. Raises if it has a result."""

    def changes(self, method: str) -> AbstractAsyncContextManager[Callable[[], Awaitable[None]]]:
        """Watches for a list_changed notification; what it gives waits for the first one."""


def say(**facts: Any) -> None:
    print(json.dumps(facts), flush=True)


def equal(found: object, wanted: object) -> None:
    if found != wanted:
        raise AssertionError(f"got {found!r}, not {wanted!r}")


async def until(peer: Peer, wanted: dict[str, Any]) -> None:
    """Repeats a call until its text contains what it must; the check's time bounds it."""
    while wanted["text"] not in (text := await peer.call(wanted["tool"], wanted["arguments"])):
        say(note=f"not yet: {text}")
        await asyncio.sleep(0.2)


async def version(peer: Peer, wanted: str) -> None:
    equal(peer.version, wanted)


async def list_tools(peer: Peer, wanted: list[str]) -> None:
    missing = set(wanted) - set(await peer.tools())
    equal(missing, set())


async def call(peer: Peer, steps: list[dict[str, Any]]) -> None:
    for step in steps:
        equal(await peer.call(step["tool"], step["arguments"]), step["text"])


async def progress(peer: Peer, wanted: dict[str, Any], on_step: Callable[[int], None] = lambda _: None) -> None:
    seen: list[tuple[float, float | None]] = []

    async def heard(step: float, total: float | None, _message: str | None) -> None:
        seen.append((step, total))
        on_step(int(step))

    equal(await peer.call(wanted["tool"], wanted["arguments"], heard), wanted["text"])
    steps = wanted["steps"]
    equal(seen, [(step, steps) for step in range(1, steps + 1)])


async def elicitation(peer: Peer, wanted: dict[str, Any]) -> None:
    text = await peer.call(wanted["tool"], {})
    if wanted["text"] not in text:
        raise AssertionError(f"{wanted['text']!r} is not in {text!r}")


async def cancel(peer: Peer, wanted: dict[str, Any]) -> None:
    """The next call may overtake the cancel, so that it is repeated until it says what it must."""
    await peer.cancelled_call(wanted["tool"], wanted["arguments"])
    await until(peer, wanted["then"])


async def list_changed(peer: Peer, wanted: dict[str, Any]) -> None:
    async with peer.changes(wanted["method"]) as change:
        await peer.call(wanted["tool"], wanted["arguments"])
        await change()


async def roots(peer: Peer, wanted: dict[str, Any]) -> None:
    """The server asks for our roots by itself, outside any call: it takes a moment."""
    await until(peer, wanted)


async def resumption(peer: Peer, wanted: dict[str, Any]) -> None:
    """Each step is said aloud, so that whoever holds the connection knows when to cut it."""
    await progress(peer, wanted, on_step=lambda step: say(step=step))


CHECKS = {
    "version": version,
    "list": list_tools,
    "call": call,
    "progress": progress,
    "elicitation": elicitation,
    "cancel": cancel,
    "list_changed": list_changed,
    "roots": roots,
    "resumption": resumption,
}


async def play(connected: AbstractAsyncContextManager[Peer], profile: dict[str, Any]) -> None:
    """Connects, makes the profile's checks one after the other, and leaves."""
    name = "connect"
    try:
        async with connected as peer:
            for name, wanted in profile["checks"].items():
                await _check(name, peer, wanted)
            name = "leave"
        say(check="leave", passed=True)
    except Exception as error:  # What went wrong is the client's result.
        say(check=name, passed=False, detail=_text(error))


async def _check(name: str, peer: Peer, wanted: Any) -> None:
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            await CHECKS[name](peer, wanted)
    except TimeoutError:
        say(check=name, passed=False, detail=f"not done after {CHECK_SECONDS} s")
    except Exception as error:
        say(check=name, passed=False, detail=_text(error))
    else:
        say(check=name, passed=True)


def _text(error: BaseException) -> str:
    if isinstance(error, BaseExceptionGroup):
        return "; ".join(_text(part) for part in error.exceptions)
    return f"{type(error).__name__}: {error}"
