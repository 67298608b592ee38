"""Runs mutmut as `[tool.mutmut]` says and prints the share of mutants killed, by module."""

import json
import subprocess
import sys
from pathlib import Path

MUTANTS = Path("mutants")
#: What mutmut notes of a mutant: a test failed, or it took too long; one that never ends has been noticed.
KILLED = {1, 3, -24, 24, 36, 152, 255}
ENOUGH = 85.0


def main() -> int:
    """Run and count; 1 means that fewer than enough were killed."""
    names = [f"{name.removesuffix('.*')}.*" for name in sys.argv[1:]]
    command = [sys.executable, "-m", "mutmut", "run", *names]
    subprocess.run(command, check=False)  # noqa: S603 - our own command
    killed = total = 0
    for path in sorted((MUTANTS / "app").rglob("*.meta")):
        codes = json.loads(path.read_text("utf-8"))["exit_code_by_key"].values()
        tried = [code for code in codes if code is not None]
        noticed = sum(code in KILLED for code in tried)
        if tried:
            say(path.relative_to(MUTANTS).with_suffix("").as_posix(), noticed, len(tried))
        killed, total = killed + noticed, total + len(tried)
    if not total:
        sys.stdout.write("❌ Nothing was tried\n")
        return 1
    say("all", killed, total)
    return int(100 * killed / total < ENOUGH)


def say(name: str, killed: int, total: int) -> None:
    """Print one line."""
    sys.stdout.write(f"{100 * killed / total:5.1f} %  {killed:4d} of {total:4d}  {name}\n")


if __name__ == "__main__":
    sys.exit(main())
