"""What broken code showed to be untested: each test here notices what no other test did.

`proof/mutants.py` breaks the code in many small ways, and says which test notices. (Points 4, 5, 6,
8, 9, 10, 12 and 14 of the contract.)
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest


def test_every_mutant_applies_to_todays_source(monkeypatch: pytest.MonkeyPatch) -> None:
    """The text that each breakage replaces is in the source, once: the list cannot rot."""
    path = Path(__file__).parent.parent / "proof" / "mutants.py"
    spec = importlib.util.spec_from_file_location("mutants", path)
    assert spec is not None
    assert spec.loader is not None
    mutants = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "mutants", mutants)  # dataclasses look their module up
    spec.loader.exec_module(mutants)
    assert len(mutants.MUTANTS) >= 45
    assert mutants.stale() == []
