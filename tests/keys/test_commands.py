"""`python -m app keys`: what it writes, what it tells and how it ends."""

import hashlib
import io
import json
import os
import re
import stat
import subprocess
import sys
import threading
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from app import cli
from app.keys import editing, key_file
from app.keys.entries import KeyEntry
from app.keys.key_format import checksum_fits
from app.keys.key_ring import HeldKey
from app.keys.store import APIKeys

ROOT = Path(__file__).resolve().parents[2]
UUID = "784f394c-42b6-435a-983c-b7beff2784f9"
OTHER_UUID = "c1e3e6b6-1f3a-4d39-9a1f-0d5b9a4d7e11"
COMMENTED = """\
# Our keys. Ask Ann before you change one.

[[keys]]   # the first
name = "Ops"        # the control room
id = "ops"
sha256 = "89e01536ac207279409d4de1e5253e01f4a1769e696db0d6062ca9b8f56767c8"   # of free form
scopes = ["*"]

# The partner's ERP:
# until the contract ends.
[[keys]]
name = "ERP"
id = "erp"
sha256 = "2c1743a391305fbf367df8e4f069f9f9b828b4bd0ebb4d2a3d4e2a1f8d0cc0b1"
scopes = [
    "devices:read",      # lists
    "telemetry:read",
]

# That is all.
"""


@dataclass
class Said:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def key(self) -> str:
        """The key alone: nothing else may stand on standard output."""
        assert re.fullmatch(r"tbg_[^\n]+\n", self.out), self.out
        return self.out.strip()


Keys = Callable[..., Said]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys.toml"


