"""Baseline: the gateway that one writes first. FastAPI, httpx, a key check, JSON decoded and encoded."""

import contextlib
import hmac
import sys
from collections.abc import AsyncIterator
from typing import Annotated, Any

import httpx
import uvicorn
from fastapi import Depends, FastAPI, Header, HTTPException

from benchmarks.processes import HOST

_, PORT, UPSTREAM, KEY = sys.argv


@contextlib.asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Log in and hold the client."""
    async with httpx.AsyncClient(base_url=UPSTREAM, timeout=30) as client:
        login = await client.post("/api/auth/login", json={"username": "tenant", "password": "tenant"})
        client.headers["X-Authorization"] = f"Bearer {login.json()['token']}"
        app.state.client = client
        yield


def check_key(x_api_key: Annotated[str, Header()]) -> None:
    """Refuse callers without the key."""
    if not hmac.compare_digest(x_api_key.encode(), KEY.encode()):
        raise HTTPException(401)


app = FastAPI(lifespan=lifespan, dependencies=[Depends(check_key)])


@app.get("/api/v1/tb/devices")
async def list_devices(page: int = 0, page_size: int = 100) -> Any:
    """Return a page of devices."""
    answer = await app.state.client.get(
        "/api/tenant/deviceInfos", params={"page": page, "pageSize": page_size}
    )
    answer.raise_for_status()
    return {"status": "success", **answer.json()}


if __name__ == "__main__":
    uvicorn.run(app, host=HOST, port=int(PORT), access_log=False, log_level="warning", loop="uvloop")
