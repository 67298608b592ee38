"""What routes ask for."""

from dataclasses import dataclass
from typing import Annotated
from uuid import UUID

from fastapi import Depends, Request
from starlette.requests import HTTPConnection

from examples.smart_home.attempts import Attempts
from examples.smart_home.database import Database
from examples.smart_home.errors import NotAuthenticated
from examples.smart_home.gateway import Gateway
from examples.smart_home.live.hub import Hub
from examples.smart_home.passwords import Passwords
from examples.smart_home.services.accounts import Accounts
from examples.smart_home.services.homes import Homes
from examples.smart_home.services.rooms import Rooms
from examples.smart_home.settings import Settings
from examples.smart_home.tokens import Tokens


@dataclass(frozen=True)
class Services:
    """Everything that lives as long as the application."""

    settings: Settings
    database: Database
    gateway: Gateway
    passwords: Passwords
    tokens: Tokens
    attempts: Attempts
    accounts: Accounts
    homes: Homes
    rooms: Rooms
    hub: Hub


async def services_of(connection: HTTPConnection) -> Services:
    """Return the application's services."""
    services: Services = connection.app.state.services
    return services


ServicesDep = Annotated[Services, Depends(services_of)]


async def current_user(request: Request, services: ServicesDep) -> UUID:
    """Return the id of whoever is logged in."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise NotAuthenticated
    return services.tokens.read(token.strip()).user_id


UserId = Annotated[UUID, Depends(current_user)]
