"""The servers and clients, and what each client must find at each server."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness import ports, processes
from harness.toolchain import Toolchain

HERE = Path(__file__).resolve().parent
LEGACY, MODERN = "2025-11-25", "2026-07-28"
START_SECONDS = 60


@dataclass(frozen=True)
class Server:
    """A server and how it is reached. `folder` is what it may work in."""

    name: str
    command: list[str]
    transport: str
    checks: dict[str, Any]
    answer: dict[str, Any] = field(default_factory=dict)
    roots: list[str] | None = None
    modern: bool = False
    announces_outside_calls: bool = False

    @property
    def label(self) -> str:
        return f"{self.name} over {self.transport}"

    @contextmanager
    def running(self, log: Path) -> Iterator[list[str]]:
        """Its address, as `shadowcat` takes it: a command is started by Shadowcat, an HTTP server here."""
        if self.transport == "stdio":
            yield ["--", *self.command]
            return
        port = ports.free()
        command = [part.replace("{PORT}", str(port)) for part in self.command]
        with processes.running(command, log=log, env=processes.environment(PORT=str(port))) as process:
            ports.wait(port, process, START_SECONDS)
            yield [f"http://127.0.0.1:{port}/{'sse' if self.transport == 'HTTP+SSE' else 'mcp'}"]


@dataclass(frozen=True)
class Client:
    """A client program. `mode` is what the 2.x SDK calls so; the others have none."""

    name: str
    command: list[str]
    mode: str = ""

    def version(self, server: Server) -> str:
        """What the two must agree on, with or without Shadowcat between them."""
        return MODERN if self.mode == "auto" and server.modern else LEGACY

    def profile(self, server: Server) -> dict[str, Any]:
        """What the client program is told to do; see `clients/checks.py`."""
        checks = {"version": self.version(server), **server.checks}
        profile = {
            "mode": self.mode,
            "answer": server.answer,
            "standalone": server.announces_outside_calls,
            "checks": checks,
        }
        if server.roots:
            profile["roots"] = server.roots
        return profile


def clients(tools: Toolchain) -> list[Client]:
    place = HERE / "clients"
    return [
        Client("TypeScript SDK 1.32", [str(tools.node), str(place / "sdk1.mjs")]),
        Client("Python SDK 1.30", [str(tools.python1), str(place / "mcp1.py")]),
        Client("Python SDK 2.3", [str(tools.python2), str(place / "mcp2.py")], mode="auto"),
        Client("Python SDK 2.3 legacy", [str(tools.python2), str(place / "mcp2.py")], mode="legacy"),
    ]


def servers(tools: Toolchain, scratch: Path) -> list[Server]:
    """All servers; `scratch` is an empty folder for the one that works on files."""
    return [
        _everything(tools, "stdio"),
        _everything(tools, "HTTP"),
        _filesystem(tools, scratch),
        *(_python(tools, release, transport) for release in (1, 2) for transport in ("stdio", "HTTP")),
        _python(tools, 1, "HTTP+SSE"),
    ]


def long_call(duration: int, steps: int) -> dict[str, Any]:
    """A call of server-everything that takes `duration` seconds."""
    return {
        "tool": "trigger-long-running-operation",
        "arguments": {"duration": duration, "steps": steps},
        "steps": steps,
        "text": f"Long running operation completed. Duration: {duration} seconds, Steps: {steps}.",
    }


def everything(tools: Toolchain, transport: str, checks: dict[str, Any]) -> Server:
    kind = "stdio" if transport == "stdio" else "streamableHttp"
    command = [*tools.npm_server("server-everything"), kind]
    return Server("server-everything", command, transport, checks, answer={"name": "Ada", "check": True})


def _everything(tools: Toolchain, transport: str) -> Server:
    echo = {"tool": "echo", "arguments": {"message": "hello"}, "text": "Echo: hello"}
    compressed = {"name": "note.gz", "data": "data:text/plain,note", "outputType": "resourceLink"}
    checks = {
        "list": ["echo", "get-sum", "trigger-elicitation-request", "trigger-long-running-operation"],
        "call": [echo, {"tool": "get-sum", "arguments": {"a": 2, "b": 40}, "text": "The sum of 2 and 40 is 42."}],
        "progress": long_call(1, 5),
        "elicitation": {"tool": "trigger-elicitation-request", "text": "- Name: Ada"},
        # It works on after a cancel, so that only the client can tell.
        "cancel": {"tool": "trigger-long-running-operation", "arguments": {"duration": 30, "steps": 60}, "then": echo},
        "list_changed": {
            "tool": "gzip-file-as-resource",
            "arguments": compressed,
            "method": "notifications/resources/list_changed",
        },
    }
    return everything(tools, transport, checks)


def _filesystem(tools: Toolchain, scratch: Path) -> Server:
    """Has neither progress nor elicitation, but asks the client for its roots, outside any call."""
    granted, note = scratch / "granted", scratch / "granted" / "note.txt"
    for folder in (scratch / "named", granted):
        folder.mkdir(parents=True)
    checks = {
        "list": ["read_text_file", "write_file", "list_allowed_directories"],
        "roots": {"tool": "list_allowed_directories", "arguments": {}, "text": str(granted)},
        "call": [
            {
                "tool": "write_file",
                "arguments": {"path": str(note), "content": "naïve\n"},
                "text": f"Successfully wrote to {note}",
            },
            {"tool": "read_text_file", "arguments": {"path": str(note)}, "text": "naïve\n"},
        ],
    }
    command = [*tools.npm_server("server-filesystem"), str(scratch / "named")]
    return Server("server-filesystem", command, "stdio", checks, roots=[granted.as_uri()])


def _python(tools: Toolchain, release: int, transport: str) -> Server:
    python = {1: tools.python1, 2: tools.python2}[release]
    program = HERE / "servers" / f"mcp{release}.py"
    arguments = {"stdio": ["stdio"], "HTTP": ["{PORT}"], "HTTP+SSE": ["{PORT}", "sse"]}[transport]
    seen = {"tool": "was_cancelled", "arguments": {"name": "a"}, "text": "yes"}
    checks = {
        "list": ["ask", "change_tools_later", "count", "echo", "sleep", "was_cancelled"],
        "call": [{"tool": "echo", "arguments": {"message": "hello"}, "text": "Echo: hello"}],
        "progress": {"tool": "count", "arguments": {"steps": 20}, "steps": 20, "text": "counted to 20"},
        "elicitation": {"tool": "ask", "text": "accept: Ada"},
        "cancel": {"tool": "sleep", "arguments": {"name": "a"}, "then": seen},
        "list_changed": {"tool": "change_tools_later", "arguments": {}, "method": "notifications/tools/list_changed"},
    }
    return Server(
        f"Python SDK {release}.x server",
        [str(python), str(program), *arguments],
        transport,
        checks,
        answer={"name": "Ada"},
        modern=release == 2,
        announces_outside_calls=True,
    )
