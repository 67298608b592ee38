"""The image and its compose file keep what the documentation promises."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.worker import SHUTDOWN_SECONDS
from tests.processes import ROOT, program

DOCKERFILE = (ROOT / "Dockerfile").read_text("utf-8")
HARDENED = ("gateway", "redis")


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))
    return content


def instructions(name: str) -> list[str]:
    joined = DOCKERFILE.replace("\\\n", " ")
    return re.findall(rf"^{name} +(.*)$", joined, re.MULTILINE)


def test_the_dockerfile_passes_hadolint() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    result = subprocess.run([hadolint, ROOT / "Dockerfile"], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (0, "")


def test_the_compose_file_is_understood(tmp_path: Path) -> None:
    shutil.copy(ROOT / "docker-compose.yml", tmp_path)
    shutil.copy(ROOT / "env_sample", tmp_path / ".env")
    command = [program("docker-compose"), "--profile", "thingsboard", "config"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert yaml.safe_load(result.stdout)["services"].keys() == {"gateway", "redis", "thingsboard", "postgres"}


def test_the_image_holds_only_the_application_and_its_dependencies() -> None:
    assert instructions("COPY") == [
        "requirements/runtime.txt requirements/parquet.txt requirements/tracing.txt /build/",
        "app /opt/gateway/app",
        "--from=build /opt/venv /opt/venv",
        "--from=build /opt/gateway /opt/gateway",
    ]
    ignored = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    rules = [line for line in ignored if line and not line.startswith("#")]
    assert rules == [
        "*",
        "!app",
        "!requirements/runtime.txt",
        "!requirements/parquet.txt",
        "!requirements/tracing.txt",
        "**/__pycache__",
    ]


def test_the_image_installs_only_what_is_pinned_and_hashed() -> None:
    (install,) = [command for command in instructions("RUN") if "pip" in command]
    assert "--require-hashes --only-binary :all:" in install


def test_every_base_image_is_the_same_pinned_tag() -> None:
    assert {image.split()[0] for image in instructions("FROM")} == {"python:3.11-slim-bookworm"}


def test_the_image_runs_as_a_number_that_is_not_root() -> None:
    (user,) = instructions("USER")
    assert re.fullmatch(r"[1-9]\d+:[1-9]\d+", user)


def test_the_commands_of_the_image_exist() -> None:
    commands = [json.loads(text) for text in re.findall(r"CMD (\[.*\])$", DOCKERFILE, re.MULTILINE)]
    assert commands == [["python", "-m", "app.healthcheck"], ["python", "-m", "app", "serve"]]
    assert (ROOT / "app" / "healthcheck.py").is_file()
    assert (ROOT / "app" / "__main__.py").is_file()


def test_the_health_check_needs_no_dependency() -> None:
    """It runs every few seconds: importing the application would cost more than serving."""
    code = "import sys, app.healthcheck; print(*sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert not {"fastapi", "pydantic", "uvicorn"} & set(result.stdout.split())


@pytest.mark.parametrize("name", HARDENED)
def test_a_service_of_ours_can_do_no_more_than_it_must(compose: dict[str, Any], name: str) -> None:
    service = compose["services"][name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "mem_limit" in service


def test_the_gateway_waits_for_a_redis_that_answers(compose: dict[str, Any]) -> None:
    assert compose["services"]["gateway"]["depends_on"] == {"redis": {"condition": "service_healthy"}}
    assert compose["services"]["redis"]["healthcheck"]["test"] == ["CMD", "redis-cli", "ping"]


def test_no_secret_is_written_into_the_compose_file(compose: dict[str, Any]) -> None:
    assert compose["services"]["gateway"]["env_file"] == ".env"
    environment = compose["services"]["gateway"]["environment"]
    assert environment.keys() == {"HOST", "PORT", "REDIS_URL"}


def test_nothing_is_published_beyond_loopback(compose: dict[str, Any]) -> None:
    ports = [port for service in compose["services"].values() for port in service.get("ports", [])]
    assert ports
    assert not [port for port in ports if not port.startswith("127.0.0.1:")]
    assert "ports" not in compose["services"]["redis"]


def test_every_image_has_a_version(compose: dict[str, Any]) -> None:
    images = [service["image"] for name, service in compose["services"].items() if name != "gateway"]
    assert not [image for image in images if not re.search(r":[\w${}:.-]*\d", image) or "latest" in image]


def test_a_stopped_gateway_has_time_to_drain(compose: dict[str, Any]) -> None:
    assert int(compose["services"]["gateway"]["stop_grace_period"].removesuffix("s")) > SHUTDOWN_SECONDS
