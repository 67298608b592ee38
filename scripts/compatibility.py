"""The compatibility gate: what would break callers of the last release fails (docs/versioning.md).

Only the standard library is used here; oasdiff, which compares, is built by Go, once a machine.
"""

import argparse
import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DOCUMENT = ROOT / "tb_api_sdk_openapi.json"
RELEASED = ROOT / "docs" / "openapi" / "released.json"
#: What oasdiff takes for harmless and our callers do not: unknown names in a request are a 422 here, and SDKs
#: are made from operation ids and tags.
LEVELS = ROOT / "scripts" / "oasdiff-levels.txt"

MODULE = "github.com/oasdiff/oasdiff"
#: Go checks it, and what it needs, against its checksum database.
VERSION = "v1.33.0"
#: Not optimised, and the compiler collects less garbage: 50 s of CPU instead of 74, and still quick to run.
BUILD = ("-ldflags=-s -w", "-gcflags=all=-N -l")
BUILD_ENVIRONMENT = {"CGO_ENABLED": "0", "GOGC": "400"}


class CannotCompare(Exception):
    """There is no verdict, for this reason."""


def main(arguments: Sequence[str]) -> int:
    """Compare; 0 means that every caller of the last release is still served, 1 that one is not."""
    parser = argparse.ArgumentParser(prog="scripts/check_compatibility", description=__doc__)
    parser.add_argument(
        "--release", action="store_true", help="make today's document the one of the last release"
    )
    given = parser.parse_args(arguments)
    if given.release:
        shutil.copyfile(DOCUMENT, RELEASED)
        print(f"✅ {RELEASED.relative_to(ROOT)} is the released document now: commit it with the release")
        return 0
    try:
        found = compare(RELEASED, DOCUMENT)
    except CannotCompare as error:
        sys.stderr.write(f"❌ {error}\n")
        return 2
    if found:
        print(found)
        print("❌ This would break callers of the last release (docs/versioning.md).")
        print("💡 Add beside the old instead, and declare the old deprecated.")
        return 1
    print(f"✅ {DOCUMENT.name} breaks nothing of {RELEASED.relative_to(ROOT)}")
    return 0


def compare(released: Path, document: Path) -> str:
    """Return what would break callers, or nothing."""
    command = [str(oasdiff()), "breaking", "--fail-on", "WARN", "--severity-levels", str(LEVELS)]
    # Nothing but the two files is read.
    command += ["--allow-external-refs=false", "--color", "never", "--format", "singleline"]
    done = subprocess.run(  # noqa: S603 - our own command
        [*command, str(released), str(document)], check=False, capture_output=True, text=True
    )
    if done.returncode == 0:
        return ""
    if done.returncode == 1:
        return done.stdout.strip()
    raise CannotCompare(f"oasdiff cannot compare them: {(done.stderr or done.stdout).strip()}")


def oasdiff() -> Path:
    """Return the program, built if this machine has none of this version yet."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "thingsboard-gateway"
    program = cache / f"oasdiff-{VERSION}"
    if program.exists():
        return program
    go = shutil.which("go")
    if go is None:
        raise CannotCompare("Go is needed to build oasdiff: install Go 1.26 or later (https://go.dev/dl/)")
    cache.mkdir(parents=True, exist_ok=True)
    # The directory is the lock: two runs at once build once. A name appears when the program is whole.
    lock = os.open(cache, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not program.exists():
            print(f"📦 Building oasdiff {VERSION} (once; about a minute)", flush=True)
            with tempfile.TemporaryDirectory(dir=cache) as folder:
                build(go, folder)
                (Path(folder) / "oasdiff").rename(program)
    finally:
        os.close(lock)
    return program


def build(go: str, folder: str) -> None:
    """Build the program in this folder."""
    done = subprocess.run(  # noqa: S603 - our own command
        [go, "install", *BUILD, f"{MODULE}@{VERSION}"],
        env=os.environ | BUILD_ENVIRONMENT | {"GOBIN": folder},
        check=False,
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        raise CannotCompare(f"Go could not build oasdiff {VERSION}:\n{done.stderr.strip()}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
