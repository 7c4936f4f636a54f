"""What is asked of event loops of both kinds."""

from __future__ import annotations

from batchproxy import _loops


def test_closing_a_coroutine_needs_no_loop() -> None:
    """What the collector throws into a forgotten coroutine is known without asking any loop."""
    assert _loops.is_cancellation(GeneratorExit())
    assert _loops.running_loop() is None
