"""What routes ask for, by type. All are coroutines: FastAPI runs plain functions in a thread (90 us each)."""

from typing import Annotated

from fastapi import Depends, Query, Request
from pydantic import AfterValidator

from app.context import Caller, context_of
from app.errors import NotAuthenticated
from app.services.files import FileTurns
from app.services.restricted import restricted
from app.settings import Settings
from app.thingsboard.client import ThingsBoardClient
from app.upstreams import Upstreams


async def _settings(request: Request) -> Settings:
    settings: Settings = request.app.state.settings
    return settings


async def _caller(request: Request) -> Caller:
    caller = context_of(request.scope).caller
    if caller is None:
        raise NotAuthenticated
    return caller


def upstream_of(upstreams: Upstreams, caller: Caller) -> ThingsBoardClient:
    """Return ThingsBoard as the caller's key may see it: what a restriction hides is not there."""
    upstream = upstreams[caller.upstream].client
    return upstream if caller.restrictions is None else restricted(upstream, caller.restrictions)


async def _upstream(request: Request) -> ThingsBoardClient:
    return upstream_of(request.app.state.upstreams, await _caller(request))


async def _file_turns(request: Request) -> FileTurns:
    caller = await _caller(request)
    turns: FileTurns = request.app.state.upstreams[caller.upstream].file_turns
    return turns


def _without_nul(text: str | None) -> str | None:
    # PostgreSQL cannot hold one: ThingsBoard answers 500.
    if text is not None and "\0" in text:
        raise ValueError("must not hold a NUL character")
    return text


SettingsDep = Annotated[Settings, Depends(_settings)]
UpstreamDep = Annotated[ThingsBoardClient, Depends(_upstream)]
FileTurnsDep = Annotated[FileTurns, Depends(_file_turns)]
CallerDep = Annotated[Caller, Depends(_caller)]

PageNumber = Annotated[int, Query(ge=0, le=2**31 - 1, description="Number of the page, from 0.")]
PageSize = Annotated[int, Query(ge=1, le=1000, description="Objects a page.")]
TextSearch = Annotated[
    str | None,
    Query(min_length=1, max_length=255, description="Text in name, label or type."),
    AfterValidator(_without_nul),
]
ExactType = Annotated[
    str | None, Query(min_length=1, max_length=255, description="Exact type."), AfterValidator(_without_nul)
]
