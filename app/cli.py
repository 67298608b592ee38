"""`python -m app serve`, the production entry, and `python -m app keys`."""

import argparse
import ssl
import sys
from collections.abc import Sequence

import structlog
import uvicorn

from app import logs, settings, upstream_file
from app.errors import ConfigurationError

# uvicorn would fall back to h11, which lets ambiguous requests pass: without httptools this import fails.
from app.http_protocol import GatewayProtocol
from app.keys import arguments as keys_arguments
from app.keys import commands as keys_commands
from app.keys import store
from app.web_socket_protocol import MOST_FRAME_BYTES, GatewayWebSocket

log = structlog.get_logger("gateway")

#: Time for running requests to end after SIGTERM; open streams are cut then.
SHUTDOWN_SECONDS = 20
IDLE_SECONDS = 5
#: Exit code for a configuration at fault, so that a supervisor need not try again.
CONFIGURATION_ERROR = 2


def main(arguments: Sequence[str]) -> int:
    """Run a command; 2 means that the configuration is at fault."""
    parser = argparse.ArgumentParser(prog="python -m app", description="ThingsBoard gateway")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("serve", help="serve the API (HOST, PORT, WORKERS and more from the environment)")
    keys_arguments.add_to(commands)
    given = parser.parse_args(arguments)
    if given.command == "keys":
        return keys_commands.run(given)
    try:
        loaded = settings.load()
        store.load(loaded, frozenset(upstream_file.load(loaded)))
        check_certificate(loaded)
    except ConfigurationError as error:
        for fault in str(error).splitlines():
            sys.stderr.write(f"❌ {fault}\n")
        sys.stderr.write("💡 env_sample lists every setting.\n")
        return CONFIGURATION_ERROR
    serve(loaded)
    return 0


def check_certificate(loaded: settings.Settings) -> None:
    """Load the certificate once, so that a wrong path or key is told like every other fault."""
    if loaded.ssl_certfile is None:
        return
    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(
            loaded.ssl_certfile, loaded.ssl_keyfile
        )
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ConfigurationError(f"SSL_CERTFILE and SSL_KEYFILE: cannot be used ({reason})") from None


def serve(loaded: settings.Settings) -> None:
    """Serve until SIGTERM or Ctrl-C; running requests get `SHUTDOWN_SECONDS` to end."""
    logs.configure("DEBUG" if loaded.debug else "INFO", loaded.log_format)
    log.info("gateway_starting", address=address_of(loaded), workers=loaded.workers, version=loaded.version)
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


def address_of(loaded: settings.Settings) -> str:
    """Return the address it listens on, as a URL."""
    host = f"[{loaded.host}]" if ":" in loaded.host else loaded.host
    return f"{'https' if loaded.ssl_certfile else 'http'}://{host}:{loaded.port}"
