"""The work that is measured, and the least that it can cost: the limits."""

from __future__ import annotations

from typing import Literal

Backend = Literal["asyncio", "trio"]
BACKENDS: tuple[Backend, Backend] = ("asyncio", "trio")

BATCH = 1_000


def items(count: int) -> list[str]:
    """Distinct strings, with hashes that were never asked for."""
    return [f"item number {number}" for number in range(count)]


ITEMS = items(100_000)
SINGLES = [[item] for item in ITEMS[:500]]  # what is mapped one key at a time


def fetch(items: list[str]) -> list[str]:
    return items.copy()


async def fetch_async(items: list[str]) -> list[str]:
    return items.copy()


def hit_limit(items: list[str], known: dict[str, str]) -> list[str]:
    """One look-up per item."""
    return [known[item] for item in items]


def cold_limit(items: list[str]) -> list[str]:
    """Tell the distinct items, call for each batch, keep the results, and look them up."""
    distinct = list(dict.fromkeys(items))
    known: dict[str, str] = {}
    for start in range(0, len(distinct), BATCH):
        batch = distinct[start : start + BATCH]
        known.update(zip(batch, fetch(batch)))
    return hit_limit(items, known)
