"""An SQLite table of vectors, batches by tokens, a worker for each slot, and halves of what is
refused.
"""

import asyncio
import sqlite3
from array import array
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from openai import AsyncOpenAI, BadRequestError
from real_job_texts import MAX_ITEMS, MAX_TOKENS, MODEL, SLOTS, TRIES, Found, tokens


class Vectors:
    """What was paid for, in a file."""

    def __init__(self, path: Path) -> None:
        self.connection = sqlite3.connect(path, isolation_level=None)
        self.connection.execute("PRAGMA journal_mode = WAL")
        self.connection.execute(
            "CREATE TABLE IF NOT EXISTS vectors"
            " (model TEXT, text TEXT, vector BLOB, PRIMARY KEY (model, text)) WITHOUT ROWID"
        )

    def close(self) -> None:
        self.connection.close()

    def known(self, texts: list[str]) -> dict[str, Any]:
        """The vectors of those that are there."""
        found: dict[str, Any] = {}
        for start in range(0, len(texts), 500):
            some = texts[start : start + 500]
            marks = ", ".join("?" * len(some))
            query = f"SELECT text, vector FROM vectors WHERE model = ? AND text IN ({marks})"
            for text, packed in self.connection.execute(query, [MODEL, *some]):
                found[text] = array("f", packed)
        return found

    def keep(self, texts: list[str], vectors: list[array[float]]) -> None:
        """Write a batch, all or nothing."""
        rows = [(MODEL, text, vector.tobytes()) for text, vector in zip(texts, vectors)]
        with self.connection:
            self.connection.execute("BEGIN")
            self.connection.executemany("INSERT OR IGNORE INTO vectors VALUES (?, ?, ?)", rows)


def batches(texts: list[str]) -> Iterator[list[str]]:
    """As many of the next texts as fit into a request."""
    batch: list[str] = []
    weight = 0
    for text in texts:
        count = tokens(text)
        if batch and (len(batch) == MAX_ITEMS or weight + count > MAX_TOKENS):
            yield batch
            batch, weight = [], 0
        batch.append(text)
        weight += count
    if batch:
        yield batch


async def embed(
    client: AsyncOpenAI, store: Vectors, batch: list[str], found: dict[str, Any]
) -> None:
    """Embed a batch, or its halves if it is refused, down to the texts that are refused alone."""
    try:
        reply = await client.embeddings.create(model=MODEL, input=batch)
    except BadRequestError as error:
        if len(batch) == 1:
            found[batch[0]] = error
            return
        half = len(batch) // 2
        await embed(client, store, batch[:half], found)
        await embed(client, store, batch[half:], found)
    else:
        rows = sorted(reply.data, key=lambda row: row.index)
        vectors = [array("f", row.embedding) for row in rows]
        store.keep(batch, vectors)
        found.update(zip(batch, vectors))


async def run(texts: list[str], url: str, folder: Path) -> Found:
    distinct = list(dict.fromkeys(texts))
    with closing(Vectors(folder / "vectors.db")) as store:
        found = store.known(distinct)
        todo = batches([text for text in distinct if text not in found])
        async with AsyncOpenAI(base_url=url, api_key="-", max_retries=TRIES) as client:

            async def worker() -> None:
                for batch in todo:
                    await embed(client, store, batch, found)

            async with asyncio.TaskGroup() as group:
                for _ in range(SLOTS):
                    group.create_task(worker())
    return [found[text] for text in texts]
