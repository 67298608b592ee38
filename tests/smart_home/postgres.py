"""A real PostgreSQL of our own, in a folder of its own, without the machine's."""

import contextlib
import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from benchmarks.processes import free_port

NOT_HERE = "PostgreSQL's server is not installed (Debian: apt-get install postgresql)"
USER = "smart_home"


def find_programs() -> Path | None:
    """Debian keeps them off the PATH, by version."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[4]))
    if found:
        return found[-1].parent
    on_path = shutil.which("initdb")
    return Path(on_path).resolve().parent if on_path else None


def as_nobody_special() -> dict[str, Any]:
    """PostgreSQL refuses to be run by root."""
    if os.geteuid() != 0:
        return {}
    names = {each.pw_name for each in pwd.getpwall()}
    entry = pwd.getpwnam("postgres" if "postgres" in names else "nobody")
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


@contextlib.contextmanager
def running_postgres() -> Iterator[str]:
    """Yield the URL of a server, without a database name; without the programs the test is skipped."""
    programs = find_programs()
    if programs is None:
        pytest.skip(NOT_HERE)
    who = as_nobody_special()
    # pytest's own folders are closed to other users.
    folder = Path(tempfile.mkdtemp(prefix="smart-home-postgres-"))
    if who:
        os.chown(folder, who["user"], who["group"])
    port = free_port()
    data = folder / "data"
    options = {
        "port": port,
        "listen_addresses": "127.0.0.1",
        "unix_socket_directories": folder,
        # What is in it need not outlive the test.
        "fsync": "off",
        "synchronous_commit": "off",
        "full_page_writes": "off",
    }
    try:
        initdb = [programs / "initdb", "-D", data, "-U", USER, "-A", "trust", "-E", "UTF8", "--no-sync"]
        subprocess.run(initdb, check=True, capture_output=True, cwd=folder, **who)
        flags = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [programs / "postgres", "-D", data, *flags], stdout=log, stderr=log, cwd=folder, **who
            )
        try:
            _wait_for(process, folder / "log")
            yield f"postgresql://{USER}@127.0.0.1:{port}"
        finally:
            # SIGINT is its fast shutdown: it does not wait for clients.
            process.send_signal(2)
            process.wait(20)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _wait_for(process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 30
    while "ready to accept connections" not in log.read_text():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.02)


async def execute(url: str, statement: str) -> None:
    """Run one statement in the server's own database."""
    connection = await asyncpg.connect(f"{url}/postgres")
    try:
        await connection.execute(statement)
    finally:
        await connection.close()
