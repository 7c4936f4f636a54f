"""What a store promises: the contract suite, run on the stores there are, and itself tested."""

import math
import time
import unittest
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from tools import Clock

from batchproxy.stores import (
    Claimant,
    Claims,
    MemoryStore,
    PostgresStore,
    RedisStore,
    SQLiteStore,
    Store,
)
from batchproxy.testing import SharedStoreContract, StoreContract


class TestSQLiteStore(SharedStoreContract):
    """`SQLiteStore` passes."""

    @pytest.fixture(autouse=True)
    def _make_path(self, tmp_path: Path) -> None:
        self.path = tmp_path / "values.db"

    def make_store(self, lease: float = 60.0) -> SQLiteStore:
        return SQLiteStore(self.path, lease=lease)


class TestRedisStore(SharedStoreContract):
    """`RedisStore` passes."""

    @pytest.fixture(autouse=True)
    def _use_server(self, redis_url: str) -> None:
        self.url = redis_url

    def make_store(self, lease: float = 60.0) -> RedisStore:
        return RedisStore(self.url, lease=lease, timeout=60)  # on a busy machine, too


class TestPostgresStore(SharedStoreContract):
    """`PostgresStore` passes."""

    @pytest.fixture(autouse=True)
    def _use_server(self, postgres_url: str) -> None:
        self.url = postgres_url

    def make_store(self, lease: float = 60.0) -> PostgresStore:
        return PostgresStore(self.url, lease=lease)


class TestStoreContract(StoreContract):
    """The suite of stores that are not shared can be run alone."""

    test_a_forked_child_can_go_on = None  # type: ignore[assignment] # switched off

    def setup_method(self) -> None:
        self.first = MemoryStore()

    def make_store(self) -> Store:
        return MemoryStore(self.first)


class _MemoryStoreContract(SharedStoreContract):
    """With a kind of `MemoryStore`, to be broken in some way. A child of ours has a copy."""

    test_a_forked_child_can_go_on = None  # type: ignore[assignment] # switched off
    kind = MemoryStore

    def setUp(self) -> None:
        self.first = MemoryStore()

    def make_store(self, lease: float = 60.0) -> MemoryStore:
        return self.kind(self.first, lease=lease)


class TestMemoryStore(_MemoryStoreContract, unittest.TestCase):
    """`MemoryStore` passes, and the suite runs under unittest, too."""


BROKEN: list[Any] = []
"""The broken stores below, each with a test that is there for it."""


def breaks(*tests: str) -> Callable[[type[MemoryStore]], type[MemoryStore]]:
    """Note that the class does not pass `tests`."""

    def note(kind: type[MemoryStore]) -> type[MemoryStore]:
        name = kind.__name__.lstrip("_")
        BROKEN.extend(pytest.param(kind, test, id=f"{name}-{test}") for test in tests)
        return kind

    return note


@breaks("test_the_first_are_claimed")
class _Unlimited(MemoryStore):
    def claim_many(self, namespace: str, keys: Any, claimant: Claimant, limit: int) -> Claims:
        return super().claim_many(namespace, keys, claimant, len(keys))


@breaks("test_the_first_are_claimed")
class _LastFirst(MemoryStore):
    def claim_many(self, namespace: str, keys: Any, *rest: Any) -> Claims:
        return super().claim_many(namespace, keys[::-1], *rest)


@breaks("test_looking_claims_nothing")
class _OneAtLeast(MemoryStore):
    def claim_many(self, namespace: str, keys: Any, claimant: Claimant, limit: int) -> Claims:
        return super().claim_many(namespace, keys, claimant, max(1, limit))


@breaks("test_claims_hold_for_every_handle")
class _ClaimsForgotten(MemoryStore):
    def claim_many(self, *arguments: Any) -> Claims:
        self._memory.claims.clear()
        return super().claim_many(*arguments)


@breaks("test_each_key_is_claimed_once")
class _TwoSteps(MemoryStore):
    def claim_many(self, *arguments: Any) -> Claims:
        free = self._memory.claims.copy()
        time.sleep(0.001)  # somebody else's turn
        with self._memory.lock:
            self._memory.claims = free
            return super().claim_many(*arguments)


