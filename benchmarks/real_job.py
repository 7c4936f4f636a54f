"""A whole job against a service that behaves as a provider of embeddings does, in several ways.

    python benchmarks/real_job.py                        print the tables; an hour
    python benchmarks/real_job.py --texts 400 --seeds 1  a quick look
    python benchmarks/real_job.py batchproxy langchain   in these ways only
    python benchmarks/real_job.py --write docs/speed     keep them there, for the docs

Of the texts 40 % are duplicates, and 0.2 % are such that the service refuses every request with one
of them in it. The service (`real_job_service`) is a process of its own, new for each run; it says
what it has billed. Each way (`real_job_<way>`) does the job in a process of its own, once on the
clock; and once more, killed when half is billed, and started again in the same folder. What is not
installed is left out, and said; so is, at the next size, what did not finish.
"""

from __future__ import annotations

import argparse
import ast
import importlib.metadata
import importlib.util
import os
import platform
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from measuring import print_and_keep
from real_job_runs import Run, Unfinished, run
from real_job_texts import MAX_TOKENS, SLOTS

HERE = Path(__file__).parent
NEEDED = {
    "batchproxy": ["openai", "numpy"],
    "openaivec": ["openaivec"],
    "langchain": ["langchain_classic", "langchain_openai"],
    "async_batch_llm": ["async_batch_llm", "openai"],
    "by_hand": ["openai"],
}
NAMES = {
    "batchproxy": "batchproxy",
    "openaivec": "openaivec",
    "langchain": "LangChain",
    "async_batch_llm": "async-batch-llm",
    "by_hand": "by hand",
}
VERSIONS = [
    "batchproxy",
    "openai",
    "openaivec",
    "langchain-classic",
    "langchain-openai",
    "async-batch-llm",
]
OURS = "batchproxy"
HEADING = """\
| way | lines | seconds | of the bound | requests (429) | billed twice | waste | reset \
| good rows lost | bad rows named | killed: paid again | seconds to the end \
| peak MiB (by the job) |
|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|"""


def source(way: str) -> str:
    return (HERE / f"real_job_{way}.py").read_text()


def lines(way: str) -> int:
    """Of code: no empty ones, no comments, no docstrings."""
    text = source(way)
    nothing = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT}
    nothing |= {tokenize.ENDMARKER}
    with open(HERE / f"real_job_{way}.py", encoding="utf-8") as file:
        code = {
            line
            for token in tokenize.generate_tokens(file.readline)
            if token.type not in nothing
            for line in range(token.start[0], token.end[0] + 1)
        }
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            code -= {*range(node.lineno, (node.end_lineno or 0) + 1)}
    return len(code)


def about(way: str) -> str:
    return (
        f"- *{NAMES[way]}*: {' '.join((ast.get_docstring(ast.parse(source(way))) or '').split())}"
    )


def line(way: str, runs: list[Run]) -> str:
    """Of a table: medians of the time and the requests, and the worst of the rest."""
    walls, worst = [each.wall for each in runs], Run(*map(max, zip(*runs)))
    seconds = f"{median(walls):.1f}"
    if len(runs) > 1:
        seconds += f" ({min(walls):.1f} to {max(walls):.1f})"
    ratio = f"{median(each.wall / each.bound for each in runs):.2f}" if worst.bound > 1 else ""
    requests = median(each.requests for each in runs)
    throttled = median(each.throttled for each in runs)
    return (
        f"| {NAMES[way]} | {lines(way)} | {seconds} "
        f"| {ratio} "
        f"| {requests:,.0f} ({throttled:,.0f}) | {worst.again:,} "
        f"| {max(1 + each.again / each.needed for each in runs):.2f} | {worst.reset:,} "
        f"| {sum(each.lost for each in runs):,} "
        f"| {sum(each.named for each in runs):,} of {sum(each.bad for each in runs):,} "
        f"| {worst.paid_again:,} | {median(each.resumed for each in runs):.1f} "
        f"| {worst.peak:.0f} ({worst.grown:.0f}) |"
    )


def aims(ran: dict[str, list[Run]]) -> Iterator[str]:
    """What was aimed at, of batchproxy, before anything was measured."""
    ours = ran[OURS]
    others = [
        median(each.wall for each in runs)
        for way, runs in ran.items()
        if way != OURS and not sum(each.lost for each in runs)
    ]
    rows: list[tuple[str, float, float]] = [
        ("lines", 20, lines(OURS)),
        ("good rows lost", 0, sum(each.lost for each in ours)),
        ("waste", 1, max(1 + each.again / each.needed for each in ours)),
        (
            "tokens paid again, killed at half",
            SLOTS * MAX_TOKENS,
            max(each.paid_again for each in ours),
        ),
    ]
    if others:
        ratio = median(each.wall for each in ours) / min(others)
        rows.append(("seconds, of the best that loses nothing", 1.15, round(ratio, 2)))
    yield "| aim of batchproxy | at most | is | reached |"
    yield "|---|---:|---:|---|"
    for what, at_most, value in rows:
        yield f"| {what} | {at_most:,.5g} | {value:,.5g} | {'yes' if value <= at_most else 'no'} |"


def is_there(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def environment() -> str:
    versions = []
    for name in VERSIONS:
        try:
            versions.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            pass  # said below
    python = f"CPython {platform.python_version()} on {sys.platform}, {os.cpu_count()} processors"
    return f"{python}; {', '.join(versions)}."


def tables(ways: list[str], sizes: list[int], seeds: list[int]) -> Iterator[str]:
    yield environment()
    out: dict[str, str] = {}
    for way in ways:
        gone = [module for module in NEEDED[way] if not is_there(module)]
        if gone:
            out[way] = f"there is no {' and no '.join(gone)} here"
    for size, count in zip(sizes, [*seeds, *[seeds[-1]] * len(sizes)]):
        yield ""
        yield f"**{size:,} texts**, {count} seed{'s' if count > 1 else ''}:"
        yield ""
        yield HEADING
        ran: dict[str, list[Run]] = {}
        for way in ways:
            if way not in out:
                try:
                    ran[way] = [run(way, size, seed) for seed in range(1, count + 1)]
                    yield line(way, ran[way])
                except Unfinished:
                    out[way] = f"it did not finish {size:,} texts"
        if OURS in ran:
            yield ""
            yield from aims(ran)
    yield ""
    for way, reason in out.items():
        yield f"Left out: {NAMES[way]}, since {reason}."
        yield ""
    yield from (about(way) for way in ways if way not in out)
    yield ""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("ways", nargs="*", metavar="WAY", help=", ".join(NEEDED))
    parser.add_argument("--texts", nargs="+", type=int, default=[8_000, 50_000], metavar="ROWS")
    help_of_seeds = "how many, for each number of texts"
    parser.add_argument("--seeds", nargs="+", type=int, default=[3], help=help_of_seeds)
    parser.add_argument("--write", type=Path, metavar="FOLDER", help="keep the tables")
    options = parser.parse_args()
    lines = tables(options.ways or list(NEEDED), options.texts, options.seeds)
    print_and_keep(lines, "real-job.md", options.write)


if __name__ == "__main__":
    main()
