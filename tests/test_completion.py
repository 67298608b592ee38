"""`python -m app completion`: what it prints, in a real shell."""

import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from tests.processes import ROOT, program

#: What docs/deployment.md says.
EVAL = 'eval "$(cat ./completion)"'
#: What bash does at a press of the Tab key at the end of the words given.
TAB = """
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_LINE="$*"; COMP_POINT=${#COMP_LINE}
function=$(complete -p gateway | sed 's/.*-F \\([^ ]*\\) .*/\\1/')
"$function" gateway "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
echo "${COMPREPLY[@]}"
"""


@cache
def completion_for(shell: str) -> str:
    """Return what the command prints."""
    command = [sys.executable, "-m", "app", "completion", shell]
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout


def in_shell(shell: str, script: str, *words: str, folder: Path) -> str:
    """Run lines in a shell without anybody's settings, in another folder, and return what they print."""
    (folder / "completion").write_text(completion_for(shell))
    quiet = {"bash": ["--norc", "--noprofile"], "zsh": ["-f"]}[shell]
    done = subprocess.run(
        [program(shell), *quiet, "-c", script, shell, *words],
        cwd=folder,
        env={"PATH": os.environ["PATH"], "HOME": str(folder)},
        check=False,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        ("gateway ", "serve check-config keys completion"),
        ("gateway ch", "check-config"),
        ("gateway keys ", "create list show rotate disable enable verify"),
        ("gateway keys rotate ERP --o", "--overlap"),
        ("gateway keys list --file k", "keys.toml"),
        ("gateway completion ", "bash zsh"),
    ],
)
def test_bash_completes_commands_options_and_files(words: str, completed: str, tmp_path: Path) -> None:
    (tmp_path / "keys.toml").touch()
    told = in_shell("bash", f"{EVAL}\n{TAB}", *words.split(" "), folder=tmp_path)
    assert told.split() == completed.split()


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_the_short_name_runs_the_gateway_from_any_folder(shell: str, tmp_path: Path) -> None:
    start = "autoload -Uz compinit; compinit -D\n" if shell == "zsh" else ""
    registered = "echo $_comps[gateway]" if shell == "zsh" else "complete -p gateway"
    told = in_shell(shell, f"{start}{EVAL}\n{registered}\ngateway keys create --help", folder=tmp_path)
    assert "_shtab_gateway" in told.splitlines()[0]
    assert "--device-type" in told
