"""`python -m app serve`: what the supervisor starts with, and what each worker does."""

import functools
import gc
import socket
import sys

import structlog
import uvicorn

from app import configuration, connections, logs
from app.errors import ConfigurationError
from app.factory import create_app

# uvicorn would fall back to h11, which lets ambiguous requests pass: without httptools this import fails.
from app.http_protocol import GatewayProtocol
from app.settings import Settings
from app.supervisor import Duty, Supervisor, Work
from app.web_socket_protocol import MOST_FRAME_BYTES, GatewayWebSocket
from app.worker import IDLE_SECONDS, SHUTDOWN_SECONDS, GatewayServer, watch_for_standstill

log = structlog.get_logger("gateway")

FAILED = 1
#: Objects more than were freed, between two garbage collections. Python's own number is 700.
COLLECT_EVERY = 10_000
#: What a worker may take beyond its time to shut down, for its own end. Docker is asked for 30 s in all.
LAST_SECONDS = 3


def serve(loaded: Settings) -> int:
    """Serve until SIGTERM or Ctrl-C; running requests get `SHUTDOWN_SECONDS` to end. Return the exit code."""
    configure_logs(loaded)
    log.info(
        "gateway_starting",
        address=configuration.address_of(loaded),
        workers=loaded.workers,
        version=loaded.version,
    )
    connections.raise_file_limit()
    try:
        listeners = listen(loaded.host, loaded.port)
    except OSError as error:
        log.error("cannot_listen", reason=error.strerror)
        return FAILED
    # Where any port was asked for, the one that it is.
    listening = loaded.model_copy(update={"port": listeners[0].getsockname()[1]})
    supervisor = Supervisor(
        listeners,
        functools.partial(work, loaded),
        reload,
        workers=loaded.workers,
        patience_seconds=loaded.shutdown_delay_seconds + SHUTDOWN_SECONDS + LAST_SECONDS,
        on_ready=lambda: log.info("gateway_ready", address=configuration.address_of(listening)),
    )
    freeze()
    return supervisor.run()


def listen(host: str, port: int) -> list[socket.socket]:
    """Listen on all addresses of the host, on the same port.

    Raises:
        OSError: one of them cannot be had.
    """
    found: list[socket.socket] = []
    for family, *_, address in socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    ):
        # 0 is any port for the first of them only.
        given = found[0].getsockname()[1] if found else port
        found.append(socket.create_server((address[0], given), family=family))
    return found


def reload() -> Work:
    """Read everything again, for new workers; what listens stays as it is."""
    return functools.partial(work, configuration.load().settings)


def work(loaded: Settings, duty: Duty) -> None:
    """Serve in a worker process, until told to stop."""
    watch_for_standstill()
    configure_logs(loaded)
    try:
        app = create_app(loaded)
    except ConfigurationError as error:
        log.error("configuration_at_fault", faults=str(error).splitlines())
        sys.exit(FAILED)
    freeze()
    config = uvicorn.Config(
        app,
        loop="uvloop",
        http=GatewayProtocol,
        ws=GatewayWebSocket,
        ws_max_size=MOST_FRAME_BYTES,
        ws_per_message_deflate=False,
        # The client-address stage decides whom to believe.
        proxy_headers=False,
        server_header=False,
        access_log=False,
        log_config=None,
        timeout_keep_alive=IDLE_SECONDS,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
        ssl_certfile=loaded.ssl_certfile,
        ssl_keyfile=loaded.ssl_keyfile,
    )
    server = GatewayServer(
        config,
        delay_seconds=loaded.shutdown_delay_seconds,
        lifeline=duty.lifeline,
        on_ready=duty.tell_ready,
    )
    server.run(duty.sockets)


def freeze() -> None:
    """Let no garbage collection look at what lives as long as the process: 5 % of a list call.

    What requests leave is freed without any, so collections may be rarer: with 1,000 requests under way
    each looks at 100,000 objects of theirs in vain, and at Python's own pace they took 30 % of the CPU.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_EVERY)


def configure_logs(loaded: Settings) -> None:
    """Log as the settings say."""
    logs.configure("DEBUG" if loaded.debug else "INFO", loaded.log_format)
