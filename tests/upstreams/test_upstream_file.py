"""A file of upstreams at fault stops the start; what it says names field and upstream, never a secret."""

import json
import re
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from app import settings, upstream_file
from app.cli import main
from app.errors import ConfigurationError
from app.upstream_settings import PLACEHOLDERS, UpstreamFields, UpstreamSettings
from app.upstreams import Upstreams
from tests.restrictions.world import write_keys
from tests.upstreams.conftest import WriteFile

DOCUMENT = (Path(__file__).parents[2] / "docs" / "upstreams.md").read_text("utf-8")
SECRET = "a-secret-nobody-may-see-0123456789"
NORTH = {
    "name": "north",
    "tb_host": "https://north.example.com",
    "tb_username": "gateway@example.com",
    "tb_password": SECRET,
}
DEFAULT = {
    "TB_HOST": "https://tb.example.com",
    "TB_USERNAME": "tenant@example.com",
    "TB_PASSWORD": "the-tenants-password",
}

Load = Callable[..., dict[str, UpstreamSettings]]


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, upstreams_file: WriteFile) -> Load:
    """Load a file of these tables, without TB_HOST unless `environment` has it."""
    monkeypatch.chdir(tmp_path)

    def load_with(
        *tables: dict[str, Any], environment: dict[str, str] | None = None, more: str = ""
    ) -> dict[str, UpstreamSettings]:
        monkeypatch.setenv("UPSTREAMS_FILE", str(upstreams_file(*tables, more=more)))
        monkeypatch.setenv("API_KEYS_FILE", "keys.toml")
        for name, value in (environment or {}).items():
            monkeypatch.setenv(name, value)
        return upstream_file.load(settings.load())

    return load_with


def faults(load: Load, *tables: dict[str, Any], **more: Any) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        load(*tables, **more)
    assert SECRET not in str(caught.value)
    return str(caught.value).splitlines()


def without(name: str) -> dict[str, Any]:
    return {field: value for field, value in NORTH.items() if field != name}


class TestWhatIsGood:
    def test_those_of_the_file_stand_beside_that_of_tb_host(self, load: Load) -> None:
        found = load(NORTH, environment=DEFAULT)
        assert list(found) == ["default", "north"]
        assert [each.tb_host for each in found.values()] == [DEFAULT["TB_HOST"], NORTH["tb_host"]]

    def test_the_file_alone_is_enough(self, load: Load) -> None:
        assert list(load(NORTH)) == ["north"]

    def test_one_of_them_may_be_the_default(self, load: Load) -> None:
        assert list(load(NORTH, NORTH | {"name": "default"})) == ["north", "default"]

    def test_every_field_arrives(self, load: Load, authority: Path) -> None:
        given = {
            **NORTH,
            "tb_ca_file": str(authority),
            "tb_verify_tls": False,
            "tb_timeout_seconds": 7.5,
            "tb_max_connections": 3,
            "tb_max_rpcs": 7,
            "tb_queue_seconds": 1.5,
            "description": "The north.",
        }
        found = load(given)["north"].model_dump(mode="json", exclude_none=True)
        assert {**found, "tb_password": SECRET} == given
        assert given.keys() | {"tb_api_key"} == UpstreamSettings.model_fields.keys()

    def test_defaults_are_those_of_the_environment(self, load: Load) -> None:
        """What is set for TB_HOST is set for it alone."""
        found = load(NORTH, environment={**DEFAULT, "TB_TIMEOUT_SECONDS": "5", "TB_MAX_CONNECTIONS": "7"})
        assert (found["default"].tb_timeout_seconds, found["default"].tb_max_connections) == (5, 7)
        fields = UpstreamFields.model_fields
        assert found["north"].tb_timeout_seconds == fields["tb_timeout_seconds"].default
        assert found["north"].tb_max_connections == fields["tb_max_connections"].default

    def test_secrets_may_be_in_files_and_in_variables(self, load: Load, tmp_path: Path) -> None:
        (tmp_path / "password").write_text(f"{SECRET}\n")
        (tmp_path / ".env").write_text("TB_API_KEY_EAST=tb_east\n")
        account = without("tb_password")
        found = load(
            {**account, "tb_password_file": str(tmp_path / "password")},
            {**account, "name": "south", "tb_password_env": "TB_PASSWORD_S"},
            {"name": "east", "tb_host": "http://east", "tb_api_key_env": "TB_API_KEY_EAST"},
            environment={"TB_PASSWORD_S": "south-secret"},
        )
        given = [each.tb_password or each.tb_api_key for each in found.values()]
        assert [each.get_secret_value() for each in given if each] == [SECRET, "south-secret", "tb_east"]

    def test_nothing_shows_a_secret(self, load: Load) -> None:
        found = load(NORTH, {"name": "key", "tb_host": "http://key", "tb_api_key": SECRET})
        clients = Upstreams.build(found)
        for shown in (repr(found), str(found["north"]), repr(dict(clients)), repr(vars(clients["north"]))):
            assert SECRET not in shown
        assert SECRET not in json.dumps([each.model_dump(mode="json") for each in found.values()])


