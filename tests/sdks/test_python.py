"""The Python SDK, built, installed and run."""

from pathlib import Path

import pytest

from scripts.sdks import python
from scripts.sdks.language import missing
from scripts.sdks.run_tests import check


@pytest.mark.timeout(300)
def test_the_python_sdk_passes_the_scenario(tmp_path: Path) -> None:
    trial = python.LANGUAGE.trial
    assert trial is not None
    if lacking := missing((*python.LANGUAGE.tools, *trial.tools)):
        pytest.skip(lacking)
    check(python.LANGUAGE, trial, tmp_path)
