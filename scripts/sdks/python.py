"""The Python SDK, by openapi-python-client; templates here add a class a resource."""

import json
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from scripts.sdks import document as documents
from scripts.sdks.language import SOURCES, Language, Trial, run

HERE = SOURCES / "python"
PACKAGE = "thingsboard_gateway_client"


def generate(target: Path) -> None:
    """Write the package."""
    document = documents.load()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        templates = shutil.copytree(HERE / "templates", folder / "templates")
        names = json.dumps(documents.method_names(document))
        (templates / "method_names.jinja").write_text(f"{{% set METHOD_NAMES = {names} %}}", "utf-8")
        command = (_program("openapi-python-client"), "generate", "--path", documents.write(document, folder))
        options = ("--config", HERE / "config.yaml", "--custom-template-path", templates, "--fail-on-warning")
        run([*command, *options, "--output-path", target, "--overwrite"], folder)
    shutil.copy(HERE / "gateway.py", target / PACKAGE)
    shutil.copy(HERE / "README.md", target)
    # Ours alone: the generator's own style is no matter of its users.
    run([_program("ruff"), "format", "--quiet", "--isolated", "--line-length=110", target], target)


def operations(package: Path) -> set[str]:
    """Return what has a module."""
    return {file.stem for file in package.glob(f"{PACKAGE}/api/*/*.py")} - {"__init__"}


def prepare(package: Path, folder: Path) -> Sequence[str]:
    """Build wheel and sdist, install the wheel into a virtual environment of its own, and check types."""
    uv = _program("uv")
    run([uv, "build", "--quiet", "--out-dir", folder / "dist"], package)
    wheel = next((folder / "dist").glob("*.whl"))
    python = folder / "venv" / "bin" / "python"
    run([uv, "venv", "--quiet", "--python", sys.executable, folder / "venv"], folder)
    run([uv, "pip", "install", "--quiet", "--python", python, wheel], folder)
    shutil.copy(HERE / "scenario.py", folder)
    run([_program("mypy"), "--python-executable", python, "-p", PACKAGE, "-m", "scenario"], folder)
    return (str(python), "scenario.py")


def sample(folder: Path, code: str) -> Sequence[str]:
    """Return the command that runs some code where `prepare` has installed the package."""
    (folder / "sample.py").write_text(code, "utf-8")
    return (str(folder / "venv" / "bin" / "python"), "sample.py")


def _program(name: str) -> Path:
    return Path(sys.executable).with_name(name)


LANGUAGE = Language(
    name="python",
    title="Python",
    tools=(),
    generate=generate,
    operations=operations,
    trial=Trial(tools=(), prepare=prepare, sample=sample),
)
