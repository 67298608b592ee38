"""The OpenAPI generator: one jar of Maven Central, pinned by its digest."""

import fcntl
import hashlib
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from scripts.sdks import document as documents
from scripts.sdks.language import SOURCES, StepFailed, run

VERSION = "7.25.0"
SHA256 = "41ce4f6b07f196676439d710759fa1ced7a08066d06ff1bf314681470289efae"
ARTIFACT = f"org.openapitools:openapi-generator-cli:{VERSION}"
DEPENDENCY_PLUGIN = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1"
#: For a Java that runs for seconds: better compilation would cost more than it gains, half of the time here.
BRIEF = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")
CACHE = SOURCES.parent.parent / "sdks" / ".generator"

HARMLESS = (
    "OpenAPI 3.1 support is still in beta",
    # Said once for `additionalProperties: true` of a model; the model is generated with it.
    "Failed to get the schema name: null",
)


def generate(
    generator: str,
    document: dict[str, Any],
    target: Path,
    options: Sequence[str],
    properties: Mapping[str, str],
    *,
    style: Callable[[str], str] = documents.camel_case,
) -> None:
    """Generate a package, its methods named by their resource and written in this style.

    Raises:
        StepFailed: also when the generator only warns: it leaves out what it warns of.
    """
    for operation in documents.operations(document).values():
        # Otherwise it is called by its schema, `EntityCreate`, or `request_body`.
        operation["x-codegen-request-body-name"] = "body"
    names = ",".join(f"{name}={style(method)}" for name, method in documents.method_names(document).items())
    with tempfile.TemporaryDirectory() as folder:
        output = run(
            [
                *("java", *BRIEF, "-jar", jar(), "generate", "--generator-name", generator),
                *("--input-spec", documents.write(document, Path(folder)), "--output", target),
                *("--operation-id-name-mappings", names),
                *("--additional-properties", ",".join(f"{key}={value}" for key, value in properties.items())),
                *options,
            ],
            target,
        )
    warnings = [
        line
        for line in output.splitlines()
        if (" WARN " in line or " ERROR " in line) and not any(text in line for text in HARMLESS)
    ]
    if warnings:
        raise StepFailed("The OpenAPI generator warns:\n" + "\n".join(warnings))


def jar() -> Path:
    """Return the generator, fetched by the machine's own Maven when it is not there yet."""
    target = CACHE / f"openapi-generator-cli-{VERSION}.jar"
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        # Two SDKs may be generated at once.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.exists():
            arguments = (f"-Dartifact={ARTIFACT}", f"-DoutputDirectory={CACHE}", "-Dmdep.useBaseVersion=true")
            maven(CACHE, f"{DEPENDENCY_PLUGIN}:copy", *arguments)
        if hashlib.sha256(target.read_bytes()).hexdigest() != SHA256:
            target.unlink()
            raise StepFailed(f"{ARTIFACT} is not the file that was pinned: its SHA-256 digest differs.")
    return target


def maven(folder: Path, *arguments: str) -> None:
    """Run goals of Maven."""
    options = " ".join((os.environ.get("MAVEN_OPTS", ""), *BRIEF))
    run(["mvn", "--batch-mode", "--quiet", *arguments], folder, {"MAVEN_OPTS": options})
