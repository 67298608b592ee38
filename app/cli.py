"""`python -m app serve`: the production entry."""

import argparse
import sys
from collections.abc import Sequence

import uvicorn

from app import api_keys, settings
from app.errors import ConfigurationError

#: Time for running requests to end after SIGTERM.
SHUTDOWN_SECONDS = 20
IDLE_SECONDS = 5


def main(arguments: Sequence[str]) -> int:
    """Run a command; 2 means that the configuration is at fault."""
    parser = argparse.ArgumentParser(prog="python -m app", description="ThingsBoard gateway")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("serve", help="serve the API (HOST, PORT, WORKERS and more from the environment)")
    parser.parse_args(arguments)
    try:
        loaded = settings.load()
        api_keys.load(loaded)
    except ConfigurationError as error:
        for fault in str(error).splitlines():
            sys.stderr.write(f"❌ {fault}\n")
        sys.stderr.write("💡 env_sample lists every setting.\n")
        return 2
    serve(loaded)
    return 0


def serve(loaded: settings.Settings) -> None:
    """Serve until SIGTERM or Ctrl-C."""
    uvicorn.run(
        "app.asgi:app",
        host=loaded.host,
        port=loaded.port,
        workers=loaded.workers,
        loop="uvloop",
        http="httptools",
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
