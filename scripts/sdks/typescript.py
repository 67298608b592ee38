"""The TypeScript SDK, by the OpenAPI generator's `typescript-fetch`."""

import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from scripts.sdks import document as documents
from scripts.sdks import openapi_generator
from scripts.sdks.language import JAVA, MAVEN, SOURCES, Language, StepFailed, Tool, Trial, run

HERE = SOURCES / "typescript"
PROPERTIES = {
    # Without a name there is no `src/`.
    "npmName": "thingsboard-gateway-client",
    "importFileExtension": ".js",
    "fileNaming": "kebab-case",
    # Names and values stay as they are in the API: nothing is renamed or converted.
    "modelPropertyNaming": "original",
    "paramNaming": "original",
    "withoutRuntimeChecks": "true",
    # Devices and alarms are listed by different parameters.
    "prefixParameterInterfaces": "true",
}
OPTIONS = ("--reserved-words-mappings", "delete=delete,export=export")
#: The generator writes a union of scalars well, and calls everything else `any`.
SCALARS = {"oneOf": [{"type": "boolean"}, {"type": "number"}, {"type": "string"}]}
#: What generated files say, and what they should: each has to be there once.
CHANGES = {
    "src/models/index.ts": {
        "export type PointValue = boolean | number | string;": "export type PointValue = "
        "boolean | number | bigint | string | null | PointValue[] | { [key: string]: PointValue };",
    },
    "src/runtime.ts": {
        "JSON.stringify(overriddenInit.body)": "stringifyJson(overriddenInit.body)",
        "await this.raw.json()": "parseJson(await this.raw.text())",
        "export const BASE": "import { parseJson, stringifyJson } from './json.js';\n\nexport const BASE",
    },
}


def generate(target: Path) -> None:
    """Write the package."""
    document = documents.with_value_schema(documents.load(), SCALARS)
    with tempfile.TemporaryDirectory() as name:
        generated = Path(name)
        openapi_generator.generate("typescript-fetch", document, generated, OPTIONS, PROPERTIES)
        shutil.copytree(generated / "src", target / "src", dirs_exist_ok=True)
    # They export all that there is under the same names; `gateway.ts` is the entry.
    (target / "src/index.ts").unlink()
    (target / "src/apis/index.ts").unlink()
    for file, changes in CHANGES.items():
        _change(target / file, changes)
    for source in ("gateway.ts", "json.ts"):
        shutil.copy(HERE / source, target / "src")
    for source in ("README.md", "package-lock.json", "tsconfig.json"):
        shutil.copy(HERE / source, target)
    package = json.loads((HERE / "package.json").read_text("utf-8"))
    (target / "package.json").write_text(json.dumps({**package, "version": documents.version()}, indent=2))


def _change(file: Path, changes: dict[str, str]) -> None:
    text = file.read_text("utf-8")
    for before, after in changes.items():
        if text.count(before) != 1:
            raise StepFailed(f"{file.name} of the OpenAPI generator no longer says {before!r} once.")
        text = text.replace(before, after)
    file.write_text(text, "utf-8")


def operations(package: Path) -> set[str]:
    """Return what has a method in the class of its resource."""
    document = documents.load()
    tags = {name: operation["tags"][0] for name, operation in documents.operations(document).items()}
    methods = {name: documents.camel_case(each) for name, each in documents.method_names(document).items()}
    sources = {tag: (package / f"src/apis/{tag}-api.ts").read_text("utf-8") for tag in set(tags.values())}
    return {name for name, tag in tags.items() if f"    async {methods[name]}(" in sources[tag]}


def prepare(package: Path, folder: Path) -> Sequence[str]:
    """Compile and pack it, install the tarball as its users would, and compile the scenario with it."""
    run(["npm", "ci", "--no-audit", "--no-fund"], package)
    run(["npm", "run", "build"], package)
    run(["npm", "pack", "--pack-destination", folder], package)
    (folder / "package.json").write_text('{"private": true, "type": "module"}')
    run(["npm", "install", "--no-audit", "--no-fund", "--prefer-offline", next(folder.glob("*.tgz"))], folder)
    # The compiler and Node's types are those of the package.
    shutil.copytree(package / "node_modules/@types", folder / "node_modules/@types", symlinks=True)
    shutil.copytree(package / "node_modules/undici-types", folder / "node_modules/undici-types")
    return _compiled(folder, "scenario.ts", (HERE / "scenario.ts").read_text("utf-8"))


def sample(folder: Path, code: str) -> Sequence[str]:
    """Return the command that runs some code where `prepare` has installed the package."""
    return _compiled(folder, "sample.ts", code)


def _compiled(folder: Path, name: str, code: str) -> Sequence[str]:
    (folder / name).write_text(code, "utf-8")
    compiler = folder.parent / "package/node_modules/.bin/tsc"
    options = ("--strict", "--noUncheckedIndexedAccess", "--target", "ES2022", "--module", "NodeNext")
    run([compiler, *options, "--types", "node", name], folder)
    return ("node", name.replace(".ts", ".js"))


LANGUAGE = Language(
    name="typescript",
    title="TypeScript",
    tools=(JAVA, MAVEN),
    generate=generate,
    operations=operations,
    trial=Trial(tools=(Tool("node", "nodejs"), Tool("npm", "npm")), prepare=prepare, sample=sample),
)
