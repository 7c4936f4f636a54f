"""`AsyncBatchEmbeddings`, with the limits and the tokenizer of the service; chunks that are refused
are halved. Its results are in memory only.
"""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from openai import AsyncOpenAI, BadRequestError
from openaivec import AsyncBatchEmbeddings, EmbeddingLimits
from real_job_texts import MAX_ITEMS, MAX_TOKENS, MAX_TOKENS_OF_ITEM, MODEL, SLOTS, TRIES, Found


async def halved(create: Callable[[list[str]], Awaitable[Found]], texts: list[str]) -> Found:
    try:
        return list(await create(texts))
    except (BadRequestError, ValueError) as error:  # its own: the item is too long
        if len(texts) == 1:
            return [error]
    half = len(texts) // 2
    return await halved(create, texts[:half]) + await halved(create, texts[half:])


async def run(texts: list[str], url: str, folder: Path) -> Found:
    limits = EmbeddingLimits(MAX_ITEMS, MAX_TOKENS_OF_ITEM, MAX_TOKENS, "words")
    distinct = list(dict.fromkeys(texts))  # each in one chunk only
    chunks = [distinct[i : i + MAX_ITEMS] for i in range(0, len(distinct), MAX_ITEMS)]
    async with AsyncOpenAI(base_url=url, api_key="-", max_retries=TRIES) as client:
        embedder = AsyncBatchEmbeddings.of(client, MODEL, MAX_ITEMS, SLOTS, limits=limits)
        found = await asyncio.gather(*(halved(embedder.create, chunk) for chunk in chunks))
    vectors = dict(zip(distinct, [vector for chunk in found for vector in chunk]))
    return [vectors[text] for text in texts]
