"""Points 5 to 11 and 16 to 18 of the contract in random programs with stores that fail.

`proof/fuzz.py` runs many more, and says what must hold after each.
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
    "backend", ["asyncio", "uvloop", "trio", pytest.param("threads", marks=pytest.mark.needs_trio)]
)
def test_random_programs_with_stores_that_fail(
    backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever fails, answers are right, and nothing is left behind."""
    monkeypatch.setattr(sys, "path", [str(ROOT), *sys.path])
    fuzz = importlib.import_module("proof.fuzz")
    face = fuzz.FACES[backend]()
    assert [(seed, wrong) for seed in range(4) if (wrong := fuzz.program(face, seed)[0])] == []
