"""The Java SDK: every operation is there, and the scenario of all SDKs passes."""

from pathlib import Path

import pytest

from scripts.sdks import document as documents
from scripts.sdks import java
from scripts.sdks.language import missing
from scripts.sdks.run_tests import check


@pytest.mark.timeout(300)
def test_the_java_sdk_has_every_operation_and_passes_the_scenario(tmp_path: Path) -> None:
    """One test, for each of its steps needs the one before it."""
    trial = java.LANGUAGE.trial
    assert trial is not None
    if lacking := missing((*java.LANGUAGE.tools, *trial.tools)):
        pytest.skip(lacking)
    check(java.LANGUAGE, trial, tmp_path)
    package = tmp_path / "package"
    assert set(documents.operations(documents.load())) == java.operations(package)
    jars = {file.name for file in (package / "target").glob("*.jar")}
    name = f"{java.ARTIFACT}-{documents.version()}"
    assert {f"{name}.jar", f"{name}-sources.jar"} == jars


def test_a_description_becomes_javadoc() -> None:
    markdown = 'The `{"a":1}` of <all>\nkeys.\n\nNeeds `x<y`.'
    assert java.javadoc(markdown) == 'The {@code {"a":1}} of &lt;all&gt; keys. <p>Needs {@code x<y}.'
