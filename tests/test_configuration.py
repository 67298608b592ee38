"""`python -m app check-config`: every fault at once, or what would be served, and never a secret."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from app.cli import main

ENVIRONMENT = {
    "TB_HOST": "https://tb.example.com",
    "TB_USERNAME": "gateway@example.com",
    "TB_PASSWORD": "a-secret-password",
    "REDIS_URL": "redis://:a-secret-of-redis@cache:6380/0",
}
KEY = "a-secret-key-0123456789"

Check = Callable[..., tuple[int, str, str]]


@pytest.fixture
def check(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Check:
    """Run it in an empty folder; return exit code, output and errors."""
    monkeypatch.chdir(tmp_path)

    def run(**variables: str) -> tuple[int, str, str]:
        for name, value in (ENVIRONMENT | variables).items():
            monkeypatch.setenv(name, value)
        code = main(["check-config"])
        said = capsys.readouterr()
        for secret in ("a-secret", KEY):
            assert secret not in said.out + said.err
        return code, said.out, said.err

    return run


def write_keys(*extra: str) -> None:
    entries = [
        f'[[keys]]\nname = "{name}"\nid = "{name}"\nscopes = ["devices:read"]\n{line}\n'
        f'sha256 = "{hashlib.sha256(name.encode()).hexdigest()}"\n'
        for name, line in (("one", ""), ("two", "disabled = true"), *(("three", line) for line in extra))
    ]
    Path("keys.toml").write_text("\n".join(entries))


def test_it_tells_what_would_be_served(check: Check) -> None:
    write_keys()
    code, told, faults = check(
        API_KEYS_FILE="keys.toml", WORKERS="2", PORT="9000", TRUSTED_PROXIES="10.0.0.0/8"
    )
    assert (code, faults) == (0, "")
    for line in (
        "Address      http://127.0.0.1:9000, 2 workers",
        "ThingsBoard  default: https://tb.example.com, as gateway@example.com",
        "Keys         2 in keys.toml: 1 disabled, 1 live",
        "Rate limit   100/60 second for a client address, counted in Redis at cache:6380",
        "Host names   *",
        "Proxies      10.0.0.0/8",
        "tb_connection_check.py",
    ):
        assert line in told


def test_it_tells_of_each_upstream(check: Check) -> None:
    Path("upstreams.toml").write_text(
        '[[upstreams]]\nname = "north"\ntb_host = "https://north.example.com"\ntb_api_key = "a-secret"\n'
        "tb_verify_tls = false\n"
    )
    told = check(API_KEY=KEY, UPSTREAMS_FILE="upstreams.toml")[1]
    assert "Keys         API_KEY, with all scopes" in told
    north = "ThingsBoard  north: https://north.example.com, with an API key, whatever its certificate"
    assert north in told
    assert told.index("default:") < told.index("north:")


def test_a_redis_behind_a_socket_is_told_by_its_path(check: Check) -> None:
    told = check(API_KEY=KEY, REDIS_URL="unix:///run/redis.sock")[1]
    assert "counted in Redis at /run/redis.sock" in told


def test_limits_that_are_not_shared_are_told(check: Check) -> None:
    told = check(API_KEY=KEY, REDIS_URL="", RATE_LIMIT="10/second;1000/hour")[1]
    assert "10/second;1000/hour for a client address, counted in this process" in told


def test_every_fault_of_every_file_is_told_at_once(check: Check) -> None:
    write_keys('colour = "a-secret-in-the-wrong-place"')
    files = {"UPSTREAMS_FILE": "nowhere.toml", "API_KEYS_FILE": "keys.toml"}
    code, told, faults = check(**files, SSL_CERTFILE="cert.pem", SSL_KEYFILE="key.pem")
    assert (code, told) == (2, "")
    for fault in (
        "❌ UPSTREAMS_FILE: cannot be read (No such file or directory)",
        "❌ API_KEYS_FILE: keys.2.colour: ",
        "❌ SSL_CERTFILE and SSL_KEYFILE: cannot be used (No such file or directory)",
        "💡 env_sample lists every setting.",
    ):
        assert fault in faults


def test_settings_that_do_not_fit_together_are_told_at_once(check: Check) -> None:
    code, _, faults = check(API_KYE=KEY, WORKERS="2", REDIS_URL="", SSL_CERTFILE="cert.pem")
    assert code == 2
    for fault in (
        "❌ API_KYE: is not a setting; did you mean API_KEY?",
        "❌ API_KEY or API_KEYS_FILE is needed",
        "❌ WORKERS above 1 needs REDIS_URL",
        "❌ SSL_CERTFILE and SSL_KEYFILE go together",
    ):
        assert fault in faults


def test_a_key_for_an_upstream_that_is_not_there_is_a_fault(check: Check) -> None:
    write_keys('upstream = "north"')
    assert "upstream: unknown; known are default" in check(API_KEYS_FILE="keys.toml")[2]
