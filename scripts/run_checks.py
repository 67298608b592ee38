"""Runs the checks and says which failed. `scripts/test` and `scripts/lint` make `.venv` and start this.

With `CI` in the environment nothing may be skipped, and what is pinned is audited. Where that cannot be, it
counts neither as passed nor as failed, and the end says so.
"""

import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence

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
AUDIT = {"audit": ("scripts.vulnerabilities",)}
#: What a check ends with that could not be made, through no fault of ours.
NOT_MADE = 75
MARKS = {0: "✔", NOT_MADE: "⚠️ "}


def main() -> int:
    """Run every check, also after one has failed."""
    kind, *arguments = sys.argv[1:]
    steps: dict[str, Sequence[str]] = dict(LINT)
    if kind == "lint" and arguments == ["--fix"]:
        steps = FIX | steps
    if kind == "test":
        steps["pytest"] = pytest_command(arguments)
        if os.environ.get("CI") and not arguments:
            steps |= AUDIT
    codes = {name: run(name, command) for name, command in steps.items()}
    return verdict(codes)


def verdict(codes: Mapping[str, int]) -> int:
    """Say how the checks ended; return the exit code."""
    failed = [name for name, code in codes.items() if code not in {0, NOT_MADE}]
    not_made = [name for name, code in codes.items() if code == NOT_MADE]
    if not_made:
        say(f"⚠️  NOT CHECKED, neither passed nor failed: {', '.join(not_made)}")
    if failed:
        say(f"❌ Failed: {', '.join(failed)}")
        return 1
    say("✅ All other checks passed" if not_made else "✅ All checks passed")
    return 0


def pytest_command(arguments: Sequence[str]) -> Sequence[str]:
    """Return the whole suite with coverage, or what the arguments choose."""
    strict = ("-p", "tests.no_skips", "-m", "not live") if os.environ.get("CI") else ()
    return ("pytest", "-q", "-r", "fEs", *strict, *(arguments or (*PARALLEL, *COVERAGE)))


def run(name: str, command: Sequence[str]) -> int:
    """Run one check and return its exit code."""
    say(f"▶ {name}")
    started = time.monotonic()
    code = subprocess.run([sys.executable, "-m", *command], check=False).returncode  # noqa: S603 - our own
    say(f"{MARKS.get(code, '✘')} {name} ({time.monotonic() - started:.0f} s)")
    return code


def say(text: str) -> None:
    """Print at once, also into a pipe."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
