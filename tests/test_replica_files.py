"""The files of `deploy/` for two machines and for systemd: known to their tools, in tune with the code."""

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.cli import CONFIGURATION_ERROR
from app.http_protocol import GatewayProtocol
from app.settings import Settings
from app.worker import SHUTDOWN_SECONDS
from benchmarks.chaos.stack import NGINX_MAIN
from tests.certificates import self_signed
from tests.processes import ROOT, program

DEPLOY = ROOT / "deploy"
NGINX = (DEPLOY / "nginx" / "gateway.conf").read_text("utf-8")
CADDYFILE = (DEPLOY / "caddy" / "Caddyfile").read_text("utf-8")
UNIT = (DEPLOY / "systemd" / "thingsboard-gateway.service").read_text("utf-8")
GATEWAYS = ["gateway-1", "gateway-2"]
#: `systemd-analyze security`: 0 is locked up, 10 is bare.
MOST_EXPOSURE = 1.5


@pytest.fixture(scope="module")
def compose(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return the compose file as compose itself understands it."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "deploy").mkdir()
    shutil.copy(ROOT / "docker-compose.yml", folder)
    shutil.copy(DEPLOY / "docker-compose.yml", folder / "deploy")
    shutil.copy(ROOT / "env_sample", folder / ".env")
    files = ["--file", "deploy/docker-compose.yml"]
    command = [program("docker-compose"), *files, "--profile", "thingsboard", "config"]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    content: dict[str, Any] = yaml.safe_load(result.stdout)
    return content


def test_compose_has_two_gateways_a_balancer_a_redis_and_a_thingsboard_to_try(
    compose: dict[str, Any],
) -> None:
    assert compose["services"].keys() == {*GATEWAYS, "nginx", "redis", "thingsboard", "postgres"}
    assert compose["services"]["thingsboard"]["profiles"] == ["thingsboard"]


def test_compose_differs_from_that_of_one_gateway_only_where_it_must(compose: dict[str, Any]) -> None:
    single = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))["services"]
    double = yaml.safe_load((DEPLOY / "docker-compose.yml").read_text("utf-8"))["services"]
    assert single["thingsboard"] == double["thingsboard"]
    one, two, only = (double["gateway-1"], double["gateway-2"], single["gateway"])
    differing = {"networks", "ports", "build", "env_file", "environment"}
    assert {name for name in one.keys() | two.keys() if one.get(name) != two.get(name)} == {"networks"}
    assert {name for name in one.keys() | only.keys() if one.get(name) != only.get(name)} == differing


def test_compose_trusts_its_own_proxy_alone(compose: dict[str, Any]) -> None:
    services = compose["services"]
    address = services["nginx"]["networks"]["default"]["ipv4_address"]
    assert [services[name]["environment"]["TRUSTED_PROXIES"] for name in GATEWAYS] == [address] * 2
    assert {services[name]["environment"]["REDIS_URL"] for name in GATEWAYS} == {"redis://redis:6379/0"}
    assert not [name for name in (*GATEWAYS, "redis") if "ports" in services[name]]


