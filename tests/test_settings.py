"""A configuration at fault stops the start with a message that names the setting and never its secret."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from dotenv import dotenv_values

from app import settings
from app.cli import main
from app.errors import ConfigurationError
from app.http_protocol import GatewayProtocol as Rules
from app.keys.entries import ALL, SCOPES
from app.settings import Settings
from app.upstream_settings import PLACEHOLDERS
from scripts import generate_configuration_docs as generator

ROOT = Path(__file__).resolve().parent.parent
SECRET = "a-secret-nobody-may-see-0123456789"
GOOD = {
    "TB_HOST": "https://tb.example.com",
    "TB_USERNAME": "tenant@example.com",
    "TB_PASSWORD": "the-tenants-password",
    "API_KEY": SECRET,
}
Load = Callable[..., Settings]


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Load:
    """Load from an environment with these variables; None takes one of the good ones away."""

    def load_with(**changes: str | None) -> Settings:
        for name, value in (GOOD | changes).items():
            if value is not None:
                monkeypatch.setenv(name, value)
        return settings.load(env_file=None)

    return load_with


def faults(load: Load, **changes: str | None) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        load(**changes)
    return str(caught.value).splitlines()


def test_the_least_configuration_is_enough(load: Load) -> None:
    loaded = load()
    assert loaded.tb_host == "https://tb.example.com"
    assert (loaded.host, loaded.port, loaded.workers) == ("127.0.0.1", 8000, 1)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"TB_HOST": None}, "TB_HOST: is missing"),
        ({"TB_HOST": "ftp://tb.example.com"}, "TB_HOST: must look like"),
        ({"TB_HOST": "https://user:pass@tb.example.com"}, "TB_HOST: must not hold credentials"),
        ({"TB_HOST": "https://tb.example.com/?a=b"}, "TB_HOST: must end after"),
        ({"TB_HOST": "https://tb..example.com"}, "TB_HOST: must have a valid host name and port"),
        ({"TB_HOST": "https://tb.example.com:70000"}, "TB_HOST: must have a valid host name and port"),
        ({"TB_PASSWORD": None}, "TB_USERNAME and TB_PASSWORD are needed"),
        ({"TB_USERNAME": None}, "TB_USERNAME and TB_PASSWORD are needed"),
        ({"TB_API_KEY": "tb_0123456789"}, "exclude each other"),
        ({"API_KEY": None}, "API_KEY or API_KEYS_FILE is needed"),
        ({"API_KEYS_FILE": "keys.toml"}, "exclude each other"),
        ({"API_KEY": "short"}, "API_KEY: must have at least 8 characters"),
        ({"PORT": "http"}, "PORT: "),
        ({"PORT": "65536"}, "PORT: "),
        ({"WORKERS": "0"}, "WORKERS: "),
        ({"WORKERS": "2"}, "WORKERS above 1 needs REDIS_URL"),
        ({"RATE_LIMIT": "ten a minute"}, "RATE_LIMIT: must look like 10/second;1000/hour"),
        ({"RATE_LIMIT": "2/60 minute;3/hour"}, "RATE_LIMIT: must not have two windows of one length"),
        ({"RATE_LIMIT_REQUESTS": "1000000000"}, "RATE_LIMIT_REQUESTS: "),
        ({"RATE_LIMIT_BULK_COST": "points"}, "RATE_LIMIT_BULK_COST: "),
        ({"REDIS_URL": "notaurl"}, "REDIS_URL: must look like redis://host:6379/0"),
        ({"TB_TIMEOUT_SECONDS": "-1"}, "TB_TIMEOUT_SECONDS: "),
        ({"TB_VERIFY_TLS": "perhaps"}, "TB_VERIFY_TLS: "),
        ({"LOG_FORMAT": "xml"}, "LOG_FORMAT: "),
        ({"TRUSTED_PROXIES": "10.0.0.0/8,nonsense"}, "TRUSTED_PROXIES: "),
        ({"TRUSTED_PROXIES": "[10.0"}, "TRUSTED_PROXIES: "),
        ({"BACKEND_CORS_ORIGINS": "*"}, "BACKEND_CORS_ORIGINS: must be exact origins"),
        (
            {"BACKEND_CORS_ORIGINS": "https://app.example.com/path"},
            "BACKEND_CORS_ORIGINS: must be exact origins",
        ),
        ({"SSL_CERTFILE": "cert.pem"}, "SSL_CERTFILE and SSL_KEYFILE go together"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_a_bad_value_is_named(load: Load, changes: dict[str, str | None], expected: str) -> None:
    assert any(fault.startswith(expected) or expected in fault for fault in faults(load, **changes))


def test_all_faults_are_told_at_once(load: Load) -> None:
    told = faults(load, PORT="http", WORKERS="many", TB_HOST="ftp://x", API_KYE="typo")
    assert {fault.partition(":")[0] for fault in told} == {"PORT", "WORKERS", "TB_HOST", "API_KYE"}


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("API_KYE", "API_KEY"),
        ("TB_USER_NAME", "TB_USERNAME"),
        ("ALLOWED_HOST", "ALLOWED_HOSTS"),
        ("RATE_LIMIT_REQUEST", "RATE_LIMIT_REQUESTS"),
        ("TRUSTED_PROXY", "TRUSTED_PROXIES"),
        ("WORKER", "WORKERS"),
    ],
)
def test_a_name_that_nearly_matches_is_a_typo(load: Load, given: str, meant: str) -> None:
    assert faults(load, **{given: SECRET}) == [f"{given}: is not a setting; did you mean {meant}?"]


def test_a_typo_in_the_env_file_is_found(tmp_path: Path) -> None:
    env_file = tmp_path / ".env"
    env_file.write_text("".join(f"{name}={value}\n" for name, value in GOOD.items()) + "TB_HOSTS=x\n")
    with pytest.raises(ConfigurationError, match="TB_HOSTS: is not a setting; did you mean TB_HOST"):
        settings.load(env_file=env_file)


def test_other_programs_variables_are_none_of_our_business(load: Load) -> None:
    more = {"SSL_CERT_FILE": "/etc/ssl/cert.pem", "DB_HOST": "db", "DB_USERNAME": "x", "DB_PASSWORD": "x"}
    assert load(PATH="/usr/bin", HOSTNAME="box", REDIS_PASSWORD="x", TB_SIMULATOR_PORT="9090", **more)


def test_an_empty_value_counts_as_absent(load: Load) -> None:
    assert load(API_KEYS_FILE="", PORT="").port == 8000


@pytest.mark.parametrize("text", ["a.example.com, b.example.com", '["a.example.com", "b.example.com"]'])
def test_lists_are_read_with_commas_and_as_json(load: Load, text: str) -> None:
    assert load(ALLOWED_HOSTS=text).allowed_hosts == ("a.example.com", "b.example.com")


@pytest.mark.parametrize("text", ["10.0.0.0/8,::1", '["10.0.0.0/8","::1"]'])
def test_networks_are_read_with_commas_and_as_json(load: Load, text: str) -> None:
    assert [str(network) for network in load(TRUSTED_PROXIES=text).trusted_proxies] == [
        "10.0.0.0/8",
        "::1/128",
    ]


@pytest.mark.parametrize("name", ["API_KEY", "TB_PASSWORD"])
@pytest.mark.parametrize("placeholder", sorted(PLACEHOLDERS))
def test_placeholders_are_refused(load: Load, name: str, placeholder: str) -> None:
    assert f"{name}: is still a placeholder" in " ".join(faults(load, **{name: placeholder.upper()}))


def test_no_message_holds_a_secret(load: Load) -> None:
    changes = {
        "PORT": SECRET,
        "TB_PASSWORD": SECRET,
        "TB_API_KEY": SECRET,
        "TB_HOST": f"https://u:{SECRET}@x",
    }
    assert SECRET not in "\n".join(faults(load, **changes, REDIS_URL=SECRET, API_KEYS=SECRET))


def test_settings_do_not_show_their_secrets(load: Load) -> None:
    shown = repr(load(REDIS_URL=f"redis://:{SECRET}@localhost"))
    assert SECRET not in shown
    assert GOOD["TB_PASSWORD"] not in shown


def test_the_command_names_each_fault_and_exits_with_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PORT", "http")
    assert main(["serve"]) == 2
    told = capsys.readouterr().err
    assert "❌ TB_HOST: is missing" in told
    assert "❌ PORT: " in told
    assert "env_sample" in told


def test_a_certificate_that_cannot_be_read_is_a_fault_of_the_configuration(
    load: Load, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    load(SSL_CERTFILE="missing.pem", SSL_KEYFILE="missing.key")
    assert main(["serve"]) == 2
    assert "❌ SSL_CERTFILE and SSL_KEYFILE: " in capsys.readouterr().err


class TestDocumentation:
    """What is written about the settings is true."""

    def test_the_table_of_settings_is_fresh(self) -> None:
        document = generator.DOCUMENT.read_text("utf-8")
        assert document == generator.with_table(document), "run scripts/generate_configuration_docs.py"

    def test_the_sample_holds_every_setting_with_its_default(self) -> None:
        text = (ROOT / "env_sample").read_text("utf-8")
        sample = dict(re.findall(r"^(?:# )?([A-Z_]+)=(.*)$", text, re.MULTILINE))
        assert sample.keys() == {name.upper() for name in Settings.model_fields}
        for name, field in Settings.model_fields.items():
            is_an_example = field.is_required() or field.default in (None, (), ("*",)) or name == "version"
            default = str(field.default).lower() if isinstance(field.default, bool) else str(field.default)
            assert is_an_example or sample[name.upper()].removesuffix(".0") == default.removesuffix(".0"), (
                name
            )

    def test_an_unchanged_sample_is_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name, value in dotenv_values(ROOT / "env_sample").items():
            monkeypatch.setenv(name, value or "")
        with pytest.raises(ConfigurationError, match="placeholder"):
            settings.load(env_file=None)

    def test_the_scopes_are_those_of_the_code(self) -> None:
        document = (ROOT / "docs" / "api-keys.md").read_text("utf-8")
        section = document.partition("## Scopes")[2].partition("\n## ")[0]
        rows = re.findall(r"^\| `([a-z:*]+)` \|", section, re.MULTILINE)
        assert sorted(rows) == sorted({*SCOPES, ALL})

    def test_the_fixed_limits_are_those_of_the_code(self) -> None:

        document = (ROOT / "docs" / "configuration.md").read_text("utf-8").replace("\n", " ")
        assert f"arrive within {Rules.HEAD_SECONDS:g} s" in document
        assert f"{Rules.BODY_WINDOW_BYTES >> 10} KiB in each {Rules.BODY_WINDOW_SECONDS:g} s" in document
        assert f"nothing for {Rules.WRITE_STALL_SECONDS:g} s" in document
        assert f"{Rules.MAX_TARGET_BYTES >> 10} KiB (else 414)" in document
        assert f"{Rules.MAX_HEADERS} lines and {Rules.MAX_HEADER_BYTES >> 10} KiB (else 431)" in document
