"""Point 21 of the contract: functions that are bound to a proxy."""

import functools
import inspect
from typing import Any

import anyio
import pytest

from batchproxy import AsyncBatchingMapProxy, AsyncBoundFunction, BatchingMapProxy, BoundFunction
from batchproxy.testing import AsyncCalls, Calls

FACES: list[Any] = [AsyncBatchingMapProxy, BatchingMapProxy]
faces = pytest.mark.parametrize("face", FACES)


def fetch(keys: list[int]) -> list[str]:
    """What is known of some keys."""
    return list(map(str, keys))


async def fetch_async(keys: list[int]) -> list[str]:
    """What is known of some keys."""
    return fetch(keys)


def functions(face: Any) -> Any:
    return fetch if face is BatchingMapProxy else fetch_async


@faces
def test_what_a_bound_function_says_of_itself(face: Any) -> None:
    """It is called as the function is, and knows that, and its proxy."""
    proxy, function = face(10), functions(face)
    users: Any = proxy.bind(function)
    kind: Any = type(users)
    assert kind is (BoundFunction if face is BatchingMapProxy else AsyncBoundFunction)
    assert kind.__module__ == "batchproxy"
    assert (users.proxy, users.function, users.__wrapped__) == (proxy, function, function)
    assert users.__name__ == function.__name__
    assert users.__qualname__ == function.__qualname__
    assert users.__module__ == __name__
    assert users.__doc__ == "What is known of some keys."
    assert repr(users) == f"<{type(users).__name__} {function.__name__} of {proxy!r}>"
    partly = proxy.bind(functools.partial(function))
    assert f"{type(users).__name__} functools.partial(<function fetch" in repr(partly)
    assert not callable(users)


def test_both_faces_are_alike() -> None:
    """They have the same members with the same parameters; one is awaited."""
    asynchronous, synchronous = (
        {name: member for name, member in vars(kind).items() if not name.startswith("__")}
        for kind in (AsyncBoundFunction, BoundFunction)
    )
    assert (
        asynchronous.keys()
        == synchronous.keys()
        == {*("proxy", "function", "map", "load", "stream")}
    )
    for name in ("map", "load", "stream"):
        ours, theirs = asynchronous[name], synchronous[name]
        assert inspect.iscoroutinefunction(ours) == (name != "stream")
        assert not inspect.iscoroutinefunction(theirs)
        expected = [*inspect.signature(ours).parameters]
        if name == "stream":
            expected.remove("ordered")
        assert [*inspect.signature(theirs).parameters] == expected


@faces
def test_a_decorator(face: Any) -> None:
    """It does for definitions."""
    proxy = face(10)

    @proxy.bind  # type: ignore[untyped-decorator] # of either face
    def answer(keys: list[int]) -> Any:
        """Documented."""
        return functions(face)(keys)

    assert answer.__doc__ == "Documented."
    assert answer.__name__ == "answer"
    if face is BatchingMapProxy:
        assert answer.map([1, 2, 1]) == ["1", "2", "1"]
        assert answer.load(3) == "3"


@faces
@pytest.mark.parametrize("wrong", [None, 3, "fetch", [fetch]])
def test_what_is_no_function(face: Any, wrong: Any) -> None:
    """It is refused at once."""
    with pytest.raises(TypeError, match=r"bind\(\) takes a function from a list of items to"):
        face().bind(wrong)


@faces
async def test_mapping_through_it(face: Any) -> None:
    """It is `map()` of the proxy with that function, and the same options."""
    proxy, told = face(2), list[int]()
    calls = (Calls if face is BatchingMapProxy else AsyncCalls)(
        lambda key: ValueError(key) if key == 3 else str(key)
    )
    users = proxy.bind(calls)
    outcome = users.map(
        range(5), return_exceptions=True, progress=lambda now: told.append(now.done)
    )
    results = outcome if face is BatchingMapProxy else await outcome
    assert [str(result) for result in results] == ["0", "1", "2", "3", "4"]
    assert isinstance(results[3], ValueError)
    assert sorted(calls.batches) == [[0, 1], [2, 3], [4]]
    assert told[-1] == 5
    with pytest.raises(ValueError, match="3"):
        users.map([3]) if face is BatchingMapProxy else await users.map([3])
    known = users.load(4)
    assert (known if face is BatchingMapProxy else await known) == "4"  # it is the same cache
    assert calls.batches[3:] == [[3]]


async def test_two_functions_of_one_proxy() -> None:
    """They share its slots, its cache and its calls; each gathers its own keys."""
    proxy = AsyncBatchingMapProxy[int, str](10, 1)
    batches: list[tuple[str, list[int]]] = []

    def function(name: str) -> Any:
        async def fetch(keys: list[int]) -> list[str]:
            batches.append((name, sorted(keys)))
            return [f"{name}{key}" for key in keys]

        return fetch

    one, two = proxy.bind(function("one")), proxy.bind(function("two"))
    async with anyio.create_task_group() as group:
        for key in range(3):
            group.start_soon(one.load, key)
            group.start_soon(two.load, key + 3)
    assert sorted(batches) == [("one", [0, 1, 2]), ("two", [3, 4, 5])]
    assert await two.load(0) == "one0"
