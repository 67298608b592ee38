"""The C# SDK, by the OpenAPI generator's `csharp`. Nothing here can compile it, and its README says so."""

import re
import shutil
from pathlib import Path

from scripts.sdks import document as documents
from scripts.sdks import openapi_generator
from scripts.sdks.language import JAVA, MAVEN, SOURCES, Language

HERE = SOURCES / "csharp"
PACKAGE = "ThingsBoard.Gateway"
SOURCE = Path("src") / PACKAGE
#: Stands for the version of the API in hand-written files.
VERSION = "@VERSION@"
PROPERTIES = {"packageName": PACKAGE, "nullableReferenceTypes": "true"}
# Its JSON library leaves a value as it came; that of the others makes a time of text that looks like one.
OPTIONS = (
    *("--library", "generichost"),
    *("--global-property", "apis,models,supportingFiles"),
    *("--global-property", "apiTests=false,modelTests=false,apiDocs=false,modelDocs=false"),
)
#: For services that are none of ours, or a second copy.
UNUSED = ("appveyor.yml", "api", "docs", f"src/{PACKAGE}.Test", f"{PACKAGE}.sln", f"src/{PACKAGE}/README.md")


def generate(target: Path) -> None:
    """Write the package."""
    document = documents.with_single_types(documents.with_value_schema(documents.load(), {}))
    properties = {**PROPERTIES, "packageVersion": documents.version()}
    openapi_generator.generate("csharp", document, target, OPTIONS, properties, style=pascal_case)
    for name in UNUSED:
        unused = target / name
        if unused.is_dir():
            shutil.rmtree(unused)
        else:
            unused.unlink()
    for name, folder in ((f"{PACKAGE}.csproj", SOURCE), ("README.md", Path())):
        text = (HERE / name).read_text("utf-8").replace(VERSION, documents.version())
        (target / folder / name).write_text(text, "utf-8")


def pascal_case(name: str) -> str:
    """Return a name as C# writes its methods."""
    return "".join(word.capitalize() for word in name.split("_"))


def operations(package: Path) -> set[str]:
    """Return what has a method in the interface of its resource."""
    document = documents.load()
    found = set()
    for name, operation in documents.operations(document).items():
        method = pascal_case(documents.method_names(document)[name])
        source = (package / SOURCE / "Api" / f"{pascal_case(operation['tags'][0])}Api.cs").read_text("utf-8")
        if re.search(rf"^        Task<\w+> {method}Async\(", source, re.MULTILINE):
            found.add(name)
    return found


LANGUAGE = Language(
    name="csharp",
    title="C#",
    tools=(JAVA, MAVEN),
    generate=generate,
    operations=operations,
)
