"""The TypeScript SDK, by the OpenAPI generator's `typescript-fetch`."""

from pathlib import Path

from scripts.sdks import document as documents
from scripts.sdks import openapi_generator
from scripts.sdks.language import JAVA, MAVEN, Language

PROPERTIES = {
    "npmName": "thingsboard-gateway-client",
    "importFileExtension": ".js",
    "fileNaming": "kebab-case",
    # Values stay as they came: nothing is renamed or converted.
    "modelPropertyNaming": "original",
    "paramNaming": "original",
    "withoutRuntimeChecks": "true",
    # A list of devices and a list of alarms are asked for by different parameters.
    "prefixParameterInterfaces": "true",
}
OPTIONS = ("--reserved-words-mappings", "delete=delete,export=export")
VALUE = {"oneOf": [{"type": "boolean"}, {"type": "number"}, {"type": "string"}]}


def generate(target: Path) -> None:
    """Write the package."""
    document = documents.with_value_schema(documents.load(), VALUE)
    openapi_generator.generate("typescript-fetch", document, target, OPTIONS, PROPERTIES)


def operations(package: Path) -> set[str]:
    """Return what has a method in the class of its resource."""
    document = documents.load()
    tags = {name: operation["tags"][0] for name, operation in documents.operations(document).items()}
    methods = {name: documents.camel_case(each) for name, each in documents.method_names(document).items()}
    sources = {tag: (package / f"src/apis/{tag}-api.ts").read_text("utf-8") for tag in set(tags.values())}
    return {name for name, tag in tags.items() if f"    async {methods[name]}(" in sources[tag]}


LANGUAGE = Language(
    name="typescript",
    title="TypeScript",
    tools=(JAVA, MAVEN),
    generate=generate,
    operations=operations,
)