@breaks(
    "test_a_dead_process_is_taken_over_from",
    "test_a_heartbeat_keeps_claims",
    "test_a_lease_is_doubted_before_it_ends",
)
class _LeaseForever(MemoryStore):
    def claim_many(self, *arguments: Any) -> Claims:
        self._memory.leases = dict.fromkeys(self._memory.leases, (math.inf, 0.0))
        return super().claim_many(*arguments)


@breaks("test_a_lease_is_doubted_before_it_ends")
class _NobodyDoubts(MemoryStore):
    def claim_many(self, *arguments: Any) -> Claims:
        for process, (end, left) in self._memory.leases.items():
            self._memory.leases[process] = end + left, 0.0
        return super().claim_many(*arguments)


@breaks("test_a_lease_is_doubted_before_it_ends")
class _DoubtsStay(MemoryStore):
    def heartbeat(self, namespace: str, process: str) -> None:
        _, left = self._memory.leases[process]
        super().heartbeat(namespace, process)
        self._memory.leases[process] = time.monotonic() + self.lease / 2, left


@breaks("test_a_heartbeat_keeps_claims", "test_claiming_renews_the_lease")
class _NothingRenews(MemoryStore):
    def claim_many(self, namespace: str, keys: Any, claimant: Claimant, limit: int) -> Claims:
        before = self._memory.leases.get(claimant.process)
        claims = super().claim_many(namespace, keys, claimant, limit)
        if before is not None:
            self._memory.leases[claimant.process] = before
        return claims

    def heartbeat(self, namespace: str, process: str) -> None:
        pass


@breaks("test_a_heartbeat_keeps_claims")
class _OnlyClaimsRenew(MemoryStore):
    def heartbeat(self, namespace: str, process: str) -> None:
        pass


@breaks("test_the_lease_is_as_asked_for")
class _LeaseUnknown(MemoryStore):
    def __init__(self, other: MemoryStore, *, lease: float) -> None:
        super().__init__(other)


@breaks("test_only_the_claimant_releases")
class _AnyoneReleases(MemoryStore):
    def release_many(self, namespace: str, keys: Any, claimant: Claimant) -> None:
        for key in keys:
            self._memory.claims.pop((namespace, key), None)


@breaks("test_a_process_takes_over_from_itself")
class _AnyCallReleases(MemoryStore):
    def release_many(self, namespace: str, keys: Any, claimant: Claimant) -> None:
        for key in keys:
            holder = self._memory.claims.get((namespace, key))
            if holder and holder.process == claimant.process:
                super().release_many(namespace, [key], holder)


@breaks("test_released_keys_are_free")
class _NobodyReleases(MemoryStore):
    def release_many(self, *arguments: Any) -> None:
        pass


@breaks("test_the_first_published_value_wins")
class _LastWins(MemoryStore):
    def publish_many(self, namespace: str, values: Any, *rest: Any) -> dict[bytes, bytes]:
        earlier = super().publish_many(namespace, values, *rest)
        self.set_many(namespace, values, None)
        return earlier


@breaks("test_the_first_published_value_wins")
class _LateWriterNotTold(MemoryStore):
    def publish_many(self, *arguments: Any) -> dict[bytes, bytes]:
        super().publish_many(*arguments)
        return {}


@breaks("test_a_late_writers_claims_end")
class _ClaimsOutlivePublishing(MemoryStore):
    def publish_many(self, *arguments: Any) -> dict[bytes, bytes]:
        kept = self._memory.claims.copy()
        earlier = super().publish_many(*arguments)
        self._memory.claims.update(kept)
        return earlier


@breaks("test_one_thought_dead_publishes")
class _OnlyClaimantsPublish(MemoryStore):
    def publish_many(
        self, namespace: str, values: Any, claimant: Claimant, ttl: float | None
    ) -> dict[bytes, bytes]:
        holders = self._memory.claims
        mine = {key: values[key] for key in values if holders.get((namespace, key)) == claimant}
        return super().publish_many(namespace, mine, claimant, ttl)


