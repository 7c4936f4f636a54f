"""The matrix of backends, every one but uvloop with virtual time.

Where trio is not installed, or uvloop, the tests that need it are skipped.
"""

from __future__ import annotations

import _thread
import asyncio
import importlib.util
import sys
import threading
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

# So that what they assert is asserted under -O, too.
pytest.register_assert_rewrite(
    "tools", "command_tools", "memory_store", "redis_server", "test_durable"
)
from redis_server import redis_url as redis_url  # noqa: E402 - after that
from tools import VirtualTimeLoop  # noqa: E402 - after that

from batchproxy import _durable  # noqa: E402 - after that

# How fast anything is, is not asserted: the machine may have other things to do.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")

if threading.gettrace() is not None:  # coverage, which does not see threads of `_thread`

    def _start_traced(function: Any, arguments: tuple[Any, ...]) -> int:
        def traced() -> None:
            sys.settrace(threading.gettrace())
            function(*arguments)

        return _thread.start_new_thread(traced, ())

    # Not a module, as mypy says.
    _durable._thread = SimpleNamespace(start_new_thread=_start_traced)  # type: ignore[assignment, attr-defined]


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
        "uvloop",
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


@pytest.fixture(params=["asyncio", "trio"])
def sync_backend(request: pytest.FixtureRequest) -> Any:
    """What runs the engine of synchronous proxies."""
    return request.param


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what is parametrised with, or marked to need, a library that is not there."""
    for library in ("trio", "uvloop"):
        if importlib.util.find_spec(library) is not None:
            continue
        for item in items:
            callspec = getattr(item, "callspec", None)
            parameters = callspec.params.values() if callspec is not None else ()
            names = {each for each in parameters if isinstance(each, str)}
            if library in names or item.get_closest_marker(f"needs_{library}"):
                item.add_marker(pytest.mark.skip(reason=f"{library} is not installed"))
