"""Free ports, and waiting for a server to listen."""

import socket
import subprocess
import time


def free() -> int:
    """A port that was free a moment ago, for peers that cannot be told to pick one and say it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait(port: int, process: subprocess.Popen, seconds: float) -> None:
    """Returns once something listens on the port.

    Raises RuntimeError if the process ends first, or after `seconds`.
    """
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"{process.args[0]} exited with status {process.returncode} instead of listening")
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise RuntimeError(f"{process.args[0]} did not listen on port {port} within {seconds:.0f} s")
