"""Halves find what is refused, in the slot of their batch; a file keeps what was paid for."""

from functools import partial
from pathlib import Path

import numpy as np
from openai import AsyncOpenAI, BadRequestError
from real_job_texts import MAX_ITEMS, MAX_TOKENS, MODEL, SLOTS, TRIES, Found, Vector, tokens

from batchproxy import AsyncBatchingMapProxy, Cache, SplitBatch
from batchproxy.stores import SQLiteStore


async def embed(client: AsyncOpenAI, texts: list[str]) -> Found:
    try:
        reply = await client.embeddings.create(model=MODEL, input=texts)
    except BadRequestError as error:
        raise SplitBatch from error
    return [np.array(row.embedding, "f4") for row in reply.data]


async def run(texts: list[str], url: str, folder: Path) -> Found:
    async with AsyncOpenAI(base_url=url, api_key="-", max_retries=TRIES) as client:
        with Cache[Vector](store=SQLiteStore(folder / "vectors.db"), namespace=MODEL) as cache:
            proxy = AsyncBatchingMapProxy[str, Vector](
                MAX_ITEMS, SLOTS, cache=cache, weight=tokens, max_weight=MAX_TOKENS
            )
            return await proxy.map(texts, partial(embed, client), return_exceptions=True)
