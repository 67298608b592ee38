"""The TypeScript SDK, compiled, packed, installed and run."""

from pathlib import Path

import pytest

from scripts.sdks import typescript
from scripts.sdks.language import missing
from scripts.sdks.run_tests import check


@pytest.mark.timeout(300)
def test_the_typescript_sdk_passes_the_scenario(tmp_path: Path) -> None:
    trial = typescript.LANGUAGE.trial
    assert trial is not None
    if lacking := missing((*typescript.LANGUAGE.tools, *trial.tools)):
        pytest.skip(lacking)
    check(typescript.LANGUAGE, trial, tmp_path)
