"""`scripts/demo` and its kin, run as a newcomer would run them, in a copy of the tree."""

import asyncio
import contextlib
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from app.settings import Settings
from scripts import environment
from tb_simulator.server import Simulator
from tests.processes import is_running, program, until

ROOT = Path(__file__).resolve().parent.parent
KEY = "a-key-for-the-demo-0123456789"
PATIENCE = 60
PORTS = ("PORT", "TB_SIMULATOR_PORT", "SMART_HOME_PORT")


@dataclass
class Script:
    """A running script and what it has said."""

    process: asyncio.subprocess.Process
    tree: Path
    said: str = ""

    async def read_until(self, text: str) -> str:
        """Read on until this has been said."""
        assert self.process.stdout
        async with asyncio.timeout(PATIENCE):
            while text not in self.said:
                line = await self.process.stdout.readline()
                assert line, f"ended without saying {text!r}:\n{self.said}"
                self.said += line.decode()
        return self.said

    async def end(self) -> int:
        """Read the rest and return the exit code."""
        assert self.process.stdout
        async with asyncio.timeout(PATIENCE):
            self.said += (await self.process.stdout.read()).decode()
            return await self.process.wait()

    def curl_lines(self) -> list[str]:
        return [line for line in self.said.splitlines() if line.startswith("curl ")]


Start = Callable[..., Awaitable[Script]]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of the repository with the `.venv` of these tests, as if `scripts/test` had made it there."""
    tree = tmp_path / "clone"
    tree.mkdir()
    for name in ("scripts", "requirements"):
        shutil.copytree(ROOT / name, tree / name)
    for name in ("app", "examples", "tb_simulator"):
        (tree / name).symlink_to(ROOT / name)
    (tree / ".venv").mkdir()
    for name in ("bin", "lib", "pyvenv.cfg"):
        (tree / ".venv" / name).symlink_to(Path(sys.prefix) / name)
    digests = (environment.digest(name) for name in environment.SATISFIES["dev.txt"])
    (tree / ".venv" / environment.MARKER.name).write_text("\n".join(digests))
    return tree


@pytest.fixture
async def start(tree: Path) -> AsyncIterator[Start]:
    """Start a script in a session of its own, as a terminal does."""
    started: list[asyncio.subprocess.Process] = []
    ours = {name.upper() for name in Settings.model_fields}

    async def run(*command: str, **variables: str) -> Script:
        inherited = {name: value for name, value in os.environ.items() if name not in ours}
        process = await asyncio.create_subprocess_exec(
            *command,
            cwd=tree.parent,
            env=inherited | dict.fromkeys(PORTS, "0") | variables,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
        started.append(process)
        return Script(process, tree)

    yield run
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


@pytest.fixture
async def demo(start: Start, tree: Path) -> Script:
    """The demo, ready."""
    script = await start(str(tree / "scripts" / "demo"), API_KEY=KEY)
    await script.read_until("Ctrl-C ends it.")
    return script


def children_of(pid: int) -> set[int]:
    """Return all descendants."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
    found: set[int] = set()
    while more := {child for child, parent in parents.items() if parent in {pid, *found}} - found:
        found |= more
    return found


