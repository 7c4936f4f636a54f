"""Point 24 of the contract: what has a store is pickled as its recipe, and arrives as one."""

import contextlib
import copy
import functools
import gc
import json
import multiprocessing
import operator
import os
import pickle
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Hashable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import pytest
import travelling
from process_tools import needs_fork, run

from batchproxy import AsyncBatchingMapProxy, BatchingMapProxy, Cache, Limit
from batchproxy.codecs import Codec, MsgspecCodec, PickleCodec, PydanticCodec
from batchproxy.stores import MemoryStore, RedisStore, SQLiteStore, Store

FACES: list[Any] = [AsyncBatchingMapProxy, BatchingMapProxy]
faces = pytest.mark.parametrize("face", FACES)


@pytest.fixture
def path(tmp_path: Path) -> str:
    """The file of a store."""
    return str(tmp_path / "results.db")


def cache_at(path: str, namespace: str = "n", **options: Any) -> Cache[Any]:
    """A cache with a store of its own."""
    return Cache(store=SQLiteStore(path), namespace=namespace, **options)


def function_of(face: Any) -> Any:
    return travelling.plain if face is BatchingMapProxy else travelling.plain_async


def again(thing: Any) -> Any:
    """What arrives of `thing`."""
    return pickle.loads(pickle.dumps(thing))


ARRIVE = """
import pickle, sys
thing, other = (pickle.loads(bytes.fromhex(sys.argv[1])) for _ in range(2))
"""


def arrives(thing: Any, script: str, dumps: Callable[[Any], bytes] = pickle.dumps) -> str:
    """What `script` prints in another process, where `thing` has arrived twice."""
    return run(ARRIVE + script, dumps(thing).hex()).strip()


# In the process itself


@faces
def test_a_copy_is_the_thing_itself(face: Any, path: str) -> None:
    """Whatever it is a copy of, by whatever way, and of whatever it is a part."""
    cache = cache_at(path)
    store = SQLiteStore(path, durable=True)
    proxy = face(10, 2, key=travelling.by_digit, cache=cache, weight=abs, max_weight=5)
    bound = proxy.bind(function_of(face))
    for thing in (store, cache, proxy, bound):
        assert copy.copy(thing) is thing
        assert copy.deepcopy({"in": [thing]})["in"][0] is thing
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            assert pickle.loads(pickle.dumps([thing], protocol))[0] is thing
    assert again(proxy.map).__self__ is proxy
    assert again(bound.load).__self__ is bound


@faces
def test_cloudpickle_in_the_process(face: Any, path: str) -> None:
    """As `pickle` does it, and with functions that have no name it is the same proxy."""
    cloudpickle = pytest.importorskip("cloudpickle")
    proxy = face(10, cache=cache_at(path))
    bound = proxy.bind(function_of(face))
    for thing in (proxy, bound, proxy.cache):
        assert pickle.loads(cloudpickle.dumps(thing)) is thing
    nameless = pickle.loads(cloudpickle.dumps(proxy.bind(lambda keys: keys)))
    assert nameless.proxy is proxy
    assert nameless.function([1]) == [1]


def test_twins(path: str) -> None:
    """Of two caches that were made alike, the one that was pickled arrives."""
    one, two = cache_at(path), cache_at(path)
    assert again(one) is one
    assert again(two) is two
    assert again(one) is one


@faces
def test_several_of_one_store(face: Any, path: str) -> None:
    """Each is found again, whatever else was pickled meanwhile."""
    things: list[Any] = [cache_at(path, namespace) for namespace in "nm"]
    things += [face(size, cache=cache) for cache in things for size in (1, 2)]
    pickled = list(map(pickle.dumps, things))
    assert list(map(pickle.loads, pickled)) == things


def test_pickles_of_one_recipe_are_equal(path: str) -> None:
    """Bytes say how it is made, and nothing else: who compares pickles finds them the same."""
    proxies = [BatchingMapProxy[int, str](cache=cache_at(path, max_size=5)) for _ in range(2)]
    assert len({pickle.dumps(proxy.bind(travelling.plain)) for proxy in proxies}) == 1