FIELDS = [
    ({"tb_host": "ftp://x"}, "upstreams.0 (north).tb_host: must look like"),
    ({"tb_host": "north.example.com"}, "upstreams.0 (north).tb_host: must begin with https://"),
    ({"tb_host": f"https://u:{SECRET}@x"}, "upstreams.0 (north).tb_host: must not hold credentials"),
    ({"tb_password": ""}, "upstreams.0 (north).tb_password: must not be empty"),
    ({"tb_username": ""}, "upstreams.0 (north).tb_username: must not be empty"),
    ({"tb_password": 12345678}, "upstreams.0 (north).tb_password: "),
    ({"tb_api_key": SECRET}, "upstreams.0 (north): TB_API_KEY and TB_USERNAME/TB_PASSWORD exclude"),
    ({"tb_timeout_seconds": 0}, "upstreams.0 (north).tb_timeout_seconds: "),
    ({"tb_max_connections": 1001}, "upstreams.0 (north).tb_max_connections: "),
    ({"tb_verify_tls": "perhaps"}, "upstreams.0 (north).tb_verify_tls: "),
    ({"tb_ca_file": "missing.pem"}, "upstreams.0 (north).tb_ca_file: cannot be used (No such file"),
    ({"tb_pasword": SECRET}, "upstreams.0 (north).tb_pasword: unknown field"),
    ({"name": f"{SECRET} {SECRET}"}, "upstreams.0.name: "),
    ({"name": ""}, "upstreams.0.name: "),
    ({"name": "north\n"}, "upstreams.0.name: "),
    ({"tb_password_env": "OTHER"}, "upstreams.0 (north).tb_password_env: is one too many beside tb_password"),
    ({"tb_api_key_env": "MISSING"}, "upstreams.0 (north).tb_api_key_env: names a variable that is not set"),
    ({"tb_api_key_file": "missing"}, "upstreams.0 (north).tb_api_key_file: cannot be read (No such file"),
    ({"tb_api_key_file": "."}, "upstreams.0 (north).tb_api_key_file: is not a regular file"),
    ({"tb_api_key_file": 7}, "upstreams.0 (north).tb_api_key_file: must be text"),
]


