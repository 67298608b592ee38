"""Builds the application from settings; the only place where all parts meet."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from uuid import UUID

import structlog
from fastapi import FastAPI
from fastapi.middleware import Middleware
from fastapi.responses import JSONResponse
from starlette.staticfiles import StaticFiles

from examples.smart_home.answers import ANSWERED, Headers, answer_error
from examples.smart_home.attempts import Attempts
from examples.smart_home.clock import Clock, now_ms
from examples.smart_home.database import DATABASE_FAULTS, Database
from examples.smart_home.deps import Services, ServicesDep
from examples.smart_home.gateway import Gateway
from examples.smart_home.live.hub import Hub
from examples.smart_home.models import Room
from examples.smart_home.passwords import Passwords
from examples.smart_home.repositories import Rooms as RoomTable
from examples.smart_home.routers import auth, homes, live, rooms
from examples.smart_home.services.accounts import Accounts
from examples.smart_home.services.homes import Homes
from examples.smart_home.services.rooms import Rooms
from examples.smart_home.settings import Settings
from examples.smart_home.tokens import Tokens

log = structlog.get_logger("smart_home")

WEB = Path(__file__).parent / "web"
LARGEST_BODY = 64 * 1024
UNAVAILABLE = 503


def create_app(settings: Settings, *, passwords: Passwords | None = None, clock: Clock = now_ms) -> FastAPI:
    """Return the product. The other arguments replace what is slow or cannot be set in tests."""
    app = FastAPI(
        title="Smart Home",
        # Its pages load scripts of others, which our policy forbids.
        docs_url=None,
        redoc_url=None,
        lifespan=_lifespan,
        middleware=[Middleware(Headers)],
        max_body_size=LARGEST_BODY,
        exception_handlers=dict.fromkeys(ANSWERED, answer_error),
    )
    app.state.services = build_services(settings, passwords or Passwords(), clock)
    for router in (auth.router, homes.router, rooms.router, live.router):
        app.include_router(router)
    app.add_api_route("/health", health, tags=["health"])
    app.mount("/", StaticFiles(directory=WEB, html=True))
    return app


def build_services(settings: Settings, passwords: Passwords, clock: Clock) -> Services:
    """Put the parts together; nothing is connected yet."""
    database = Database(settings.database_url.get_secret_value())
    key = settings.gateway_key.get_secret_value()
    gateway = Gateway(settings.gateway_url, key)
    tokens = Tokens(
        settings.secret.get_secret_value(), lifetime_seconds=settings.access_minutes * 60, clock=clock
    )
    refresh_seconds = settings.refresh_days * 86_400

    async def rooms_of(user_id: UUID) -> Sequence[Room]:
        async with database.sessions() as session:
            return await RoomTable(session, user_id).all()

    hub = Hub(settings.gateway_url, key, rooms_of)
    return Services(
        settings=settings,
        database=database,
        gateway=gateway,
        passwords=passwords,
        tokens=tokens,
        attempts=Attempts(settings.login_limit),
        accounts=Accounts(database, passwords, tokens, refresh_seconds=refresh_seconds, clock=clock),
        homes=Homes(database, hub, clock),
        rooms=Rooms(database, gateway, hub, clock),
        hub=hub,
    )


@contextlib.asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    services: Services = app.state.services
    await services.database.upgrade()
    following = asyncio.create_task(services.hub.link.run())
    try:
        yield
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        await services.gateway.aclose()
        services.passwords.close()
        await services.database.aclose()


async def health(services: ServicesDep) -> JSONResponse:
    """Tell whether the database answers, and whether live updates come from the gateway."""
    try:
        await services.database.check()
    except DATABASE_FAULTS as error:
        log.error("database_unreachable", reason=type(error).__name__)
        return JSONResponse({"status": "unavailable"}, UNAVAILABLE)
    return JSONResponse({"status": "ok", "live": services.hub.link.is_up})
