"""Generates SDKs into `sdks/`. `scripts/generate_sdks` makes `.venv` and starts this."""

import shutil
import sys
import time
from pathlib import Path

from scripts.run_demo import say
from scripts.sdks import document as documents
from scripts.sdks.language import SOURCES, Language, StepFailed, missing
from scripts.sdks.languages import LANGUAGES, chosen

ROOT = SOURCES.parent.parent
SDKS = ROOT / "sdks"


def main() -> int:
    """Generate what the arguments name."""
    try:
        for language in chosen(sys.argv[1:], LANGUAGES):
            started = time.monotonic()
            target = SDKS / language.name
            generate(language, target)
            seconds = time.monotonic() - started
            say(f"✅ {language.title} SDK in {target.relative_to(ROOT)}/ ({seconds:.1f} s)")
    except StepFailed as error:
        sys.stderr.write(f"❌ {error}\n")
        return 1
    return 0


def generate(language: Language, target: Path) -> None:
    """Write the package anew, so that nothing stays of what the document has no longer.

    Raises:
        StepFailed: when a tool is missing or has failed, or has left an operation out.
    """
    lacking = missing(language.tools)
    if lacking:
        raise StepFailed(f"{language.title}: {lacking}")
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    language.generate(target)
    left_out = set(documents.operations(documents.load())) - language.operations(target)
    if left_out:
        raise StepFailed(f"The {language.title} SDK lacks {', '.join(sorted(left_out))}.")


if __name__ == "__main__":
    sys.exit(main())