@pytest.mark.parametrize("name", [*GATEWAYS, "nginx", "redis"])
def test_a_service_of_compose_can_do_no_more_than_it_must(compose: dict[str, Any], name: str) -> None:
    service = compose["services"][name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "mem_limit" in service
    assert not [port for port in service.get("ports", []) if not port.startswith("127.0.0.1:")]


def test_proxies_name_both_gateways() -> None:
    assert re.findall(r"server (gateway-\d):8000 ", NGINX) == GATEWAYS
    assert re.findall(r"(gateway-\d):8000", CADDYFILE) == GATEWAYS


def test_proxies_let_go_of_idle_connections_before_a_stopping_gateway_does() -> None:
    """A write that meets a closed connection is lost, for nobody may send it again."""
    (nginx,) = re.findall(r"^    keepalive_timeout (\d+)s;", NGINX, re.MULTILINE)
    (caddy,) = re.findall(r"^\t\t\tkeepalive (\d+)s$", CADDYFILE, re.MULTILINE)
    assert float(nginx) < GatewayProtocol.DRAIN_SECONDS
    assert float(caddy) < GatewayProtocol.DRAIN_SECONDS


def test_proxies_wait_longer_than_the_gateway_may_take() -> None:
    longest = (
        Settings.model_fields["tb_timeout_seconds"].default
        + Settings.model_fields["tb_queue_seconds"].default
    )
    (nginx,) = re.findall(r"proxy_read_timeout (\d+)s;", NGINX)
    (caddy,) = re.findall(r"response_header_timeout (\d+)s", CADDYFILE)
    assert min(float(nginx), float(caddy)) > longest


def test_nginx_understands_the_lines_for_tls(tmp_path: Path) -> None:
    """Those of docs/deployment.md."""
    nginx = program("nginx", "nginx-light")
    certificate, _ = self_signed(tmp_path)
    certificate.rename(tmp_path / "fullchain.pem")
    (lines,) = re.findall(
        r"```nginx\n(.*?)```", (ROOT / "docs" / "deployment.md").read_text("utf-8"), re.DOTALL
    )
    configuration = NGINX.replace("    listen 8080;\n", lines)
    assert lines in configuration
    for there, here in {
        "/etc/ssl/gateway": str(tmp_path),
        "gateway-1:": "127.0.0.1:",
        "gateway-2:": "127.0.0.1:",
    }.items():
        configuration = configuration.replace(there, here)
    (tmp_path / "gateway.conf").write_text(configuration)
    (tmp_path / "nginx.conf").write_text(NGINX_MAIN.format(folder=tmp_path, user=""))
    result = run(nginx, "-t", "-q", "-e", "stderr", "-c", tmp_path / "nginx.conf")
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_caddy_understands_its_file(tmp_path: Path) -> None:
    file = ("--config", DEPLOY / "caddy" / "Caddyfile", "--adapter", "caddyfile")
    command = [program("caddy"), "adapt", *file]
    environment = {"HOME": str(tmp_path)}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    # Also what it says of a file that it would have formatted otherwise.
    assert '"level":"warn"' not in result.stderr


@pytest.fixture(scope="module")
def unit(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """Return systemd's checker, and the unit as if the gateway was installed: its programs must exist."""
    analyser = program("systemd-analyze", "systemd")
    path = tmp_path_factory.mktemp("units") / "thingsboard-gateway.service"
    path.write_text(UNIT.replace("/opt/thingsboard-gateway", str(ROOT)))
    return analyser, path


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    # Without SYSTEMD_LOG_LEVEL from outside; it speaks English.
    environment = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_systemd_understands_the_unit(unit: tuple[str, Path]) -> None:
    result = run(unit[0], "verify", "--man=no", unit[1])
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_systemd_would_find_a_misspelt_line(unit: tuple[str, Path], tmp_path: Path) -> None:
    wrong = tmp_path / unit[1].name
    wrong.write_text(unit[1].read_text().replace("ProtectHome=yes", "ProtectHomes=yes"))
    assert "ProtectHomes" in run(unit[0], "verify", "--man=no", wrong).stderr


def test_the_unit_is_locked_up(unit: tuple[str, Path]) -> None:
    threshold = f"--threshold={MOST_EXPOSURE * 10:.0f}"
    result = run(unit[0], "security", "--offline=true", "--no-pager", threshold, unit[1])
    assert result.returncode == 0, result.stdout
    (exposure,) = re.findall(r"Overall exposure level .*: ([\d.]+)", result.stdout)
    assert float(exposure) <= MOST_EXPOSURE


def test_the_unit_leaves_time_to_drain_and_does_not_repeat_faults_of_the_configuration() -> None:
    values = dict(re.findall(r"^(\w+)=(.*)$", UNIT, re.MULTILINE))
    assert int(values["TimeoutStopSec"]) >= SHUTDOWN_SECONDS + 10
    assert values["RestartPreventExitStatus"] == str(CONFIGURATION_ERROR)
    assert values["ExecStart"].endswith(" -m app serve")
