"""A process of `real_job.py`: it does the job in one way, and prints what came of it.

    python benchmarks/real_job_run.py WAY ROWS SEED URL FOLDER

The clock and the memory begin when everything is imported and the texts are there, and end with
the results. What is peak memory is that of this process image alone, which `getrusage` does not
tell from that of the parent.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import json
import sys
import time
from array import array
from pathlib import Path
from typing import Any

from real_job_texts import is_bad, job, vector, vocabulary


def memory(what: str) -> int:
    """Bytes of this process: VmRSS now, or VmHWM at most so far."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{what}:"):
            return int(line.split()[1]) * 1024
    raise LookupError(what)


def tokenizer() -> None:
    """Make tiktoken know the one of the service; those of others it would fetch from the web."""
    import tiktoken

    ranks = {bytes([byte]): byte for byte in range(256)}
    for number, word in enumerate(vocabulary()):
        ranks[word.encode()] = 256 + 2 * number
        ranks[f" {word}".encode()] = 257 + 2 * number
    tiktoken.registry.ENCODINGS["words"] = tiktoken.Encoding(
        "words", pat_str=r"\s?\S+|\s", mergeable_ranks=ranks, special_tokens={}
    )


def main() -> None:
    way, rows, seed, url, folder = sys.argv[1:]
    if importlib.util.find_spec("tiktoken"):
        tokenizer()
    module = importlib.import_module(f"real_job_{way}")
    texts = job(int(rows), int(seed)).texts
    before = memory("VmRSS")
    start = time.perf_counter()
    try:
        found: list[Any] = asyncio.run(module.run(texts, url, Path(folder)))
    except Exception as error:
        found = [None] * len(texts)
        print(f"{way} raised {error!r:.500}", file=sys.stderr)
    wall = time.perf_counter() - start
    peak = memory("VmHWM")
    bad = [is_bad(text) for text in texts]
    answer = {
        "wall": wall,
        "peak": peak,
        "grown": peak - before,
        "raised": found[0] is None,
        "lost": sum(
            not refused and not _right(text, row) for text, row, refused in zip(texts, found, bad)
        ),
        "bad": sum(bad),
        "named": sum(refused and isinstance(row, Exception) for row, refused in zip(found, bad)),
    }
    print(json.dumps(answer), flush=True)


def _right(text: str, row: Any) -> bool:
    return row is not None and not isinstance(row, Exception) and array("f", row) == vector(text)


if __name__ == "__main__":
    main()