def command_line(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()


async def paste(line: str) -> tuple[str, str]:
    """Run a line in a shell and return the HTTP status and the body."""
    process = await asyncio.create_subprocess_exec(
        "bash", "-c", f"{line} -w '\\n%{{http_code}}'", stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    body, _, status = output.decode().rpartition("\n")
    return status, body


async def test_every_line_of_the_demo_works_when_pasted(demo: Script) -> None:
    program("curl")
    assert "📥" not in demo.said, "a finished environment is installed again"
    listing, latest, upload, read_back, history = demo.curl_lines()
    answers = [await paste(line) for line in (listing, latest, upload, read_back, history)]
    assert [status for status, _ in answers] == ["200", "200", "201", "200", "200"], answers
    assert '"Demo Kitchen"' in (await paste(listing.replace("page_size=5", "page_size=50")))[1]
    assert '"value":25.6' in answers[3][1]
    assert answers[4][1].startswith("ts,key,value")
    assert len(answers[4][1].splitlines()) > 100


async def test_the_demo_keeps_its_key_out_of_logs_and_process_lists(demo: Script) -> None:
    assert KEY in demo.said
    assert not [pid for pid in children_of(demo.process.pid) if KEY in command_line(pid)]
    logs = list((demo.tree / ".venv" / "demo-logs").iterdir())
    assert len(logs) == 2
    assert not [log for log in logs if KEY in log.read_text()]


async def test_the_demo_makes_a_key_when_it_gets_none(start: Start, tree: Path) -> None:
    script = await start(str(tree / "scripts" / "demo"))
    assert "API key  tbg_demo_" in await script.read_until("Ctrl-C ends it.")


@pytest.mark.parametrize("send", [os.kill, os.killpg], ids=["to the script", "to its process group"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_the_demo_leaves_no_process_behind(
    demo: Script, number: int, send: Callable[[int, int], None]
) -> None:
    children = children_of(demo.process.pid)
    # The simulator, the gateway and its worker.
    assert len(children) == 3
    send(demo.process.pid, number)
    assert await demo.end() == 0
    await until(lambda: not any(map(is_running, children)))


async def test_a_signal_during_the_start_leaves_no_process_behind(start: Start, tree: Path) -> None:
    script = await start(str(tree / "scripts" / "demo"))
    await script.read_until("Starting the gateway")
    children = children_of(script.process.pid)
    script.process.terminate()
    assert await script.end() == 0
    await until(lambda: not any(map(is_running, children)))


@pytest.mark.parametrize(
    ("module", "name"), [("tb_simulator", "ThingsBoard simulator"), ("app serve", "gateway")]
)
async def test_the_demo_ends_and_says_which_child_has_died(demo: Script, module: str, name: str) -> None:
    children = children_of(demo.process.pid)
    # The first of them: a worker of the gateway looks like the gateway, which would replace it.
    os.kill(next(pid for pid in sorted(children) if f"-m {module}" in command_line(pid)), signal.SIGKILL)
    assert await demo.end() == 1
    assert f"❌ The {name} ended with exit code -9. Its last lines:" in demo.said
    await until(lambda: not any(map(is_running, children)))


@pytest.mark.parametrize("name", ["PORT", "TB_SIMULATOR_PORT"])
async def test_a_busy_port_is_told_before_anything_starts(start: Start, tree: Path, name: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = str(busy.getsockname()[1])
        script = await start(str(tree / "scripts" / "demo"), **{name: port})
        assert await script.end() == 2
    assert f"❌ Port {port} is in use. Choose another one: {name}=" in script.said
    assert "🚀" not in script.said


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"PORT": "http"}, "PORT: must be a port number, not 'http'."),
        ({"PORT": "18231", "TB_SIMULATOR_PORT": "18231"}, "PORT and TB_SIMULATOR_PORT are both 18231"),
        ({"API_KEY": "short"}, "API_KEY: must have at least 8 characters"),
        ({"TB_HOST": "http://127.0.0.1:1"}, "TB_USERNAME and TB_PASSWORD are needed"),
        ({"HOST": "192.0.2.1"}, "Cannot listen on 192.0.2.1"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, dict) else "",
)
async def test_a_fault_of_the_configuration_is_told_before_anything_starts(
    start: Start, tree: Path, variables: dict[str, str], expected: str
) -> None:
    script = await start(str(tree / "scripts" / "demo"), **variables)
    assert await script.end() == 2
    assert f"❌ {expected}" in script.said
    assert "🚀" not in script.said


@pytest.mark.parametrize("place", ["environment", ".env"])
async def test_the_demo_serves_a_real_thingsboard(
    start: Start, tree: Path, simulator: Simulator, place: str
) -> None:
    variables = {"TB_HOST": simulator.url, "TB_USERNAME": "tenant@thingsboard.org", "TB_PASSWORD": "tenant"}
    if place == ".env":
        (tree / ".env").write_text("".join(f"{name}={value}\n" for name, value in variables.items()))
        variables = {}
    script = await start(str(tree / "scripts" / "demo"), **variables)
    await script.read_until("Ctrl-C ends it.")
    assert f"for {simulator.url}" in script.said
    # The gateway and its worker, no simulator.
    assert len(children_of(script.process.pid)) == 2
    assert (await paste(script.curl_lines()[0]))[0] == "200"
    assert (await paste(script.curl_lines()[1]))[0] == "200"
    script.process.terminate()
    assert await script.end() == 0


async def test_a_thingsboard_that_is_away_is_no_reason_to_stop(start: Start, tree: Path) -> None:
    variables = {
        "TB_HOST": "http://127.0.0.1:1",
        "TB_USERNAME": "tenant@thingsboard.org",
        "TB_PASSWORD": "tenant",
    }
    script = await start(str(tree / "scripts" / "demo"), **variables)
    await script.read_until("Ctrl-C ends it.")
    assert "ThingsBoard lists no devices yet" in script.said


async def test_smart_home_lets_two_people_in_and_leaves_nothing_behind(start: Start, tree: Path) -> None:
    """A `.env` that is meant for the gateway of this machine changes nothing."""
    (tree / ".env").write_text(f"TB_HOST=http://127.0.0.1:1\nAPI_KEY={KEY}\n")
    temporary = tree.parent / "temporary"
    temporary.mkdir()
    script = await start(str(tree / "scripts" / "smart_home"), TMPDIR=str(temporary))
    await script.read_until("Ctrl-C ends it")
    url = re.findall(r"^Smart Home  (\S+)$", script.said, re.MULTILINE)[0]
    people = re.findall(r"(\S+@example.com) +password (\S+)", script.said)
    rooms = []
    async with httpx.AsyncClient(base_url=url, trust_env=False) as client:
        assert "<title>Smart Home</title>" in (await client.get("/")).text
        for email, password in people:
            answer = await client.post("/auth/login", json={"email": email, "password": password})
            headers = {"Authorization": f"Bearer {answer.json()['access_token']}"}
            home = (await client.get("/homes", headers=headers)).json()[0]["id"]
            states = (await client.get(f"/homes/{home}/latest", headers=headers)).json()
            assert all("temperature" in state["values"] for state in states)
            rooms.append(len(states))
    assert rooms == [3, 1]
    children = children_of(script.process.pid)
    # The same, and the web application.
    assert len(children) == 4
    os.killpg(script.process.pid, signal.SIGINT)
    assert await script.end() == 0
    await until(lambda: not any(map(is_running, children)))
    assert not list(temporary.iterdir())
    assert not [log for log in (tree / ".venv" / "demo-logs").iterdir() if "Traceback" in log.read_text()]


async def test_smart_home_tells_a_busy_port_before_anything_starts(start: Start, tree: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = str(busy.getsockname()[1])
        script = await start(str(tree / "scripts" / "smart_home"), SMART_HOME_PORT=port)
        assert await script.end() == 2
    assert f"Choose another one: SMART_HOME_PORT={int(port) + 1} scripts/smart_home" in script.said


async def test_changed_requirements_are_installed_once(start: Start, tree: Path) -> None:
    """Nothing is fetched here: what the file pins is there already."""
    requirements = tree / "requirements" / "runtime.txt"
    requirements.write_text(requirements.read_text() + "# changed\n")
    first = await start(str(tree / "scripts" / "demo"), PORT="http")
    await first.end()
    second = await start(str(tree / "scripts" / "demo"), PORT="http")
    await second.end()
    assert "📥 Installing requirements/runtime.txt" in first.said
    assert "📥" not in second.said


async def test_an_installation_that_fails_is_shown_and_tried_again(start: Start, tree: Path) -> None:
    requirements = tree / "requirements" / "runtime.txt"
    requirements.write_text("fastapi==0.0.0\n")
    for _ in range(2):
        script = await start(str(tree / "scripts" / "demo"))
        assert await script.end() == 1
        assert "❌ installing failed" in script.said
        assert "hash" in script.said


async def run_without_python(start: Start, tree: Path, tmp_path: Path, python: str) -> str:
    """Start the demo where the only Python is this shell script, and return what it says."""
    shutil.rmtree(tree / ".venv")
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "dirname").symlink_to(shutil.which("dirname") or "")
    stub = programs / "python3"
    stub.write_text(f"#!/bin/sh\n{python}\n")
    stub.chmod(stub.stat().st_mode | stat.S_IEXEC)
    script = await start(str(tree / "scripts" / "demo"), PATH=str(programs), PYTHON="")
    assert await script.end() == 1
    assert not (tree / ".venv").exists()
    return script.said


async def test_too_old_a_python_is_told(start: Start, tree: Path, tmp_path: Path) -> None:
    said = await run_without_python(
        start, tree, tmp_path, '[ "$1" = --version ] && echo Python 3.9.18 && exit\nexit 1'
    )
    assert "❌ Python 3.11, 3.12 or 3.13 is needed; python3 here is Python 3.9.18." in said


async def test_a_python_without_venv_is_told(start: Start, tree: Path, tmp_path: Path) -> None:
    """Debian splits it off."""
    stub = f'case "$*" in *ensurepip*) exit 1;; esac\nexec {sys.executable} "$@"'
    said = await run_without_python(start, tree, tmp_path, stub)
    assert "python3 cannot make virtual environments" in said
    assert f"apt-get install python3.{sys.version_info.minor}-venv" in said


def pins(name: str) -> set[str]:
    lines = (ROOT / "requirements" / name).read_text("utf-8").splitlines()
    return {line.split()[0] for line in lines if "==" in line and not line.startswith((" ", "#"))}


def test_the_larger_set_of_requirements_holds_the_smaller() -> None:
    """Else `scripts/test`, `scripts/smart_home` and `scripts/demo` would undo each other's work."""
    assert pins("runtime.txt") <= pins("smart-home.txt") <= pins("dev.txt")
    assert pins("runtime.txt") <= pins("sdks.txt") <= pins("dev.txt")
    assert pins("runtime.txt") <= pins("docs.txt") <= pins("dev.txt")


@pytest.mark.parametrize(
    ("body", "code"), [("pass", 0), ("pytest.skip('no server')", 1)], ids=["runs", "skips"]
)
def test_the_gate_allows_no_skips(tmp_path: Path, body: str, code: int) -> None:
    (tmp_path / "test_one.py").write_text(f"import pytest\n\ndef test_one():\n    {body}\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "tests.no_skips", "-c", os.devnull, str(tmp_path)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == code, result.stdout
    assert ("which this run does not allow" in result.stdout) is bool(code)
