"""What a key file may say, and what is told about one that is wrong."""

import hashlib
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from app import toml_tables
from app.context import Restrictions
from app.errors import ConfigurationError
from app.keys import key_file, store
from app.keys.entries import KeyEntry
from app.keys.key_format import make_key
from app.keys.key_ring import HeldKey
from app.settings import Settings
from app.toml_tables import FileFault

ROOT = Path(__file__).resolve().parents[2]
SECRET = "a-secret-nobody-may-see-0123456789"
DIGEST = hashlib.sha256(SECRET.encode()).hexdigest()
UUID = "784f394c-42b6-435a-983c-b7beff2784f9"
DEFAULT = frozenset({"default"})
KEY: dict[str, Any] = {"name": "Reader", "id": "reader", "sha256": DIGEST, "scopes": ["devices:read"]}


def toml_of(*keys: dict[str, Any]) -> str:
    """Write tables of plain values; a `Raw` stands as it is."""

    def text(value: Any) -> str:
        return value if isinstance(value, Raw) else str(value).lower() if value is True else repr(value)

    return "\n".join("[[keys]]\n" + "".join(f"{name} = {text(key[name])}\n" for name in key) for key in keys)


class Raw(str):
    """TOML, not a Python value."""

    __slots__ = ()


def entries(*keys: dict[str, Any]) -> tuple[KeyEntry, ...]:
    return key_file.parse(toml_of(*keys).encode())


def entry(**fields: Any) -> KeyEntry:
    (only,) = entries(KEY | fields)
    return only


def refusal(*keys: dict[str, Any], more: str = "") -> str:
    """Return why a file with these keys is refused."""
    with pytest.raises(FileFault) as caught:
        key_file.parse((more + toml_of(*keys)).encode())
    return str(caught.value)


