"""Many calls of one kind, a bounded number of them at once."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

from app.errors import GatewayError

Item = TypeVar("Item")
Result = TypeVar("Result")


async def run_bounded(
    items: Iterable[Item], work: Callable[[Item], Awaitable[Result]], *, at_once: int
) -> list[Result]:
    """Do the work for each item and return the results in order; the first failure ends the rest."""
    waiting = iter(list(enumerate(items)))
    results: dict[int, Result] = {}

    async def worker() -> None:
        for index, item in waiting:
            results[index] = await work(item)

    workers = [asyncio.create_task(worker()) for _ in range(at_once)]
    try:
        await asyncio.gather(*workers)
    finally:
        for task in workers:
            task.cancel()
    return [results[index] for index in sorted(results)]


async def run_each(
    items: Iterable[Item], work: Callable[[Item], Awaitable[Result]], *, at_once: int
) -> dict[Item, Result | GatewayError]:
    """Do the work for each item; what fails becomes its result and leaves the others alone."""

    async def safely(item: Item) -> tuple[Item, Result | GatewayError]:
        try:
            return item, await work(item)
        except GatewayError as error:
            return item, error

    return dict(await run_bounded(dict.fromkeys(items), safely, at_once=at_once))
