"""What the requirements files pin for this machine."""

from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import NormalizedName, canonicalize_name

REQUIREMENTS = Path(__file__).resolve().parent.parent / "requirements"


def pinned(*names: str) -> dict[NormalizedName, str]:
    """Return version by normalised name; what is for other systems is left out."""
    return {
        canonicalize_name(requirement.name): next(iter(requirement.specifier)).version
        for name in names
        for requirement in _requirements(REQUIREMENTS / name)
        if requirement.marker is None or requirement.marker.evaluate()
    }


def _requirements(path: Path) -> Iterator[Requirement]:
    for line in path.read_text("utf-8").splitlines():
        # Hashes and remarks are indented.
        if line and line[0].isalnum():
            yield Requirement(line.removesuffix("\\"))
