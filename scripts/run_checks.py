"""Runs the checks and says which failed. `scripts/test` and `scripts/lint` make `.venv` and start this.

With `CI` in the environment nothing may be skipped.
"""

import os
import subprocess
import sys
import time
from collections.abc import Sequence

LINT = {
    "ruff format": ("ruff", "format", "--check", "--quiet", "."),
    "ruff check": ("ruff", "check", "--quiet", "."),
    "mypy": ("mypy", "--no-error-summary"),
}
FIX = {
    "ruff check --fix": ("ruff", "check", "--fix", "--quiet", "."),
    "ruff format": ("ruff", "format", "--quiet", "."),
}
COVERAGE = ("--cov", "--cov-branch", "--cov-report=term:skip-covered")
#: Two processes, as many as the smallest machine has cores; a file stays in one, for its fixtures.
PARALLEL = ("-n", "2", "--dist", "loadfile")


def main() -> int:
    """Run every check, also after one has failed."""
    kind, *arguments = sys.argv[1:]
    steps: dict[str, Sequence[str]] = dict(LINT)
    if kind == "lint" and arguments == ["--fix"]:
        steps = FIX | steps
    if kind == "test":
        steps["pytest"] = pytest_command(arguments)
    failed = [name for name, command in steps.items() if not passes(name, command)]
    if failed:
        say(f"❌ Failed: {', '.join(failed)}")
        return 1
    say("✅ All checks passed")
    return 0


def pytest_command(arguments: Sequence[str]) -> Sequence[str]:
    """Return the whole suite with coverage, or what the arguments choose."""
    strict = ("-p", "tests.no_skips", "-m", "not live") if os.environ.get("CI") else ()
    return ("pytest", "-q", "-r", "fEs", *strict, *(arguments or (*PARALLEL, *COVERAGE)))


def passes(name: str, command: Sequence[str]) -> bool:
    """Run one check."""
    say(f"▶ {name}")
    started = time.monotonic()
    code = subprocess.run([sys.executable, "-m", *command], check=False).returncode  # noqa: S603 - our own
    say(f"{'✔' if code == 0 else '✘'} {name} ({time.monotonic() - started:.0f} s)")
    return code == 0


def say(text: str) -> None:
    """Print at once, also into a pipe."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
