"""Asks OSV about known vulnerabilities of everything that the requirements files pin: `scripts/audit`.

Exit codes: 0 none but waived ones; 1 there are some, or a waiver is at fault; 75 not audited, because the
service could not be asked. That is neither good nor bad news, so whoever runs this must say it loudly.
"""

import argparse
import datetime as dt
import json
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from scripts.pins import REQUIREMENTS

SERVICE = "https://api.osv.dev/v1/query"
WAIVERS = REQUIREMENTS / "audit-waivers.toml"
#: The second is the system's own word for a failure that may pass (EX_TEMPFAIL).
FOUND, NOT_AUDITED = 1, 75
#: Waiting for one answer of the service.
PATIENCE_SECONDS = 15


class Waiver(BaseModel):
    """A finding that may pass until a day, that day included."""

    model_config = ConfigDict(extra="forbid", strict=True)

    id: str = Field(min_length=5)
    package: str = Field(min_length=1)
    reason: str = Field(min_length=20, description="Why it does not harm here.")
    until: dt.date


class Waivers(BaseModel):
    """The file of waivers."""

    model_config = ConfigDict(extra="forbid", strict=True)

    waivers: list[Waiver] = []


class NotAuditedError(Exception):
    """The service could not be asked."""


class AuditBrokenError(Exception):
    """The service is there, but the audit did not come to an end: a fault of ours."""


def main(arguments: Sequence[str]) -> int:
    """Audit and tell."""
    parser = argparse.ArgumentParser(prog="scripts/audit", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--service", default=SERVICE, help="an OSV service (%(default)s)")
    parser.add_argument("--waivers", type=Path, default=WAIVERS)
    parser.add_argument("requirements", nargs="*", type=Path, default=sorted(REQUIREMENTS.glob("*.txt")))
    given = parser.parse_args(arguments)
    today = dt.datetime.now(dt.UTC).date()
    try:
        waivers = read_waivers(given.waivers)
        faults = [
            f"waiver of {each.id} ({each.package}): expired on {each.until}"
            for each in waivers
            if each.until < today
        ]
        packages = audit(given.service, given.requirements)
    except (ValueError, AuditBrokenError) as error:
        return tell(FOUND, f"❌ {error}")
    except NotAuditedError as error:
        if faults:
            return tell(FOUND, *(f"❌ {fault}" for fault in faults))
        return tell(NOT_AUDITED, f"⚠️  NOT AUDITED: {error}. Nothing is known about vulnerabilities.")
    faults += findings(packages, [each for each in waivers if each.until >= today])
    if faults:
        return tell(FOUND, *(f"❌ {fault}" for fault in faults))
    return tell(0, f"✅ No known vulnerability in {len(packages)} packages, {len(waivers)} waived")


def tell(code: int, *lines: str) -> int:
    """Write the lines and return the exit code."""
    sys.stdout.write("\n".join(lines) + "\n")
    return code


def read_waivers(path: Path) -> list[Waiver]:
    """Read the file.

    Raises:
        ValueError: naming every fault.
    """
    try:
        return Waivers.model_validate(tomllib.loads(path.read_text("utf-8"))).waivers
    except ValidationError as error:
        faults = [f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors()]
        raise ValueError(f"{path.name}: {'; '.join(faults)}") from None
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path.name}: {error}") from None


def audit(service: str, requirements: Sequence[Path]) -> list[dict[str, Any]]:
    """Return what pip-audit found out about each package.

    Raises:
        NotAuditedError: the service does not answer as such a service does, or knows nothing of a package.
        AuditBrokenError: it does, but pip-audit ended without a result.
    """
    command = [
        *(
            sys.executable,
            "-m",
            "pip_audit",
            "--disable-pip",
            "--format",
            "json",
            "--progress-spinner",
            "off",
        ),
        *("--vulnerability-service", "osv", "--osv-url", service, "--timeout", str(PATIENCE_SECONDS)),
        *(part for path in requirements for part in ("--requirement", str(path))),
    ]
    result = subprocess.run(command, check=False, capture_output=True, text=True)  # noqa: S603 - our own
    try:
        packages: list[dict[str, Any]] = json.loads(result.stdout)["dependencies"]
    except ValueError:
        ask(service)
        raise AuditBrokenError(f"pip-audit ended with {result.returncode}: {result.stderr[-2000:]}") from None
    # pip-audit calls a run clean of which every package was skipped.
    skipped = [each["name"] for each in packages if "skip_reason" in each]
    if skipped or not packages:
        raise NotAuditedError(f"skipped {', '.join(skipped) or 'everything'}")
    return packages


def ask(service: str) -> None:
    """Ask the service about one package.

    Raises:
        NotAuditedError: it does not answer as such a service does.
    """
    query = {"package": {"name": "pip", "ecosystem": "PyPI"}, "version": "26.0"}
    try:
        answer = httpx.post(service, json=query, timeout=PATIENCE_SECONDS)
        answer.raise_for_status()
        answer.json()
    except (httpx.HTTPError, ValueError) as error:
        raise NotAuditedError(f"{service} cannot be asked ({type(error).__name__})") from None


def findings(packages: list[dict[str, Any]], waivers: list[Waiver]) -> list[str]:
    """Return each vulnerability that nobody waived, and each waiver that waives nothing."""
    unused, faults = list(waivers), []
    for package in packages:
        for found in package["vulns"]:
            names = {found["id"], *found["aliases"]}
            waiving = [each for each in waivers if each.package == package["name"] and each.id in names]
            unused = [each for each in unused if each not in waiving]
            if not waiving:
                fixed = (
                    f"fixed in {', '.join(found['fix_versions'])}" if found["fix_versions"] else "no fix yet"
                )
                faults.append(f"{package['name']} {package['version']}: {', '.join(sorted(names))}, {fixed}")
    return faults + [f"waiver of {each.id} ({each.package}): waives nothing, remove it" for each in unused]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
