"""A web application whose handlers need one user each; web_load.py puts load on it.

It is the same under asyncio and trio:

    uvicorn web_app:app
    hypercorn --worker-class trio web_app:app

A handler gets its user through a bound function or, under `/one-by-one`, by a query of its own. The
database only sleeps: it has four connections, and a query takes 20 ms, whatever it asks for.
"""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import TypeVar

import anyio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from batchproxy import AsyncBatchingMapProxy, Cache
from batchproxy.testing import assert_idle, look

T = TypeVar("T")
CONNECTIONS = 4


class Database:
    def __init__(self) -> None:
        self.connections = anyio.CapacityLimiter(CONNECTIONS)
        self.queries = 0
        self.seconds = 0.02

    async def select_users(self, ids: list[int]) -> list[str]:
        """Stands for `SELECT name FROM users WHERE id IN (...)`."""
        async with self.connections:
            self.queries += 1
            await anyio.sleep(self.seconds)
        return [f"user {number}" for number in ids]


database = Database()
cache = Cache[str](max_size=10_000, ttl=60)
proxy = AsyncBatchingMapProxy[int, str](100, max_concurrency=CONNECTIONS, cache=cache)
# A user is the same whoever asks. If not, who is asking would have to be part of the key.
users = proxy.bind(database.select_users)


async def while_connected(request: Request, work: Callable[[], Awaitable[T]]) -> T | None:
    """What `work` gives; or None, and `work` is cancelled, if the client hangs up before.

    Neither uvicorn nor Hypercorn cancels a handler for that: they tell those who wait for the next
    message. What has not been read of the body is thrown away.
    """

    async def watch() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        group.cancel_scope.cancel()

    result = None
    try:
        async with anyio.create_task_group() as group:
            group.start_soon(watch)
            result = await work()
            group.cancel_scope.cancel()
    except ExceptionGroup as failed:  # of one: the handler shall see it as it was raised
        raise failed.exceptions[0] from None
    return result


async def gathered(request: Request) -> Response:
    number = request.path_params["number"]
    return JSONResponse(await while_connected(request, lambda: users.load(number)))


async def one_by_one(request: Request) -> Response:
    [user] = await database.select_users([request.path_params["number"]])
    return JSONResponse(user)


async def slow(request: Request) -> Response:
    """From now on queries take as long as this says."""
    database.seconds = request.path_params["seconds"]
    return Response()


async def counts(request: Request) -> Response:
    now = {"queries": database.queries, "loading": look(proxy).loading}
    return JSONResponse(now | asdict(proxy.statistics()))


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    yield
    assert_idle(proxy)  # nobody waits, and no key is in flight
    print(json.dumps(asdict(proxy.statistics())))


app = Starlette(
    routes=[
        Route("/users/{number:int}", gathered),
        Route("/one-by-one/{number:int}", one_by_one),
        Route("/slow/{seconds:float}", slow),
        Route("/counts", counts),
    ],
    lifespan=lifespan,
)
