"""The C# SDK, as far as it can be checked without .NET."""

import re
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
    models = package / csharp.SOURCE / "Model"
    for model in models.glob("*.cs"):
        source = model.read_text("utf-8")
        known = {"Object", "List", "Dictionary", "Option", *(each.stem for each in models.glob("*.cs"))}
        known |= set(re.findall(r"public enum (\w+)", source))
        assert set(re.findall(r"public ([A-Z]\w*)\??[ <].+\{ get", source)) <= known, model.name
    # A value that came as text must not be read as a time.
    point = (models / "Point.cs").read_text("utf-8")
    assert "public Object? Value { get; set; }" in point
    assert "Newtonsoft" not in project
