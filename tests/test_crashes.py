"""Points 16 and 17 of the contract: `kill -9` at a few random moments.

`proof/crashes.py` tries many more, and says what must hold after each.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from postgres_server import needs_postgres
from redis_server import needs_redis

CRASHES = Path(__file__).parent.parent / "proof" / "crashes.py"
SEED = "4"  # with which the command waits for leases only once

pytestmark = [
    pytest.mark.skipif(os.name != "posix", reason="signals as POSIX has them"),
    pytest.mark.skipif(not CRASHES.exists(), reason="there is no proof/ beside tests/"),
]


@pytest.fixture(scope="module")
def runs() -> Iterator[dict[str, subprocess.Popen[str]]]:
    """A run in each mode, all at once: they wait for leases, mostly."""
    started = {
        mode: subprocess.Popen(
            [sys.executable, str(CRASHES), "--times", "3", "--seed", SEED, "--mode", mode],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for mode in ("command", "sqlite", "postgres", "redis")
    }
    yield started
    for run in started.values():
        run.terminate()
        run.communicate()


@pytest.mark.parametrize(
    "mode",
    [
        *("command", "sqlite"),
        pytest.param("postgres", marks=needs_postgres),
        pytest.param("redis", marks=needs_redis),
    ],
)
def test_kill_at_random_moments(runs: dict[str, subprocess.Popen[str]], mode: str) -> None:
    """Nothing acknowledged is lost, no batch is there in part, only open ones are done again."""
    if mode == "command":
        pytest.importorskip("click")
    printed, errors = runs[mode].communicate()
    assert (runs[mode].returncode, errors) == (0, ""), printed
    assert f"\n| {mode} | 3 |" in printed
