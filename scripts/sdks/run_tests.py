"""Generates, compiles, installs and runs SDKs. `scripts/test_sdks` makes `.venv` and starts this."""

import contextlib
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from scripts.run_demo import say
from scripts.sdks import gateway
from scripts.sdks.generate import generate
from scripts.sdks.language import Language, StepFailed, Trial, fence, missing, run
from scripts.sdks.languages import LANGUAGES, chosen

#: What a scenario prints, `✅ <step>`, in this order; `docs/sdks.md` says what each checks.
STEPS = (
    "list devices",
    "upload",
    "read back",
    "history",
    "export",
    "bulk",
    "not found",
    "conflict",
    "rate limit",
    "command answered",
    "device offline",
    "live events",
)
DONE = "✅ "
#: Of the gateway, in examples.
WRITTEN_ADDRESS = "http://127.0.0.1:8000"
TRIED = {language: language.trial for language in LANGUAGES if language.trial is not None}


def main() -> int:
    """Try what the arguments name; one failure does not keep the others from their turn."""
    failed = []
    try:
        languages = chosen(sys.argv[1:], tuple(TRIED))
    except StepFailed as error:
        sys.stderr.write(f"❌ {error}\n")
        return 2
    for language in languages:
        started = time.monotonic()
        try:
            with tempfile.TemporaryDirectory(prefix="gateway-sdk-") as folder:
                say(check(language, TRIED[language], Path(folder)))
            say(f"✅ {language.title} ({time.monotonic() - started:.0f} s)\n")
        except StepFailed as error:
            failed.append(language.title)
            say(f"❌ {language.title} ({time.monotonic() - started:.0f} s): {error}\n")
    if failed:
        say(f"❌ Failed: {', '.join(failed)}")
        return 1
    return 0


def check(language: Language, trial: Trial, folder: Path) -> str:
    """Return what the scenario printed.

    Raises:
        StepFailed: when a tool is missing, something does not compile, or a step fails or is left out.
    """
    lacking = missing((*language.tools, *trial.tools))
    if lacking:
        raise StepFailed(lacking)
    package, work = folder / "package", folder / "work"
    work.mkdir()
    with _timed(f"{language.title}: generate"):
        generate(language, package)
    with _timed(f"{language.title}: compile and install"):
        command = trial.prepare(package, work)
    with _timed(f"{language.title}: scenario and example"), gateway.running() as environment:
        output = run(command, work, environment)
        readme = (package / "README.md").read_text("utf-8")
        code = fence(readme, language.name).replace(WRITTEN_ADDRESS, environment["GATEWAY_URL"])
        run(trial.sample(work, code), work, environment)
    told = tuple(line.removeprefix(DONE) for line in output.splitlines() if line.startswith(DONE))
    if told != STEPS:
        raise StepFailed(f"the scenario must tell the steps {', '.join(STEPS)}, but told:\n{output}")
    return output


@contextlib.contextmanager
def _timed(what: str) -> Iterator[None]:
    started = time.monotonic()
    yield
    say(f"⏱️  {what} ({time.monotonic() - started:.1f} s)")


if __name__ == "__main__":
    sys.exit(main())
