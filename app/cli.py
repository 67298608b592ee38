"""`python -m app`: `serve`, the production entry, and what helps the operator."""

import argparse
import sys
from collections.abc import Sequence

import structlog
import uvicorn

from app import configuration, logs
from app.completion import script_for
from app.errors import ConfigurationError

# uvicorn would fall back to h11, which lets ambiguous requests pass: without httptools this import fails.
from app.http_protocol import GatewayProtocol
from app.keys import arguments as keys_arguments
from app.keys import commands as keys_commands
from app.metrics.directory import directory_for
from app.settings import Settings
from app.web_socket_protocol import MOST_FRAME_BYTES, GatewayWebSocket

log = structlog.get_logger("gateway")

#: Time for running requests to end after SIGTERM; open streams are cut then.
SHUTDOWN_SECONDS = 20
IDLE_SECONDS = 5
#: Exit code for a configuration at fault, so that a supervisor need not try again.
CONFIGURATION_ERROR = 2


def main(arguments: Sequence[str]) -> int:
    """Run a command; 2 means that the configuration is at fault."""
    parser = build_parser()
    given = parser.parse_args(arguments)
    if given.command == "keys":
        return keys_commands.run(given)
    if given.command == "completion":
        sys.stdout.write(script_for(given.shell, parser))
        return 0
    try:
        found = configuration.load()
    except ConfigurationError as error:
        for fault in str(error).splitlines():
            sys.stderr.write(f"❌ {fault}\n")
        sys.stderr.write("💡 env_sample lists every setting.\n")
        return CONFIGURATION_ERROR
    if given.command == "check-config":
        show(found)
    else:
        with directory_for(found.settings.workers):
            serve(found.settings)
    return 0


def build_parser() -> argparse.ArgumentParser:
    """Declare the commands."""
    parser = argparse.ArgumentParser(prog="python -m app", description="ThingsBoard gateway")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("serve", help="serve the API (HOST, PORT, WORKERS and more from the environment)")
    commands.add_parser(
        "check-config", help="say what is wrong with the configuration, or what it would serve"
    )
    keys_arguments.add_to(commands)
    completion = commands.add_parser("completion", help="print a script that completes commands in a shell")
    completion.add_argument("shell", choices=["bash", "zsh"])
    return parser


def show(found: configuration.Configuration) -> None:
    """Say what would be served."""
    sys.stdout.write("✅ Nothing is wrong with the configuration. It serves:\n")
    sys.stdout.writelines(f"   {line}\n" for line in configuration.summary_of(found))
    sys.stdout.write("💡 Nothing was called. Whether ThingsBoard answers: python tb_connection_check.py\n")


def serve(loaded: Settings) -> None:
    """Serve until SIGTERM or Ctrl-C; running requests get `SHUTDOWN_SECONDS` to end."""
    logs.configure("DEBUG" if loaded.debug else "INFO", loaded.log_format)
    log.info(
        "gateway_starting",
        address=configuration.address_of(loaded),
        workers=loaded.workers,
        version=loaded.version,
    )
    uvicorn.run(
        "app.asgi:app",
        host=loaded.host,
        port=loaded.port,
        workers=loaded.workers,
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
