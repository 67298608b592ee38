"""Writes the bill of materials (SBOM) of the gateway: what the image holds of others, as CycloneDX.

It is read from the packages installed in `.venv`, with the versions and licences that they state themselves,
and names those of them that `requirements/runtime.txt` pins. The same pins give the same file.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name

from scripts.pins import pinned

ROOT = Path(__file__).resolve().parent.parent
RUNTIME = "runtime.txt"


class NotInstalledError(Exception):
    """`.venv` is not what the requirements pin."""


def bill_of_materials(*requirements: str) -> dict[str, Any]:
    """Return the CycloneDX document of what these requirements files pin.

    Raises:
        NotInstalledError: a pinned package is missing here, or has another version.
    """
    found = _installed()
    wanted = pinned(*requirements)
    components = {
        canonicalize_name(each["name"]): each
        for each in found["components"]
        if canonicalize_name(each["name"]) in wanted
    }
    differing = [
        f"{name} {version}"
        for name, version in wanted.items()
        if name not in components or components[name]["version"] != version
    ]
    if differing:
        raise NotInstalledError(f"not installed as pinned: {', '.join(differing)}")
    names = {each["bom-ref"] for each in components.values()}
    names.add(found["metadata"]["component"]["bom-ref"])
    found["components"] = [components[name] for name in sorted(components)]
    found["dependencies"] = [_within(names, each) for each in found["dependencies"] if each["ref"] in names]
    return found


def _installed() -> dict[str, Any]:
    command = [
        *(sys.executable, "-m", "cyclonedx_py", "environment", sys.executable),
        *("--pyproject", str(ROOT / "pyproject.toml")),
        # Validated by a test: that takes 15 s here.
        *("--output-reproducible", "--no-validate"),
    ]
    result = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603 - our own
    document: dict[str, Any] = json.loads(result.stdout)
    return document


def _within(names: set[str], dependency: dict[str, Any]) -> dict[str, Any]:
    needed = [name for name in dependency.get("dependsOn", ()) if name in names]
    return {"ref": dependency["ref"]} | ({"dependsOn": needed} if needed else {})


def main() -> int:
    """Write the file."""
    parser = argparse.ArgumentParser(prog="scripts/sbom", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("file", nargs="?", type=Path, default=Path("sbom.cdx.json"))
    path: Path = parser.parse_args().file
    try:
        document = bill_of_materials(RUNTIME)
    except NotInstalledError as error:
        sys.stderr.write(f"❌ {error}\n")
        return 1
    path.write_text(json.dumps(document, indent=2, sort_keys=True) + "\n", "utf-8")
    sys.stdout.write(f"📦 {path}: {len(document['components'])} packages\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
