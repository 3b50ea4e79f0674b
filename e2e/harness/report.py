"""What was checked and how it went."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum


class Verdict(Enum):
    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True)
class Check:
    """One thing that had to hold. `group` is what it was tried on; `detail` says why it did not pass."""

    group: str
    name: str
    verdict: Verdict
    detail: str = ""


class Report:
    """Collects checks from any thread and says at once what failed."""

    def __init__(self) -> None:
        self.checks: list[Check] = []
        self._lock = threading.Lock()

    def add(self, group: str, name: str, verdict: Verdict, detail: str = "") -> None:
        with self._lock:
            self.checks.append(Check(group, name, verdict, detail))
            if verdict is not Verdict.PASSED:
                self._say(f"{verdict.value.upper():7} {group}: {name}: {detail}")

    def passed(self, group: str, name: str, holds: bool, detail: str = "") -> None:
        """Adds a check that passed if `holds`."""
        self.add(group, name, Verdict.PASSED if holds else Verdict.FAILED, "" if holds else detail)

    @contextmanager
    def guard(self, group: str) -> Iterator[None]:
        """Makes a failed check of what keeps a group from being tried: a program that did not start, a missing file."""
        try:
            yield
        except (OSError, RuntimeError) as error:
            self.add(group, "set up", Verdict.FAILED, str(error))

    def note(self, text: str) -> None:
        with self._lock:
            self._say(text)

    def count(self, verdict: Verdict, group: str | None = None) -> int:
        return sum(check.verdict is verdict and group in (None, check.group) for check in self.checks)

    def closing_line(self) -> str:
        """`N passed, N failed`, and how many were skipped if any."""
        skipped = self.count(Verdict.SKIPPED)
        return f"{self.count(Verdict.PASSED)} passed, {self.count(Verdict.FAILED)} failed" + (
            f", {skipped} skipped" if skipped else ""
        )

    @staticmethod
    def _say(text: str) -> None:
        print(text, flush=True)


def table(rows: list[list[str]]) -> str:
    """Rows as text in aligned columns; the first row is the heading."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])
