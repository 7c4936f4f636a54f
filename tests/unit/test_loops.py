"""What is asked of event loops of both kinds."""

import sys
from types import ModuleType

import pytest
from anyio.lowlevel import checkpoint

from batchproxy import _loops


def test_closing_a_coroutine_needs_no_loop() -> None:
    """What the collector throws into a forgotten coroutine is known without asking any loop."""
    assert _loops.is_cancellation(GeneratorExit())
    assert _loops.running_loop() is None


@pytest.mark.needs_trio
@pytest.mark.parametrize("anyio_backend", ["trio"])
async def test_asyncio_may_be_half_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another thread may be at it, while this one has no loop of it."""
    await checkpoint()
    monkeypatch.setitem(sys.modules, "asyncio", ModuleType("asyncio"))
    assert not _loops.is_being_cancelled(_loops.running_loop())
    monkeypatch.delitem(sys.modules, "sniffio")
    assert _loops.running_loop() is None
