"""Runs scenarios of the official suite (npm `@modelcontextprotocol/conformance`) and reads what it found."""

import json
import shlex
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from harness import processes
from harness.toolchain import Toolchain

SPECS = ("2025-11-25", "2026-07-28")
# Per scenario. The suite itself allows 30 s; a shared machine gets as much.
SCENARIO_SECONDS = 30


@dataclass(frozen=True, order=True)
class Scenario:
    """A scenario as one protocol version has it."""

    spec: str
    name: str

    def __str__(self) -> str:
        return f"{self.spec} {self.name}"


@dataclass(frozen=True)
class Outcome:
    """How a scenario went: `pass`, `fail`, or `none` where the suite checked nothing or did not get that far."""

    verdict: str = "none"
    successes: Counter[str] = field(default_factory=Counter)
    problem: str = "the suite left no result"

    @property
    def passed(self) -> bool:
        return self.verdict == "pass"

    def rank(self) -> tuple[bool, int]:
        """Orders several tries at the same scenario."""
        return self.passed, self.successes.total()


Outcomes = dict[Scenario, Outcome]


@dataclass
class Suite:
    """The installed suite. `out` is a folder for its results and logs."""

    tools: Toolchain
    out: Path

    def scenarios(self, leg: str) -> list[Scenario]:
        """What the suite requires of a `server` or of a `client`; `auth/*` is left out.

        Authorization cannot pass through any transparent proxy: the resource that the server's metadata names is the
        server's URL, and the client was given the proxy's.
        """
        return [
            Scenario(spec, name)
            for spec in SPECS
            for name in _required(self.tools.conformance / "requirements" / f"{spec}.yaml", leg)
            if not name.startswith("auth/")
        ]

    def server(self, url: str, scenarios: list[Scenario], label: str) -> Outcomes:
        """Tries the server at a URL."""
        found: Outcomes = {}
        for spec in SPECS:
            out = self.out / label / spec
            options = ["--url", url, "--requirements", spec, "--timeout", str(SCENARIO_SECONDS * 1000)]
            self._run("server", options, out, seconds=300)
            for scenario in scenarios:
                if scenario.spec == spec:
                    found[scenario] = _read(out.glob(f"server-{scenario.name}-20*/checks.json"))
        return found

    def server_alone(self, url: str, scenario: Scenario, label: str) -> Outcome:
        """Tries one scenario of `server` by itself."""
        out = self.out / label / f"{scenario.spec}-alone" / scenario.name
        options = ["--url", url, "--scenario", scenario.name, "--spec-version", scenario.spec]
        self._run("server", [*options, "--timeout", str(SCENARIO_SECONDS * 1000)], out, seconds=SCENARIO_SECONDS + 10)
        return _read(out.glob("server-*/checks.json"))

    def client(self, command: list[str], scenarios: list[Scenario], label: str, env: dict[str, str], jobs: int) -> Outcomes:
        """Tries a client: the suite starts the command with the URL of its mock server as the last argument."""
        with ThreadPoolExecutor(jobs) as pool:
            outcomes = pool.map(lambda scenario: self.client_alone(command, scenario, label, env), scenarios)
            return dict(zip(scenarios, outcomes))

    def client_alone(self, command: list[str], scenario: Scenario, label: str, env: dict[str, str]) -> Outcome:
        """Tries one scenario of `client`."""
        out = self.out / label / scenario.spec / scenario.name.replace("/", "_") / f"{time.monotonic_ns()}"
        options = ["--command", shlex.join(command), "--scenario", scenario.name, "--spec-version", scenario.spec]
        options += ["--timeout", str(SCENARIO_SECONDS * 1000)]
        self._run("client", options, out, seconds=SCENARIO_SECONDS + 20, env=env)
        return _read(out.rglob("checks.json"))

    def _run(self, leg: str, options: list[str], out: Path, *, seconds: float, env: dict[str, str] | None = None) -> None:
        out.mkdir(parents=True, exist_ok=True)
        program = str(self.tools.conformance / "dist" / "index.js")
        command = [str(self.tools.node), program, leg, *options, "-o", str(out)]
        # Its exit status says whether every scenario passed, which is not our question.
        processes.run(command, seconds=seconds, log=out / "suite.log", env=env)


def _required(requirements: Path, leg: str) -> list[str]:
    """The scenario names of one leg in a requirements file, those that the suite does not score included.

    Reads only the shape that these files have: top-level keys with lists of names, and `not_scored` with a list of
    mappings.
    """
    section, names, unscored = "", [], ""
    for line in requirements.read_text().splitlines():
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        if not line.startswith((" ", "-")):
            section = line.split(":")[0]
        elif section == leg and text.startswith("- "):
            names.append(text.removeprefix("- ").strip())
        elif section == "not_scored" and text.startswith("- scenario:"):
            unscored = text.split(":", 1)[1].strip()
        elif section == "not_scored" and text == f"leg: {leg}":
            names.append(unscored)
    return names


def _read(files) -> Outcome:
    """The best of the results in some `checks.json` files."""
    return max((_judge(json.loads(file.read_text())) for file in files), key=Outcome.rank, default=Outcome())


def _judge(checks: list[dict]) -> Outcome:
    successes = Counter(check["id"] for check in checks if check["status"] == "SUCCESS")
    bad = [check for check in checks if check["status"] in ("FAILURE", "WARNING")]
    if bad:
        problem = " ".join((bad[0].get("errorMessage") or "").split())
        return Outcome("fail", successes, f"{bad[0]['id']}: {problem[:200]}")
    if not successes:
        return Outcome("none", successes, "the suite checked nothing")
    return Outcome("pass", successes, "")