def test_what_was_closed_is_made_anew(path: str) -> None:
    """A cache whose store was closed, and a proxy that was, are not found any more."""
    with cache_at(path) as cache:
        proxy = BatchingMapProxy[int, str](5, cache=cache)
        proxy.close()
        bound = proxy.bind(travelling.plain)
        opened = again(bound)
        assert opened is not bound
        assert opened.proxy is not proxy
        assert opened.proxy.cache is cache
        assert again(opened) is opened
    late = again(cache)
    with late:
        assert late is not cache
        assert again(cache) is late
        assert BatchingMapProxy[int, str](cache=late).map([1], travelling.plain) == ["1"]
    with again(cache) as later:
        assert later is not late
    with SQLiteStore(path) as store:
        other = Cache[str](store=store, namespace="n")
        assert again(other) is other
    with again(other) as anew:
        assert anew is not other


class Leaving(SQLiteStore):
    """While it is being closed, somebody arrives."""

    pickled: ClassVar[list[Any]] = []

    def close(self) -> None:
        self.pickled[:] = map(pickle.loads, self.pickled)
        super().close()


def test_what_is_being_closed_is_made_anew(path: str) -> None:
    """So is its store, before that is closed."""
    cache = Cache[str](store=Leaving(path), namespace="n")
    Leaving.pickled.append(pickle.dumps(cache))
    cache.close()
    with Leaving.pickled.pop() as made:
        assert BatchingMapProxy[int, str](cache=made).map([1], travelling.plain) == ["1"]


def test_what_has_arrived_stays(path: str) -> None:
    """A cache is kept for what arrives later, a proxy as long as somebody has it."""
    proxy = BatchingMapProxy[int, str](7, cache=cache_at(path))
    pickled = pickle.dumps(proxy)
    del proxy
    gc.collect()
    arrived = pickle.loads(pickled)
    arrived.map([1, 2], travelling.plain)
    assert pickle.loads(pickled) is arrived
    cache = id(arrived.cache)
    del arrived
    gc.collect()
    arrived = pickle.loads(pickled)
    assert (id(arrived.cache), len(arrived.cache), arrived.batch_size) == (cache, 2, 7)
    assert arrived.statistics().maps == 0
    arrived.cache.close()


class Named(Codec):
    """A codec of a user's own."""

    tag = b"N"

    def __init__(self, name: Any) -> None:
        self.name = name

    def encode(self, value: Any) -> bytes:
        return str(value).encode()

    def decode(self, data: bytes) -> Any:
        return data.decode()


class Odd:
    """It cannot be compared."""

    def __init__(self, size: int = 0) -> None:
        self.size = size

    def __eq__(self, other: object) -> bool:
        raise ValueError

    __hash__ = None  # type: ignore[assignment] # nor hashed


@pytest.mark.parametrize(
    ("options", "others"),
    [
        ({}, [{"max_size": 5}, {"ttl": 5}, {"on_store_error": "continue"}]),
        ({"max_size": 5, "ttl": 2.5}, [{"max_size": 5}, {"max_size": 5, "ttl": 3}]),
        ({"codec": PickleCodec()}, [{}, {"codec": Named("a")}]),
        ({"codec": Named("a")}, [{"codec": Named("b")}, {"codec": Named(Odd())}]),
        ({"codec": Named(Odd(1))}, [{"codec": Named(Odd(2))}, {"codec": Named(lambda: 1)}]),
    ],
)
def test_all_options_are_part_of_the_recipe(
    path: str, options: dict[str, Any], others: list[dict[str, Any]]
) -> None:
    """With the same ones it is one cache; another store, namespace or option makes another."""
    cache = cache_at(path, **options)
    pickled = pickle.dumps(cache)
    del cache
    gc.collect()
    near = [cache_at(path, **other) for other in others]
    near += [cache_at(path, "m", **options), cache_at(f"{path}2", **options)]
    near += [Cache(store=SQLiteStore(path, lease=3), namespace="n", **options)]
    with pickle.loads(pickled) as made:
        assert made not in near
        assert pickle.loads(pickled) is made
        assert pickle.dumps(made) == pickled


