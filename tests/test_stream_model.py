"""Points 1 to 10 and 23 of the contract in random programs of streams.

`proof/streams.py` runs many more, and says what must hold after each.
"""

import importlib
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

pytestmark = pytest.mark.skipif(
    not (ROOT / "proof").exists(), reason="there is no proof/ beside tests/"
)


@pytest.mark.parametrize(
    "backend", ["asyncio", pytest.param("trio", marks=pytest.mark.needs_trio), "threads"]
)
def test_random_programs_of_streams(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever fails, is slow, or leaves: what is given is right, and nothing is left behind."""
    monkeypatch.setattr(sys, "path", [str(ROOT), *sys.path])
    streams = importlib.import_module("proof.streams")
    run = streams.FACES[backend]
    assert [(seed, wrong) for seed in range(150) if (wrong := run(seed).wrong)] == []
