"""``python -m examples.smart_home serve`` and ``migrate``."""

import argparse
import asyncio
import sys

import structlog
import uvicorn

from examples.smart_home import settings
from examples.smart_home.database import Database
from examples.smart_home.errors import ConfigurationError
from examples.smart_home.factory import create_app

CONFIGURATION_ERROR = 2
SHUTDOWN_SECONDS = 5
#: A browser sends one small frame.
LARGEST_FRAME = 16 * 1024


def main() -> int:
    """Run a command; 2 means that the configuration is at fault."""
    parser = argparse.ArgumentParser(prog="python -m examples.smart_home", description="Smart Home")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("serve", help="bring the database up to date, then serve")
    commands.add_parser("migrate", help="only bring the database up to date")
    command = parser.parse_args().command
    try:
        loaded = settings.load()
    except ConfigurationError as error:
        for fault in str(error).splitlines():
            sys.stderr.write(f"❌ {fault}\n")
        return CONFIGURATION_ERROR
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.processors.JSONRenderer(),
        ]
    )
    if command == "migrate":
        asyncio.run(migrate(loaded))
    else:
        serve(loaded)
    return 0


async def migrate(loaded: settings.Settings) -> None:
    """Bring the database up to date."""
    database = Database(loaded.database_url.get_secret_value())
    try:
        await database.upgrade()
    finally:
        await database.aclose()


def serve(loaded: settings.Settings) -> None:
    """Serve until SIGTERM or Ctrl-C, in one process: each would need a link to the gateway of its own."""
    uvicorn.run(
        create_app(loaded),
        host=loaded.host,
        port=loaded.port,
        proxy_headers=bool(loaded.trusted_proxies),
        forwarded_allow_ips=loaded.trusted_proxies,
        server_header=False,
        access_log=False,
        log_level="warning",
        ws="websockets-sansio",
        ws_max_size=LARGEST_FRAME,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
    )


if __name__ == "__main__":
    sys.exit(main())