@faces
def test_functions_that_equal_themselves_only(face: Any, path: str) -> None:
    """Made alike they are one: what arrives is the proxy itself."""
    cache = cache_at(path)
    by_id = operator.itemgetter("id")
    options: dict[str, Any] = {"weight": functools.partial(int, base=10), "max_weight": 5}
    proxy = face(1, 1, key=by_id, cache=cache, **options)
    assert again(proxy) is proxy
    assert again(face(1, 1, key=operator.itemgetter("name"), cache=cache, **options)) is not proxy
    assert again(face(1, 1, key=by_id, cache=cache)) is not proxy


def test_codecs_of_types(path: str) -> None:
    """They travel as the type that they are for."""
    for library in ("pydantic", "msgspec"):
        pytest.importorskip(library)
    for codec in (PydanticCodec(list[int] | None), MsgspecCodec(dict[str, int])):
        assert repr(again(codec)) == repr(codec)
        cache = cache_at(path, codec=codec)
        assert again(cache) is cache
        other = cache_at(path, codec=type(codec)(list[str]))
        pickled = pickle.dumps(cache)
        del cache
        gc.collect()
        with pickle.loads(pickled) as made:
            assert made is not other
            assert pickle.loads(pickled) is made


def test_memory_is_bounded_where_it_arrives(path: str) -> None:
    """To 10,000 values, unless the user has said how many; the user's own cache is as it was."""
    keys = range(10_001)
    kept = []
    for size in (None, 20_000, 5):
        cache = cache_at(path, max_size=size)
        pickled = pickle.dumps(cache)
        del cache
        gc.collect()
        with pickle.loads(pickled) as made:
            made.prime({key: str(key) for key in keys})
            kept.append(len(made))
    assert kept == [10_000, 10_001, 5]
    cache = cache_at(path)
    again(cache).prime({key: str(key) for key in keys})
    assert len(cache) == 10_001


def test_threads_that_unpickle_at_once(path: str) -> None:
    """They are given one cache, one proxy and one store."""
    proxy = BatchingMapProxy[int, str](5, cache=cache_at(path))
    pickled = pickle.dumps([proxy, proxy.cache, proxy.bind(travelling.plain)])
    del proxy
    gc.collect()
    start = threading.Barrier(8)

    def arrive(_: int) -> Any:
        start.wait()
        return pickle.loads(pickled)

    with ThreadPoolExecutor(8) as pool:
        arrived = list(pool.map(arrive, range(8)))
    for alike in zip(*arrived):
        assert len(set(map(id, alike))) == 1
    arrived[0][1].close()


class Slow(Cache[Any]):
    """Whoever makes it waits a little for somebody who does the same."""

    both = threading.Barrier(1)

    def __init__(self, *arguments: Any, **options: Any) -> None:
        with contextlib.suppress(threading.BrokenBarrierError):
            self.both.wait(0.1)
        super().__init__(*arguments, **options)


