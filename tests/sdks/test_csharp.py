"""The C# SDK, as far as it can be checked without .NET."""

from pathlib import Path

import pytest

from scripts.sdks import csharp
from scripts.sdks import document as documents
from scripts.sdks.generate import generate
from scripts.sdks.language import missing


def test_the_csharp_sdk_has_every_operation_and_says_that_it_is_unverified(tmp_path: Path) -> None:
    if lacking := missing(csharp.LANGUAGE.tools):
        pytest.skip(lacking)
    package = tmp_path / "package"
    generate(csharp.LANGUAGE, package)
    assert set(documents.operations(documents.load())) == csharp.operations(package)
    assert "**Unverified.**" in (package / "README.md").read_text("utf-8")
    project = (package / csharp.SOURCE / f"{csharp.PACKAGE}.csproj").read_text("utf-8")
    assert f"<Version>{documents.version()}</Version>" in project
    # A value that came as text must not be read as a time.
    point = (package / csharp.SOURCE / "Model" / "Point.cs").read_text("utf-8")
    assert "public Object? Value { get; set; }" in point
    assert "Newtonsoft" not in project