@pytest.fixture
def keys(path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Keys:
    """Run `keys ...` on a file of our own, from a directory without `.env`."""
    monkeypatch.chdir(path.parent)

    def run(action: str, *arguments: str, file: Path | None = path) -> Said:
        code: Any
        try:
            code = cli.main(["keys", action, *arguments, *(["--file", str(file)] if file else [])])
        except SystemExit as end:
            code = end.code
        said = capsys.readouterr()
        return Said(code, said.out, said.err)

    return run


def entries(path: Path) -> dict[str, KeyEntry]:
    return {entry.id: entry for entry in key_file.parse(path.read_bytes())}


def holder(path: Path, key: str) -> str | None:
    """Return the id behind a key that works now."""
    found = APIKeys(key_file.parse(path.read_bytes())).find(key.encode())
    return found.caller.id if isinstance(found, HeldKey) else None


class TestCreate:
    """A new entry, and its key once."""

    def test_a_new_file_is_for_its_owner_only_and_holds_no_key(self, keys: Keys, path: Path) -> None:
        said = keys("create", "Analytics", "--scopes", "devices:read,telemetry:read")
        assert said.code == 0
        assert checksum_fits(said.key.encode())
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        (entry,) = entries(path).values()
        assert (entry.name, entry.scopes) == ("Analytics", ("devices:read", "telemetry:read"))
        (written,) = tomllib.loads(path.read_text())["keys"]
        assert set(written) == {"name", "id", "sha256", "created", "scopes"}
        assert said.key.split("_")[1] == entry.id
        assert holder(path, said.key) == entry.id
        secret = said.key.rpartition("_")[2]
        assert secret not in path.read_text() + said.err

    def test_every_argument_reaches_its_field(self, keys: Keys, path: Path) -> None:
        before = datetime.now(UTC).replace(microsecond=0)
        said = keys(
            *(
                "create",
                "Everything",
                "--id",
                "every-thing",
                "--scopes",
                "devices:read",
                "--scopes",
                "rpc:send",
            ),
            *("--device", UUID, "--device", OTHER_UUID.upper(), "--device-type", "thermo, stat"),
            *("--customer", UUID, "--asset", OTHER_UUID, "--rate-limit", "10/second;1000/hour"),
            *("--max-streams", "3", "--expires", "90d", "--not-before", "2026-01-01T00:00:00+01:00"),
            *("--allowed-ip", "10.0.0.0/8", "--allowed-ip", "2001:db8::7"),
            *(
                "--allowed-origin",
                "https://app.example.com",
                "--upstream",
                "default",
                "--description",
                'Ünï "x"',
            ),
        )
        assert said.code == 0, said.err
        entry = entries(path)["every-thing"]
        assert entry.scopes == ("devices:read", "rpc:send")
        assert entry.devices == (UUID, OTHER_UUID)
        assert entry.device_types == ("thermo, stat",)
        assert (entry.customer, entry.asset) == (UUID, OTHER_UUID)
        assert (entry.rate_limit, entry.max_streams) == ("10/second;1000/hour", 3)
        assert entry.expires_at
        assert timedelta(days=90) <= entry.expires_at - before < timedelta(days=90, minutes=2)
        assert entry.not_before == datetime(2025, 12, 31, 23, tzinfo=UTC)
        assert [str(network) for network in entry.allowed_ips or ()] == ["10.0.0.0/8", "2001:db8::7/128"]
        assert entry.allowed_origins == ("https://app.example.com",)
        assert (entry.upstream, entry.description) == ("default", 'Ünï "x"')
        assert entry.created
        assert entry.created >= before

    def test_the_rest_of_the_file_stays_as_it_is(self, keys: Keys, path: Path) -> None:
        path.write_text(COMMENTED)
        path.chmod(0o640)
        assert keys("create", "New", "--scopes", "*").code == 0
        assert path.read_text().startswith(COMMENTED)
        assert list(entries(path))[:2] == ["ops", "erp"]
        assert stat.S_IMODE(path.stat().st_mode) == 0o640

    @pytest.mark.parametrize("end", ["", "\n", "\n# end"])
    def test_however_the_file_ends(self, keys: Keys, path: Path, end: str) -> None:
        path.write_text(COMMENTED.rstrip() + end)
        assert keys("create", "New", "--scopes", "*").code == 0
        assert len(entries(path)) == 3
        assert '\n\n[[keys]]\nname = "New"\n' in path.read_text()

    def test_a_file_of_comments_only_is_a_beginning(self, keys: Keys, path: Path) -> None:
        path.write_text("# No keys yet.\n")
        assert keys("create", "New", "--scopes", "*").code == 0
        assert path.read_text().startswith("# No keys yet.\n\n[[keys]]\n")

    def test_a_name_is_taken_once(self, keys: Keys, path: Path) -> None:
        path.write_text(COMMENTED)
        said = keys("create", "ERP", "--scopes", "*")
        assert (said.code, said.out) == (1, "")
        assert "'ERP' already" in said.err
        assert path.read_text() == COMMENTED

    def test_an_id_is_taken_once(self, keys: Keys, path: Path) -> None:
        path.write_text(COMMENTED)
        assert keys("create", "Other", "--id", "A-Z9" * 8, "--scopes", "*", "--print").code == 0
        said = keys("create", "Other", "--id", "erp", "--scopes", "*")
        assert (said.code, said.out) == (2, "")
        assert "two keys share one id (erp)" in said.err
        assert path.read_text() == COMMENTED

    def test_print_writes_nothing_and_tells_an_entry_to_paste(self, keys: Keys, path: Path) -> None:
        said = keys("create", "Partner", "--scopes", "devices:read", "--print", file=None)
        assert said.code == 0
        assert not path.exists()
        told = "# Add this to the key file; the key itself is on standard output, this once.\n[[keys]]\n"
        assert said.err.startswith(told)
        # All of standard error can go into the file.
        path.write_text(COMMENTED + said.err)
        assert holder(path, said.key) == next(reversed(entries(path)))

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (["--scopes", "devices:rea"], "--scopes: unknown scope devices:rea"),
            (["--scopes", ","], "--scopes: "),
            (["--scopes", "*", "--device", "boiler"], "--device: must be a UUID"),
            (["--scopes", "*", "--device-type", ""], "--device-type: "),
            (["--scopes", "*", "--customer", "A"], "--customer: must be a UUID"),
            (["--scopes", "*", "--rate-limit", "often"], "--rate-limit: must "),
            (["--scopes", "*", "--max-streams", "-1"], "--max-streams: "),
            (["--scopes", "*", "--max-streams", "two"], "--max-streams"),
            (
                ["--scopes", "*", "--expires", "soon"],
                (
                    "❌ --expires: must be a time from now such as 90d, "
                    "or a date with time and offset such as 2027-01-31T00:00:00Z\n"
                ),
            ),
            (["--scopes", "*", "--expires", "999999w"], "--expires: must be a time from now"),
            (["--scopes", "*", "--expires", "2027-01-31"], "--expires: must be a time from now"),
            (["--scopes", "*", "--expires", "2020-01-31T00:00:00Z"], "❌ --expires: must be in the future\n"),
            (["--scopes", "*", "--not-before", "x"], "--not-before: must be a time from now"),
            (
                ["--scopes", "*", "--not-before", "2d", "--expires", "1d"],
                "expires_at must be after not_before",
            ),
            (["--scopes", "*", "--allowed-ip", "10.0.0.1/8"], "--allowed-ip: must be an address"),
            (["--scopes", "*", "--allowed-origin", "app"], "--allowed-origin: must be exact origins"),
            (["--scopes", "*", "--id", "a_b"], "❌ --id: must be letters, digits and -, at most 32\n"),
            (
                ["--scopes", "*", "--device", "boiler", "--customer", "A"],
                "❌ --device: must be a UUID\n❌ --customer: must be a UUID\n",
            ),
            ([], "--scopes"),
        ],
        ids=lambda value: " ".join(value) if isinstance(value, list) else "",
    )
    def test_bad_arguments_are_named(self, keys: Keys, path: Path, arguments: list[str], words: str) -> None:
        said = keys("create", "New", *arguments)
        assert (said.code, said.out) == (2, "")
        assert words in said.err
        assert not path.exists()

    def test_an_upstream_must_be_one_that_this_machine_knows_of(
        self, keys: Keys, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A key for another one would make the whole file a broken one."""
        other = ["New", "--scopes", "*", "--upstream", "other"]
        monkeypatch.setenv("TB_HOST", "https://tb.example.com")
        assert "upstream: unknown; known are default" in keys("create", *other).err
        upstreams = tmp_path / "upstreams.toml"
        monkeypatch.setenv("UPSTREAMS_FILE", str(upstreams))
        upstreams.write_text('[[upstreams]]\nname = "north"\n')
        assert "upstream: unknown; known are default, north" in keys("create", *other).err
        monkeypatch.delenv("TB_HOST")
        assert "upstream: is needed, as there is no default; known are north" in (
            keys("create", "New", "--scopes", "*").err
        )
        assert not path.exists()
        upstreams.write_text('[[upstreams]]\nname = "other"\n')
        assert keys("create", *other).code == 0
        # A secret that this person may not read, or no configuration at all: the gateway will tell.
        upstreams.unlink()
        assert keys("create", "Newer", *other[1:]).code == 0
        assert {entry.upstream for entry in entries(path).values()} == {"other"}

    def test_a_broken_file_is_not_edited(self, keys: Keys, path: Path) -> None:
        broken = COMMENTED + "[[keys]]\nname = 1\n"
        path.write_text(broken)
        said = keys("create", "New", "--scopes", "*")
        assert (said.code, said.out) == (2, "")
        assert "keys.2.name: " in said.err
        assert path.read_text() == broken

    def test_a_folder_that_is_not_there_is_told(self, keys: Keys, tmp_path: Path) -> None:
        said = keys("create", "New", "--scopes", "*", file=tmp_path / "no" / "keys.toml")
        assert (said.code, said.out) == (1, "")
        assert "cannot be written (No such file or directory): --print" in said.err

    def test_a_link_stays_one(self, keys: Keys, path: Path, tmp_path: Path) -> None:
        real = tmp_path / "real"
        real.mkdir()
        (real / "keys.toml").write_text(COMMENTED)
        path.symlink_to(real / "keys.toml")
        assert keys("create", "New", "--scopes", "*").code == 0
        assert path.is_symlink()
        assert len(entries(real / "keys.toml")) == 3

    def test_nothing_is_left_beside_the_file(
        self, keys: Keys, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path.write_text(COMMENTED)

        beside: list[str] = []

        def fail(_: int) -> None:
            beside.extend(sorted(each.name for each in path.parent.iterdir()))
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patched:
            patched.setattr(editing.os, "fsync", fail)
            said = keys("create", "New", "--scopes", "*")
        assert (said.code, said.out) == (1, "")
        assert "No space left on device" in said.err
        assert path.read_text() == COMMENTED
        assert list(path.parent.iterdir()) == [path]
        # Written there, as a file can be replaced in one step only within its file system.
        assert [name.rpartition(".")[0] for name in beside] == [".keys.toml", "keys"]

    def test_another_owner_stays_one(self, keys: Keys, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Else the gateway could no longer read the file that somebody else, such as root, has edited."""
        path.write_text(COMMENTED)
        owner = (path.stat().st_uid, path.stat().st_gid)
        given: list[tuple[int, int, int]] = []

        def give(descriptor: int, user: int, group: int) -> None:
            given.append((os.fstat(descriptor).st_ino, user, group))

        monkeypatch.setattr(editing.os, "fchown", give)
        assert keys("disable", "erp").code == 0
        assert given == []
        monkeypatch.setattr(editing.os, "geteuid", lambda: owner[0] + 1)
        assert keys("enable", "erp").code == 0
        assert given == [(path.stat().st_ino, *owner)]

    def test_a_long_list_has_an_element_a_line(self, keys: Keys, path: Path) -> None:
        scopes = ["alarms:read", "alarms:write", "assets:read", "assets:write", "devices:read", "rpc:send"]
        scopes.append("telemetry:read")
        assert keys("create", "New", "--scopes", ",".join(scopes)).code == 0
        lines = "".join(f'    "{scope}",\n' for scope in scopes)
        assert f"\nscopes = [\n{lines}]\n" in path.read_text()

    def test_editors_wait_for_each_other(self, path: Path) -> None:
        """Without the lock most of these would overwrite each other's entry."""

        def add(number: int) -> None:
            entry = KeyEntry(name=f"k{number}", id=f"k{number}", sha256=f"{number:064d}", scopes=("*",))
            editing.edit(path, lambda data: editing.with_entry(data, entry), may_create=True)

        threads = [threading.Thread(target=add, args=(number,)) for number in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(entries(path)) == 12

    def test_an_editor_that_never_ends_is_not_waited_for(
        self, keys: Keys, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path.write_text(COMMENTED)
        monkeypatch.setattr(editing, "LOCK_SECONDS", 0.0)
        with editing._locked(path.parent):
            said = keys("create", "New", "--scopes", "*")
        assert (said.code, said.out) == (1, "")
        assert "another edit is under way" in said.err


class TestHelp:
    """`--help`."""

    @pytest.mark.parametrize("command", ["keys", "keys create", "keys list", "keys rotate"])
    def test_the_page_shows_what_it_says(
        self, command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        page = (ROOT / "docs/api-keys.md").read_text()
        shown = re.findall(rf"```text\n(usage: python -m app {command} \[.*?)```", page, re.DOTALL)
        monkeypatch.setenv("COLUMNS", "110")
        with pytest.raises(SystemExit):
            cli.main([*command.split(), "--help"])
        # Versions of Python break lines differently.
        assert [text.split() for text in shown] == [capsys.readouterr().out.split()]

    def test_an_action_is_needed(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit) as end:
            cli.main(["keys"])
        assert end.value.code == 2
        assert "the following arguments are required: action" in capsys.readouterr().err


class TestRotate:
    """Another secret, with or without mercy for the old one."""

    def test_both_secrets_work_for_a_week(self, keys: Keys, path: Path) -> None:
        old = keys("create", "A", "--id", "a", "--scopes", "*").key
        new = keys("rotate", "A").key
        assert new != old
        assert new.startswith("tbg_a_")
        assert [holder(path, key) for key in (old, new)] == ["a", "a"]
        first, second = entries(path)["a"].all_secrets
        assert first.expires_at
        assert timedelta(days=6, hours=23) < first.expires_at - datetime.now(UTC) <= timedelta(days=7)
        assert second.expires_at is None
        assert second.created

    def test_what_becomes_of_the_old_secret_is_told(self, keys: Keys, path: Path) -> None:
        keys("create", "A", "--id", "a", "--scopes", "*")
        said = keys("rotate", "a")
        end = f"{entries(path)['a'].all_secrets[0].expires_at:%Y-%m-%dT%H:%M:%SZ}"
        shown = "The new key is shown this once:\n"
        assert said.err == f"✅ The old secret of A ends {end} at the latest. {shown}"
        assert keys("rotate", "a", "--now").err == f"✅ The old secret of A has ended. {shown}"

    def test_the_overlap_is_a_choice(self, keys: Keys, path: Path) -> None:
        keys("create", "A", "--id", "a", "--scopes", "*")
        assert keys("rotate", "a", "--overlap", "12h").code == 0
        end = entries(path)["a"].all_secrets[0].expires_at
        assert end
        assert timedelta(hours=11) < end - datetime.now(UTC) <= timedelta(hours=12)

    @pytest.mark.parametrize("arguments", [["--now"], ["--overlap", "0s"]])
    def test_the_old_secret_can_end_at_once(self, keys: Keys, path: Path, arguments: list[str]) -> None:
        old = keys("create", "A", "--id", "a", "--scopes", "*").key
        new = keys("rotate", "A", *arguments).key
        assert [holder(path, key) for key in (old, new)] == [None, "a"]

    def test_a_third_live_secret_is_refused(self, keys: Keys, path: Path) -> None:
        old = keys("create", "A", "--id", "a", "--scopes", "*").key
        new = keys("rotate", "A").key
        before = path.read_text()
        end = f"{entries(path)['a'].all_secrets[0].expires_at:%Y-%m-%dT%H:%M:%SZ}"
        said = keys("rotate", "A")
        assert (said.code, said.out) == (1, "")
        assert said.err == (
            f"❌ 'A' has 2 live secrets already, the next one to end: {end}; "
            "wait for that, or end them all with --now\n"
        )
        assert path.read_text() == before
        newest = keys("rotate", "A", "--now").key
        assert [holder(path, key) for key in (old, new, newest)] == [None, None, "a"]

    def test_a_file_that_is_not_there_is_not_made(self, keys: Keys, path: Path) -> None:
        said = keys("rotate", "a")
        assert (said.code, path.exists()) == (2, False)
        assert "cannot be read (No such file or directory)" in said.err

    def test_live_secrets_without_an_end_are_told_so(self, keys: Keys, path: Path) -> None:
        path.write_text(
            '[[keys]]\nname = "A"\nid = "a"\nscopes = ["*"]\n'
            f'secrets = [{{sha256 = "{"1" * 64}"}}, {{sha256 = "{"2" * 64}"}}]\n'
        )
        assert "the next one to end: never; " in keys("rotate", "a").err

    def test_secrets_that_have_ended_leave_the_file(self, keys: Keys, path: Path) -> None:
        path.write_text(
            '[[keys]]\nname = "A"\nid = "a"\nscopes = ["*"]\nsecrets = [\n'
            f'  {{sha256 = "{"1" * 64}", expires_at = 2020-01-01T00:00:00Z}},\n'
            f'  {{sha256 = "{"2" * 64}"}},\n]\n'
        )
        assert keys("rotate", "a").code == 0
        digests = [secret.sha256 for secret in entries(path)["a"].all_secrets]
        assert digests[0] == "2" * 64
        assert len(digests) == 2

    def test_an_earlier_end_is_not_put_off(self, keys: Keys, path: Path) -> None:
        path.write_text(
            '[[keys]]\nname = "A"\nid = "a"\nscopes = ["*"]\n'
            f'[[keys.secrets]]\nsha256 = "{"1" * 64}"\nexpires_at = 2100-01-01T00:00:00Z\n'
        )
        assert keys("rotate", "a", "--overlap", "5200w").code == 0
        assert entries(path)["a"].all_secrets[0].expires_at == datetime(2100, 1, 1, tzinfo=UTC)

    def test_secrets_in_tables_of_their_own_become_a_list_and_comments_stay(
        self, keys: Keys, path: Path
    ) -> None:
        old = (
            f'[[keys.secrets]]\nsha256 = "{"1" * 64}"\n'
            f'[[keys.secrets]]\nsha256 = "{"2" * 64}"\nexpires_at = 2020-01-01T00:00:00Z\n'
        )
        path.write_text(f'[[keys]]\nname = "A"\nid = "a"\nscopes = ["*"]\n# Ours.\n{old}\n{COMMENTED}')
        assert keys("rotate", "a").code == 0
        text = path.read_text()
        assert text.endswith(f"]\n\n{COMMENTED}")
        assert text.index("# Ours.") < text.index("secrets = [")
        assert [secret.sha256[:1] for secret in entries(path)["a"].all_secrets][:-1] == ["1"]

    def test_the_key_itself_may_get_another_end(self, keys: Keys, path: Path) -> None:
        keys("create", "A", "--id", "a", "--scopes", "*", "--expires", "10d")
        end = f"{entries(path)['a'].expires_at:%Y-%m-%dT%H:%M:%SZ}"
        warned = keys("rotate", "a", "--now").err.splitlines()
        assert warned[0] == f"✅ The key ends {end}, its new secret with it: --expires moves that."
        assert keys("rotate", "a", "--now", "--expires", "2099-01-31T00:00:00Z").code == 0
        assert entries(path)["a"].expires_at == datetime(2099, 1, 31, tzinfo=UTC)
        assert keys("rotate", "a", "--now", "--expires", "30d").code == 0
        end = entries(path)["a"].expires_at
        assert end
        assert timedelta(days=29) < end - datetime.now(UTC) <= timedelta(days=30)
        for wrong in ("2020-01-31T00:00:00Z", "x", "2099-01-31"):
            assert "--expires: must be " in keys("rotate", "a", "--expires", wrong).err

    def test_a_key_of_old_gets_the_new_form_and_comments_stay(self, keys: Keys, path: Path) -> None:
        path.write_text(COMMENTED)
        new = keys("rotate", "erp").key
        assert holder(path, new) == "erp"
        text = path.read_text()
        for comment in re.findall(r"#.*", COMMENTED):
            assert comment in text
        # What stands above an entry still does, and the last words are still last.
        assert text.index("# The partner's ERP") < text.index('name = "ERP"') < text.index("secrets = [")
        assert text.endswith("\n# That is all.\n")

    def test_rotating_at_once_changes_one_line(self, keys: Keys, path: Path) -> None:
        path.write_text(COMMENTED)
        keys("rotate", "ops", "--now")
        pairs = list(zip(COMMENTED.splitlines(), path.read_text().splitlines(), strict=True))
        assert [old for old, new in pairs if old != new] == [COMMENTED.splitlines()[5]]
        assert path.read_text().splitlines()[5].endswith("   # of free form")

    def test_print_leaves_the_file_alone(self, keys: Keys, path: Path) -> None:
        path.write_text(COMMENTED)
        said = keys("rotate", "erp", "--print")
        assert path.read_text() == COMMENTED
        assert said.err.startswith("# Put this in place of the present entry:\n[[keys]]\n")
        path.write_text(said.err)
        assert holder(path, said.key) == "erp"
        assert len(entries(path)) == 1

    def test_bad_overlaps_are_named(self, keys: Keys, path: Path) -> None:
        path.write_text(COMMENTED)
        said = keys("rotate", "erp", "--overlap", "a week")
        assert said.code == 2
        assert said.err == "❌ --overlap: must be a number and a unit (s m h d w), such as 12h\n"
        assert keys("rotate", "erp", "--overlap", "1d", "--now").code == 2
        assert path.read_text() == COMMENTED


class TestDisable:
    """Refused, and accepted again."""

    def test_there_and_back(self, keys: Keys, path: Path) -> None:
        key = keys("create", "A", "--id", "a", "--scopes", "*").key
        assert keys("disable", "A").code == 0
        assert holder(path, key) is None
        assert keys("disable", "A").err == "✅ A (a): disabled\n"
        assert keys("enable", "A").err == "✅ A (a): live\n"
        assert holder(path, key) == "a"
        keys("rotate", "A")
        assert keys("enable", "A").err == "✅ A (a): live, 2 secrets\n"

    def test_only_one_line_is_added(self, keys: Keys, path: Path) -> None:
        path.write_text(COMMENTED)
        keys("disable", "ops")
        assert path.read_text() == COMMENTED.replace('scopes = ["*"]\n', 'scopes = ["*"]\ndisabled = true\n')

    def test_print_tells_the_entry(self, keys: Keys, path: Path) -> None:
        path.write_text(COMMENTED)
        said = keys("disable", "ops", "--print")
        assert path.read_text() == COMMENTED
        assert tomllib.loads(said.err)["keys"][0]["disabled"] is True

    def test_an_unknown_or_ambiguous_name_is_told(self, keys: Keys, path: Path) -> None:
        path.write_text(COMMENTED.replace('name = "ERP"', 'name = "Ops"'))
        said = keys("disable", "Nobody")
        assert (said.code, said.err) == (1, "❌ no key has the id or the name 'Nobody'\n")
        said = keys("disable", "Ops")
        assert (said.code, said.err) == (1, "❌ 2 keys have the name 'Ops': use an id (ops, erp)\n")
        assert keys("disable", "erp").code == 0

    def test_a_list_in_one_piece_is_left_to_people(self, keys: Keys, path: Path) -> None:
        path.write_text(f'keys = [{{name = "A", id = "a", scopes = ["*"], sha256 = "{"1" * 64}"}}]\n')
        said = keys("disable", "a")
        assert said.code == 1
        assert said.err == "❌ keys is a list in one piece: write [[keys]] tables, or edit it by hand\n"


class TestReading:
    """list, show and verify."""

    FILE = (
        COMMENTED
        + f'[[keys]]\nname = "Old"\nid = "old"\nscopes = ["*"]\nsha256 = "{"3" * 64}"\n'
        + "expires_at = 2020-01-01T00:00:00Z\n"
        + f'[[keys]]\nname = "Soon"\nid = "soon"\nscopes = ["*"]\nsha256 = "{"4" * 64}"\n'
        + "not_before = 2999-01-01T00:00:00Z\n"
        + f'[[keys]]\nname = "Off"\nid = "off"\nscopes = ["*"]\nsha256 = "{"5" * 64}"\ndisabled = true\n'
        + '[[keys]]\nname = "Two"\nid = "two"\nscopes = ["*"]\n'
        + f'secrets = [{{sha256 = "{"6" * 64}"}}, {{sha256 = "{"7" * 64}"}}]\n'
        + '[[keys]]\nname = "Gone"\nid = "gone"\nscopes = ["*"]\n'
        + f'secrets = [{{sha256 = "{"8" * 64}", expires_at = 2020-01-01T00:00:00Z}}]\n'
    )

    def test_a_list_says_how_each_key_stands(self, keys: Keys, path: Path) -> None:
        path.write_text(self.FILE)
        said = keys("list")
        assert said.code == 0
        rows = [re.split(r"  +", line) for line in said.out.splitlines()]
        assert rows[0] == ["ID", "NAME", "STATE", "EXPIRES", "SCOPES"]
        assert rows[2] == ["erp", "ERP", "live", "never", "devices:read telemetry:read"]
        assert rows[3] == ["old", "Old", "expired", "2020-01-01T00:00:00Z", "*"]
        # Columns begin where their titles do.
        titles = said.out.splitlines()[0]
        assert [line[titles.index("STATE") - 2 :][:3] for line in said.out.splitlines()[2:4]] == [
            "  l",
            "  e",
        ]
        states = {row[0]: row[2] for row in rows[1:]}
        assert states == {
            "ops": "live",
            "erp": "live",
            "old": "expired",
            "soon": "not valid yet",
            "off": "disabled",
            "two": "live, 2 secrets",
            "gone": "expired",
        }
        as_json = keys("list", "--json")
        assert as_json.code == 0
        assert [(key["id"], key["state"]) for key in json.loads(as_json.out)] == list(states.items())
        assert as_json.out.count("\n") > len(states), "people read it, too"

    def test_an_entry_is_shown_without_its_digests(self, keys: Keys, path: Path) -> None:
        path.write_text(self.FILE)
        for key in ("erp", "two"):
            for arguments in ([], ["--json"]):
                said = keys("show", key, *arguments)
                assert said.code == 0
                assert not re.search(r"[0-9a-f]{12}", said.out)
        as_json = keys("show", "old", "--json").out
        assert as_json.count("\n") > 5
        assert json.loads(as_json) == {
            "state": "expired",
            "name": "Old",
            "id": "old",
            "scopes": ["*"],
            "expires_at": "2020-01-01T00:00:00Z",
        }

    def test_a_shown_entry_is_a_field_a_line(self, keys: Keys, path: Path) -> None:
        path.write_text(
            COMMENTED.replace('name = "ERP"', 'name = "ERP \u00dc"\nallowed_origins = ["https://\u00fc.de"]')
        )
        assert keys("show", "erp").out.splitlines() == [
            "state: live",
            "name: ERP \u00dc",
            "id: erp",
            'scopes: ["devices:read", "telemetry:read"]',
            'allowed_origins: ["https://\u00fc.de"]',
        ]

    def test_the_file_of_the_environment_counts_without_another(
        self, keys: Keys, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        said = keys("list", file=None)
        assert (said.code, said.err) == (2, "❌ --file: is needed, for API_KEYS_FILE is not set\n")
        path.write_text(COMMENTED)
        monkeypatch.setenv("API_KEYS_FILE", str(path))
        assert "Ops" in keys("list", file=None).out

    def test_a_missing_file_is_told(self, keys: Keys) -> None:
        said = keys("list")
        assert (said.code, said.out) == (2, "")
        assert "cannot be read (No such file or directory)" in said.err


class TestVerify:
    """Whose key it is, and whether it works."""

    SECRET = "a-key-of-free-form"

    @pytest.fixture
    def verify(
        self, keys: Keys, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> Callable[..., tuple[int, str]]:
        """Give `verify` this on standard input, with more fields in the entry; return how it ends."""

        def run(presented: str, *fields: str) -> tuple[int, str]:
            digest = hashlib.sha256(self.SECRET.encode()).hexdigest()
            lines = ['name = "A"', 'id = "a"', 'scopes = ["*"]', f'sha256 = "{digest}"', *fields]
            path.write_text(COMMENTED + "\n".join(["[[keys]]", *lines]) + "\n")
            monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(presented.encode())))
            said = keys("verify")
            return said.code, said.out or said.err

        return run

    @pytest.mark.parametrize(
        ("fields", "told"),
        [
            ([], "A (a): works, a key of free form"),
            (
                ["expires_at = 2099-01-31T00:00:00Z"],
                "A (a): works, until 2099-01-31T00:00:00Z, a key of free form",
            ),
            (
                [
                    'allowed_ips = ["10.0.0.0/8", "192.0.2.7"]',
                    'allowed_origins = ["https://b.example", "https://a.example"]',
                ],
                (
                    "A (a): works, only from 10.0.0.0/8, 192.0.2.7/32, "
                    "only by pages of https://a.example, https://b.example, a key of free form"
                ),
            ),
        ],
        ids=["free", "with an end", "bound"],
    )
    def test_a_key_that_works(
        self, verify: Callable[..., tuple[int, str]], fields: list[str], told: str
    ) -> None:
        assert verify(f"  {self.SECRET}\n", *fields) == (0, told + "\n")

    @pytest.mark.parametrize(
        ("field", "why"),
        [
            ("disabled = true", "disabled"),
            ("not_before = 2999-01-01T00:00:00Z", "not valid yet"),
            ("expires_at = 2020-01-01T00:00:00Z", "expired"),
        ],
    )
    def test_a_key_that_does_not_says_whose_it_is_and_why(
        self, verify: Callable[..., tuple[int, str]], field: str, why: str
    ) -> None:
        assert verify(self.SECRET, field) == (1, f"A (a): refused, {why}\n")

    def test_a_key_that_nobody_has(self, verify: Callable[..., tuple[int, str]]) -> None:
        assert verify("another-key") == (1, "refused, no entry has this key\n")
        assert verify(" \n") == (2, "❌ standard input: must hold a key\n")

    def test_a_generated_key_is_told_by_its_form(
        self, keys: Keys, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        key = keys("create", "A", "--id", "a", "--scopes", "*").key
        wrong = key[:-1] + ("A" if key[-1] != "A" else "B")
        for presented, told in (
            (key, (0, "A (a): works\n")),
            (wrong, (1, "refused, mistyped: its checksum is wrong\n")),
        ):
            monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(presented.encode())))
            said = keys("verify")
            assert (said.code, said.out) == told

    def test_a_person_at_a_terminal_is_asked_and_sees_nothing(
        self, keys: Keys, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        key = keys("create", "A", "--id", "a", "--scopes", "*").key
        terminal = io.TextIOWrapper(io.BytesIO())
        monkeypatch.setattr(terminal, "isatty", lambda: True, raising=False)
        monkeypatch.setattr(sys, "stdin", terminal)
        asked: list[str] = []
        monkeypatch.setattr("getpass.getpass", lambda prompt: asked.append(prompt) or key)
        assert keys("verify").out == "A (a): works\n"
        assert asked == ["API key: "]

    def test_no_more_is_read_than_a_key_can_be_long(self, verify: Callable[..., tuple[int, str]]) -> None:
        """Somebody may pipe in the wrong file."""
        assert verify(self.SECRET.ljust(4096) + "more")[0] == 0
        assert verify(self.SECRET.rjust(4097))[0] == 1


class TestAsAProcess:
    """The whole command, as people and scripts run it."""

    @staticmethod
    def run(
        *arguments: str, cwd: Path, stdin: str = "", **variables: str
    ) -> subprocess.CompletedProcess[str]:
        inherited = {name: value for name, value in os.environ.items() if name != "API_KEYS_FILE"}
        return subprocess.run(
            [sys.executable, "-m", "app", "keys", *arguments],
            cwd=cwd,
            env={**inherited, "PYTHONPATH": str(ROOT), **variables},
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    def test_from_a_new_key_to_its_end(self, tmp_path: Path) -> None:
        (tmp_path / ".env").write_text("API_KEYS_FILE=from-dotenv.toml\n")
        made = self.run("create", "A", "--scopes", "*", "--allowed-ip", "10.0.0.0/8", cwd=tmp_path)
        assert made.returncode == 0
        path = tmp_path / "from-dotenv.toml"
        key = made.stdout.strip()
        good = self.run("verify", cwd=tmp_path, stdin=made.stdout)
        assert good.returncode == 0
        assert re.fullmatch(r"A \(\w{8}\): works, only from 10\.0\.0\.0/8\n", good.stdout)
        assert self.run("disable", "A", cwd=tmp_path).returncode == 0
        off = self.run("verify", "--file", str(path), cwd=tmp_path, stdin=key)
        assert off.returncode == 1
        assert off.stdout.endswith(": refused, disabled\n")
        wrong = key[:-1] + ("A" if key[-1] != "A" else "B")
        mistyped = self.run("verify", cwd=tmp_path, stdin=wrong)
        assert (mistyped.returncode, mistyped.stdout) == (1, "refused, mistyped: its checksum is wrong\n")
        unknown = self.run("verify", cwd=tmp_path, stdin="nobody's-key")
        assert (unknown.returncode, unknown.stdout) == (1, "refused, no entry has this key\n")
        secret = key.rpartition("_")[2]
        for said in (made.stderr, good.stdout, good.stderr, off.stdout, off.stderr, path.read_text()):
            assert secret not in said

    def test_the_environment_stands_before_dotenv(self, tmp_path: Path) -> None:
        (tmp_path / ".env").write_text("API_KEYS_FILE=from-dotenv.toml\n")
        done = self.run("create", "A", "--scopes", "*", cwd=tmp_path, API_KEYS_FILE=str(tmp_path / "k.toml"))
        assert done.returncode == 0
        assert (tmp_path / "k.toml").exists()

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (["list"], "--file: is needed, for API_KEYS_FILE is not set"),
            (["verify", "tbg_a_b"], "unrecognized arguments"),
            (["nonsense"], "invalid choice"),
        ],
    )
    def test_misuse_is_told(self, tmp_path: Path, arguments: list[str], words: str) -> None:
        done = self.run(*arguments, cwd=tmp_path)
        assert (done.returncode, done.stdout) == (2, "")
        assert words in done.stderr

    def test_a_key_is_asked_for(self, tmp_path: Path) -> None:
        (tmp_path / "keys.toml").write_text(COMMENTED)
        done = self.run("verify", "--file", "keys.toml", cwd=tmp_path, stdin=" \n")
        assert (done.returncode, done.stderr) == (2, "❌ standard input: must hold a key\n")
