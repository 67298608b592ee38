"""The plugin that reads the output of all tests finds what it looks for."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.documented import PATH
from tests.no_secrets import leaks_in

ROOT = Path(__file__).resolve().parent.parent
KEY = "tbg_" + "a1b2c3_" + "0123456789abcdefghijklmn"
JWT = "eyJ" + "hbGciOiJIUzUxMiJ9.eyJ" + "zdWIiOiJ0ZW5hbnQifQ.abc"


@pytest.mark.parametrize("secret", [KEY, JWT])
def test_a_secret_in_the_output_fails_the_run(tmp_path: Path, secret: str) -> None:
    file = tmp_path / "test_leak.py"
    file.write_text(f"def test_it():\n    print('the key is {secret[:12]}' + '{secret[12:]}')\n")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "tests.no_secrets", "-c", "/dev/null", str(file)],
        cwd=ROOT,
        # Other plugins take seconds to load.
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stdout
    assert "A SECRET in the output of" in done.stdout
    assert secret not in done.stdout


def test_no_secret_is_in_the_document() -> None:
    assert leaks_in(PATH.read_text()) == []
