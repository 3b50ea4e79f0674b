"""The program under test, as a user starts it."""

import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from harness import processes

READY_SECONDS = 30
_READY = re.compile(rb"listening on (http://\S+/mcp)")


@dataclass(frozen=True)
class Shadowcat:
    """Its binary, and the command lines of its modes. `server` is a URL or a command, as on the command line."""

    binary: Path

    def reverse(self, server: list[str]) -> list[str]:
        """HTTP in, beside the server."""
        return [str(self.binary), "reverse", "--listen", "127.0.0.1:0", *server]

    def forward_http(self, server: list[str]) -> list[str]:
        """HTTP in, beside the client."""
        return [str(self.binary), "forward", "--listen", "127.0.0.1:0", *server]

    def forward_stdio(self, server: list[str]) -> list[str]:
        """Standard input and output in: the client starts it."""
        return [str(self.binary), "forward", *server]


@contextmanager
def listening(command: list[str], log: Path, *, env: dict[str, str] | None = None) -> Iterator[str]:
    """Runs a proxy with an HTTP client edge; gives its URL, which it says itself once it is ready."""
    with serving(command, log, env=env) as (_, url):
        yield url


@contextmanager
def serving(command: list[str], log: Path, *, env: dict[str, str] | None = None) -> Iterator[tuple[subprocess.Popen, str]]:
    """As `listening`, with the proxy's process."""
    with processes.running(command, log=log, env=env) as process:
        deadline = time.monotonic() + READY_SECONDS
        while not (ready := _READY.search(log.read_bytes())):
            if process.poll() is not None:
                raise RuntimeError(f"shadowcat exited with status {process.returncode}, see {log}")
            if time.monotonic() > deadline:
                raise RuntimeError(f"shadowcat was not ready within {READY_SECONDS} s, see {log}")
            time.sleep(0.02)
        yield process, ready[1].decode()
