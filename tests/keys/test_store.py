"""The keys of a process: who holds one, and how a change of the file comes through."""

import asyncio
import contextlib
import hashlib
import json
import os
import tomllib
from collections.abc import AsyncIterator, Callable
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from app import toml_tables
from app.context import Caller
from app.keys import key_file, store
from app.keys.key_format import make_key
from app.keys.key_ring import HeldKey, Refusal
from app.keys.store import APIKeys, Refused

DAY_MS = 86_400_000
NOW = 1_800_000_000_000  # 2027-01-15T08:00:00Z


class Clock:
    now = NOW

    def __call__(self) -> int:
        return self.now


def table(name: str, secret: str, more: str = "") -> str:
    digest = hashlib.sha256(secret.encode()).hexdigest()
    return (
        f'[[keys]]\nname = "{name}"\nid = "{name}"\nscopes = ["devices:read"]\nsha256 = "{digest}"\n{more}\n'
    )


def keys_of(text: str, path: Path | None = None) -> APIKeys:
    return APIKeys(key_file.parse(text.encode()), path, text.encode(), clock=Clock())


def refused(reason: Refusal, key_id: str | None = None) -> Refused:
    return Refused(reason, key_id)


class TestFinding:
    """Which keys count."""

    def test_a_key_is_found_among_many(self) -> None:
        keys = keys_of("".join(table(f"key-{number}", f"secret-{number}") for number in range(200)))
        for number in (0, 99, 199):
            found = keys.find(f"secret-{number}".encode())
            assert isinstance(found, HeldKey)
            assert found.caller.id == f"key-{number}"
        assert keys.find(b"secret-200") == refused(Refusal.UNKNOWN)
        assert len(keys) == 200

    @pytest.mark.parametrize(
        ("more", "expected"),
        [
            ("disabled = true", Refusal.DISABLED),
            ("not_before = 2027-01-15T08:00:01Z", Refusal.NOT_YET_VALID),
            ("not_before = 2027-01-15T08:00:00Z", None),
            ("expires_at = 2027-01-15T08:00:00Z", Refusal.EXPIRED),
            ("expires_at = 2027-01-15T09:00:00.001+01:00", None),
            ("disabled = true\nexpires_at = 2026-01-01T00:00:00Z", Refusal.DISABLED),
        ],
    )
    def test_time_and_state_decide(self, more: str, expected: Refusal | None) -> None:
        found = keys_of(table("a", "secret", more)).find(b"secret")
        assert (found.reason if isinstance(found, Refused) else None) == expected
        assert not isinstance(found, Refused) or found.key_id == "a"

    def test_while_rotating_both_secrets_count_each_to_its_own_end(self) -> None:
        clock = Clock()
        digests = [hashlib.sha256(secret).hexdigest() for secret in (b"old", b"new")]
        text = (
            '[[keys]]\nname = "a"\nid = "a"\nscopes = ["*"]\nexpires_at = 2027-01-17T00:00:00Z\nsecrets = ['
            f'{{sha256 = "{digests[0]}", expires_at = 2027-01-16T00:00:00Z}}, {{sha256 = "{digests[1]}"}}]\n'
        )
        keys = APIKeys(key_file.parse(text.encode()), clock=clock)
        assert isinstance(keys.find(b"old"), HeldKey)
        assert isinstance(keys.find(b"new"), HeldKey)
        clock.now = NOW + DAY_MS
        assert keys.find(b"old") == refused(Refusal.ROTATED, "a")
        assert isinstance(keys.find(b"new"), HeldKey)
        clock.now = NOW + 2 * DAY_MS
        assert keys.find(b"new") == refused(Refusal.EXPIRED, "a")

    def test_a_mistyped_key_is_not_even_hashed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        key = make_key("abcd1234")
        keys = keys_of(table("a", key))

        def never(_: bytes) -> None:
            pytest.fail("hashed")

        monkeypatch.setattr(store.hashlib, "sha256", never)
        wrong = key[:-8] + ("A" if key[-8] != "A" else "B") + key[-7:]
        assert keys.find(wrong.encode()) == refused(Refusal.MISTYPED)

    def test_addresses_and_origins(self) -> None:
        held = keys_of(
            table("a", "secret", 'allowed_ips = ["10.0.0.0/8", "2001:db8::/32"]')
            + table("b", "other", 'allowed_origins = ["https://App.example.com/"]')
        )
        by_address, by_origin = held.find(b"secret"), held.find(b"other")
        assert isinstance(by_address, HeldKey)
        assert isinstance(by_origin, HeldKey)
        assert [by_address.allows_address(ip_address(a)) for a in ("10.1.2.3", "2001:db8::1")] == [True, True]
        assert [by_address.allows_address(ip_address(a)) for a in ("11.1.2.3", "2001:db9::1")] == [
            False,
            False,
        ]
        assert not by_address.allows_address(None)
        assert by_origin.allows_origins([])
        assert by_origin.allows_origins(["https://app.example.com"])
        for origins in (["null"], ["https://app.example.com:8443"], ["https://app.example.com", "https://b"]):
            assert not by_origin.allows_origins(origins)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys.toml"


