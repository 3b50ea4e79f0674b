"""The client that the suite starts where Shadowcat stands in front of its mock server: `client_shim.py URL`.

Runs the 2.x SDK's own conformance client, which is known to pass, through `shadowcat forward` in the way that
SHIM_EDGE names: `http` puts a listening Shadowcat between the client and the URL, `stdio` has the client start one.
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from harness.shadowcat import Shadowcat, listening  # noqa: E402

LOGS = Path(os.environ["SHIM_LOGS"])
CLIENT = os.environ["SHIM_CLIENT"]
SHADOWCAT = Shadowcat(Path(os.environ["SHIM_SHADOWCAT"]))


def over_http(url: str, log: Path) -> int:
    with listening(SHADOWCAT.forward_http([url]), log) as proxy:
        return subprocess.call([sys.executable, CLIENT, proxy])


def over_stdio(url: str, log: Path) -> int:
    """Loads the client and gives it a transport that starts Shadowcat in place of the URL."""
    from mcp.client.stdio import StdioServerParameters, stdio_client

    spec = importlib.util.spec_from_file_location("conformance_client", CLIENT)
    client = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(client)
    connect = client.Client
    command = SHADOWCAT.forward_stdio([url])
    server = StdioServerParameters(command=command[0], args=command[1:], env=dict(os.environ))
    with open(log, "a") as errors:
        client.Client = lambda _url, **options: connect(stdio_client(server, errlog=errors), **options)
        client.main()
    return 0


if __name__ == "__main__":
    name = os.environ["MCP_CONFORMANCE_SCENARIO"].replace("/", "_")
    run = {"http": over_http, "stdio": over_stdio}[os.environ["SHIM_EDGE"]]
    sys.exit(run(sys.argv[-1], LOGS / f"{name}-{os.getpid()}.log"))
