"""Embed texts through a real HTTP service, on asyncio or on trio: `--backend trio`.

The service (in embeddings_server.py, on loopback) has the batch endpoint that embedding APIs have.
The texts are the paragraphs of the topics that Python's own `help()` shows; every topic is mapped
by a task of its own, all at once, and topics that quote the same paragraphs share the work.
"""

import argparse
import time
from pydoc_data.topics import topics

import anyio
import httpx
from embeddings_server import serve

from batchproxy import AsyncBatchingMapProxy

Vector = list[int]


async def main(backend: str) -> None:
    proxy = AsyncBatchingMapProxy[str, Vector](batch_size=64, max_concurrency=4)
    vectors: dict[str, list[Vector]] = {}
    with serve() as url:
        async with httpx.AsyncClient(base_url=url) as client:

            async def embed(texts: list[str]) -> list[Vector]:
                reply = await client.post("/v1/embeddings", json={"model": "bag", "input": texts})
                rows = reply.raise_for_status().json()["data"]
                return [row["embedding"] for row in sorted(rows, key=lambda row: int(row["index"]))]

            async def embed_topic(name: str) -> None:
                vectors[name] = await proxy.map(topics[name].split("\n\n"), embed)

            start = time.perf_counter()
            async with anyio.create_task_group() as group:
                for name in topics:
                    group.start_soon(embed_topic, name)
            elapsed = time.perf_counter() - start

            start = time.perf_counter()
            sample = topics["with"].split("\n\n")
            assert [(await embed([text]))[0] for text in sample] == vectors["with"]
            naive = (time.perf_counter() - start) / len(sample)

    done = proxy.statistics()
    print(
        f"{done.items:6,} paragraphs in {len(topics)} maps, {done.computed:,} distinct ({backend})"
    )
    print(f"{done.calls:6,} requests in {elapsed:.1f} s; {done.shared} results shared under way")
    print(f"{done.items:6,} requests, one a paragraph, would take {done.items * naive:.0f} s")

    means = {name: [sum(part) for part in zip(*rows)] for name, rows in vectors.items()}

    def likeness(name: str) -> float:
        dot = sum(x * y for x, y in zip(means["with"], means[name]))
        return float(dot / sum(x * x for x in means[name]) ** 0.5)

    print("nearest to 'with':", *sorted(means, key=likeness, reverse=True)[1:4])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", choices=["asyncio", "trio"], default="asyncio")
    backend = parser.parse_args().backend
    anyio.run(main, backend, backend=backend)
