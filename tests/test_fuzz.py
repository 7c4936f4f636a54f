"""Points 1 to 11, 16 to 18 and 23 of the contract in random programs.

`proof/fuzz.py` and `proof/streams.py` run many more, and say what must hold after each.
"""

import importlib
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent

pytestmark = pytest.mark.skipif(
    not (ROOT / "proof").exists(), reason="there is no proof/ beside tests/"
)


@pytest.fixture
def proof(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(sys, "path", [str(ROOT), *sys.path])
    return lambda name: importlib.import_module(f"proof.{name}")


@pytest.mark.parametrize(
    "backend", ["asyncio", "uvloop", "trio", pytest.param("threads", marks=pytest.mark.needs_trio)]
)
def test_stores_that_fail(backend: str, proof: Any) -> None:
    """Whatever fails, answers are right, and nothing is left behind."""
    fuzz = proof("fuzz")
    face = fuzz.FACES[backend]()
    assert [(seed, wrong) for seed in range(4) if (wrong := fuzz.program(face, seed)[0])] == []


@pytest.mark.parametrize(
    "backend", ["asyncio", pytest.param("trio", marks=pytest.mark.needs_trio), "threads"]
)
def test_streams(backend: str, proof: Any) -> None:
    """Whatever fails, is slow, or leaves: what is given is right, and nothing is left behind."""
    run = proof("streams").FACES[backend]
    assert [(seed, wrong) for seed in range(150) if (wrong := run(seed).wrong)] == []
