"""The Java SDK, by the OpenAPI generator's `java` and templates of our own.

Its own templates of calls read answers in the machine's charset, which on Java 17 need not be UTF-8, and make
methods of up to ten positional arguments. Its models are used as they are.
"""

import html
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scripts.sdks import document as documents
from scripts.sdks import openapi_generator
from scripts.sdks.language import JAVA, MAVEN, SOURCES, Language, Tool, Trial, run

HERE = SOURCES / "java"
PACKAGE = Path("src/main/java/thingsboard/gateway")
ARTIFACT = "thingsboard-gateway-client"
#: Stands for the version of the API in hand-written files.
VERSION = "@VERSION@"
CLASS_PATH = ("--class-path", "jars/*:.")
PROPERTIES = {
    "invokerPackage": "thingsboard.gateway",
    "apiPackage": "thingsboard.gateway",
    "modelPackage": "thingsboard.gateway.model",
    "artifactId": ARTIFACT,
    "enumUnknownDefaultCase": "true",
    "openApiNullable": "false",
    "useJakartaEe": "true",
    "hideGenerationTimestamp": "true",
    "supportUrlQuery": "false",
}
OPTIONS = (
    *("--library", "native", "--template-dir", str(HERE / "templates")),
    *("--global-property", "apis,models,apiTests=false,modelTests=false,apiDocs=false,modelDocs=false"),
    # Its list of words that may not name a method holds `list`, which Java does not mind.
    *("--reserved-words-mappings", "list=list"),
    *("--global-property", "supportingFiles=ApiClient.java:ApiException.java"),
)


def generate(target: Path) -> None:
    """Write the package."""
    properties = {**PROPERTIES, "artifactVersion": documents.version()}
    openapi_generator.generate("java", overlaid(documents.load()), target, OPTIONS, properties)
    for name, folder in (("pom.xml", Path()), ("README.md", Path()), ("ThingsBoardGateway.java", PACKAGE)):
        text = (HERE / name).read_text("utf-8").replace(VERSION, documents.version())
        (target / folder / name).write_text(text, "utf-8")


def overlaid(document: dict[str, Any]) -> dict[str, Any]:
    """Return the document as this generator reads it rightly."""
    document = documents.with_single_types(documents.with_value_schema(document, {}))
    for name, operation in documents.operations(document).items():
        # One exception stands for every error.
        answers = operation["responses"].items()
        operation["responses"] = {status: answer for status, answer in answers if status.startswith("2")}
        for described in (operation, *operation["parameters"]):
            described["description"] = javadoc(described.get("description", ""))
        for body in operation.get("requestBody", {}).get("content", {}).values():
            body.pop("example", None)
            # Else a map is called `requestBody`.
            model = body["schema"]["$ref"].rpartition("/")[2]
            operation["x-codegen-request-body-name"] = model[0].lower() + model[1:]
        _add_all_pages(document, name, operation)
    return document


def javadoc(markdown: str) -> str:
    """Return a description as Javadoc has it: in one line, for the generator joins them."""
    text = html.escape(markdown.strip(), quote=False)
    text = re.sub(r"`([^`]+)`", lambda code: f"{{@code {html.unescape(code[1])}}}", text)
    return " ".join(text.replace("\n\n", " <p>").split())


def _add_all_pages(document: dict[str, Any], name: str, operation: dict[str, Any]) -> None:
    """Let the template write an iterator beside a list: `all()` beside `list()`."""
    if not any(each.get("name") == "page" for each in operation["parameters"]):
        return
    answer = operation["responses"]["200"]["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
    item = document["components"]["schemas"][answer]["properties"]["data"]["items"]["$ref"].rpartition("/")[2]
    words = documents.method_names(document)[name].split("_")[1:]
    operation["x-all"] = {"name": "all" + "".join(word.title() for word in words), "item": item}


def operations(package: Path) -> set[str]:
    """Return what the classes that the client hands out can do."""
    client = (package / PACKAGE / "ThingsBoardGateway.java").read_text("utf-8")
    names = re.findall(r"return new (\w+Api)\(client\)", client)
    sources = ((package / PACKAGE / f"{name}.java").read_text("utf-8") for name in names)
    return {each for source in sources for each in re.findall(r"\.call\(.+ // (\w+)\n", source)}


def prepare(package: Path, folder: Path) -> Sequence[str]:
    """Package the SDK, and compile the scenario against its jar and what that depends on."""
    jars = folder / "jars"
    copy = (f"{openapi_generator.DEPENDENCY_PLUGIN}:copy-dependencies", f"-DoutputDirectory={jars}")
    openapi_generator.maven(package, "package", *copy, "-DincludeScope=runtime")
    shutil.copy(package / "target" / f"{ARTIFACT}-{documents.version()}.jar", jars)
    shutil.copy(HERE / "Scenario.java", folder)
    run(["javac", "-encoding", "UTF-8", "-Xlint:all", "-Werror", *CLASS_PATH, "Scenario.java"], folder)
    # No text may depend on the charset of the machine.
    return ("java", "-Dfile.encoding=US-ASCII", *CLASS_PATH, "Scenario")


def sample(folder: Path, code: str) -> Sequence[str]:
    """Return the command that compiles and runs some code where `prepare` has put the jars."""
    (folder / "Sample.java").write_text(code, "utf-8")
    return ("java", *CLASS_PATH, "Sample.java")


LANGUAGE = Language(
    name="java",
    title="Java",
    tools=(JAVA, MAVEN),
    generate=generate,
    operations=operations,
    trial=Trial(tools=(Tool("javac", "openjdk-17-jdk-headless"),), prepare=prepare, sample=sample),
)
