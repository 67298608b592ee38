"""What is shipped of others: all of it named, licensed as allowed, and without known vulnerabilities."""

import contextlib
import json
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from scripts import generate_licences, run_checks
from scripts.pins import pinned
from scripts.vulnerabilities import FOUND, NOT_AUDITED

ROOT = Path(__file__).resolve().parent.parent
HASH = f"--hash=sha256:{'0' * 64}"
REQUIREMENTS = f"harmless==1.0 {HASH}\nbroken==2.0 {HASH}\n"
VULNERABILITY = {
    "id": "GHSA-aaaa-bbbb-cccc",
    "aliases": ["CVE-2026-1"],
    "summary": "It breaks.",
    "affected": [
        {
            "package": {"name": "broken", "ecosystem": "PyPI"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "2.1"}]}],
        }
    ],
}
WAIVER = """
[[waivers]]
id = "{id}"
package = "{package}"
reason = "{reason}"
until = {until}
"""
GOOD = {
    "id": "CVE-2026-1",
    "package": "broken",
    "reason": "Nothing of what callers send gets there.",
    "until": "2999-12-31",
}


@pytest.fixture(scope="module")
def bill(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    path = tmp_path_factory.mktemp("sbom") / "sbom.json"
    command = [sys.executable, "-m", "scripts.bill_of_materials", path]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    document: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return document


def test_the_bill_of_materials_names_every_runtime_dependency_and_no_other(bill: dict[str, Any]) -> None:
    named = {
        each["name"].lower().replace("_", "-").replace(".", "-"): each["version"]
        for each in bill["components"]
    }
    assert named == pinned("runtime.txt")
    assert all(each["purl"].endswith(f"@{each['version']}") for each in bill["components"])
    assert bill["metadata"]["component"]["name"] == "thingsboard-gateway"


def test_the_bill_of_materials_tells_what_needs_what(bill: dict[str, Any]) -> None:
    names = {each["bom-ref"]: each["name"] for each in bill["components"]}
    needs = {each["ref"]: each.get("dependsOn", []) for each in bill["dependencies"]}
    root = bill["metadata"]["component"]["bom-ref"]
    assert needs.keys() == {root, *names}
    assert {names[each] for each in needs[root]} >= {"fastapi", "aiohttp", "uvicorn", "redis"}
    assert all(each in names for needed in needs.values() for each in needed)


def test_the_bill_of_materials_is_cyclonedx(bill: dict[str, Any]) -> None:
    from cyclonedx.schema import SchemaVersion  # noqa: PLC0415 - slow to import
    from cyclonedx.validation.json import JsonStrictValidator  # noqa: PLC0415

    validator = JsonStrictValidator(SchemaVersion.from_version(bill["specVersion"]))
    assert validator.validate_str(json.dumps(bill)) is None


def test_the_list_of_licences_is_fresh_and_all_are_allowed() -> None:
    assert generate_licences.DOCUMENT.read_text("utf-8") == generate_licences.page(), (
        "run scripts/generate_licences.py"
    )


@pytest.mark.parametrize(
    ("expression", "allowed"),
    [
        ("MIT", True),
        ("MPL-2.0 AND (Apache-2.0 OR MIT)", True),
        ("GPL-3.0-only OR MIT", True),
        ("GPL-3.0-only", False),
        ("MIT AND GPL-3.0-only", False),
        ("MIT OR", False),
        ("Our own", False),
        ("", False),
    ],
)
def test_a_licence_must_leave_one_allowed_way(expression: str, allowed: bool) -> None:
    assert generate_licences.is_allowed(expression) is allowed


@pytest.mark.parametrize(
    "licences",
    [
        [],
        [{"license": {"id": "AGPL-3.0-only"}}],
        [{"license": {"id": "MIT"}}, {"license": {"id": "AGPL-3.0-only"}}],
        [{"license": {"name": "Ask us"}}],
        [{"expression": "LicenseRef-Proprietary"}],
    ],
)
def test_an_unknown_licence_stops_the_list(licences: list[Any]) -> None:
    with pytest.raises(generate_licences.UnknownLicenceError, match="new"):
        generate_licences.render([{"name": "new", "licenses": licences}])


class Osv(BaseHTTPRequestHandler):
    """An OSV service that knows one vulnerability."""

    status, garbage = 200, False

    def do_POST(self) -> None:
        query = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        known = query["package"]["name"] == "broken"
        body = b"<html>" if self.garbage else json.dumps({"vulns": [VULNERABILITY]} if known else {}).encode()
        self.send_response(self.status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@contextlib.contextmanager
def osv(**answers: Any) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Stub", (Osv,), answers))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/v1/query"
    server.shutdown()
    thread.join()
    server.server_close()


Audit = Callable[..., tuple[int, str]]


@pytest.fixture
def audit(tmp_path: Path) -> Audit:
    def run(service: str, waivers: str = "", requirements: str = REQUIREMENTS) -> tuple[int, str]:
        (tmp_path / "waivers.toml").write_text(waivers)
        (tmp_path / "requirements.txt").write_text(requirements)
        command = [sys.executable, "-m", "scripts.vulnerabilities", "--service", service]
        command += ["--waivers", str(tmp_path / "waivers.toml"), str(tmp_path / "requirements.txt")]
        result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert result.stderr == ""
        return result.returncode, result.stdout

    return run


def test_without_findings_the_audit_passes(audit: Audit) -> None:
    with osv() as service:
        code, said = audit(service, requirements=f"harmless==1.0 {HASH}\n")
    assert (code, said) == (0, "✅ No known vulnerability in 1 packages, 0 waived\n")


def test_a_finding_fails_the_audit_and_says_what_to_do(audit: Audit) -> None:
    with osv() as service:
        code, said = audit(service)
    assert (code, said) == (FOUND, "❌ broken 2.0: CVE-2026-1, GHSA-aaaa-bbbb-cccc, fixed in 2.1\n")


def test_a_waived_finding_passes(audit: Audit) -> None:
    with osv() as service:
        code, said = audit(service, WAIVER.format(**GOOD))
    assert (code, said) == (0, "✅ No known vulnerability in 2 packages, 1 waived\n")


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"until": "2026-01-01"}, "waiver of CVE-2026-1 (broken): expired on 2026-01-01"),
        ({"package": "harmless"}, "waiver of CVE-2026-1 (harmless): waives nothing, remove it"),
        ({"reason": "because"}, "waivers.0.reason: String should have at least 20 characters"),
        ({"until": '"soon"'}, "waivers.0.until: Input should be a valid date"),
    ],
)
def test_a_waiver_at_fault_fails_the_audit(audit: Audit, changed: dict[str, str], told: str) -> None:
    with osv() as service:
        code, said = audit(service, WAIVER.format(**GOOD | changed))
    assert code == FOUND
    assert told in said