@breaks("test_discarding")
class _DiscardsAll(MemoryStore):
    def discard_many(self, namespace: str, values: Any) -> None:
        self.delete_many(namespace, list(values))


@breaks("test_discarding")
class _DiscardsNothing(MemoryStore):
    def discard_many(self, *arguments: Any) -> None:
        pass


@breaks("test_discarding_takes_nothing_new")
class _DiscardsInTwoSteps(MemoryStore):
    def discard_many(self, namespace: str, values: Any) -> None:
        there = self.get_many(namespace, list(values))
        time.sleep(0.001)  # somebody else's turn
        self.delete_many(namespace, [key for key in there if there[key] == values[key]])


@breaks("test_values_are_any_bytes")
class _EmptyIsMissing(MemoryStore):
    def get_many(self, *arguments: Any) -> dict[bytes, bytes]:
        return {key: value for key, value in super().get_many(*arguments).items() if value}


@breaks("test_values_are_any_bytes")
class _NotBytes(MemoryStore):
    def get_many(self, *arguments: Any) -> Any:
        return {key: bytearray(value) for key, value in super().get_many(*arguments).items()}


@breaks("test_many_at_once")
class _FewAtOnce(MemoryStore):
    def get_many(self, namespace: str, keys: Any) -> dict[bytes, bytes]:
        return super().get_many(namespace, keys[:32_766])


@breaks("test_namespaces_are_apart")
class _NamespacesFolded(MemoryStore):
    def get_many(self, namespace: str, *rest: Any) -> dict[bytes, bytes]:
        return super().get_many(namespace.casefold(), *rest)

    def set_many(self, namespace: str, *rest: Any) -> None:
        super().set_many(namespace.casefold(), *rest)


@breaks("test_deleting_in_one_namespace")
class _EverythingDeleted(MemoryStore):
    def delete_many(self, namespace: str, keys: Any) -> None:
        if keys is None:
            self._memory.values.clear()
        else:
            super().delete_many(namespace, keys)


@breaks("test_values_expire", "test_published_values_expire")
class _TtlIgnored(MemoryStore):
    def set_many(self, namespace: str, values: Any, ttl: float | None) -> None:
        super().set_many(namespace, values, None)


@breaks("test_setting_replaces")
class _FirstSetWins(MemoryStore):
    def set_many(self, namespace: str, values: Any, ttl: float | None) -> None:
        earlier = self.get_many(namespace, list(values))
        super().set_many(namespace, {**values, **earlier}, ttl)


@breaks("test_replacing_replaces_the_ttl")
class _FirstTtlWins(MemoryStore):
    def set_many(self, namespace: str, values: Any, ttl: float | None) -> None:
        there = self.get_many(namespace, list(values))
        ends = {key: self._memory.values[namespace, key][1] for key in there}
        super().set_many(namespace, values, ttl)
        for key, end in ends.items():
            self._memory.values[namespace, key] = values[key], end


@breaks("test_set_many_is_one_step", "test_publish_many_is_one_step")
class _OneByOne(MemoryStore):
    def set_many(self, namespace: str, values: Any, ttl: float | None) -> None:
        for key, value in values.items():
            super().set_many(namespace, {key: value}, ttl)

    def publish_many(self, namespace: str, values: Any, *rest: Any) -> dict[bytes, bytes]:
        earlier: dict[bytes, bytes] = {}
        for key, value in values.items():
            earlier |= super().publish_many(namespace, {key: value}, *rest)
        return earlier


@breaks("test_set_many_is_one_step", "test_publish_many_is_one_step")
class _TakenAndOneByOne(_OneByOne):
    def set_many(self, namespace: str, values: Any, ttl: float | None) -> None:
        super().set_many(namespace, dict(values), ttl)

    def publish_many(self, namespace: str, values: Any, *rest: Any) -> dict[bytes, bytes]:
        return super().publish_many(namespace, {**values}, *rest)


@breaks("test_closing_deletes_nothing")
class _ClosingDeletes(MemoryStore):
    def close(self) -> None:
        self._memory.values.clear()


@breaks("test_claims_outlive_a_handle")
class _ClosingReleases(MemoryStore):
    def close(self) -> None:
        self._memory.claims.clear()


