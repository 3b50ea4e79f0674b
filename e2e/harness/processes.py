"""Processes that never outlive the run.

Each leads its own session, and so its own process group; it is ended as a group, first asked, then killed. What a
group did not hold (a peer may put its children into groups of their own) is found at the end by a mark in its
environment: `leftovers`.
"""

import atexit
import os
import signal
import subprocess
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MARK = "SHADOWCAT_E2E_RUN"
_RUN = uuid.uuid4().hex
_POLL_SECONDS = 0.02
_groups: set[int] = set()
_lock = threading.Lock()


def environment(**extra: str) -> dict[str, str]:
    """The environment for a process of this run."""
    return dict(os.environ, **extra, **{MARK: _RUN})


def start(
    command: list[str],
    *,
    log: Path,
    stdin: int = subprocess.DEVNULL,
    stdout: int | None = None,
    env: dict[str, str] | None = None,
) -> subprocess.Popen:
    """Starts a process at the head of its own group; what it says goes to the log."""
    with open(log, "ab") as sink:
        process = subprocess.Popen(
            command,
            stdin=stdin,
            stdout=sink if stdout is None else stdout,
            stderr=sink,
            env=env or environment(),
            start_new_session=True,
        )
    with _lock:
        _groups.add(process.pid)
    return process


def end(process: subprocess.Popen, grace: float = 5.0) -> None:
    """Ends the group that the process leads: SIGTERM, and SIGKILL after `grace` seconds."""
    _signal_group(process.pid, signal.SIGTERM)
    deadline = time.monotonic() + grace
    while _group_lives(process) and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
    _signal_group(process.pid, signal.SIGKILL)
    process.wait()
    with _lock:
        _groups.discard(process.pid)


@contextmanager
def running(command: list[str], **how) -> Iterator[subprocess.Popen]:
    """A process for as long as the block runs."""
    process = start(command, **how)
    try:
        yield process
    finally:
        end(process)


@contextmanager
def deadline(process: subprocess.Popen, seconds: float) -> Iterator[None]:
    """Kills the process's group if the block takes longer, so that reading its output ends."""
    timer = threading.Timer(seconds, _signal_group, (process.pid, signal.SIGKILL))
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def run(command: list[str], *, seconds: float, **how) -> int | None:
    """Runs a command to its end: its status, or None if it had to be ended after `seconds`."""
    with running(command, **how) as process:
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None


def leftovers(patience: float = 10.0) -> list[str]:
    """Command lines of this run's processes that still live after `patience` seconds; they are killed.

    Linux only: elsewhere there is no /proc to read, and nothing is found.
    """
    deadline = time.monotonic() + patience
    while (left := dict(_marked())) and time.monotonic() < deadline:
        time.sleep(0.1)
    for pid in left:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    return sorted(left.values())


def _marked() -> Iterator[tuple[int, str]]:
    mark = f"{MARK}={_RUN}".encode()
    for place in Path("/proc").glob("[0-9]*"):
        try:
            if int(place.name) != os.getpid() and mark in (place / "environ").read_bytes().split(b"\0"):
                yield int(place.name), (place / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        except OSError:
            continue


def _signal_group(leader: int, number: int) -> None:
    try:
        os.killpg(leader, number)
    except (ProcessLookupError, PermissionError):
        pass


def _group_lives(leader: subprocess.Popen) -> bool:
    leader.poll()
    try:
        os.killpg(leader.pid, 0)
        return True
    except ProcessLookupError:
        return False


@atexit.register
def _end_all() -> None:
    for leader in list(_groups):
        _signal_group(leader, signal.SIGKILL)


def end_all_on_signals() -> None:
    """Turns SIGTERM and SIGHUP into an orderly exit, so that every `finally` runs."""

    def leave(number: int, _frame: object) -> None:
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, leave)
    signal.signal(signal.SIGHUP, leave)