@pytest.mark.parametrize("answers", [{"status": 503}, {"status": 403}, {"garbage": True}], ids=str)
def test_a_service_that_does_not_answer_as_one_is_no_verdict(audit: Audit, answers: dict[str, Any]) -> None:
    with osv(**answers) as service:
        code, said = audit(service)
    assert code == NOT_AUDITED
    assert "NOT AUDITED" in said


def test_no_service_is_no_verdict_but_an_expired_waiver_is(audit: Audit) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{bound.getsockname()[1]}/"
        code, said = audit(nobody)
        assert (code, said.startswith("⚠️  NOT AUDITED: ")) == (NOT_AUDITED, True)
        code, said = audit(nobody, WAIVER.format(**GOOD | {"until": "2026-01-01"}))
        assert (code, "expired" in said) == (FOUND, True)


def test_an_audit_that_breaks_while_the_service_answers_fails(audit: Audit) -> None:
    with osv() as service:
        code, said = audit(service, requirements="harmless\n")
    assert code == FOUND
    assert "pip-audit ended with" in said


def test_the_gate_says_loudly_what_it_could_not_check(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_checks.NOT_MADE == NOT_AUDITED
    assert run_checks.verdict({"pytest": 0, "audit": NOT_AUDITED}) == 0
    said = capsys.readouterr().out
    assert "NOT CHECKED, neither passed nor failed: audit" in said
    assert "All checks passed" not in said
    assert run_checks.verdict({"pytest": 1, "audit": NOT_AUDITED}) == 1
    assert run_checks.verdict({"pytest": 0, "audit": FOUND}) == 1
    assert run_checks.verdict({"pytest": 0, "audit": 0}) == 0


def test_tools_for_development_are_not_shipped() -> None:
    shipped = pinned("runtime.txt").keys()
    assert not shipped & {
        "pip-audit",
        "cyclonedx-bom",
        "helm-python-sdk",
        "kubernetes-validate",
        "pytest",
        "ruff",
    }
    assert shipped < pinned("dev.txt").keys()
