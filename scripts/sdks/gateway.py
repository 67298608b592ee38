"""A gateway with a simulated ThingsBoard behind it, for scenarios."""

import contextlib
import hashlib
from collections.abc import Iterator

from benchmarks.processes import BenchmarkFailed, Children, free_port, wait_until_ready
from scripts.run_demo import SIMULATOR_LOGIN
from scripts.sdks.language import StepFailed

KEY = "sdk-scenario-0123456789abcdef"
LIMITED_KEY = "sdk-scenario-limited-0123456789abcdef"
#: Small enough to be used up by three calls, short enough to be waited for.
LIMIT = "2/2 seconds"


@contextlib.contextmanager
def running() -> Iterator[dict[str, str]]:
    """Yield the environment in which scenarios find the gateway and their keys.

    Raises:
        StepFailed: when it does not start.
    """
    with Children() as children:
        upstream, port = free_port(), free_port()
        keys = children.folder / "keys.toml"
        entries = (_entry("scenario", KEY, "100000/minute"), _entry("limited", LIMITED_KEY, LIMIT))
        keys.write_text("".join(entries), "ascii")
        settings = {
            **SIMULATOR_LOGIN,
            "TB_HOST": f"http://127.0.0.1:{upstream}",
            "PORT": str(port),
            "API_KEYS_FILE": str(keys),
        }
        arguments = ("tb_simulator", "--port", str(upstream), "--demo-data")
        children.start_module("simulator", *arguments, port=upstream)
        gateway = children.start_module("gateway", "app", "serve", port=port, environment=settings)
        try:
            wait_until_ready(gateway, "/api/v1/tb/devices", {"X-API-Key": KEY})
        except BenchmarkFailed as error:
            raise StepFailed(str(error)) from error
        yield {"GATEWAY_URL": f"http://127.0.0.1:{port}", "API_KEY": KEY, "LIMITED_API_KEY": LIMITED_KEY}


def _entry(name: str, secret: str, limit: str) -> str:
    digest = hashlib.sha256(secret.encode()).hexdigest()
    fields = f'id = "{name}"\nscopes = ["*"]\nsha256 = "{digest}"\nrate_limit = "{limit}"\n\n'
    return f'[[keys]]\nname = "{name}"\n{fields}'
