"""Both databases: their tables are what the models say, and their rules hold."""

import asyncio
import os
import subprocess
import sys
from uuid import uuid4

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from pydantic import ValidationError
from sqlalchemy import Connection, func, inspect, select, text
from sqlalchemy.exc import IntegrityError

from examples.smart_home import settings
from examples.smart_home.database import Database
from examples.smart_home.errors import ConfigurationError
from examples.smart_home.models import Base, Home, User
from examples.smart_home.settings import Settings
from tests.smart_home.conftest import Product
from tests.smart_home.postgres import execute

GIVEN = {"secret": "s" * 32, "gateway_url": "http://127.0.0.1:1", "gateway_key": "k"}


@pytest.fixture
async def database(database_url: str) -> Database:
    loaded = Settings(**GIVEN, database_url=database_url)
    return Database(loaded.database_url.get_secret_value())


def rules_of_foreign_keys(connection: Connection) -> list[str]:
    """Which a comparison of tables does not look at."""
    inspector = inspect(connection)
    keys = (key for table in inspector.get_table_names() for key in inspector.get_foreign_keys(table))
    return [key["options"]["ondelete"] for key in keys]


async def test_migrations_lead_to_the_tables_that_the_models_describe(database: Database) -> None:
    def differences(connection: Connection) -> list[object]:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        return list(compare_metadata(context, Base.metadata))

    await database.upgrade()
    async with database.engine.connect() as connection:
        assert await connection.run_sync(differences) == []
        rules = await connection.run_sync(rules_of_foreign_keys)
    assert sorted(rules) == ["CASCADE", "CASCADE", "CASCADE", "SET NULL"]
    await database.aclose()


async def test_an_upgrade_may_be_repeated_and_run_in_several_processes_at_once(
    database: Database, database_url: str
) -> None:
    if database.is_sqlite:
        await database.upgrade()
        await database.upgrade()
    else:
        others = [Database(str(database.engine.url)) for _ in range(2)]
        await asyncio.gather(database.upgrade(), *(each.upgrade() for each in others))
        for each in others:
            await each.aclose()
    async with database.engine.connect() as connection:
        versions = await connection.execute(text("SELECT version_num FROM alembic_version"))
        assert [row[0] for row in versions] == ["0001"]
    await database.aclose()


async def test_foreign_keys_are_enforced_and_cascade(database: Database) -> None:
    await database.upgrade()
    user = User(id=uuid4(), email="a@example.com", name="A", password_hash="-", created_at=0)
    async with database.sessions.begin() as session:
        session.add(user)
        await session.flush()
        session.add(Home(user_id=user.id, name="Villa", created_at=0))
    with pytest.raises(IntegrityError):
        async with database.sessions.begin() as session:
            session.add(Home(user_id=uuid4(), name="Nobody's", created_at=0))
    async with database.sessions.begin() as session:
        await session.delete(await session.get(User, user.id))
    async with database.sessions() as session:
        assert await session.scalar(select(func.count()).select_from(Home)) == 0
    await database.aclose()


async def test_many_writers_at_once_wait_for_each_other(database: Database) -> None:
    await database.upgrade()

    async def add(number: int) -> None:
        async with database.sessions.begin() as session:
            email = f"{number}@example.com"
            session.add(User(email=email, name="A", password_hash="-", created_at=0))

    await asyncio.gather(*(add(number) for number in range(50)))
    async with database.sessions() as session:
        assert await session.scalar(select(func.count()).select_from(User)) == 50
    await database.aclose()


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
async def test_while_the_database_is_away_people_are_told_to_wait(
    lonely: Product, postgres: str, database_url: str
) -> None:
    alice = await lonely.person()
    await execute(postgres, f"DROP DATABASE {database_url.rpartition('/')[2]} WITH (FORCE)")
    refused = await alice.client.get("/homes")
    assert (refused.status_code, refused.json()["error_code"]) == (503, "UNAVAILABLE")
    assert refused.headers["Retry-After"] == "1"
    health = await alice.client.get("/health")
    assert (health.status_code, health.json()) == (503, {"status": "unavailable"})


@pytest.mark.parametrize(
    ("given", "name", "says"),
    [
        ({"secret": "short"}, "SMART_HOME_SECRET", "at least 32 characters"),
        ({"gateway_url": "gateway:8000"}, "SMART_HOME_GATEWAY_URL", "http://"),
        ({"database_url": "mysql://x/y"}, "SMART_HOME_DATABASE_URL", "only SQLite and PostgreSQL"),
        ({"database_url": "sqlite://"}, "SMART_HOME_DATABASE_URL", "must name a file"),
        ({"database_url": "nonsense"}, "SMART_HOME_DATABASE_URL", "must look like"),
        ({"login_limit": "often"}, "SMART_HOME_LOGIN_LIMIT", ""),
        ({"port": "99999"}, "SMART_HOME_PORT", ""),
        ({"gateway_key": ""}, "SMART_HOME_GATEWAY_KEY", "is missing"),
    ],
)
def test_a_faulty_setting_is_named_and_not_shown(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, str], name: str, says: str
) -> None:
    for each, value in (GIVEN | given).items():
        monkeypatch.setenv(f"SMART_HOME_{each.upper()}", value)
    with pytest.raises(ConfigurationError) as told:
        settings.load()
    assert str(told.value).startswith(f"{name}: ")
    assert says in str(told.value)
    assert not given.get("secret") or given["secret"] not in str(told.value).split(": ")[1]


def test_secrets_are_not_in_what_is_printed() -> None:
    loaded = Settings(**GIVEN, database_url="postgres://me:very-secret@db/home")
    assert loaded.database_url.get_secret_value() == "postgresql+asyncpg://me:very-secret@db/home"
    assert "very-secret" not in repr(loaded)
    with pytest.raises(ValidationError) as told:
        Settings(**GIVEN | {"database_url": "mysql://me:very-secret@db/home"})
    assert "very-secret" not in str(told.value)


def test_the_command_line_migrates_and_tells_faults(database_url: str) -> None:
    command = [sys.executable, "-m", "examples.smart_home", "migrate"]
    variables = {f"SMART_HOME_{name.upper()}": value for name, value in GIVEN.items()}
    good = os.environ | variables | {"SMART_HOME_DATABASE_URL": database_url}
    done = subprocess.run(command, env=good, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    bad = subprocess.run(command, env=good | {"SMART_HOME_SECRET": "x"}, capture_output=True, check=False)
    assert bad.returncode == 2
    assert "❌ SMART_HOME_SECRET: must have at least 32 characters" in bad.stderr.decode()
