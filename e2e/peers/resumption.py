"""A long call of server-everything over stdio, in both modes, whose client connection is cut three times.

The server knows nothing of streams, and nothing of the cuts. The SDKs come back with the ids that Shadowcat gave them;
each step of the call and its result must arrive once, in order.

The TypeScript SDK takes three resets. The Python SDKs count a reset while they resume as a failed attempt, give up
after two, and ask again from where they were before; so their second and third cut ends the answer properly.
"""

from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from harness.report import Report
from harness.shadowcat import Shadowcat, listening
from harness.toolchain import Toolchain
from peers.catalog import Client, Server, clients, everything, long_call
from peers.cutter import Cutter, cutting
from peers.matrix import judge, run_client

STEPS, SECONDS = 24, 12
CUTS = {4: "reset", 10: "close", 16: "close"}
RESETS = dict.fromkeys(CUTS, "reset")


@dataclass
class Cuts:
    """Cuts when the client has seen a step, once for each step in the plan."""

    cutter: Cutter
    plan: dict[int, str]
    made: set[int] = field(default_factory=set)

    def heard(self, fact: dict) -> None:
        step = fact.get("step")
        if step in self.plan and step not in self.made and self.cutter.cut(self.plan[step]):
            self.made.add(step)


def play(tools: Toolchain, shadowcat: Shadowcat, report: Report, out: Path) -> None:
    """Every SDK that resumes, in the legacy era: the modern one has no resumption."""
    server = everything(tools, "stdio", {"resumption": long_call(SECONDS, STEPS)})
    modes = {"reverse": shadowcat.reverse, "forward HTTP": shadowcat.forward_http}
    for client in clients(tools):
        if client.mode == "legacy":
            continue
        for mode, command in modes.items():
            name = f"{client.name}, {mode}, long call cut three times"
            with report.guard(name):
                _cut_three_times(tools, command(["--", *server.command]), report, out, client, server, name)


def _cut_three_times(
    tools: Toolchain, proxy: list[str], report: Report, out: Path, client: Client, server: Server, name: str
) -> None:
    with (
        listening(proxy, out / f"{name} (shadowcat).log") as url,
        cutting(urlsplit(url).port) as cutter,
    ):
        cuts = Cuts(cutter, RESETS if client.name.startswith("TypeScript") else CUTS)
        through = urlunsplit(urlsplit(url)._replace(netloc=f"127.0.0.1:{cutter.port}"))
        profile = client.profile(server)
        said = run_client(client, {"url": through}, profile, tools, out / f"{name}.log", cuts.heard)
    judge(report, name, profile, said)
    report.passed(name, "three cuts", len(cuts.made) == 3, f"{len(cuts.made)} cuts met an answer in progress")
