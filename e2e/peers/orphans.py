"""What becomes of a server when Shadowcat is killed: nothing of it stays.

The command is what a user's is, a shell that runs node: the shell is the child that Shadowcat started, node its
descendant. After a SIGKILL nobody can end them in order any more. The child dies at once, by its parent-death signal
(Linux); node sees the end of its stdin, as any stdio server must, and goes by itself.
"""

import json
import signal
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from harness import processes
from harness.report import Report
from harness.shadowcat import Shadowcat, serving
from harness.toolchain import Toolchain

AT_ONCE = 1.0
SOON = 10.0
START_SECONDS = 60.0
# One session, as both edges take it.
INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "e2e", "version": "1"}},
}


def play(tools: Toolchain, shadowcat: Shadowcat, report: Report, out: Path) -> None:
    """A session by each client edge, in both modes, and the death of the proxy."""
    # The second command keeps the shell from making way for node.
    server = ["--", "sh", "-c", '"$0" "$@"; exit $?', *tools.npm_server("server-everything"), "stdio"]
    edges = {
        "reverse": lambda log: _over_http(shadowcat.reverse(server), log),
        "forward HTTP": lambda log: _over_http(shadowcat.forward_http(server), log),
        "forward stdio": lambda log: _over_stdio(shadowcat.forward_stdio(server), log),
    }
    for mode, session in edges.items():
        name = f"{mode}, sh that runs node"
        with report.guard(name), session(out / f"{name}.log") as proxy:
            _kill(proxy, report, name)


def _kill(proxy: subprocess.Popen, report: Report, name: str) -> None:
    children = _children(proxy.pid)
    descendants = [pid for child in children for pid in _children(child)]
    if len(children) != 1 or len(descendants) != 1:
        raise RuntimeError(f"expected a shell with node below it, found {children} and {descendants}")
    proxy.send_signal(signal.SIGKILL)
    proxy.wait()
    child, node = children[0], descendants[0]
    report.passed(name, "the child dies at once", _within(AT_ONCE, lambda: not _runs(child)), f"{child} lives")
    report.passed(name, "node sees the end of its stdin and goes", _within(SOON, lambda: not _runs(node)), f"{node} lives")


@contextmanager
def _over_http(command: list[str], log: Path) -> Iterator[subprocess.Popen]:
    with serving(command, log) as (process, url):
        headers = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
        request = urllib.request.Request(url, json.dumps(INITIALIZE).encode(), headers)
        with urllib.request.urlopen(request, timeout=START_SECONDS) as answer:
            answer.read()
        yield process


@contextmanager
def _over_stdio(command: list[str], log: Path) -> Iterator[subprocess.Popen]:
    with processes.running(command, log=log, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        with processes.deadline(process, START_SECONDS):
            process.stdin.write(json.dumps(INITIALIZE).encode() + b"\n")
            process.stdin.flush()
            if b'"result"' not in process.stdout.readline():
                raise RuntimeError(f"the session did not begin, see {log}")
        yield process


def _within(seconds: float, holds: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + seconds
    while not (held := holds()) and time.monotonic() < deadline:
        time.sleep(0.01)
    return held


def _stat(pid: int) -> tuple[str, int] | None:
    """The state of a process, and its parent; `None` when there is no such process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    state, parent, *_ = stat.rsplit(")", 1)[1].split()
    return state, int(parent)


def _runs(pid: int) -> bool:
    """A process that ended and that nobody has asked about yet does not run."""
    stat = _stat(pid)
    return stat is not None and stat[0] not in "ZX"


def _children(parent: int) -> list[int]:
    pids = (int(place.name) for place in Path("/proc").glob("[0-9]*"))
    return [pid for pid in pids if (stat := _stat(pid)) and stat[1] == parent]
