"""`python -m app`: `serve`, the production entry, and what helps the operator."""

import argparse
import sys
from collections.abc import Sequence

from app import configuration
from app.completion import script_for
from app.errors import ConfigurationError
from app.keys import arguments as keys_arguments
from app.keys import commands as keys_commands
from app.metrics.directory import directory_for

#: Exit code for a configuration at fault, so that a service manager need not try again.
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
        return 0
    with directory_for(found.settings.workers):
        # After the directory is known, and only here: it takes a second to import.
        from app.serve import serve  # noqa: PLC0415

        return serve(found.settings)


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
