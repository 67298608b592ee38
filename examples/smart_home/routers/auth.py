"""Sign up, log in, stay logged in, log out."""

from typing import Annotated

from fastapi import APIRouter, Cookie, Depends, Request, Response

from examples.smart_home.attempts import place_of
from examples.smart_home.deps import Services, ServicesDep, UserId
from examples.smart_home.errors import NotAuthenticated
from examples.smart_home.schemas import Login, RefreshRequest, Registration, SessionAnswer, UserAnswer
from examples.smart_home.services.accounts import Session

COOKIE = "smart_home_refresh"
PATH = "/auth"


async def count_attempt(request: Request, services: ServicesDep) -> None:
    """Count a log-in or sign-up of the client's address."""
    await services.attempts.count(place_of(request.client.host if request.client else None))


router = APIRouter(prefix=PATH, tags=["auth"])
RefreshCookie = Annotated[str | None, Cookie(alias=COOKIE)]
counted = [Depends(count_attempt)]


@router.post("/register", status_code=201, dependencies=counted)
async def register(
    body: Registration, services: ServicesDep, request: Request, response: Response
) -> SessionAnswer:
    """Make an account and log in."""
    session = await services.accounts.register(body.email, body.password, body.name)
    return _answer(session, services, request, response, in_cookie=body.refresh_in == "cookie")


@router.post("/login", dependencies=counted)
async def login(body: Login, services: ServicesDep, request: Request, response: Response) -> SessionAnswer:
    """Log in with e-mail address and password."""
    session = await services.accounts.login(body.email, body.password)
    return _answer(session, services, request, response, in_cookie=body.refresh_in == "cookie")


@router.post("/refresh")
async def refresh(
    services: ServicesDep,
    request: Request,
    response: Response,
    body: RefreshRequest | None = None,
    cookie: RefreshCookie = None,
) -> SessionAnswer:
    """Exchange a refresh token, once, for new tokens; the new one goes back the way the old one came."""
    given = body.refresh_token if body else None
    token = given or cookie
    if not token:
        raise NotAuthenticated
    session = await services.accounts.refresh(token)
    return _answer(session, services, request, response, in_cookie=given is None)


@router.post("/logout", status_code=204)
async def logout(
    services: ServicesDep,
    response: Response,
    body: RefreshRequest | None = None,
    cookie: RefreshCookie = None,
) -> None:
    """End the session: its refresh token works no longer. The access token ends by itself, minutes later."""
    for token in (body.refresh_token if body else None, cookie):
        if token:
            await services.accounts.logout(token)
    response.delete_cookie(COOKIE, path=PATH)


@router.get("/me")
async def me(user_id: UserId, services: ServicesDep) -> UserAnswer:
    """Tell who is logged in."""
    return UserAnswer.of(await services.accounts.get(user_id))


def _answer(
    session: Session, services: Services, request: Request, response: Response, *, in_cookie: bool
) -> SessionAnswer:
    if in_cookie:
        response.set_cookie(
            COOKIE,
            session.refresh_token,
            max_age=services.settings.refresh_days * 86_400,
            path=PATH,
            httponly=True,
            samesite="strict",
            secure=request.url.scheme == "https",
        )
    return SessionAnswer(
        user=UserAnswer.of(session.user),
        access_token=session.access_token,
        expires_in=services.tokens.lifetime_seconds,
        refresh_token=None if in_cookie else session.refresh_token,
    )
