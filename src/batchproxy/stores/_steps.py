"""A batch that is written in steps, each as much as a server takes at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

STEP_KEYS = 100_000
"""The most values of one step. Redis takes a million or so, and does nothing else meanwhile."""

STEP_BYTES = 2**28
"""And their bytes. Redis, and an array of PostgreSQL, take 2**30; the latter has some copies."""


def steps(values: Mapping[bytes, bytes]) -> Iterator[dict[bytes, bytes]]:
    """Cut them, in their order. A step has one value at least, however large."""
    step: dict[bytes, bytes] = {}
    size = 0
    for key, value in values.items():
        if step and (len(step) == STEP_KEYS or size + len(value) > STEP_BYTES):
            yield step
            step, size = {}, 0
        step[key] = value
        size += len(value)
    if step:
        yield step
