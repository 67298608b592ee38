"""Shell completion: a static script that also gives the commands a short name."""

import argparse
import shlex
import sys
from pathlib import Path

#: What the commands are called in the shell: completion goes by one word, which `python -m app` has not.
NAME = "gateway"
ROOT = Path(__file__).resolve().parent.parent


def script_for(shell: str, parser: argparse.ArgumentParser) -> str:
    """Return the script for `bash` or `zsh`, to be evaluated there.

    It defines the function `gateway`, which is `python -m app` of this Python in any folder; `.env` is that
    of the folder where it is called.
    """
    # Imported when asked for: a server needs none of it.
    import shtab  # noqa: PLC0415 - see above

    parser.prog = NAME
    run = f"PYTHONPATH={shlex.quote(str(ROOT))} {shlex.quote(sys.executable)} -m app"
    return f'{NAME}() {{ {run} "$@"; }}\n{shtab.complete(parser, shell)}\n'
