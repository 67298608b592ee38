"""The tables. Times are ms since the epoch: SQLite knows no time zones."""

from uuid import UUID, uuid4

from sqlalchemy import BigInteger, ForeignKey, MetaData, String
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

LONGEST_EMAIL = 254
LONGEST_NAME = 100


class Base(DeclarativeBase):
    """What all tables share: names for their constraints, which migrations need."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_name)s",
            "uq": "uq_%(table_name)s_%(column_0_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


class User(Base):
    """Somebody who signed up here. ThingsBoard knows nothing of them."""

    __tablename__ = "users"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    email: Mapped[str] = mapped_column(String(LONGEST_EMAIL), unique=True)
    name: Mapped[str] = mapped_column(String(LONGEST_NAME))
    password_hash: Mapped[str] = mapped_column(String(255))
    created_at: Mapped[int] = mapped_column(BigInteger)


class RefreshToken(Base):
    """One refresh token, as a digest. All that grew out of one log-in are a family."""

    __tablename__ = "refresh_tokens"

    digest: Mapped[str] = mapped_column(String(64), primary_key=True)
    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    family: Mapped[UUID] = mapped_column(index=True)
    expires_at: Mapped[int] = mapped_column(BigInteger)
    revoked_at: Mapped[int | None] = mapped_column(BigInteger)


class Home(Base):
    """A home belongs to one user."""

    __tablename__ = "homes"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    name: Mapped[str] = mapped_column(String(LONGEST_NAME))
    created_at: Mapped[int] = mapped_column(BigInteger)


class Room(Base):
    """A room has one device, and no device is in two rooms: whoever claimed it first has it.

    Points before ``visible_from`` belong to those who had the device before.
    """

    __tablename__ = "rooms"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    home_id: Mapped[UUID] = mapped_column(ForeignKey("homes.id", ondelete="CASCADE"), index=True)
    name: Mapped[str] = mapped_column(String(LONGEST_NAME))
    tb_device_id: Mapped[UUID] = mapped_column(unique=True)
    visible_from: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[int] = mapped_column(BigInteger)


class FormerDevice(Base):
    """Who gave a device back last, and when: the next user must not see what it measured until then."""

    __tablename__ = "former_devices"

    tb_device_id: Mapped[UUID] = mapped_column(primary_key=True)
    user_id: Mapped[UUID | None] = mapped_column(ForeignKey("users.id", ondelete="SET NULL"))
    released_at: Mapped[int] = mapped_column(BigInteger)
    visible_from: Mapped[int] = mapped_column(BigInteger)
