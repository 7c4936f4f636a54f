"""The service of `real_job.py`: what a provider of embeddings does, on loopback, and it counts.

    python benchmarks/real_job_service.py SEED

Prints its port, and ends with its standard input. `POST /v1/embeddings` is as OpenAI's, in this
order: 429 with the time to wait where the bucket of requests is empty; 400 for the whole of a
request with too many items, too many tokens, or an item that it does not take, and it does not
say which; 429 where the bucket of tokens is empty; sometimes 500, 503, or a reset. Then it bills,
takes its time, and answers; but sometimes the connection is reset instead: such a request was
billed, and whoever wants an answer pays for another one. `GET /billed` and `GET /counted` say
what came of it.
"""

from __future__ import annotations

import asyncio
import base64
import json
import math
import random
import socket
import struct
import sys
import time
from collections import Counter
from http import HTTPStatus
from typing import Any, NamedTuple

from real_job_texts import MAX_ITEMS, MAX_TOKENS, is_bad, tokens, vector

TOKENS_A_SECOND = 1_000_000 / 60  # the limits of a provider are those of a minute
REQUESTS_A_SECOND = 3_000 / 60
FAILS, RESETS, RESETS_BILLED = 0.02, 0.01, 0.01  # of the requests that pass the limits
RESET = struct.pack("ii", 1, 0)  # no lingering: the peer gets a RST


class Bucket:
    """It holds what flows in within a second, and begins full."""

    def __init__(self, rate: float) -> None:
        self.rate = self._level = rate
        self._at = time.monotonic()

    def take(self, amount: float) -> float:
        """Zero if it has so much; else the seconds until it would have."""
        now = time.monotonic()
        self._level = min(self.rate, self._level + (now - self._at) * self.rate)
        self._at = now
        if amount > self._level:
            return (amount - self._level) / self.rate
        self._level -= amount
        return 0.0


class Answer(NamedTuple):
    status: int
    body: Any
    wait: float = 0.0


class Reset(Exception):
    """The connection is to end without an answer."""


def refusal(status: int, message: str, wait: float = 0.0) -> Answer:
    return Answer(status, {"error": {"message": message, "type": "error", "code": None}}, wait)


class Service:
    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)
        self._requests, self._tokens = Bucket(REQUESTS_A_SECOND), Bucket(TOKENS_A_SECOND)
        self._statuses: Counter[str] = Counter()
        self._billed: Counter[str] = Counter()  # how often, of each text
        self._lost: Counter[str] = Counter()  # how often billed and then reset, of each text
        self._total = 0

    async def embed(self, body: Any) -> Answer:
        texts: list[str] = body["input"]
        chance = self._chance
        if wait := self._requests.take(1):
            return refusal(429, "Rate limit reached for requests", wait)
        total = sum(map(tokens, texts))
        if len(texts) > MAX_ITEMS or total > MAX_TOKENS or any(map(is_bad, texts)):
            await asyncio.sleep(0.02)
            return refusal(400, "'$.input' is invalid")
        if wait := self._tokens.take(total):
            return refusal(429, "Rate limit reached for tokens", wait)
        slow = 8 if chance.random() < 0.01 else 1
        mood, lasts = chance.random(), (0.04 + 0.001 * len(texts)) * slow
        lasts *= chance.lognormvariate(0, 0.3)
        if mood < FAILS:
            await asyncio.sleep(lasts)
            return refusal(chance.choice([500, 503]), "The server had an error")
        if mood < FAILS + RESETS:
            raise Reset
        self._total += total
        self._billed.update(texts)
        await asyncio.sleep(lasts)
        if mood < FAILS + RESETS + RESETS_BILLED:
            self._lost.update(texts)
            raise Reset
        packed = body.get("encoding_format") == "base64"
        vectors = map(vector, texts)
        rows = [
            base64.b64encode(each.tobytes()).decode() if packed else list(each) for each in vectors
        ]
        data = [{"object": "embedding", "index": i, "embedding": row} for i, row in enumerate(rows)]
        usage = {"prompt_tokens": total, "total_tokens": total}
        return Answer(200, {"object": "list", "data": data, "model": body["model"], "usage": usage})

    def counted(self) -> dict[str, Any]:
        lost = sum(often * tokens(text) for text, often in self._lost.items())
        again = sum(
            max(0, often - self._lost[text] - 1) * tokens(text)
            for text, often in self._billed.items()
        )
        statuses = dict(self._statuses)
        return {"statuses": statuses, "billed": self._total, "lost": lost, "again": again}

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                await self._one(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client has gone
        except Reset:
            self._statuses["reset"] += 1
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            writer.transport.abort()
        finally:
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        fields = dict(line.lower().split(": ", 1) for line in head[1:] if line)
        body = await reader.readexactly(int(fields.get("content-length", 0)))
        path = head[0].split()[1]
        if path == "/v1/embeddings":
            answer = await self.embed(json.loads(body))
            self._statuses[str(answer.status)] += 1
        else:
            answer = Answer(200, self._total if path == "/billed" else self.counted())
        reply = json.dumps(answer.body).encode()
        lines = [f"HTTP/1.1 {answer.status} {HTTPStatus(answer.status).phrase}"]
        lines += ["content-type: application/json", f"content-length: {len(reply)}"]
        if answer.wait:
            milliseconds = math.ceil(answer.wait * 1_000)
            lines += [f"retry-after-ms: {milliseconds}", f"retry-after: {math.ceil(answer.wait)}"]
        writer.write("\r\n".join([*lines, "", ""]).encode() + reply)
        await writer.drain()


async def serve(seed: int) -> None:
    service = Service(seed)
    server = await asyncio.start_server(service.connected, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