def test_nobody_makes_what_another_thread_is_making(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They wait for it."""
    slow = Slow(store=SQLiteStore(path), namespace="n")
    pickled = pickle.dumps(slow)
    del slow
    gc.collect()
    monkeypatch.setattr(Slow, "both", threading.Barrier(2))
    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(pickle.loads, [pickled] * 2)
    assert one is other
    assert Slow.both.broken
    one.close()


def test_slots_are_shared_where_it_arrives(path: str) -> None:
    """By all proxies that come with one cache and one number, whatever else they are given."""
    cloudpickle = pytest.importorskip("cloudpickle")
    running, most, gate = set[int](), list[int](), threading.Event()

    def slow(keys: list[int]) -> list[int]:
        running.update(keys)
        most.append(len(running))
        gate.wait(0.01)
        running.difference_update(keys)
        return keys

    cache = cache_at(path)
    made = [
        BatchingMapProxy[int, int](1, 1, cache=cache, key=lambda key: key + 1),
        BatchingMapProxy[int, int](1, 1, cache=cache, key=lambda key: key + 2),
        BatchingMapProxy[int, int](1, 1, cache=cache),
    ]
    pickled = cloudpickle.dumps(made)
    del made
    gc.collect()
    arrived = pickle.loads(pickled)
    assert len(set(map(id, arrived))) == 3
    assert [proxy.max_concurrency for proxy in arrived] == [1, 1, 1]
    with ThreadPoolExecutor(3) as pool:
        for number, proxy in enumerate(arrived):
            pool.submit(proxy.map, range(number * 10, number * 10 + 3), slow)
    assert most == [1] * 9
    alone = BatchingMapProxy[int, int](1, None, cache=cache, backend="asyncio")
    assert again(alone).max_concurrency is None


# What does not


class Homeless(Store):
    """A store that says nothing of where its values are."""

    def get_many(self, namespace: str, keys: Any) -> dict[bytes, bytes]:
        return {}

    def set_many(self, namespace: str, values: Any, ttl: float | None) -> None:
        pass

    def delete_many(self, namespace: str, keys: Any) -> None:
        pass

    def close(self) -> None:
        pass


class Home(Homeless):
    """One that does."""

    def __init__(self, place: str) -> None:
        self.place = place

    @property
    def identity(self) -> Hashable:
        return self.place


@pytest.mark.parametrize("kind", [AsyncBatchingMapProxy, BatchingMapProxy, Cache])
def test_nothing_without_a_store(kind: Any) -> None:
    """The error names the object and says what to do instead, whatever it is a part of."""
    thing = kind()
    held: list[Any] = [thing, [thing], {"in": {"a config": thing}}]
    things = [thing]
    if kind is not Cache:
        things += [thing.bind(function_of(kind)), kind(cache={})]
        held += [thing.map, things[1].load]
    ways: list[tuple[Callable[[Any], Any], Any]] = [(copy.copy, each) for each in things]
    ways += [(way, each) for way in (pickle.dumps, copy.deepcopy) for each in [*held, *things]]
    remedy = rf"<{kind.__name__}.* cannot be pickled.*without a store.*Cache\(store=.*[Mm]ake"
    for way, each in ways:
        with pytest.raises(TypeError, match=remedy.replace("[Mm]", "m")):
            way(each)


@pytest.mark.parametrize("how", [pickle.dumps, copy.copy, copy.deepcopy])
def test_what_belongs_to_a_process(how: Callable[[Any], object], path: str) -> None:
    """A memory, a limit that is shared, a client of the user's."""
    with pytest.raises(TypeError, match=r"<MemoryStore: 0 values> cannot .* use a SQLiteStore"):
        how(MemoryStore())
    with pytest.raises(TypeError, match=r"Limit\(2\) cannot be pickled .* max_concurrency= inst"):
        how(Limit(2))
    with pytest.raises(TypeError, match=r"'Homeless' an identity"):
        how(Cache(store=Homeless(), namespace="n"))
    things: list[Any] = [
        Cache(store=MemoryStore(), namespace="n"),
        BatchingMapProxy(limit=Limit(2), cache=cache_at(path)),
    ]
    for thing in things:
        if how is pickle.dumps:
            with pytest.raises(TypeError, match="cannot be pickled"):
                how(thing)
        else:
            how(thing)
    redis = pytest.importorskip("redis")
    with pytest.raises(TypeError, match=r"<RedisStore: localhost:6379/0, .* from a URL instead"):
        how(RedisStore(redis.Redis()))


def test_functions_without_a_name(path: str) -> None:
    """What `pickle` cannot find by its name is refused with the remedy, wherever it is."""

    def local(keys: list[int]) -> list[int]:
        return keys

    def proxy(**options: Any) -> BatchingMapProxy[int, Any]:
        return BatchingMapProxy(cache=cache_at(path, str(len(options))), **options)

    for thing in (
        proxy().bind(local),
        proxy().bind(lambda keys: keys),
        proxy(max_concurrency=2).bind(named(lambda keys: keys, "there.is.none", "travelling")),
        proxy(key=lambda key: key),
        proxy(weight=lambda key: 1, max_weight=2, batch_size=3).bind(travelling.plain),
    ):
        with pytest.raises(TypeError, match=r"<function .*> cannot be .* with def.* cloudpickle"):
            pickle.dumps(thing)
        assert copy.deepcopy(thing) is thing
        assert copy.deepcopy(thing.__reduce__())[1][0] is type(thing)


def test_a_store_of_ones_own(path: str) -> None:
    """It travels if it can be pickled, and has an identity: a cache is one for each of these."""
    cache = Cache[int](store=Home("here"), namespace="n")
    assert again(cache) is cache
    pickled = pickle.dumps(cache)
    del cache
    gc.collect()
    other = Cache[int](store=Home("there"), namespace="n")
    with pickle.loads(pickled) as made:
        assert made is not other
        assert pickle.loads(pickled) is made
    with pickle.loads(pickled) as anew:
        assert anew is not made


def test_a_server(redis_url: str) -> None:
    """Its store travels as the URL and the other arguments."""
    with RedisStore(redis_url, prefix="p", lease=7, timeout=3) as store:
        assert again(store) is store
        pickled = pickle.dumps(store)
    with pickle.loads(pickled) as made:
        assert made is not store
        assert (made.identity, made.lease) == (store.identity, 7)
        assert pickle.loads(pickled) is made
    with RedisStore("redis://user:secret@localhost:1/0") as secret:
        assert b"secret" in pickle.dumps(secret)
        assert "secret" not in repr(again(secret))


# In other processes


def test_it_arrives_elsewhere_once(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """However often: one store, one cache, one proxy; and a file is the one that it was."""
    monkeypatch.chdir(os.path.dirname(path))
    store = SQLiteStore("results.db", durable=True, timeout=3, lease=4)
    proxy = AsyncBatchingMapProxy[int, str](
        3, 2, key=travelling.by_digit, cache=Cache(10, 60, store=store, namespace="n")
    )
    bound = proxy.bind(travelling.plain_async)
    bound.proxy.cache.prime({"1": "one"})
    monkeypatch.chdir("/")
    script = """
import anyio
assert thing is other and thing.proxy.cache is other.proxy.cache
assert anyio.run(thing.map, [1, 2]) == ["one", "2"]
print(*thing.proxy.cache.__reduce__()[1][1:3], repr(thing.proxy), thing.__qualname__)
"""
    printed = arrives(bound, script)
    assert printed.startswith("10 60 <AsyncBatchingMapProxy batch_size=3 max_concurrency=2")
    assert f"<SQLiteStore '{os.path.realpath(path)}'>" in printed.replace(
        path, os.path.realpath(path)
    )
    assert printed.endswith(" plain_async")


def test_the_cache_of_a_module_is_found(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it was imported; and what is decorated there travels by its name."""
    monkeypatch.setenv(travelling.PLACE, path)
    script = """
import travelling
assert thing is other is travelling.proxy.cache
assert pickle.loads(pickle.dumps(travelling.decorated)) is travelling.decorated
print(len(pickle.dumps(travelling.decorated)) < 60)
"""
    cache = cache_at(path, "travelling")
    assert run("import travelling\n" + ARRIVE + script, pickle.dumps(cache).hex()) == "True\n"
    name = pickle.dumps(travelling.decorated)
    assert pickle.loads(name) is travelling.decorated
    assert again(travelling.without_a_store) is travelling.without_a_store
    for bound in (travelling.decorated, travelling.without_a_store):
        assert copy.copy(bound) is bound
    import_it = "assert thing is other is __import__('travelling').decorated; print(thing.map([3]))"
    assert run(ARRIVE + import_it, name.hex()) == "['3']\n"


CONTEXTS = [
    pytest.param("fork", marks=[needs_fork, pytest.mark.filterwarnings("ignore:This process")]),
    "spawn",
]


@pytest.mark.parametrize("context", CONTEXTS)
@pytest.mark.parametrize("pools", ["futures", "multiprocessing"])
def test_workers(context: Any, pools: str, path: str) -> None:
    """All tasks of a worker share a cache and a proxy; each key is computed once over all."""
    notes = f"{path}.notes"
    function = functools.partial(travelling.computed, file=notes)
    cache = cache_at(path)
    bound = BatchingMapProxy[int, str](5, cache=cache).bind(function)
    bound.map([0])
    lists = [[*range(start, start + 20)] for start in range(0, 60, 10)]
    started = multiprocessing.get_context(context)
    arguments = [(bound, keys) for keys in lists]
    if pools == "futures":
        with ProcessPoolExecutor(2, started) as pool:
            done = list(pool.map(travelling.task, *zip(*arguments)))
    else:
        with started.Pool(2) as workers:
            done = workers.starmap(travelling.task, arguments, 1)
            workers.close()
            workers.join()
    assert [results for *_, results in done] == [list(map(str, keys)) for keys in lists]
    caches = {(process, cache) for process, cache, *_ in done}
    assert len(caches) == len({process for process, *_ in done})
    assert os.getpid() not in dict(caches)
    computed = Path(notes).read_text("utf-8").split()
    assert sorted(map(int, computed)) == [*range(70)]


def script_in(folder: Path, source: str, *arguments: str) -> str:
    """What a program prints that is `source` in a file."""
    file = folder / "program.py"
    file.write_text(source, "utf-8")
    path = os.pathsep.join([os.path.dirname(travelling.__file__), *sys.path])
    done = subprocess.run(
        [sys.executable, "-W", "error", str(file), *arguments],
        capture_output=True,
        text=True,
        timeout=50,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert (done.stderr, done.returncode) == ("", 0)
    return done.stdout


MAIN = """
import multiprocessing, os, pickle, sys
from batchproxy import BatchingMapProxy, Cache
from batchproxy.stores import SQLiteStore

cache = Cache(store=SQLiteStore("results.db"), namespace="n")
proxy = BatchingMapProxy(2, cache=cache)

@proxy.bind
def fetch(keys):
    print("fetching", keys, flush=True)
    return [[key, step] for key in keys]

step = 1

other = BatchingMapProxy(cache=Cache(store=SQLiteStore("results.db"), namespace="m"))

class Holder:
    @staticmethod
    @other.bind
    def inner(keys):
        return keys
"""


def test_a_program_that_spawns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is decorated in `__main__` is found by its name by the processes that it starts."""
    monkeypatch.chdir(tmp_path)
    source = """
def task(bound, keys):
    assert bound is fetch and bound.proxy is proxy, (bound, fetch)
    return bound.map(keys), Holder.inner

if __name__ == "__main__":
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        for _ in range(2):
            results, inner = pool.apply(task, (fetch, [1, 2, 3]))
            assert inner is Holder.inner
        print(results)
        pool.close()
        pool.join()
"""
    printed = script_in(tmp_path, MAIN + source)
    assert printed == "fetching [1, 2]\nfetching [3]\n[[1, 1], [2, 1], [3, 1]]\n"


def test_a_program_with_cloudpickle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it defines travels whole: functions with a name or without, that use each other."""
    pytest.importorskip("cloudpickle")
    monkeypatch.chdir(tmp_path)
    source = """
import cloudpickle
keyed = BatchingMapProxy(key=lambda item: item[0], cache=cache, max_concurrency=2)
things = [fetch, proxy.bind(lambda keys: keys), Holder.inner, keyed]
pickled = cloudpickle.dumps(things)
assert pickled == cloudpickle.dumps(things)
print(pickled.hex())
"""
    printed = script_in(tmp_path, MAIN + source)
    there = """
import os
os.mkdir("elsewhere"); os.chdir("elsewhere")
one, nameless, inner, keyed = thing
assert not os.path.exists("../results.db")
assert one is not other[0] and one.proxy is other[0].proxy is nameless.proxy
assert inner.proxy is other[2].proxy
assert keyed is not other[3] and keyed.cache is other[3].cache is one.proxy.cache
print(one.map([1, 2, 3]), one.__module__, one.__doc__, other[0].map([1, 2]))
assert keyed.map([["a"]], lambda items: items) == [["a"]]
assert os.path.exists("../results.db") and not os.listdir()
try:
    pickle.dumps(one)
except TypeError as error:
    print(error)
"""
    lines = run(ARRIVE + there, printed.strip()).splitlines()
    assert lines[:2] == ["fetching [1, 2]", "fetching [3]"]
    assert lines[2] == "[[1, 1], [2, 1], [3, 1]] __main__ None [[1, 1], [2, 1]]"
    assert "cannot be pickled: pickle writes functions as their names" in lines[3]


def test_a_function_that_asks_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that names what it is bound to travels, and is one."""
    pytest.importorskip("cloudpickle")
    monkeypatch.chdir(tmp_path)
    source = """
import cloudpickle
third = BatchingMapProxy(cache=Cache(store=SQLiteStore("results.db"), namespace="k"))

@third.bind
def nested(keys):
    return keys if keys[0] < 5 else nested.map([key - 5 for key in keys])

print(cloudpickle.dumps(nested).hex())
"""
    there = """
assert thing.function.__globals__["nested"] is thing
print(thing.map([7, 11]), thing.__qualname__)
"""
    printed = script_in(tmp_path, MAIN + source)
    assert run(ARRIVE + there, printed.strip()) == "[2, 6] nested\n"


# Namespaces


def named(function: Any, name: str, module: str = "somewhere") -> Any:
    """A function that is called so."""
    function.__qualname__, function.__module__ = name, module
    return function


@faces
def test_two_functions_in_a_namespace(face: Any, path: str) -> None:
    """That is said, once; the same function is no other, whatever it is bound to."""
    function: Any = function_of(face)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        caches = cache_at(path), cache_at(path)
        for cache in caches:
            face(cache=cache).bind(function)
            face(5, cache=cache).bind(functools.partial(functools.partial(function)))
            face(cache=cache).bind(lambda keys: keys)
            assert len(said) == (cache is caches[1])
            face(cache=cache).bind(named(lambda keys: keys, "fetch", "other"))
    assert [(each.filename, each.category) for each in said] == [(__file__, UserWarning)]
    assert str(said[0].message).startswith(f"other.fetch is bound to {caches[0]!r}, and travelling")
    face(cache=cache_at(path, "m")).bind(named(lambda keys: keys, "fetch", "other"))
    face(cache=Cache(store=MemoryStore(), namespace="n")).bind(travelling.Client().fetch)
    face().bind(function)


def test_the_first_module_has_several_names(path: str) -> None:
    """A function in it is the same where it was imported, or came along."""
    proxy = BatchingMapProxy[int, int](cache=cache_at(path))
    for module in ("__main__", "jobs", "__mp_main__", "jobs"):
        proxy.bind(named(lambda keys: keys, "fetch", module))
    with pytest.warns(UserWarning, match=r"Answering is bound to .* and __main__\.fetch is"):
        proxy.bind(Answering())


class Answering:
    """An object that can be called: it has the name of its class."""

    def __call__(self, keys: list[int]) -> list[int]:
        return keys


def test_methods_have_names(path: str) -> None:
    """Those of their classes, whichever object they are of."""
    proxy = BatchingMapProxy[int, str](cache=cache_at(path))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        proxy.bind(travelling.Client().fetch)
        bound = proxy.bind(travelling.Client().fetch)
    assert again(bound).proxy is proxy


def test_another_function_that_arrives(path: str) -> None:
    """It is said where the second one arrives."""
    proxy = BatchingMapProxy[int, str](cache=cache_at(path))
    one = proxy.bind(travelling.plain)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        two = proxy.bind(functools.partial(travelling.computed, file="x"))
    script = """
import warnings
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    for _ in range(2):
        pickle.loads(bytes.fromhex(sys.argv[2]))
print(len(said), said[0].category.__name__, said[0].message)
"""
    printed = run(ARRIVE + script, pickle.dumps(one).hex(), pickle.dumps(two).hex())
    assert printed.startswith("1 UserWarning travelling.computed is bound to <Cache: 0 values")
    assert "travelling.plain is to the same store and namespace" in printed


def test_statistics_are_of_a_process(path: str) -> None:
    """A proxy counts what it has done there."""
    proxy = BatchingMapProxy[int, str](2, cache=cache_at(path))
    bound = proxy.bind(travelling.plain)
    bound.map([1, 2, 3])
    assert again(bound).proxy.statistics().computed == 3
    script = "import json; other.map([1, 3, 4]); s = thing.proxy.statistics(); "
    script += "print(json.dumps([s.maps, s.computed, s.stored]))"
    assert json.loads(arrives(bound, script)) == [1, 1, 2]
    assert proxy.statistics().maps == 1
