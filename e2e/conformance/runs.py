"""The suite's scenarios through Shadowcat, compared with the same without it.

Four runs: `reverse` in front of a good server over HTTP and over stdio, and `forward` behind a good client over HTTP
and over stdio, each against the suite's own mock on the other side. What the suite asks of a server's streams is tried
with `forward --listen`, too, which is the same HTTP edge beside the client. A scenario counts where it passes directly. One
that fails is tried once more by itself, direct or not: on a loaded machine the suite's own deadlines strike.
"""

import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from conformance.suite import Outcome, Outcomes, Scenario, Suite
from harness import ports, processes
from harness.report import Report, Verdict
from harness.shadowcat import Shadowcat, listening

HERE = Path(__file__).resolve().parent
RETRIES = 6
# What the suite asks of a server's streams: several at once, and resumption.
STREAMS = ("server-sse-multiple-streams", "server-sse-polling")
UPSTREAM_SECONDS = 60


@dataclass(frozen=True)
class Expected:
    """What `expected.toml` says."""

    direct: dict[str, int]
    reasons: dict[tuple[str, Scenario], str]

    @classmethod
    def read(cls) -> "Expected":
        with open(HERE / "expected.toml", "rb") as file:
            content = tomllib.load(file)
        reasons = {
            (run, Scenario(*difference["scenario"].split())): difference["reason"]
            for difference in content.get("difference", [])
            for run in difference["runs"]
        }
        return cls(content["direct"], reasons)


