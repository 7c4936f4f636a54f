"""The matrix of backends, every one but uvloop with virtual time."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import pytest
from tools import VirtualTimeLoop


def _eager_loop() -> asyncio.AbstractEventLoop:
    loop = VirtualTimeLoop()
    loop.set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined] # 3.12
    return loop


@pytest.fixture(
    params=[
        "asyncio",
        pytest.param(
            "eager",
            marks=pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks are of 3.12"),
        ),
        pytest.param(
            "uvloop",
            marks=pytest.mark.skipif(sys.platform == "win32", reason="uvloop has no Windows"),
        ),
        "trio",
    ]
)
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """Every asynchronous test runs on each of these."""
    match request.param:
        case "asyncio":
            return "asyncio", {"debug": True, "loop_factory": VirtualTimeLoop}
        case "eager":
            return "asyncio", {"loop_factory": _eager_loop}
        case "uvloop":
            return "asyncio", {"use_uvloop": True}
        case _:
            from trio.testing import MockClock

            return "trio", {"clock": MockClock(autojump_threshold=0)}
