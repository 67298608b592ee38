"""The database: connections, sessions and the upgrade to the newest tables."""

from typing import Any

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, event, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

#: What is raised while the database is away or too busy.
DATABASE_FAULTS = (DBAPIError, PoolTimeout, OSError)
BUSY_TIMEOUT_MS = 5_000
CONNECT_SECONDS = 10
#: Any number that nothing else in the database uses as a lock.
UPGRADE_LOCK = 7_310_452


class Database:
    """One database, for the life of a process."""

    def __init__(self, url: str) -> None:
        self.is_sqlite = make_url(url).get_backend_name() == "sqlite"
        if self.is_sqlite:
            self.engine = create_async_engine(url)
            event.listen(self.engine.sync_engine, "connect", _prepare_sqlite)
        else:
            self.engine = create_async_engine(
                url, pool_pre_ping=True, connect_args={"timeout": CONNECT_SECONDS}
            )
        self.sessions: async_sessionmaker[AsyncSession] = async_sessionmaker(
            self.engine, expire_on_commit=False
        )

    async def upgrade(self) -> None:
        """Bring the tables up to date; several processes at once wait for each other."""
        async with self.engine.connect() as connection:
            if self.is_sqlite:
                # Batch mode replaces tables, and dropping an old one would delete what refers to it.
                await connection.exec_driver_sql("PRAGMA foreign_keys=OFF")
            else:
                await connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": UPGRADE_LOCK})
            await connection.run_sync(_upgrade)
            await connection.commit()
            if self.is_sqlite:
                await connection.exec_driver_sql("PRAGMA foreign_keys=ON")

    async def check(self) -> None:
        """Raise unless the database answers."""
        async with self.engine.connect() as connection:
            await connection.execute(text("SELECT 1"))

    async def aclose(self) -> None:
        """Close all connections."""
        await self.engine.dispose()


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    # SQLite checks no foreign key unless told to, on each connection.
    cursor.execute("PRAGMA foreign_keys=ON")
    # Readers and one writer do not wait for each other; two writers do, for so long.
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")
    cursor.close()


def _upgrade(connection: Connection) -> None:
    config = Config()
    config.set_main_option("script_location", "examples.smart_home:migrations")
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
