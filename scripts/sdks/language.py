"""What is known of an SDK's language, and how its tools are run."""

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

#: Hand-written layers, READMEs and scenarios, a folder a language.
SOURCES = Path(__file__).resolve().parent
TAIL_LINES = 40


class StepFailed(Exception):
    """A tool is missing or has failed; the message says which and how."""


@dataclass(frozen=True)
class Tool:
    """A program that has to be on the PATH, and the Debian package that brings it."""

    program: str
    package: str


JAVA = Tool("java", "openjdk-17-jdk-headless")
MAVEN = Tool("mvn", "maven")


@dataclass(frozen=True)
class Trial:
    """How an SDK is tried."""

    tools: tuple[Tool, ...]
    #: Compiles and installs the package beside the scenario into an empty folder; returns the command that
    #: runs the scenario there.
    prepare: Callable[[Path, Path], Sequence[str]]
    #: Returns the command that runs some code, the example of its README, in that folder.
    sample: Callable[[Path, str], Sequence[str]]


@dataclass(frozen=True)
class Language:
    """How one SDK is made and tried."""

    name: str
    title: str
    #: What `generate` needs.
    tools: tuple[Tool, ...]
    #: Writes the whole package, ready to publish, into an empty folder.
    generate: Callable[[Path], None]
    #: Tells which operations (by id) of the document a generated package has.
    operations: Callable[[Path], set[str]]
    #: None: nothing here can compile it.
    trial: Trial | None = None


def missing(tools: Sequence[Tool]) -> str:
    """Return what to install, or nothing when all is there."""
    absent = [tool for tool in tools if shutil.which(tool.program) is None]
    if not absent:
        return ""
    programs = ", ".join(tool.program for tool in absent)
    packages = " ".join(dict.fromkeys(tool.package for tool in absent))
    return f"{programs} not found; on Debian and Ubuntu: apt-get install {packages}"


def run(command: Sequence[str | Path], folder: Path, environment: Mapping[str, str] | None = None) -> str:
    """Run one step and return what it wrote.

    Raises:
        StepFailed: with the last lines it wrote.
    """
    done = subprocess.run(  # noqa: S603 - our own commands
        [str(part) for part in command],
        cwd=folder,
        env={**os.environ, **(environment or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    output = done.stdout.decode(errors="replace")
    if done.returncode != 0:
        tail = "\n".join(output.splitlines()[-TAIL_LINES:])
        raise StepFailed(f"{Path(command[0]).name} failed ({done.returncode}):\n{tail}")
    return output


def fence(page: str, language: str) -> str:
    """Return the code of the only fence of a language in a page of Markdown."""
    (code,) = re.findall(rf"^```{language}\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    return str(code)