class TestFaults:
    """Each is named, none shows a value."""

    def test_unknown_fields_are_refused(self) -> None:
        """A restriction that is not understood must not be ignored."""
        assert refusal(KEY | {"device": [UUID]}) == "keys.0.device: unknown field"

    def test_so_are_unknown_tables(self) -> None:
        assert refusal(KEY, more="[limits]\nall = 1\n") == "limits: unknown field"

    def test_unknown_scopes_are_named(self) -> None:
        assert "unknown scope devices:delete" in refusal(KEY | {"scopes": ["devices:delete"]})

    @pytest.mark.parametrize("field", ["id", "sha256"])
    def test_two_keys_cannot_share(self, field: str) -> None:
        other = KEY | {"id": "other", "sha256": "0" * 64} | {field: KEY[field]}
        assert f"two keys share one {field}" in refusal(KEY, other)

    def test_a_secret_cannot_be_in_two_places(self) -> None:
        other = KEY | {"id": "other"}
        del other["sha256"]
        other["secrets"] = Raw(f'[{{sha256 = "{DIGEST}"}}]')
        assert "two keys share one sha256" in refusal(KEY, other)

    @pytest.mark.parametrize("field", ["name", "id", "scopes"])
    def test_each_field_is_needed(self, field: str) -> None:
        key = {name: value for name, value in KEY.items() if name != field}
        assert f"keys.0.{field}: Field required" in refusal(key)

    def test_a_digest_is_needed_once(self) -> None:
        without = {name: value for name, value in KEY.items() if name != "sha256"}
        assert refusal(without) == "keys.0: needs either sha256 or secrets"
        both = KEY | {"secrets": Raw(f'[{{sha256 = "{"1" * 64}"}}]')}
        assert refusal(both) == "keys.0: needs either sha256 or secrets"

    def test_a_key_in_place_of_its_digest_is_refused_and_not_shown(self) -> None:
        told = refusal(KEY | {"sha256": SECRET})
        assert "keys.0.sha256: " in told
        assert SECRET not in told

    @pytest.mark.parametrize(
        ("field", "value", "issue"),
        [
            ("devices", [], "at least 1 item"),
            ("devices", ["one"], "must be a UUID"),
            ("devices", UUID, "valid tuple"),
            ("device_types", [""], "at least 1 character"),
            ("customer", "Customer A", "must be a UUID"),
            ("asset", 7, "valid string"),
            ("rate_limit", "often", "10/second;1000/hour"),
            ("rate_limit", "0/minute", "10/second;1000/hour"),
            ("rate_limit", "10/fortnight", "10/second;1000/hour"),
            ("max_streams", -1, "greater than or equal to 0"),
            ("max_streams", "2", "valid integer"),
            ("max_streams", True, "valid integer"),
            ("expires_at", "tomorrow", "with an offset"),
            ("expires_at", "2027-01-31T00:00:00", "with an offset"),
            ("expires_at", Raw("2027-01-31"), "with an offset"),
            ("expires_at", Raw("2027-01-31T00:00:00"), "with an offset"),
            ("expires_at", 1_800_000_000, "with an offset"),
            ("not_before", Raw("0001-01-01T00:00:00+12:00"), "outside the years"),
            ("allowed_ips", ["10.0.0.1/8"], "must be an address or a network"),
            ("allowed_ips", [10], "must be an address or a network"),
            ("allowed_ips", [], "at least 1 item"),
            ("allowed_origins", ["app.example.com"], "exact origins"),
            ("allowed_origins", ["https://*.example.com"], "exact origins"),
            ("allowed_origins", ["https://app.example.com/page"], "exact origins"),
            ("allowed_origins", ["https://app.example.com?x"], "exact origins"),
            ("disabled", "yes", "valid boolean"),
            ("disabled", 1, "valid boolean"),
        ],
        ids=str,
    )
    def test_bad_values_name_their_field(self, field: str, value: Any, issue: str) -> None:
        told = refusal(KEY | {field: value})
        assert told.startswith(f"keys.0.{field}")
        assert issue in told

    @pytest.mark.parametrize(
        ("value", "words"),
        [
            ("tomorrow", "must be a date and time with an offset, such as 2027-01-31T00:00:00Z"),
            ("0001-01-01T00:00:00+12:00", "is outside the years 1 to 9999"),
        ],
    )
    def test_a_time_that_is_none_is_said_so(self, value: str, words: str) -> None:
        assert refusal(KEY | {"expires_at": value}) == f"keys.0.expires_at: {words}"

    def test_an_end_before_the_beginning_is_refused(self) -> None:
        times = {"not_before": "2027-02-01T00:00:00Z", "expires_at": "2027-01-01T00:00:00Z"}
        assert refusal(KEY | times) == "keys.0: expires_at must be after not_before"

    def test_an_upstream_that_does_not_exist_is_refused(self) -> None:
        text = toml_of(KEY | {"upstream": "other-tenant"}).encode()
        with pytest.raises(FileFault, match=r"^key reader: upstream: unknown; known are default$"):
            key_file.parse(text, upstreams=frozenset({"default"}))
        known = frozenset({"default", "other-tenant"})
        assert key_file.parse(text, upstreams=known)[0].upstream == "other-tenant"

    def test_without_a_default_upstream_each_key_names_its_own(self) -> None:
        with pytest.raises(FileFault, match=r"is needed, as there is no default; known are north, south$"):
            key_file.parse(toml_of(KEY).encode(), upstreams=frozenset({"south", "north"}))

    def test_all_faults_are_told_together_up_to_a_bound(self) -> None:
        told = refusal(KEY | {"scopes": []}, KEY | {"id": "a b"})
        assert "keys.0.scopes" in told
        assert "keys.1.id" in told
        assert refusal(*[{"id": "x"}] * 30).endswith("and 40 more")
        whole = [{"id": f"x{number}", "name": "x", "scopes": ["*"]} for number in range(21)]
        assert "more" not in refusal(*whole[:20])
        assert refusal(*whole).endswith("; and 1 more")

    @pytest.mark.parametrize("text", ["", "keys = []", "keys = 3", "[keys]\na = 1\n"])
    def test_a_file_without_keys_is_refused(self, text: str) -> None:
        assert refusal(more=text).startswith("keys: needs at least one [[keys]] table")

    def test_what_is_no_table_is_refused(self) -> None:
        assert "keys.0: " in refusal(more="keys = [1]\n")

    def test_what_is_not_toml_says_where_and_never_what(self) -> None:
        assert refusal(more=f'[[keys]]\nname = "{SECRET}') == "is not valid TOML (at end of document)"
        assert refusal(more=f"[[keys]]\n{SECRET}\n") == "is not valid TOML (at line 2, column 35)"
        assert refusal(more="a = " + "[" * 100_000) == "is not valid TOML"

    def test_what_is_not_text_is_refused(self) -> None:
        with pytest.raises(FileFault, match="is not valid TOML"):
            key_file.parse(b"\xff\xfe")

    def test_only_a_regular_file_is_read(self, tmp_path: Path) -> None:
        for path, words in ((tmp_path / "missing.toml", "cannot be read"), (tmp_path, "not a regular file")):
            with pytest.raises(FileFault, match=words):
                toml_tables.read(path)

    def test_a_huge_file_is_not_read(self, tmp_path: Path) -> None:
        path = tmp_path / "keys.toml"
        with path.open("wb") as file:
            file.truncate(toml_tables.LONGEST_FILE_BYTES + 1)
        with pytest.raises(FileFault, match="larger than 64 MiB"):
            toml_tables.read(path)


