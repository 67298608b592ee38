"""Makes `.venv` hold exactly what a requirements file pins, then becomes a module that runs in it.

It runs on the machine's own Python, so only the standard library is used here:

    python3 scripts/environment.py requirements/runtime.txt scripts.run_demo [arguments]
"""

import fcntl
import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import IO, NoReturn, cast

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = ROOT / "requirements"
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
#: Digests of the requirements files that the last installation satisfied, one a line.
MARKER = VENV / ".installed-requirements"
#: The larger set holds the smaller one, so whoever runs the tests need not install for the demo.
SATISFIES = {
    "runtime.txt": ("runtime.txt",),
    "smart-home.txt": ("smart-home.txt", "runtime.txt"),
    "sdks.txt": ("sdks.txt", "runtime.txt"),
    "docs.txt": ("docs.txt", "runtime.txt"),
    "dev.txt": ("dev.txt", "docs.txt", "sdks.txt", "smart-home.txt", "runtime.txt"),
}
PROGRESS_SECONDS = 10
TAIL_LINES = 20


class InstallationFailed(Exception):
    """A step failed; what it wrote has been shown."""


def main() -> NoReturn:
    """Prepare the environment, then become the module."""
    name, module, *arguments = sys.argv[1:]
    os.chdir(ROOT)
    try:
        # The directory is the lock: two scripts started at once must not install into each other.
        lock = os.open(REQUIREMENTS, os.O_RDONLY)
        fcntl.flock(lock, fcntl.LOCK_EX)
        prepare(Path(name).name)
        os.close(lock)
    except InstallationFailed as error:
        sys.exit(f"❌ {error}")
    become(module, arguments)


def become(module: str, arguments: Sequence[str]) -> NoReturn:
    """Keep the process id, so that signals to the script reach what it has become."""
    sys.stdout.flush()
    os.execv(PYTHON, [str(PYTHON), "-m", module, *arguments])  # noqa: S606 - no shell is wanted


def prepare(requirements: str) -> None:
    """Make or complete `.venv`; returns at once when nothing has changed since the last time."""
    if not is_usable():
        say(f"📦 Making .venv with Python {sys.version.split()[0]}")
        run([sys.executable, "-m", "venv", "--clear", str(VENV)], "making .venv")
    if digest(requirements) in installed():
        return
    say(f"📥 Installing requirements/{requirements} (only when it has changed)")
    MARKER.unlink(missing_ok=True)
    pip = [str(PYTHON), "-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check"]
    run([*pip, "--require-hashes", "-r", str(REQUIREMENTS / requirements)], "installing")
    MARKER.write_text("".join(f"{digest(name)}\n" for name in SATISFIES[requirements]), "ascii")


def is_usable() -> bool:
    """Tell whether `.venv` has a Python of this version and a pip: it may be half-made."""
    check = f"import sys, pip; sys.exit(sys.version_info[:2] != {tuple(sys.version_info[:2])})"
    try:
        probe = subprocess.run([PYTHON, "-c", check], check=False, capture_output=True)  # noqa: S603 - our own
    except OSError:
        return False
    return probe.returncode == 0


def digest(requirements: str) -> str:
    """Return what identifies the content of a requirements file."""
    return hashlib.sha256((REQUIREMENTS / requirements).read_bytes()).hexdigest()


def installed() -> Sequence[str]:
    """Return the digests of what is installed."""
    return MARKER.read_text("ascii").split() if MARKER.is_file() else ()


def run(command: Sequence[str], what: str) -> None:
    """Run one step with a sign of life now and then; a signal to this script ends the step, too."""
    received: list[int] = []

    def remember(number: int, _frame: FrameType | None) -> None:
        received.append(number)

    before = {
        number: signal.signal(number, remember) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    }
    started = last_sign = time.monotonic()
    # Its own session: Ctrl-C reaches only this script, which then ends the step and whatever that started.
    with subprocess.Popen(  # noqa: S603 - our own commands
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    ) as step:
        pipe = cast("IO[bytes]", step.stdout)
        os.set_blocking(pipe.fileno(), False)
        output = bytearray()
        while step.poll() is None and not received:
            output += pipe.read() or b""
            if time.monotonic() - last_sign >= PROGRESS_SECONDS:
                last_sign = time.monotonic()
                say(f"   … still {what} ({last_sign - started:.0f} s)")
            time.sleep(0.05)
        if received:
            os.killpg(step.pid, signal.SIGKILL)
        output += pipe.read() or b""
    for number, handler in before.items():
        signal.signal(number, handler)
    if received:
        sys.exit(128 + received[0])
    if step.returncode != 0:
        say("\n".join(output.decode(errors="replace").splitlines()[-TAIL_LINES:]))
        raise InstallationFailed(f"{what} failed: {' '.join(command)}")


def say(text: str) -> None:
    """Print at once, also into a pipe."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
