"""What `real_job.py` embeds: texts by chance, with a seed, and what a right answer is.

A token is a word here, as if each word of the vocabulary were one in the tokenizer of the model.
"""

from __future__ import annotations

import hashlib
import random
from array import array
from string import ascii_lowercase
from typing import Any, NamedTuple, TypeAlias

MODEL = "loopback-256"
DIMENSIONS = 256
MAX_ITEMS = 128  # of a request
MAX_TOKENS = 5_000  # of a request
MAX_TOKENS_OF_ITEM = 1_000
SLOTS = 4  # requests at a time, of every contestant
TRIES = 1_000  # of a request that is told to come again, or fails, of every contestant
# (so many since a large request is told so as long as smaller ones take what it waits for)

Vector: TypeAlias = Any  # of floats, of whatever type a way has it
Found: TypeAlias = list[Any]  # for each row a vector, or the exception that says why there is none

DUPLICATES = 0.4
BAD = 0.002  # of the distinct texts
_WORDS = 4_000
_FLOATS = [(byte - 128) / 128 for byte in range(256)]  # exact in four bytes


def tokens(text: str) -> int:
    """What a tokenizer would count."""
    return len(text.split())


def is_bad(text: str) -> bool:
    """Whether the service refuses every request with this text in it."""
    return "\0" in text or tokens(text) > MAX_TOKENS_OF_ITEM


def vector(text: str) -> array[float]:
    """The embedding of a text."""
    digest = hashlib.shake_256(text.encode()).digest(DIMENSIONS)
    return array("f", [_FLOATS[byte] for byte in digest])


def vocabulary() -> list[str]:
    chance = random.Random(0)
    words: set[str] = set()
    while len(words) < _WORDS:
        words.add("".join(chance.choices(ascii_lowercase, k=chance.randint(3, 9))))
    return sorted(words)


class Job(NamedTuple):
    """The rows of a table that are to be embedded."""

    texts: list[str]
    needed: int  # tokens of the distinct texts that can be embedded


def job(rows: int, seed: int) -> Job:
    chance, words = random.Random(seed), vocabulary()

    def text(length: int) -> str:
        return " ".join(chance.choices(words, k=length))

    def length() -> int:
        return min(600, max(4, round(chance.lognormvariate(3.15, 0.9))))  # 35 on average

    count = round(rows * (1 - DUPLICATES))
    distinct = list({text(length()): None for _ in range(count)})
    for number, index in enumerate(chance.sample(range(count), max(2, round(count * BAD)))):
        # Three of four have something in them that the service refuses, the fourth is too long.
        distinct[index] = (
            text(chance.randint(1_001, 3_000)) if number % 4 == 1 else f"{text(20)} \0"
        )
    texts = distinct + chance.choices(distinct, k=rows - len(distinct))
    chance.shuffle(texts)
    return Job(texts, sum(tokens(text) for text in distinct if not is_bad(text)))
