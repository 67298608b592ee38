"""Calls the faulty gateway with the Python SDK and tells what comes of it, a line a call."""

import asyncio
import sys
from collections.abc import Callable

from thingsboard_gateway_client import AsyncGateway, Event, Gateway, GatewayError, iterate_async
from thingsboard_gateway_client.models import LiveEventBody

ADDRESS = sys.argv[1]


def tell(what: str, call: Callable[[], object]) -> None:
    try:
        told = str(call())
    except GatewayError as error:
        told = f"GatewayError {error.status} {error.code}"
    except Exception as error:  # noqa: BLE001 - its class is what is asked
        told = type(error).__name__
    sys.stdout.write(f"{what}: {told}\n")


def words(event: Event[LiveEventBody]) -> str:
    return f"{event.type} {event.data.value or None} {event.id}"


async def as_coroutines(url: str, key: str) -> str:
    """Return what the asynchronous client finds at a good gateway and at the faulty one."""
    async with AsyncGateway(url, key) as gateway:
        names = [device.name async for device in iterate_async(gateway.devices.list, page_size=5)]
    async with AsyncGateway(ADDRESS, "key") as gateway:
        device = await gateway.devices.get("patient")
        events = [event async for event in gateway.stream("breaking")]
    return "; ".join([str(len(names)), device.data.name, *map(words, events)])


with Gateway(ADDRESS, "key", timeout=1.0) as gateway:
    tell("proxy", lambda: gateway.devices.get("proxy"))
    tell("silent", lambda: gateway.devices.get("silent"))
    tell("patient", lambda: gateway.devices.get("patient").data.name)
    tell("export", lambda: gateway.telemetry.export("cut"))
    tell("stream", lambda: "; ".join(words(event) for event in gateway.stream("breaking")))
    tell("refused", lambda: next(gateway.stream("refused")))
tell("nobody", lambda: next(Gateway("http://127.0.0.1:1", "key").stream("any")))
tell("asynchronous", lambda: asyncio.run(as_coroutines(*sys.argv[2:])))
