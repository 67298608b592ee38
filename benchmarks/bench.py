"""What all measurements share: how much to measure, the children, the gateway as it is measured."""

from dataclasses import dataclass, field

from benchmarks.figures import Result
from benchmarks.processes import HOST, Child, Children, free_port, wait_until_ready

KEY = "benchmark-key-0123456789abcdef"
CALLER = {"X-API-Key": KEY}
LIST_TARGET = "/api/v1/tb/devices?page_size=10"
#: Every stage is on, and nothing is refused.
GATEWAY = {
    "API_KEY": KEY,
    "ALLOWED_HOSTS": HOST,
    "BACKEND_CORS_ORIGINS": "https://app.example.com",
    "TRUSTED_PROXIES": "10.0.0.0/8",
    "RATE_LIMIT_REQUESTS": "999999999",
    "TB_USERNAME": "tenant@thingsboard.org",
    "TB_PASSWORD": "tenant",
    "HOST": HOST,
}


@dataclass(frozen=True)
class Extent:
    """How much is measured."""

    rounds: int
    seconds: float
    latency_rounds: int
    latency_seconds: float
    bulk_rounds: int
    devices: int
    starts: int
    fairness_rounds: int
    fairness_seconds: float


QUICK = Extent(
    rounds=3,
    seconds=1.2,
    latency_rounds=4,
    latency_seconds=1.6,
    bulk_rounds=2,
    devices=10_000,
    starts=3,
    fairness_rounds=1,
    fairness_seconds=1.5,
)
FULL = Extent(
    rounds=8,
    seconds=3.0,
    latency_rounds=8,
    latency_seconds=6.0,
    bulk_rounds=5,
    devices=100_000,
    starts=5,
    fairness_rounds=3,
    fairness_seconds=6.0,
)


@dataclass
class Bench:
    """One run: its extent, its children and what the report shows beside the results."""

    extent: Extent
    children: Children
    #: CPU of a proxied list call in ms by who serves it.
    cpu_ms: dict[str, float] = field(default_factory=dict)
    #: Latency curves in ms by who serves.
    latency_ms: dict[str, dict[float, float]] = field(default_factory=dict)
    #: Sentences by group.
    notes: dict[str, list[str]] = field(default_factory=dict)
    results: dict[str, list[Result]] = field(default_factory=dict)

    def note(self, group: str, text: str) -> None:
        """Keep a sentence for the report."""
        self.notes.setdefault(group, []).append(text)

    def start_stub(self, *arguments: str) -> Child:
        """Start the ThingsBoard of fixed answers."""
        port = free_port()
        child = self.children.start_module(
            "stub", "benchmarks.stub_thingsboard", str(port), *arguments, port=port
        )
        wait_until_ready(child, "/api/auth/user", {})
        return child

    def start_gateway(self, upstream: Child, *, ready_path: str = LIST_TARGET, **settings: str) -> Child:
        """Start the gateway in front of an upstream, as `start_gateway` does."""
        return start_gateway(self.children, upstream, ready_path=ready_path, **settings)


def start_gateway(
    children: Children, upstream: Child, *, ready_path: str = LIST_TARGET, **settings: str
) -> Child:
    """Start the gateway in front of an upstream; it has served one request when this returns."""
    port = free_port()
    environment = {
        **GATEWAY,
        "PORT": str(port),
        "TB_HOST": f"http://{HOST}:{upstream.port}",
        **{name.upper(): value for name, value in settings.items()},
    }
    child = children.start_module("gateway", "app", "serve", port=port, environment=environment)
    wait_until_ready(child, ready_path, CALLER)
    return child


def start_thingsboard(children: Children, port: int, *command: str) -> Child:
    """Start a simulated ThingsBoard: a module and its arguments, which name the port."""
    child = children.start_module("simulator", *command, port=port)
    wait_until_ready(child, "/__simulator/calls", {})
    return child
