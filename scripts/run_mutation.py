"""Runs mutmut as `[tool.mutmut]` says and prints the share of mutants that tests notice, by module."""

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

MUTANTS = Path("mutants")
#: What mutmut notes of a mutant: a test failed, or it took too long; one that never ends has been noticed.
NOTICED = {1, 3, -24, 24, 36, 152, 255}
ENOUGH = 85.0


def main() -> int:
    """Run and count; 1 means that too few were noticed, or that some have not been tried yet."""
    names = [f"{name.removesuffix('.*')}.*" for name in sys.argv[1:]]
    with contextlib.suppress(KeyboardInterrupt):
        # It goes on where it was stopped; what is named is tried anew.
        if subprocess.run([sys.executable, "-m", "mutmut", "run", *names], check=False).returncode:  # noqa: S603 - our own command
            return 1
    noticed = total = left = 0
    for module, codes in results(names or ["*"]):
        tried = [code for code in codes if code is not None]
        left += len(codes) - len(tried)
        if tried:
            good = sum(code in NOTICED for code in tried)
            say(module, good, len(tried))
            noticed, total = noticed + good, total + len(tried)
    if not total:
        sys.stdout.write("❌ Nothing was tried\n")
        return 1
    say("all", noticed, total)
    if left:
        sys.stdout.write(f"❌ {left} have not been tried yet: run this again\n")
    return int(bool(left) or 100 * noticed / total < ENOUGH)


def results(names: list[str]) -> Iterator[tuple[str, list[int | None]]]:
    """Yield each module of these names with what mutmut has noted of its mutants; None: not tried yet."""
    for path in sorted((MUTANTS / "app").rglob("*.meta")):
        module = path.relative_to(MUTANTS).with_suffix("").as_posix()
        dotted = module.removesuffix(".py").replace("/", ".") + "."
        if any(fnmatchcase(dotted, name) for name in names):
            yield module, list(json.loads(path.read_text("utf-8"))["exit_code_by_key"].values())


def say(name: str, noticed: int, total: int) -> None:
    """Print one line."""
    sys.stdout.write(f"{100 * noticed / total:5.1f} %  {noticed:4d} of {total:4d}  {name}\n")


if __name__ == "__main__":
    sys.exit(main())