class Conformance:
    """All runs, for one binary; `out` takes the suite's results and all logs."""

    def __init__(self, suite: Suite, shadowcat: Shadowcat, report: Report, jobs: int) -> None:
        self.suite, self.shadowcat, self.report, self.jobs = suite, shadowcat, report, jobs
        self.tools, self.out = suite.tools, suite.out
        self.expected = Expected.read()

    def server_runs(self) -> None:
        """`reverse` and `forward --listen` with both kinds of server behind them."""
        with self._http_server("direct") as url:
            direct = self._tried_as_server("server direct", url, self.suite.scenarios("server"))
        self._count_direct("server", direct)
        with self.report.guard("reverse over HTTP"), self._http_server("reverse") as url:
            self._serve("reverse over HTTP", self.shadowcat.reverse([url]), direct)
        stdio = ["--", *self._stdio_server()]
        with self.report.guard("reverse over stdio"):
            self._serve("reverse over stdio", self.shadowcat.reverse(stdio), direct)
        streams = {scenario: outcome for scenario, outcome in direct.items() if scenario.name in STREAMS}
        with self.report.guard("forward --listen over HTTP"), self._http_server("forward") as url:
            self._serve("forward --listen over HTTP", self.shadowcat.forward_http([url]), streams)
        with self.report.guard("forward --listen over stdio"):
            self._serve("forward --listen over stdio", self.shadowcat.forward_http(stdio), streams)

    def client_runs(self) -> None:
        """`forward` with both kinds of client in front of it."""
        client = [str(self.tools.python2), str(self.tools.conformance_client)]
        direct = self._tried_as_client("client direct", client, self.suite.scenarios("client"), processes.environment())
        self._count_direct("client", direct)
        shim = [str(self.tools.python2), str(HERE / "client_shim.py")]
        for run, edge in (("forward over HTTP", "http"), ("forward over stdio", "stdio")):
            logs = self.out / f"shim-{edge}"
            logs.mkdir()
            env = processes.environment(
                SHIM_EDGE=edge,
                SHIM_LOGS=str(logs),
                SHIM_CLIENT=str(self.tools.conformance_client),
                SHIM_SHADOWCAT=str(self.shadowcat.binary),
            )
            self._compare(run, direct, lambda label, wanted: self._tried_as_client(label, shim, wanted, env))

    def _serve(self, run: str, command: list[str], direct: Outcomes) -> None:
        log = self.out / f"{run}.log"
        with listening(command, log, env=self._with_everything_server()) as url:
            self._compare(run, direct, lambda label, wanted: self._tried_as_server(label, url, wanted))

    def _tried_as_server(self, label: str, url: str, scenarios: list[Scenario]) -> Outcomes:
        if len(scenarios) <= RETRIES:
            return {scenario: self.suite.server_alone(url, scenario, label) for scenario in scenarios}
        found = self.suite.server(url, scenarios, label)
        return self._again(found, lambda scenario: self.suite.server_alone(url, scenario, label))

    def _tried_as_client(self, label: str, command: list[str], scenarios: list[Scenario], env: dict[str, str]) -> Outcomes:
        found = self.suite.client(command, scenarios, label, env, self.jobs)
        return self._again(found, lambda scenario: self.suite.client_alone(command, scenario, label, env))

    def _again(self, found: Outcomes, alone: Callable[[Scenario], Outcome]) -> Outcomes:
        """Tries what did not pass once more, unless it is so much that the machine cannot be the reason."""
        failed = [scenario for scenario, outcome in found.items() if not outcome.passed]
        if len(failed) <= RETRIES:
            for scenario in failed:
                found[scenario] = max(found[scenario], alone(scenario), key=Outcome.rank)
        return found

    def _count_direct(self, leg: str, direct: Outcomes) -> None:
        passed = sum(outcome.passed for outcome in direct.values())
        expected = self.expected.direct[leg]
        missing = ", ".join(f"{scenario} ({outcome.problem})" for scenario, outcome in direct.items() if not outcome.passed)
        detail = f"{passed} of {expected} pass without Shadowcat; the others: {missing}"
        self.report.passed(f"{leg} direct", "scenarios that pass", passed == expected, detail)

    def _compare(self, run: str, direct: Outcomes, tried: Callable[[str, list[Scenario]], Outcomes]) -> None:
        wanted = [scenario for scenario, outcome in direct.items() if outcome.passed]
        through = tried(run, wanted)
        for scenario in wanted:
            verdict, detail = self._judge(run, scenario, through[scenario])
            self.report.add(run, str(scenario), verdict, detail)
            fewer = direct[scenario].successes - through[scenario].successes
            if through[scenario].passed and fewer:
                self.report.note(f"weaker  {run}: {scenario}: not reached: {', '.join(sorted(fewer))}")
        passed = sum(through[scenario].passed for scenario in wanted)
        self.report.note(f"{run}: {passed} of {len(wanted)} conformance scenarios pass")

    def _judge(self, run: str, scenario: Scenario, outcome: Outcome) -> tuple[Verdict, str]:
        reason = self.expected.reasons.get((run, scenario))
        if reason is None:
            return (Verdict.PASSED, "") if outcome.passed else (Verdict.FAILED, outcome.problem)
        if outcome.passed:
            return Verdict.FAILED, f"passes, but expected.toml says that it does not: {reason}"
        return Verdict.SKIPPED, f"expected: {reason}"

    def _with_everything_server(self) -> dict[str, str]:
        return processes.environment(PYTHONPATH=str(self.tools.conformance_server))

    def _stdio_server(self) -> list[str]:
        """The same over stdio."""
        code = "from mcp_everything_server.server import mcp; mcp.run(transport='stdio')"
        return [str(self.tools.python2), "-c", code]


    @contextmanager
    def _http_server(self, name: str) -> Iterator[str]:
        """The 2.x SDK's everything server, which is known to pass, over HTTP."""
        port = ports.free()
        command = [str(self.tools.python2), "-m", "mcp_everything_server.server", "--port", str(port)]
        log = self.out / f"server {name}.log"
        with processes.running(command, log=log, env=self._with_everything_server()) as process:
            ports.wait(port, process, UPSTREAM_SECONDS)
            yield f"http://127.0.0.1:{port}/mcp"
