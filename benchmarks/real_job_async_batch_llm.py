"""`process_stream` with an `SqliteArtifactStore`; a prompt is a chunk of 100 texts, as in its own
example of embeddings, and the halves of a refused chunk are further prompts. It tries again
instead of the client, and pauses as the service says. Its limits of tokens and requests a minute
are not used: they count what is refused, too, and with them the job took half as long again.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from async_batch_llm import (
    ArtifactIdentity,
    CallableStrategy,
    CallOutcome,
    OpenAIErrorClassifier,
    ProcessorConfig,
    RateLimitConfig,
    ResumePolicy,
    RetryConfig,
    SqliteArtifactStore,
    process_stream,
)
from openai import AsyncOpenAI
from real_job_texts import MODEL, SLOTS, TRIES, Found

CHUNK = 100


async def run(texts: list[str], url: str, folder: Path) -> Found:
    client = AsyncOpenAI(base_url=url, api_key="-", max_retries=0)

    async def embed(prompt: str, **_: Any) -> CallOutcome:
        reply = await client.embeddings.create(model=MODEL, input=json.loads(prompt))
        used = {"input_tokens": reply.usage.prompt_tokens, "output_tokens": 0}
        return CallOutcome([row.embedding for row in reply.data], used)

    identity = ArtifactIdentity(provider="loopback", model=MODEL)
    strategy = CallableStrategy(embed, identity=identity, error_classifier=OpenAIErrorClassifier())
    config = ProcessorConfig(
        concurrency=SLOTS,
        retry=RetryConfig(
            max_attempts=TRIES, max_rate_limit_retries=TRIES, initial_wait=0.5, max_wait=8
        ),
        rate_limit=RateLimitConfig(cooldown_seconds=0.1, backoff_multiplier=1, slow_start_items=0),
    )
    distinct = list(dict.fromkeys(texts))
    chunks = {f"{i}": distinct[i : i + CHUNK] for i in range(0, len(distinct), CHUNK)}
    under_way = len(chunks)
    todo: asyncio.Queue[str | None] = asyncio.Queue()
    for name in chunks:
        todo.put_nowait(name)

    async def prompts() -> AsyncIterator[tuple[str, str]]:
        while (name := await todo.get()) is not None:
            yield name, json.dumps(chunks[name])

    store = SqliteArtifactStore(folder / "vectors.db", identity=identity)
    vectors: dict[str, Any] = {}
    async for result in process_stream(
        strategy, prompts(), config=config, artifact_store=store, resume=ResumePolicy.REUSE_ALL
    ):
        chunk, under_way = chunks[result.item_id], under_way - 1
        if result.success:
            vectors.update(zip(chunk, result.output))
        elif len(chunk) == 1:
            vectors[chunk[0]] = result.exception or ValueError(result.error)
        else:
            half = len(chunk) // 2
            for side, part in {"left": chunk[:half], "right": chunk[half:]}.items():
                name = f"{result.item_id}/{side}"
                chunks[name] = part
                todo.put_nowait(name)
            under_way += 2
        if not under_way:
            todo.put_nowait(None)
    await client.close()
    return [vectors[text] for text in texts]
