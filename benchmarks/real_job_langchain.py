"""`CacheBackedEmbeddings` around `OpenAIEmbeddings`, with a `LocalFileStore`, in chunks of 100,
which are halved where they are refused. It takes no limit of tokens: the few chunks that are over
it are halved, too.
"""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from langchain_classic.embeddings import CacheBackedEmbeddings
from langchain_classic.storage import LocalFileStore
from langchain_openai import OpenAIEmbeddings
from openai import BadRequestError
from real_job_texts import MODEL, SLOTS, TRIES, Found

CHUNK = 100


async def halved(embed: Callable[[list[str]], Awaitable[Found]], texts: list[str]) -> Found:
    try:
        return await embed(texts)
    except BadRequestError as error:
        if len(texts) == 1:
            return [error]
    half = len(texts) // 2
    return await halved(embed, texts[:half]) + await halved(embed, texts[half:])


async def run(texts: list[str], url: str, folder: Path) -> Found:
    embeddings = OpenAIEmbeddings(
        model=MODEL,
        base_url=url,
        api_key="-",
        check_embedding_ctx_length=False,  # as its docs say for services that are not OpenAI's
        chunk_size=CHUNK,
        max_retries=TRIES,
    )
    store = LocalFileStore(folder / "vectors")
    cached = CacheBackedEmbeddings.from_bytes_store(
        embeddings, store, namespace=MODEL, key_encoder="sha256"
    )
    slots = asyncio.Semaphore(SLOTS)

    async def within(chunk: list[str]) -> Found:
        async with slots:
            return await halved(cached.aembed_documents, chunk)

    distinct = list(dict.fromkeys(texts))  # it sends what a list has twice, twice
    chunks = [distinct[i : i + CHUNK] for i in range(0, len(distinct), CHUNK)]
    found = await asyncio.gather(*map(within, chunks))
    vectors = dict(zip(distinct, [vector for chunk in found for vector in chunk]))
    return [vectors[text] for text in texts]
