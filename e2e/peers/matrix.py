"""Every client with every server, in both modes: `reverse`, `forward --listen` and `forward` over stdio."""

import json
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from harness import processes
from harness.report import Report, Verdict, table
from harness.shadowcat import Shadowcat, listening
from harness.toolchain import Toolchain
from peers.catalog import Client, Server, clients, servers

MODES = ("reverse", "forward HTTP", "forward stdio")
CLIENT_SECONDS = 240


@dataclass
class Matrix:
    """All pairs of peers for one binary. `out` takes logs."""

    tools: Toolchain
    shadowcat: Shadowcat
    report: Report
    out: Path
    cells: dict[tuple[str, str, str], str] = field(default_factory=dict)

    def play(self, jobs: int, modes: tuple[str, ...] = MODES) -> None:
        """Plays `jobs` servers at once; their clients come one after the other."""
        groups = [
            (mode, server)
            for number, mode in enumerate(modes)
            for server in servers(self.tools, self.out / f"files-{number}")
            # The clients speak Streamable HTTP only.
            if mode != "direct" or server.transport != "HTTP+SSE"
        ]
        with ThreadPoolExecutor(jobs) as pool:
            list(pool.map(lambda group: self._group(*group), groups))
        self.report.note(self._table(modes))

    def _group(self, mode: str, server: Server) -> None:
        name = f"{mode}, {server.label}"
        with self.report.guard(name), server.running(self.out / f"{name} (server).log") as address:
            with self._target(mode, address, self.out / f"{name} (shadowcat).log") as target:
                for client in clients(self.tools):
                    if client.mode != "legacy" or server.modern:
                        self._pair(client, mode, server, target)

    @contextmanager
    def _target(self, mode: str, address: list[str], log: Path) -> Iterator[dict[str, Any]]:
        """What a client connects to."""
        if mode == "forward stdio":
            yield {"command": self.shadowcat.forward_stdio(address)}
        elif mode == "direct":
            yield {"command": address[1:]} if address[0] == "--" else {"url": address[0]}
        else:
            command = {"reverse": self.shadowcat.reverse, "forward HTTP": self.shadowcat.forward_http}[mode](address)
            with listening(command, log) as url:
                yield {"url": url}

    def _pair(self, client: Client, mode: str, server: Server, target: dict[str, Any]) -> None:
        name = f"{client.name}, {mode}, {server.label}"
        profile = client.profile(server)
        said = run_client(client, target, profile, self.tools, self.out / f"{name}.log")
        failed = judge(self.report, name, profile, said)
        total = len(profile["checks"]) + 1
        self.cells[client.name, server.label, mode] = f"{total - len(failed)}/{total}" + "".join(f" -{f}" for f in failed)

    def _table(self, modes: tuple[str, ...]) -> str:
        rows = [["client", "server", *modes]]
        pairs = product((c.name for c in clients(self.tools)), dict.fromkeys(server for _, server, _ in sorted(self.cells)))
        for client, server in pairs:
            cells = [self.cells.get((client, server, mode)) for mode in modes]
            if any(cells):
                rows.append([client, server, *(cell or "not tried" for cell in cells)])
        return table(rows)


def run_client(client: Client, target: dict[str, Any], profile: dict[str, Any], tools: Toolchain, log: Path, on_line=None):
    """Runs a client program to its end and gives what it said of each check; `on_line` hears every line at once."""
    command = [*client.command, json.dumps(target), json.dumps(profile)]
    env = processes.environment(E2E_HOME=str(tools.home), PYTHONDONTWRITEBYTECODE="1")
    said: dict[str, tuple[bool, str]] = {}
    with processes.running(command, log=log, stdout=subprocess.PIPE, env=env) as process:
        with processes.deadline(process, CLIENT_SECONDS):
            for line in process.stdout:
                fact = json.loads(line)
                if "check" in fact:
                    said[fact["check"]] = fact["passed"], fact.get("detail", "")
                if on_line:
                    on_line(fact)
    return said


def judge(report: Report, name: str, profile: dict[str, Any], said: dict[str, tuple[bool, str]]) -> list[str]:
    """Reports each check that the profile asks for, and leaving; gives the names of those that failed."""
    failed = []
    refused = said.get("connect")
    for check in (*profile["checks"], "leave"):
        passed, detail = said.get(check) or refused or (False, "the client said nothing of it; see its log")
        report.add(name, check, Verdict.PASSED if passed else Verdict.FAILED, detail)
        if not passed:
            failed.append(check)
    return failed
