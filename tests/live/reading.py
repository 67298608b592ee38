"""Reads server-sent events as a browser does."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple, Self

import httpx
from fastapi import FastAPI

from tests.conftest import API_KEY
from tests.serving import serve

BASE = "/api/v1/tb"


class Told(NamedTuple):
    """One event."""

    event: str
    data: dict[str, Any]


class Events:
    """The events of one answer; `last_id` is what a browser would come back with."""

    def __init__(self, answer: httpx.Response) -> None:
        self.answer = answer
        self.last_id: str | None = None
        self._lines = answer.aiter_lines()
        self.comments = 0

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Told:
        fields: dict[str, str] = {}
        async with asyncio.timeout(20):
            async for line in self._lines:
                name, _, value = line.partition(": ")
                self.comments += line.startswith(":")
                fields[name] = value
                if line:
                    continue
                self.last_id = fields.get("id", self.last_id)
                if "data" in fields:
                    return Told(fields["event"], json.loads(fields["data"]))
                fields = {}
        raise StopAsyncIteration

    async def until(self, key: str, value: Any) -> list[Any]:
        """Return the values of a key up to and with this one."""
        found = []
        async for told in self:
            if told.event == "telemetry" and told.data["key"] == key:
                found.append(told.data["value"])
                if told.data["value"] == value:
                    return found
        raise AssertionError(found)

    async def rest(self) -> list[Told]:
        """Return all events up to the end of the stream."""
        return [told async for told in self]


@asynccontextmanager
async def served(app: FastAPI, key: str | None = API_KEY, **options: Any) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an application on a real port."""
    headers = {"X-API-Key": key} if key else {}
    async with (
        serve(app, **options) as url,
        httpx.AsyncClient(base_url=url, headers=headers, timeout=30) as client,
    ):
        yield client


@asynccontextmanager
async def stream(client: httpx.AsyncClient, target: str, last_id: str | None = None) -> AsyncIterator[Events]:
    """Open a stream."""
    headers = {"Last-Event-ID": last_id} if last_id else {}
    async with client.stream("GET", BASE + target, headers=headers) as answer:
        if answer.status_code != 200:
            raise AssertionError((await answer.aread()).decode())
        yield Events(answer)