class TestMeaning:
    """What the fields become."""

    def held(self, **fields: Any) -> HeldKey:
        found = store.APIKeys((entry(**fields),)).find(SECRET.encode())
        assert isinstance(found, HeldKey)
        return found

    def test_a_plain_entry_of_old_has_no_restrictions(self) -> None:
        held = self.held()
        caller = held.caller
        assert (caller.id, caller.name, caller.scopes) == ("reader", "Reader", {"devices:read"})
        assert (caller.restrictions, caller.upstream, caller.rate_limit) == (None, "default", None)
        assert (caller.max_streams, caller.expires_at) == (None, None)
        assert held.allows_address(None)
        assert held.allows_origins(["https://anything.example"])

    def test_restrictions_reach_the_caller(self) -> None:
        caller = self.held(
            devices=[UUID.upper()],
            device_types=["thermostat"],
            customer=UUID,
            asset=UUID,
            rate_limit="10/second;1000/hour",
            max_streams=0,
            expires_at="2099-01-31T01:00:00+01:00",
        ).caller
        assert caller.restrictions == Restrictions(
            devices=frozenset({UUID}), device_types=frozenset({"thermostat"}), customer=UUID, asset=UUID
        )
        assert (caller.rate_limit, caller.max_streams) == ("10/second;1000/hour", 0)
        assert caller.expires_at == datetime(2099, 1, 31, tzinfo=UTC).timestamp() * 1000

    def test_a_single_restriction_leaves_the_others_open(self) -> None:
        assert self.held(device_types=["thermostat"]).caller.restrictions == Restrictions(
            device_types=frozenset({"thermostat"})
        )

    def test_toml_times_and_text_mean_the_same(self) -> None:
        assert entry(expires_at=Raw("2099-01-31T00:00:00Z")) == entry(expires_at="2099-01-31T00:00:00+00:00")

    def test_a_secret_ends_with_its_key_or_before(self) -> None:
        fields = {name: value for name, value in KEY.items() if name != "sha256"}
        fields |= {
            "secrets": Raw(f'[{{sha256 = "{DIGEST}", expires_at = 2098-01-01T00:00:00Z}}]'),
            "expires_at": "2099-01-01T00:00:00Z",
        }
        found = store.APIKeys(entries(fields)).find(SECRET.encode())
        assert isinstance(found, HeldKey)
        assert found.caller.expires_at == datetime(2098, 1, 1, tzinfo=UTC).timestamp() * 1000
        assert found.ends_by_rotation

    def test_a_secret_lives_until_its_end_and_not_at_it(self) -> None:
        fields = {name: value for name, value in KEY.items() if name != "sha256"}
        fields["secrets"] = Raw(f'[{{sha256 = "{DIGEST}", expires_at = 2098-01-01T00:00:00Z}}]')
        (only,) = entries(fields)
        end = datetime(2098, 1, 1, tzinfo=UTC)
        assert only.live_secrets(end) == []
        assert only.live_secrets(end - timedelta(microseconds=1)) == list(only.all_secrets)

    def test_the_digest_stays_out_of_a_callers_text(self) -> None:
        assert DIGEST[:8] not in repr(self.held().caller)
        assert str(bytes.fromhex(DIGEST)) not in repr(self.held().caller)