@pytest.fixture
async def write(path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Write the file; it counts as settled at once."""
    monkeypatch.setattr(store, "SETTLE_SECONDS", 0.0)

    def write(*tables: str) -> None:
        # Another file each time: two states within one tick of the clock may look alike otherwise.
        fresh = path.with_suffix(".new")
        fresh.write_text("".join(tables))
        fresh.replace(path)

    return write


@pytest.fixture
def keys(path: Path, write: Callable[..., None]) -> APIKeys:
    """Two keys, from a file."""
    write(table("a", "secret-a"), table("b", "secret-b"))
    return keys_of(path.read_text(), path)


def events(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def caller_of(keys: APIKeys, secret: bytes) -> Caller:
    found = keys.find(secret)
    assert isinstance(found, HeldKey)
    return found.caller


def mount(folder: Path, *versions: str) -> None:
    """Lay out `keys.toml` as Kubernetes does: a link into `data`, itself a link to `0`, then `1`."""
    for number, text in enumerate(versions):
        (folder / str(number)).mkdir()
        (folder / str(number) / "keys.toml").write_text(text)
    (folder / "data").symlink_to("0")
    (folder / "keys.toml").unlink()
    (folder / "keys.toml").symlink_to("data/keys.toml")


def clear(path: Path) -> None:
    if path.is_dir():
        path.rmdir()


class TestReloading:
    """One look at the file, at a time of our choosing."""

    async def test_a_changed_file_counts_and_is_told_by_ids(
        self, keys: APIKeys, path: Path, write: Callable[..., None], capsys: pytest.CaptureFixture[str]
    ) -> None:
        write(table("b", "secret-b", "disabled = true"), table("c", "secret-c"))
        await keys.poll(path)
        assert keys.find(b"secret-a") == refused(Refusal.REVOKED, "a")
        assert keys.find(b"secret-b") == refused(Refusal.DISABLED, "b")
        assert caller_of(keys, b"secret-c").id == "c"
        (told,) = events(capsys)
        assert told["event"] == "keys_reloaded"
        assert (told["added"], told["removed"], told["changed"]) == (["c"], ["a"], ["b"])
        assert (told["keys"], keys.reloads, keys.generation) == (2, 1, 1)
        write(table("c", "secret-c"))
        await keys.poll(path)
        assert (keys.reloads, keys.generation) == (2, 2)

    async def test_when_its_state_began_is_known(
        self, keys: APIKeys, path: Path, write: Callable[..., None]
    ) -> None:
        assert keys.since == NOW
        for seconds, text in ((1, table("c", "secret-c")), (2, "[[keys"), (3, table("c", "secret-c"))):
            keys.clock = lambda now=NOW + seconds * 1_000: now  # type: ignore[misc]
            write(text)
            await keys.poll(path)
            assert keys.since == NOW + seconds * 1_000

    async def test_a_comment_changes_no_key(
        self, keys: APIKeys, path: Path, write: Callable[..., None], capsys: pytest.CaptureFixture[str]
    ) -> None:
        write(table("a", "secret-a", "# Ann's"), table("b", "secret-b"))
        await keys.poll(path)
        (told,) = events(capsys)
        assert (told["added"], told["removed"], told["changed"]) == ([], [], [])

    async def test_an_unchanged_file_is_not_read_again(
        self, keys: APIKeys, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await keys.poll(path)
        monkeypatch.setattr(toml_tables, "read", lambda _: pytest.fail("read"))
        await keys.poll(path)
        assert keys.generation == 0

    @pytest.mark.parametrize("text", [table("c", "secret-c"), "[[keys", "[[keys]]\n"])
    async def test_neither_is_one_that_was_read_whether_good_or_not(
        self,
        keys: APIKeys,
        path: Path,
        write: Callable[..., None],
        monkeypatch: pytest.MonkeyPatch,
        text: str,
    ) -> None:
        write(text)
        await keys.poll(path)
        monkeypatch.setattr(toml_tables, "read", lambda _: pytest.fail("read"))
        await keys.poll(path)

    async def test_a_changed_file_may_name_no_more_upstreams_than_at_the_start(
        self, path: Path, write: Callable[..., None]
    ) -> None:
        text = table("a", "secret-a")
        keys = APIKeys(key_file.parse(text.encode()), path, upstreams=frozenset({"default", "north"}))
        write(table("a", "secret-a", 'upstream = "south"'))
        await keys.poll(path)
        assert keys.fault == "key a: upstream: unknown; known are default, north"
        write(table("a", "secret-a", 'upstream = "north"'))
        await keys.poll(path)
        assert (keys.fault, caller_of(keys, b"secret-a").upstream) == (None, "north")

    async def test_a_file_touched_without_a_change_changes_nothing(
        self, keys: APIKeys, path: Path, write: Callable[..., None], capsys: pytest.CaptureFixture[str]
    ) -> None:
        await keys.poll(path)
        os.utime(path, (1, 1))
        await keys.poll(path)
        assert (keys.generation, keys.reloads) == (0, 0)
        assert events(capsys) == []
        write(table("c", "secret-c"))
        await keys.poll(path)
        os.utime(path, (1, 1))
        await keys.poll(path)
        assert (keys.generation, keys.reloads) == (1, 1)

    async def test_a_swapped_link_counts(
        self, keys: APIKeys, path: Path, tmp_path: Path, write: Callable[..., None]
    ) -> None:
        """Kubernetes swaps the directory a link points to; the file's own path stays the same."""
        mount(tmp_path, table("a", "secret-a"), table("b", "secret-b"))
        await keys.poll(path)
        assert keys.find(b"secret-b") == refused(Refusal.REVOKED, "b")
        (tmp_path / "next").symlink_to("1")
        (tmp_path / "next").rename(tmp_path / "data")
        await keys.poll(path)
        assert caller_of(keys, b"secret-b").id == "b"
        assert keys.find(b"secret-a") == refused(Refusal.REVOKED, "a")

    @pytest.mark.parametrize(
        ("break_it", "words"),
        [
            (lambda path: path.write_text("[[keys"), "is not valid TOML"),
            (lambda path: path.write_text(""), "needs at least one"),
            (lambda path: path.write_text(table("a", "secret-a", "device = 1")), "keys.0.device"),
            (lambda path: path.unlink(), "cannot be read"),
            (lambda path: (path.unlink(), path.mkdir()), "not a regular file"),
        ],
        ids=["torn", "empty", "unknown field", "gone", "a folder"],
    )
    async def test_a_broken_file_keeps_the_last_good_keys_and_is_told_once(
        self,
        keys: APIKeys,
        path: Path,
        write: Callable[..., None],
        capsys: pytest.CaptureFixture[str],
        break_it: Callable[[Path], object],
        words: str,
    ) -> None:
        break_it(path)
        for _ in range(3):
            await keys.poll(path)
        assert caller_of(keys, b"secret-a").id == "a"
        assert words in str(keys.fault)
        (told,) = events(capsys)
        assert (told["event"], told["level"], told["keys_in_use"]) == ("keys_file_broken", "error", 2)
        assert words in told["fault"]
        assert str(path) not in json.dumps(told)
        # Good again, with the very keys that are in use.
        clear(path)
        write(table("a", "secret-a"), table("b", "secret-b"))
        await keys.poll(path)
        assert keys.fault is None
        (told,) = events(capsys)
        assert (told["event"], told["was_broken"], told["keys"]) == ("keys_reloaded", True, 2)
        assert (keys.generation, keys.faults) == (0, 1)

    async def test_another_fault_is_told_anew(
        self, keys: APIKeys, path: Path, write: Callable[..., None], capsys: pytest.CaptureFixture[str]
    ) -> None:
        for text in ("[[keys", "", "[[keys"):
            write(text)
            await keys.poll(path)
        assert [event["event"] for event in events(capsys)] == ["keys_file_broken"] * 3
        assert keys.faults == 3

    async def test_a_fault_of_reading_is_tried_again_without_a_change(
        self, keys: APIKeys, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(_: Path) -> bytes:
            raise toml_tables.FileFault("cannot be read (Input/output error)")

        with monkeypatch.context() as patched:
            patched.setattr(toml_tables, "read", fail)
            await keys.poll(path)
            assert keys.fault
        await keys.poll(path)
        assert keys.fault is None

    async def test_a_file_that_is_being_written_is_left_alone(
        self, keys: APIKeys, path: Path, write: Callable[..., None], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write(table("a", "secret-a"))
        monkeypatch.setattr(store, "SETTLE_SECONDS", 3_600.0)
        await keys.poll(path)
        assert caller_of(keys, b"secret-b").id == "b"
        monkeypatch.setattr(store, "SETTLE_SECONDS", 0.0)
        await keys.poll(path)
        assert keys.find(b"secret-b") == refused(Refusal.REVOKED, "b")

    async def test_a_key_that_comes_back_works_again(
        self, keys: APIKeys, path: Path, write: Callable[..., None]
    ) -> None:
        write(table("a", "secret-a"))
        await keys.poll(path)
        write(table("a", "secret-a"), table("b", "secret-b", " # back"))
        await keys.poll(path)
        assert caller_of(keys, b"secret-b").id == "b"

    async def test_what_is_remembered_of_revoked_keys_is_bounded(
        self, keys: APIKeys, path: Path, write: Callable[..., None], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(store, "MOST_REVOKED", 2)
        for number in range(5):
            write(table("a", f"secret-{number}"))
            await keys.poll(path)
        assert keys.find(b"secret-a") == refused(Refusal.UNKNOWN)
        assert keys.find(b"secret-3") == refused(Refusal.REVOKED, "a")
        assert len(keys._revoked) == 2

    async def test_a_log_line_names_a_bounded_number_of_ids(
        self, keys: APIKeys, path: Path, write: Callable[..., None], capsys: pytest.CaptureFixture[str]
    ) -> None:
        write(*(table(f"k{number}", f"secret-{number}") for number in range(100)))
        await keys.poll(path)
        (told,) = events(capsys)
        assert (len(told["added"]), told["keys"]) == (50, 100)

    async def test_nothing_secret_is_logged(
        self, keys: APIKeys, path: Path, write: Callable[..., None], capsys: pytest.CaptureFixture[str]
    ) -> None:
        secret = "a-secret-nobody-may-see"
        for text in (table("c", secret), f"[[keys]]\n{secret}", f'[[keys]]\nname = "{secret}'):
            write(text)
            await keys.poll(path)
        said = capsys.readouterr().out
        assert said.count("keys_") == 3
        assert secret not in said
        assert hashlib.sha256(secret.encode()).hexdigest()[:12] not in said


class TestWhatIsReadAgain:
    """Only the tables that are new are read anew; the outcome is that of reading everything."""

    async def test_unchanged_entries_are_kept(
        self, keys: APIKeys, path: Path, write: Callable[..., None], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write(table("a", "secret-a"), table("b", "secret-b"), table("c", "secret-c"))
        await keys.poll(path)
        kept, same = keys.find(b"secret-a"), keys.find(b"secret-c")
        read: list[str] = []
        real = key_file.tomllib.loads
        monkeypatch.setattr(key_file.tomllib, "loads", lambda text: read.append(text) or real(text))
        write(table("a", "secret-a"), "# a comment\n", table("b", "secret-b2"), table("c", "secret-c"))
        await keys.poll(path)
        assert keys.find(b"secret-a") == kept
        assert keys.find(b"secret-c") is same
        assert keys.find(b"secret-b") == refused(Refusal.REVOKED, "b")
        assert caller_of(keys, b"secret-b2").id == "b"
        assert [text.count("[[keys]]") for text in read] == [1, 1]
        assert table("c", "secret-c") not in read

    @pytest.mark.parametrize(
        "text",
        [
            table("a", "secret") + table("b", "other"),
            "# first\n\n" + table("a", "secret") + "# between\n" + table("b", "other") + "# last",
            (table("a", "secret") + table("b", "other")).replace("\n", "\r\n"),
            "  [[ keys ]] # one\n" + table("a", "secret").partition("\n")[2],
            table("a", "secret", 'description = """\n[[keys]]\nname = "not one"\n"""') + table("b", "other"),
            table("a", "secret", "description = '''\n[[keys]]\n'''"),
            '[["keys"]]\n' + table("a", "secret").partition("\n")[2],
            table("a", "secret").replace("sha256 = ", "[[keys.secrets]]\nsha256 = ") + table("b", "other"),
            'keys = [{name = "a", id = "a", scopes = ["*"], sha256 = "' + "1" * 64 + '"}]\n',
        ],
    )
    def test_any_layout_means_what_toml_says(self, text: str) -> None:
        expected = [key_file.KeyEntry.model_validate(each) for each in tomllib.loads(text)["keys"]]
        known: dict[str, Any] = {}
        for _ in range(2):
            assert list(key_file.parse(text.encode(), known=known)) == expected

    @pytest.mark.parametrize("beginning", ["", "# first\n", "\n  # first\n \n"])
    def test_comments_before_the_first_table_cost_nothing(self, beginning: str) -> None:
        known: dict[str, Any] = {}
        found = key_file.parse((beginning + table("a", "secret")).encode(), known=known)
        assert known == {table("a", "secret"): found[0]}

    @pytest.mark.parametrize(
        "text",
        [
            "keys = []\n" + table("a", "secret"),
            table("a", "secret") + "[keys]\nx = 1\n",
            table("a", "secret") + table("b", "other", "x = ["),
            table("a", "secret") + "[more]\nx = 1\n" + table("b", "other"),
            table("a", "secret") * 2,
            table("a", "secret", 'x = """') + table("b", "other"),
        ],
    )
    def test_a_table_known_to_be_good_makes_no_file_good(self, text: str) -> None:
        known: dict[str, Any] = {}
        key_file.parse((table("a", "secret") + table("b", "other")).encode(), known=known)
        before = dict(known)
        with pytest.raises(toml_tables.FileFault) as fresh:
            key_file.parse(text.encode())
        with pytest.raises(toml_tables.FileFault) as again:
            key_file.parse(text.encode(), known=known)
        assert again.value.faults == fresh.value.faults
        assert known == before


class TestStreams:
    """What lasts longer than a request asks again."""

    async def test_a_caller_lives_as_long_as_its_key(
        self, keys: APIKeys, path: Path, write: Callable[..., None]
    ) -> None:
        a, b = caller_of(keys, b"secret-a"), caller_of(keys, b"secret-b")
        write(table("a", "secret-a", 'description = "same key"'), table("b", "secret-b2"))
        await keys.poll(path)
        assert keys.is_live(a)
        assert not keys.is_live(b)
        write(table("a", "secret-a", "disabled = true"))
        await keys.poll(path)
        assert not keys.is_live(a)

    async def test_its_present_rights_are_told(
        self, keys: APIKeys, path: Path, write: Callable[..., None]
    ) -> None:
        a = caller_of(keys, b"secret-a")
        assert keys.current(a) == a
        write(table("a", "secret-a", 'device_types = ["thermostat"]'))
        await keys.poll(path)
        current = keys.current(a)
        assert current
        assert current.restrictions
        assert current.restrictions.device_types == {"thermostat"}

    async def test_a_secret_that_went_to_another_key_does_not_count(
        self, keys: APIKeys, path: Path, write: Callable[..., None]
    ) -> None:
        a = caller_of(keys, b"secret-a")
        write(table("somebody-else", "secret-a"))
        await keys.poll(path)
        assert not keys.is_live(a)

    def test_time_ends_it(self) -> None:
        clock = Clock()
        text = table("a", "secret", "expires_at = 2027-01-15T08:00:01Z")
        keys = APIKeys(key_file.parse(text.encode()), clock=clock)
        caller = caller_of(keys, b"secret")
        assert caller.expires_at == NOW + 1_000
        assert keys.is_live(caller)
        clock.now = caller.expires_at
        assert not keys.is_live(caller)

    def test_a_caller_of_nowhere_is_not_live(self, keys: APIKeys) -> None:
        assert not keys.is_live(Caller(id="a", name="a", scopes=frozenset()))

    async def test_all_who_wait_are_told_of_a_change(
        self, keys: APIKeys, path: Path, write: Callable[..., None]
    ) -> None:
        waiting = [asyncio.create_task(keys.wait_for_change(keys.generation)) for _ in range(3)]
        await keys.poll(path)
        assert not any(task.done() for task in waiting)
        write(table("a", "secret-a"))
        await keys.poll(path)
        assert await asyncio.wait_for(asyncio.gather(*waiting), 10) == [1, 1, 1]
        assert await asyncio.wait_for(keys.wait_for_change(0), 10) == 1

    async def test_who_asks_late_is_told_at_once(
        self, keys: APIKeys, path: Path, write: Callable[..., None]
    ) -> None:
        seen = keys.generation
        write(table("a", "secret-a"))
        await keys.poll(path)
        assert await asyncio.wait_for(keys.wait_for_change(seen), 10) == 1


@contextlib.asynccontextmanager
async def watching(keys: APIKeys) -> AsyncIterator[None]:
    task = asyncio.create_task(keys.watch())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


class TestWatching:
    """The task that looks, again and again."""

    async def test_a_change_comes_through_by_itself(
        self, keys: APIKeys, write: Callable[..., None], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(store, "SETTLE_SECONDS", 0.05)
        async with watching(keys):
            write(table("c", "secret-c"))
            await asyncio.wait_for(keys.wait_for_change(0), 30)
            assert caller_of(keys, b"secret-c").id == "c"

    async def test_nothing_ends_it(
        self,
        keys: APIKeys,
        write: Callable[..., None],
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        monkeypatch.setattr(store, "POLL_SECONDS", 0.0)
        failed = asyncio.Event()
        real = key_file.parse

        def fail_once(data: bytes, **more: Any) -> Any:
            if not failed.is_set():
                loop.call_soon_threadsafe(failed.set)
                raise MemoryError
            return real(data, **more)

        loop = asyncio.get_running_loop()
        monkeypatch.setattr(key_file, "parse", fail_once)
        write(table("c", "secret-c"))
        async with watching(keys):
            await asyncio.wait_for(keys.wait_for_change(0), 30)
        assert failed.is_set()
        assert next(event["event"] for event in events(capsys)) == "keys_watch_failed"

    async def test_keys_without_a_file_are_not_watched(self) -> None:
        await asyncio.wait_for(keys_of(table("a", "secret")).watch(), 10)