class TestWhatIsNot:
    @pytest.mark.parametrize(("change", "expected"), FIELDS, ids=lambda value: str(value)[:60])
    def test_a_bad_field_is_named(self, load: Load, change: dict[str, Any], expected: str) -> None:
        assert any(fault.startswith(f"UPSTREAMS_FILE: {expected}") for fault in faults(load, NORTH | change))

    @pytest.mark.parametrize("name", ["name", "tb_host", "tb_username", "tb_password"])
    def test_a_missing_field_is_named(self, load: Load, name: str) -> None:
        assert name.upper() in " ".join(faults(load, without(name))).upper()

    @pytest.mark.parametrize("placeholder", sorted(PLACEHOLDERS))
    def test_placeholders_are_refused(self, load: Load, placeholder: str) -> None:
        (told,) = faults(load, NORTH | {"tb_password": placeholder.upper()})
        assert told == "UPSTREAMS_FILE: upstreams.0 (north).tb_password: is still a placeholder"

    @pytest.mark.parametrize("key", ["tb_a b", "tb_a\nb", "tb_ä", "tb_\x00"])
    def test_a_key_that_no_header_can_carry_is_refused(self, load: Load, key: str, tmp_path: Path) -> None:
        (tmp_path / "key").write_text(key)
        table = {"name": "key", "tb_host": "http://key", "tb_api_key_file": str(tmp_path / "key")}
        (told,) = faults(load, table)
        assert told.endswith("(key).tb_api_key: must hold neither blanks nor special characters")

    def test_names_are_taken_once(self, load: Load) -> None:
        (told,) = faults(load, NORTH, NORTH)
        assert told == "UPSTREAMS_FILE: upstreams.1 (north).name: is taken already"
        (told,) = faults(load, NORTH | {"name": "default"}, environment=DEFAULT)
        assert told.endswith("(default).name: is taken already: it is that of TB_HOST")

    def test_all_faults_are_told_at_once(self, load: Load) -> None:
        told = faults(load, NORTH | {"tb_host": "x"}, NORTH | {"name": "two", "tb_timeout_seconds": -1})
        assert [each.split()[2] for each in told] == ["(north).tb_host:", "(two).tb_timeout_seconds:"]

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("", "upstreams: needs at least one [[upstreams]] table"),
            ("upstreams = 7", "upstreams: needs at least one [[upstreams]] table"),
            ("upstreams = [7]", "upstreams.0: Input should be"),
            (f"[[upstreams]]\ntb_password = {SECRET}", "is not valid TOML (at line 2, column 15)"),
            ("[upstream]", "upstream: unknown field"),
        ],
    )
    def test_a_file_of_another_form_is_refused(self, load: Load, text: str, expected: str) -> None:
        (told,) = faults(load, more=text)
        assert told.startswith(f"UPSTREAMS_FILE: {expected}")

    def test_a_file_that_is_not_there_is_refused(self, load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
        load(NORTH)
        monkeypatch.setenv("UPSTREAMS_FILE", "missing.toml")
        with pytest.raises(ConfigurationError, match=r"^UPSTREAMS_FILE: cannot be read \(No such file"):
            upstream_file.load(settings.load())

    def test_settings_of_tb_host_without_it_are_refused(self, load: Load) -> None:
        """They would silently mean nothing, and look as if they were for all."""
        (told,) = faults(load, NORTH, environment={"TB_TIMEOUT_SECONDS": "5", "TB_USERNAME": "x"})
        assert told == "TB_HOST: is missing, without which TB_TIMEOUT_SECONDS, TB_USERNAME would mean nothing"

    def test_a_variable_that_nearly_matches_ours_is_still_a_typo(self, load: Load) -> None:
        (told,) = faults(load, NORTH, environment={"TB_PASWORD": SECRET})
        assert told == "TB_PASWORD: is not a setting; did you mean TB_PASSWORD?"


class TestStart:
    """`python -m app serve` checks all of it before it listens."""

    @pytest.fixture
    def start(self, load: Load, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
        def run(*tables: dict[str, Any], key: dict[str, Any]) -> str:
            write_keys(tmp_path / "keys.toml", [("reader", ["*"], key)])
            try:
                load(*tables)
            finally:
                assert main(["serve"]) == 2
            told = capsys.readouterr()
            assert SECRET not in told.out + told.err
            return told.err

        return run

    def test_a_key_of_an_unknown_upstream_stops_it(self, start: Callable[..., str]) -> None:
        told = start(NORTH, key={"upstream": "south"})
        assert "❌ API_KEYS_FILE: key reader: upstream: unknown; known are north\n" in told

    def test_a_key_without_an_upstream_stops_it_where_there_is_no_default(
        self, start: Callable[..., str]
    ) -> None:
        told = start(NORTH, key={})
        assert "key reader: upstream: is needed, as there is no default; known are north" in told

    def test_the_one_key_needs_a_default(
        self, load: Load, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        load(NORTH)
        monkeypatch.delenv("API_KEYS_FILE")
        monkeypatch.setenv("API_KEY", SECRET)
        assert main(["serve"]) == 2
        assert "❌ API_KEY: is for the upstream default: set TB_HOST, or name one so" in (
            capsys.readouterr().err
        )

    def test_a_bad_upstream_stops_it(
        self, load: Load, capsys: pytest.CaptureFixture[str], tmp_path: Path
    ) -> None:
        write_keys(tmp_path / "keys.toml", [("reader", ["*"], {"upstream": "north"})])
        with pytest.raises(ConfigurationError):
            load(NORTH | {"tb_host": "x"})
        assert main(["serve"]) == 2
        assert "❌ UPSTREAMS_FILE: upstreams.0 (north).tb_host: must begin" in capsys.readouterr().err


class TestDocumentation:
    """What docs/upstreams.md says is true."""

    def test_the_example_is_a_good_file(
        self, load: Load, tmp_path: Path, authority: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        example = re.findall(r"```toml\n(\[\[upstreams.*?)```", DOCUMENT, re.DOTALL)[0]
        (tmp_path / "password").write_text(SECRET)
        example = example.replace("/run/secrets/north-password", str(tmp_path / "password"))
        example = example.replace("/etc/gateway/south-ca.pem", str(authority))
        assert list(load(more=example, environment={"TB_API_KEY_SOUTH": SECRET})) == ["north", "south"]

    def test_every_field_is_in_the_table(self) -> None:
        rows = "".join(re.findall(r"^\| (`[^|]+) \|", DOCUMENT, re.MULTILINE))
        places = {f"{name}_{place}" for name in upstream_file.SECRETS for place in ("file", "env")}
        assert set(re.findall(r"`(\w+)`", rows)) == UpstreamSettings.model_fields.keys() | places


@pytest.fixture
def authority(tmp_path: Path) -> Path:
    """One of the authorities that this machine trusts."""
    path = tmp_path / "ca.pem"
    trusted = ssl.create_default_context().get_ca_certs(binary_form=True)
    path.write_text(ssl.DER_cert_to_PEM_cert(trusted[0]))
    return path


def test_a_file_that_holds_no_certificate_is_refused_at_start(load: Load, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("none")
    (told,) = faults(load, NORTH | {"tb_ca_file": "ca.pem"})
    assert told.endswith("(north).tb_ca_file: cannot be used (not a PEM file of certificates)")


def test_upstreams_that_trust_alike_share_a_context(load: Load, authority: Path) -> None:
    """With the system's authorities one takes 0.8 MiB: fifty would be half of a worker's memory."""
    plain = [NORTH | {"name": f"plain{number}"} for number in range(3)]
    private = [NORTH | {"name": f"own{number}", "tb_ca_file": str(authority)} for number in range(2)]
    unverified = [NORTH | {"name": "any", "tb_verify_tls": False}]
    clients = Upstreams.build(load(*plain, *private, *unverified))
    contexts = {name: each.client.connection.transport._tls for name, each in clients.items()}  # type: ignore[attr-defined]
    assert contexts["plain0"] is contexts["plain1"] is contexts["plain2"]
    assert contexts["own0"] is contexts["own1"]
    assert len(set(map(id, contexts.values()))) == 3
    modes = {name: context.verify_mode for name, context in contexts.items()}
    assert modes["any"] == ssl.CERT_NONE
    assert {mode for name, mode in modes.items() if name != "any"} == {ssl.CERT_REQUIRED}
    assert len(contexts["own0"].get_ca_certs()) == 1