class TestLoading:
    """The two ways to configure keys."""

    SETTINGS: dict[str, Any] = {  # noqa: RUF012 - never changed
        "_env_file": None,
        "tb_host": "http://localhost",
        "tb_api_key": "never-called",
    }

    def test_a_fault_names_the_setting(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigurationError, match=r"^API_KEYS_FILE: cannot be read \(No such file"):
            store.load(Settings(**self.SETTINGS, api_keys_file=tmp_path / "missing.toml"), DEFAULT)

    def test_one_key_of_any_form_has_all_scopes(self) -> None:
        for key in (SECRET, make_key("demo")):
            found = store.load(Settings(**self.SETTINGS, api_key=key), DEFAULT).find(key.encode())
            assert isinstance(found, HeldKey)
            assert "devices:credentials" in found.caller.scopes

    def test_a_mistyped_generated_key_is_told_at_start(self) -> None:
        key = make_key("demo")
        wrong = key[:-1] + ("A" if key[-1] != "A" else "B")
        with pytest.raises(ConfigurationError, match="checksum is wrong") as caught:
            store.load(Settings(**self.SETTINGS, api_key=wrong), DEFAULT)
        assert wrong not in str(caught.value)

    def test_every_fault_of_the_file_is_a_line(self, tmp_path: Path) -> None:
        path = tmp_path / "keys.toml"
        path.write_text(
            toml_of(KEY | {"upstream": "north"}, KEY | {"id": "other", "sha256": "0" * 64, "upstream": "x"})
        )
        with pytest.raises(ConfigurationError) as caught:
            store.load(Settings(**self.SETTINGS, api_keys_file=path), DEFAULT)
        assert str(caught.value).splitlines() == [
            "API_KEYS_FILE: key reader: upstream: unknown; known are default",
            "API_KEYS_FILE: key other: upstream: unknown; known are default",
        ]

    async def test_what_was_loaded_keeps_to_its_upstreams(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(store, "SETTLE_SECONDS", 0.0)
        path = tmp_path / "keys.toml"
        path.write_text(toml_of(KEY))
        keys = store.load(Settings(**self.SETTINGS, api_keys_file=path), DEFAULT)
        (before,) = keys.entries
        path.write_text(toml_of(KEY) + toml_of(KEY | {"id": "other", "sha256": "0" * 64}))
        await keys.poll(path)
        assert (keys.fault, len(keys)) == (None, 2)
        assert next(iter(keys.entries)) is before, "it was known by its text"
        path.write_text(toml_of(KEY | {"upstream": "north"}))
        await keys.poll(path)
        assert keys.fault == "key reader: upstream: unknown; known are default"

    def test_one_key_needs_the_upstream_that_it_is_for(self) -> None:
        with pytest.raises(ConfigurationError, match=r"^API_KEY: is for the upstream default: set TB_HOST"):
            store.load(Settings(**self.SETTINGS, api_key=SECRET), frozenset({"north"}))
        assert len(store.load(Settings(**self.SETTINGS, api_key=SECRET), None)) == 1


def test_the_examples_in_the_documentation_are_good() -> None:
    document = (ROOT / "docs" / "api-keys.md").read_text("utf-8")
    examples = re.findall(r"```toml\n(.*?)```", document, re.DOTALL)
    assert examples
    for example in examples:
        assert key_file.parse(example.encode())


def test_every_field_is_documented() -> None:
    document = (ROOT / "docs" / "api-keys.md").read_text("utf-8")
    rows = set(re.findall(r"^\| `([a-z_0-9]+)`", document, re.MULTILINE))
    assert KeyEntry.model_fields.keys() <= rows
