"""The matrix of backends, every one but uvloop with virtual time; the number of random examples.

Asynchronous tests run on asyncio and trio, and with `--all-loops` on eager tasks and uvloop, too.
Where trio is not installed, or uvloop, the tests that need it are skipped.
`HYPOTHESIS_PROFILE=nightly` in the environment means many examples, and long races.
"""

import _thread
import gc
import importlib.util
import inspect
import os
import signal
import sys
import threading
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

# So that what they assert is asserted under -O, too.
pytest.register_assert_rewrite(
    *("tools", "command_tools", "memory_store", "postgres_server", "redis_server"),
    *("store_tools", "process_tools"),
)
from postgres_server import own_postgres as own_postgres  # noqa: E402 - after that
from postgres_server import postgres_url as postgres_url  # noqa: E402 - after that
from redis_server import forgetful as forgetful  # noqa: E402 - after that
from redis_server import redis_url as redis_url  # noqa: E402 - after that
from redis_server import server as server  # noqa: E402 - after that
from store_tools import own as own  # noqa: E402 - after that
from store_tools import place as place  # noqa: E402 - after that
from store_tools import store as store  # noqa: E402 - after that
from tools import BACKENDS, backend_options  # noqa: E402 - after that
from tools import clock as clock  # noqa: E402 - after that

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # shells start so what is to run beside
    signal.signal(signal.SIGINT, signal.default_int_handler)  # but tests, and processes, get it

if threading.gettrace() is not None:  # coverage, which does not see threads of `_thread`
    _start = _thread.start_new_thread

    def _start_traced(function: Any, arguments: tuple[Any, ...], *options: Any) -> int:
        def traced() -> None:
            sys.settrace(threading.gettrace())
            function(*arguments, *options)

        return _start(traced, ())

    _thread.start_new_thread = _start_traced


# How long an example takes says nothing: the machine may be busy.
SLOW = [HealthCheck.too_slow]
settings.register_profile("few", deadline=None, max_examples=40, suppress_health_check=SLOW)
settings.register_profile("nightly", deadline=None, max_examples=2000, suppress_health_check=SLOW)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "few"))


@pytest.fixture(params=BACKENDS)
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """Every asynchronous test runs on each of these, on eager tasks and uvloop if asked to."""
    kind = "trio" if request.param == "trio" else "asyncio"
    return kind, backend_options(request.param)


@pytest.hookimpl(tryfirst=True)
def pytest_pycollect_makeitem(name: str, obj: object) -> None:
    """Asynchronous tests need no mark for that."""
    if name.startswith("test_") and inspect.iscoroutinefunction(obj):
        pytest.mark.usefixtures("anyio_backend")(obj)


@pytest.fixture(params=["asyncio", "trio"])
def sync_backend(request: pytest.FixtureRequest) -> Any:
    """What runs the engine of synchronous proxies."""
    return request.param


def pytest_collection_finish() -> None:
    """What has been imported and collected stays: no `gc.collect()` need look at it again."""
    gc.collect()
    gc.freeze()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all-loops", action="store_true", help="also on eager tasks and uvloop")
    parser.addoption("--engines", action="store_true", help="also Ray, Spark, datasets and Daft")


def _parameters(item: pytest.Item) -> set[str]:
    callspec = getattr(item, "callspec", None)
    parameters = callspec.params.values() if callspec is not None else ()
    return {each for each in parameters if isinstance(each, str)}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the other loops and the engines; skip what needs a library that is not there."""
    if not config.getoption("--engines"):
        engines = [item for item in items if item.get_closest_marker("engines")]
        config.hook.pytest_deselected(items=engines)
        items[:] = [item for item in items if item not in engines]
    if not config.getoption("--all-loops"):
        others = [item for item in items if _parameters(item) & {"eager", "uvloop"}]
        config.hook.pytest_deselected(items=others)
        items[:] = [item for item in items if item not in others]
    for library in ("trio", "uvloop"):
        if importlib.util.find_spec(library) is not None:
            continue
        for item in items:
            if library in _parameters(item) or item.get_closest_marker(f"needs_{library}"):
                item.add_marker(pytest.mark.skip(reason=f"{library} is not installed"))