@pytest.mark.parametrize(("kind", "test"), BROKEN)
def test_a_broken_store_is_found_out(kind: type[MemoryStore], test: str) -> None:
    """The test that is there for it fails, and says why."""
    contract = _MemoryStoreContract()
    contract.kind, contract.patience = kind, 0.5
    contract.setUp()
    with pytest.raises(AssertionError, match=r"expected|in vain"):
        getattr(contract, test)()


def test_a_machine_that_is_too_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a lease runs out before it can be renewed, the suite says so, and blames no store."""
    seconds = count(math.ceil(time.monotonic()))  # one passes whenever somebody looks
    monkeypatch.setattr("time.monotonic", seconds.__next__)
    contract = _MemoryStoreContract()
    contract.setUp()
    with pytest.raises(AssertionError, match="too short for a machine as busy as this one"):
        contract.test_a_heartbeat_keeps_claims()


def test_what_is_over_leaves_memory(clock: Clock) -> None:
    """Two expired values for each that is written, and the claims and leases of the dead."""
    store = MemoryStore()
    memory, a, b, c = store._memory, Claimant("a", 1), Claimant("b", 1), Claimant("c", 1)
    keys = [bytes([number]) * 20 for number in range(10)]
    for _ in range(2_000):
        store.set_many("n", dict.fromkeys(keys, b"1"), 5)
    assert len(memory.ends) < 2_000
    store.set_many("n", {keys[0]: b"1"}, None)
    store.delete_many("n", keys[1:2])
    clock.now += 5
    assert repr(store) == "<MemoryStore: 1 values>"
    store.publish_many("n", {keys[1]: b"1"}, a, None)
    while memory.ends:
        store.set_many("n", {keys[0]: b"1"}, None)
    assert len(memory.values) == 2
    for claimant in (a, b, c):
        store.claim_many("n", [bytes(20), claimant.process.encode() * 20], claimant, 2)
    store.release_many("n", [bytes(20), b"a" * 20], a)
    for _ in range(2):
        clock.now += store.lease / 2
        store.claim_many("n", [], b, 0)
    assert set(memory.leases) == {"b"}
    assert {claimant.process for claimant in memory.claims.values()} == {"b"}


@pytest.mark.parametrize("contract", [StoreContract, SharedStoreContract])
def test_how_a_store_is_made_must_be_said(contract: Callable[[], StoreContract]) -> None:
    """Without `make_store` the suite says what is missing."""
    with pytest.raises(NotImplementedError, match="must override make_store"):
        contract().make_store()


NO_SECONDS = [-1, math.inf, math.nan, 86_401]


@pytest.mark.parametrize(
    ("kind", "name", "numbers"),
    [
        (MemoryStore, "lease", [0, *NO_SECONDS]),
        (SQLiteStore, "lease", [0, *NO_SECONDS]),
        (SQLiteStore, "timeout", NO_SECONDS),
        (RedisStore, "lease", [0, *NO_SECONDS]),
        (RedisStore, "timeout", [0, *NO_SECONDS]),
        (PostgresStore, "lease", [0, *NO_SECONDS]),
        (PostgresStore, "timeout", [0, *NO_SECONDS]),
    ],
)
def test_wrong_seconds(kind: Any, name: str, numbers: list[float], tmp_path: Path) -> None:
    """They are refused, and nothing is opened; only a timeout of SQLite may be 0."""
    if kind is RedisStore:
        pytest.importorskip("redis")
    if kind is PostgresStore:
        pytest.importorskip("psycopg")
    places = {SQLiteStore: tmp_path / "db", RedisStore: "redis://host", PostgresStore: "host=there"}
    place = places.get(kind)
    least = "more than 0 seconds" if 0 in numbers else "0 seconds or more"
    for number in numbers:
        with pytest.raises(ValueError, match=rf"{name} must be {least}, and a day \(86,4"):
            kind(place, **{name: number})
    for wrong in ("1", None, True):
        with pytest.raises(TypeError, match=f"{name} must be a number of seconds, got"):
            kind(place, **{name: wrong})
    assert list(tmp_path.iterdir()) == []
