"""Put load on web_app.py: many clients at once, clients that hang up, a server that has to stop.

uvicorn serves it on asyncio, Hypercorn on trio (`--server hypercorn`), by its own command in a
process of its own, which inherits its socket (so not on Windows). Each client has a connection,
which is open when the time begins.
"""

import argparse
import json
import math
import random
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Iterable
from contextlib import AsyncExitStack
from pathlib import Path
from statistics import median, quantiles
from typing import TypeVar

import anyio
import httpx

T = TypeVar("T")
GRACE = 2  # seconds for the requests under way when the server has to stop


def start(server: str, listener: socket.socket) -> subprocess.Popen[str]:
    """The server's process; who connects before it is ready waits."""
    fd = listener.fileno()
    options = {
        "uvicorn": f"--fd {fd} --timeout-keep-alive 60 --timeout-graceful-shutdown {GRACE}",
        "hypercorn": f"--bind fd://{fd} --keep-alive 60 --graceful-timeout {GRACE} -k trio",
    }
    line = f"-m {server} {options[server]} --log-level critical web_app:app"
    return subprocess.Popen(
        [sys.executable, *line.split()],
        cwd=Path(__file__).parent,
        pass_fds=[fd],
        stdout=subprocess.PIPE,
        text=True,
    )


async def at_once(asking: Iterable[Awaitable[T]]) -> list[T]:
    """The results, in the order in which they came."""
    results: list[T] = []

    async def one(each: Awaitable[T]) -> None:
        results.append(await each)

    async with anyio.create_task_group() as group:
        for each in asking:
            group.start_soon(one, each)
    return results


async def ask(client: httpx.AsyncClient, path: str, user: int, stay: float = math.inf) -> float:
    """Ask for a user, and hang up `stay` seconds after the request has been sent.

    How many seconds the answer took; infinitely many if it did not come.
    """

    async def trace(event: str, info: object) -> None:
        if event == "http11.send_request_body.complete":
            scope.deadline = anyio.current_time() + stay

    begin = time.perf_counter()
    with anyio.CancelScope() as scope:
        reply = await client.get(f"/{path}/{user}", extensions={"trace": trace})
        assert reply.raise_for_status().json() == f"user {user}"
    return math.inf if scope.cancelled_caught else time.perf_counter() - begin


async def counts(client: httpx.AsyncClient) -> dict[str, int]:
    numbers: dict[str, int] = (await client.get("/counts")).raise_for_status().json()
    return numbers


async def compare(clients: list[httpx.AsyncClient]) -> None:
    """All ask at once, one by one and gathered; a fifth of them for users of others."""
    distinct = math.ceil(len(clients) * 0.8)
    print(f"{len(clients)} requests at once, for {distinct} distinct users")
    for path in ("one-by-one", "users"):
        before, *_ = await at_once(counts(client) for client in clients)  # opens connections
        begin = time.perf_counter()
        seconds = await at_once(
            ask(client, path, number % distinct) for number, client in enumerate(clients)
        )
        elapsed = time.perf_counter() - begin
        calls = (await counts(clients[0]))["queries"] - before["queries"]
        half, most = median(seconds) * 1000, quantiles(seconds, n=20)[-1] * 1000
        print(f"/{path}: {calls} calls in {elapsed:.2f} s; ", end="")
        print(f"an answer took {half:,.0f} ms (median), {most:,.0f} ms (95th percentile)")


async def hang_up(clients: list[httpx.AsyncClient]) -> None:
    """Of two who ask for the same user, one hangs up while the query runs, which takes 0.2 s."""
    chance = random.Random(1)
    stays = [math.inf if number % 2 else chance.uniform(0, 0.1) for number in range(len(clients))]
    await clients[0].get("/slow/0.2")
    before = await counts(clients[0])
    seconds = await at_once(
        ask(client, "users", 1_000 + number // 2, stay)
        for number, (client, stay) in enumerate(zip(clients, stays))
    )
    after = await counts(clients[0])
    # Who stayed was answered; of the others, on a busy machine, who was not noticed in time.
    assert len(clients) // 2 <= after["maps"] - before["maps"] <= len(clients)
    assert after["loading"] == 0  # who hung up left nothing
    cancelled, completed = (after[each] - before[each] for each in ("cancelled", "completed"))
    print(f"{seconds.count(math.inf)} clients hung up; calls cancelled with them: {cancelled}")
    print(f"{len(clients) - seconds.count(math.inf)} stayed, and were answered; calls: {completed}")


async def stop(clients: list[httpx.AsyncClient], process: subprocess.Popen[str]) -> None:
    """The server has to stop while requests are under way, one of which waits for ever."""
    observer, unlucky, *others = clients[:102]

    async def reached(number: int, *names: str) -> None:
        with anyio.fail_after(30):
            while sum(map((await counts(observer)).__getitem__, names)) < number:
                pass

    async def ask_in_vain() -> None:
        try:
            await ask(unlucky, "users", 2_000)
        except (httpx.HTTPStatusError, httpx.TransportError):
            return
        raise AssertionError("a query that takes an hour was answered")

    async with anyio.create_task_group() as group:
        before = await counts(observer)
        await observer.get("/slow/3600.0")
        group.start_soon(ask_in_vain)
        await reached(before["queries"] + 1, "queries")
        await observer.get("/slow/0.2")
        for number, client in enumerate(others):
            group.start_soon(ask, client, "users", 2_001 + number)
        # On a busy machine some have been answered by now.
        await reached(before["maps"] + 1 + len(others), "maps", "loading")
        begin = time.perf_counter()
        process.terminate()
    output, _ = process.communicate()
    elapsed = time.perf_counter() - begin
    done = json.loads(output)  # the server has found nothing left
    print(f"told to stop: {len(others)} requests under way were answered, one that waits for ever")
    print(f"was cancelled, nothing was left; the server ended after {elapsed:.1f} s")
    print(f"/users: {done['calls']} calls in all, of which {done['cancelled']} were cancelled")


async def main(server: str, requests: int) -> None:
    async with AsyncExitStack() as stack:
        with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:
            process = stack.enter_context(start(server, listener))
            stack.callback(process.terminate)
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        clients = [
            # `verify`: else each loads the certificates of the world.
            httpx.AsyncClient(base_url=url, timeout=30, verify=False)
            for _ in range(requests)
        ]
        for client in clients:
            await stack.enter_async_context(client)
        await compare(clients)
        await hang_up(clients)
        await stop(clients, process)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--server", choices=["uvicorn", "hypercorn"], default="uvicorn")
    parser.add_argument("--requests", type=int, default=500)
    options = parser.parse_args()
    anyio.run(main, options.server, options.requests)
