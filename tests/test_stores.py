"""What a store promises: the contract suite, run on the stores there are, and itself tested."""

from __future__ import annotations

import math
import threading
import time
import unittest
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import NamedTuple

import pytest

from batchproxy.stores import (
    Claimant,
    Claims,
    MemoryStore,
    RedisStore,
    SharedStore,
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
        return RedisStore(self.url, lease=lease)


class TestMemoryStore(SharedStoreContract):
    """`MemoryStore` passes, but that a child of ours has a copy."""

    test_a_forked_child_can_go_on = None  # type: ignore[assignment] # switched off

    def setup_method(self) -> None:
        self.first = MemoryStore()

    def make_store(self, lease: float = 60.0) -> MemoryStore:
        return MemoryStore(self.first, lease=lease)


class _Value(NamedTuple):
    value: bytes
    end: float


class _Memory:
    """What the handles of a `_DictStore` have in common."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.values: dict[tuple[str, bytes], _Value] = {}
        self.claims: dict[tuple[str, bytes], Claimant] = {}
        self.leases: dict[str, float] = {}
        self.doubts: dict[str, float] = {}  # since when a lease is doubted


class _DictStore(Store):
    """A store of one's own, the smallest there can be: it lives as long as its `_Memory`."""

    def __init__(self, memory: _Memory) -> None:
        self.memory = memory

    def get_many(self, namespace: str, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        with self.memory.lock:
            now = time.monotonic()
            found = {key: self.memory.values.get((namespace, key)) for key in keys}
            return {key: found.value for key, found in found.items() if found and found.end > now}

    def set_many(self, namespace: str, values: Mapping[bytes, bytes], ttl: float | None) -> None:
        end = time.monotonic() + (float("inf") if ttl is None else ttl)
        with self.memory.lock:
            for key, value in values.items():
                self.memory.values[namespace, key] = _Value(value, end)

    def delete_many(self, namespace: str, keys: Sequence[bytes] | None) -> None:
        with self.memory.lock:
            if keys is None:
                keys = [key for name, key in self.memory.values if name == namespace]
            for key in keys:
                self.memory.values.pop((namespace, key), None)

    def close(self) -> None:
        pass


class _SharedDictStore(_DictStore, SharedStore):
    """The same, shared."""

    def __init__(self, memory: _Memory, lease: float) -> None:
        super().__init__(memory)
        self.lease = lease

    def holds(self, process: str) -> bool:
        now = time.monotonic()
        end = self.memory.leases.get(process, 0.0)
        if now < end - self.lease / 2:
            return True
        since = self.memory.doubts.setdefault(process, now)
        return now < max(end, since + self.lease / 2)

    def claim_many(
        self, namespace: str, keys: Sequence[bytes], claimant: Claimant, limit: int
    ) -> Claims:
        with self.memory.lock:
            self.heartbeat(namespace, claimant.process)
            claims = Claims(self.get_many(namespace, keys), [], [])
            for key in keys:
                holder = self.memory.claims.get((namespace, key))
                if key in claims.values:
                    continue
                if holder and holder.process != claimant.process and self.holds(holder.process):
                    claims.held.append(key)
                elif len(claims.claimed) < limit:
                    self.memory.claims[namespace, key] = claimant
                    claims.claimed.append(key)
            return claims

    def publish_many(
        self, namespace: str, values: Mapping[bytes, bytes], claimant: Claimant, ttl: float | None
    ) -> dict[bytes, bytes]:
        with self.memory.lock:
            earlier = self.get_many(namespace, list(values))
            new = {key: value for key, value in values.items() if key not in earlier}
            self.set_many(namespace, new, ttl)
            self.release_many(namespace, list(values), claimant)
            return earlier

    def discard_many(self, namespace: str, values: Mapping[bytes, bytes]) -> None:
        with self.memory.lock:
            there = self.get_many(namespace, list(values))
            self.delete_many(namespace, [key for key in there if there[key] == values[key]])

    def release_many(self, namespace: str, keys: Sequence[bytes], claimant: Claimant) -> None:
        with self.memory.lock:
            for key in keys:
                if self.memory.claims.get((namespace, key)) == claimant:
                    del self.memory.claims[namespace, key]

    def heartbeat(self, namespace: str, process: str) -> None:
        with self.memory.lock:
            self.memory.leases[process] = time.monotonic() + self.lease
            self.memory.doubts.pop(process, None)


class TestDictStore(StoreContract):
    """A store that is not shared passes. This one does not outlive the process: no fork."""

    test_a_forked_child_can_go_on = None  # type: ignore[assignment] # switched off

    def setup_method(self) -> None:
        self.memory = _Memory()

    def make_store(self) -> _DictStore:
        return _DictStore(self.memory)


class _SharedDictStoreContract(SharedStoreContract):
    """With a kind of store to fill in, which is broken in some way."""

    test_a_forked_child_can_go_on = None  # type: ignore[assignment] # switched off
    kind = _SharedDictStore

    def setUp(self) -> None:
        self.memory = _Memory()

    def make_store(self, lease: float = 60.0) -> _SharedDictStore:
        return self.kind(self.memory, lease)


class TestUnderUnittest(_SharedDictStoreContract, unittest.TestCase):
    """A shared one passes, and the suite runs under unittest, too."""


class _Unlimited(_SharedDictStore):
    def claim_many(
        self, namespace: str, keys: Sequence[bytes], claimant: Claimant, limit: int
    ) -> Claims:
        return super().claim_many(namespace, keys, claimant, len(keys))


class _LastFirst(_SharedDictStore):
    def claim_many(
        self, namespace: str, keys: Sequence[bytes], claimant: Claimant, limit: int
    ) -> Claims:
        return super().claim_many(namespace, keys[::-1], claimant, limit)


class _ClaimsForgotten(_SharedDictStore):
    def holds(self, process: str) -> bool:
        return False


class _LeaseForever(_SharedDictStore):
    def holds(self, process: str) -> bool:
        return True


class _NobodyDoubts(_SharedDictStore):
    def holds(self, process: str) -> bool:
        return self.memory.leases.get(process, 0.0) > time.monotonic()


class _DoubtsStay(_SharedDictStore):
    def heartbeat(self, namespace: str, process: str) -> None:
        doubts = self.memory.doubts.copy()
        super().heartbeat(namespace, process)
        self.memory.doubts.update(doubts)


class _NothingRenews(_SharedDictStore):
    def heartbeat(self, namespace: str, process: str) -> None:
        self.memory.leases.setdefault(process, time.monotonic() + self.lease)


class _OnlyClaimsRenew(_SharedDictStore):
    def claim_many(
        self, namespace: str, keys: Sequence[bytes], claimant: Claimant, limit: int
    ) -> Claims:
        super().heartbeat(namespace, claimant.process)
        return super().claim_many(namespace, keys, claimant, limit)

    def heartbeat(self, namespace: str, process: str) -> None:
        pass


class _AnyoneReleases(_SharedDictStore):
    def release_many(self, namespace: str, keys: Sequence[bytes], claimant: Claimant) -> None:
        for key in keys:
            self.memory.claims.pop((namespace, key), None)


class _AnyCallReleases(_SharedDictStore):
    def release_many(self, namespace: str, keys: Sequence[bytes], claimant: Claimant) -> None:
        for key in keys:
            holder = self.memory.claims.get((namespace, key))
            if holder and holder.process == claimant.process:
                super().release_many(namespace, [key], holder)


class _NobodyReleases(_SharedDictStore):
    def release_many(self, namespace: str, keys: Sequence[bytes], claimant: Claimant) -> None:
        pass


class _LastWins(_SharedDictStore):
    def publish_many(
        self, namespace: str, values: Mapping[bytes, bytes], claimant: Claimant, ttl: float | None
    ) -> dict[bytes, bytes]:
        earlier = super().publish_many(namespace, values, claimant, ttl)
        self.set_many(namespace, values, ttl)
        return earlier


class _LateWriterNotTold(_SharedDictStore):
    def publish_many(
        self, namespace: str, values: Mapping[bytes, bytes], claimant: Claimant, ttl: float | None
    ) -> dict[bytes, bytes]:
        super().publish_many(namespace, values, claimant, ttl)
        return {}


class _ClaimsOutlivePublishing(_SharedDictStore):
    def publish_many(
        self, namespace: str, values: Mapping[bytes, bytes], claimant: Claimant, ttl: float | None
    ) -> dict[bytes, bytes]:
        kept = self.memory.claims.copy()
        earlier = super().publish_many(namespace, values, claimant, ttl)
        self.memory.claims.update(kept)
        return earlier


class _OnlyClaimantsPublish(_SharedDictStore):
    def publish_many(
        self, namespace: str, values: Mapping[bytes, bytes], claimant: Claimant, ttl: float | None
    ) -> dict[bytes, bytes]:
        mine = {
            key: value
            for key, value in values.items()
            if self.memory.claims.get((namespace, key)) == claimant
        }
        return super().publish_many(namespace, mine, claimant, ttl)


class _DiscardsAll(_SharedDictStore):
    def discard_many(self, namespace: str, values: Mapping[bytes, bytes]) -> None:
        self.delete_many(namespace, list(values))


class _DiscardsNothing(_SharedDictStore):
    def discard_many(self, namespace: str, values: Mapping[bytes, bytes]) -> None:
        pass


class _DiscardsInTwoSteps(_SharedDictStore):
    def discard_many(self, namespace: str, values: Mapping[bytes, bytes]) -> None:
        there = self.get_many(namespace, list(values))
        time.sleep(0.001)  # somebody else's turn
        self.delete_many(namespace, [key for key in there if there[key] == values[key]])


class _EmptyIsMissing(_SharedDictStore):
    def get_many(self, namespace: str, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        return {key: value for key, value in super().get_many(namespace, keys).items() if value}


class _NamespacesFolded(_SharedDictStore):
    def get_many(self, namespace: str, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        return super().get_many(namespace.casefold(), keys)

    def set_many(self, namespace: str, values: Mapping[bytes, bytes], ttl: float | None) -> None:
        super().set_many(namespace.casefold(), values, ttl)


class _EverythingDeleted(_SharedDictStore):
    def delete_many(self, namespace: str, keys: Sequence[bytes] | None) -> None:
        if keys is None:
            self.memory.values.clear()
        else:
            super().delete_many(namespace, keys)


class _TtlIgnored(_SharedDictStore):
    def set_many(self, namespace: str, values: Mapping[bytes, bytes], ttl: float | None) -> None:
        super().set_many(namespace, values, None)


class _FirstSetWins(_SharedDictStore):
    def set_many(self, namespace: str, values: Mapping[bytes, bytes], ttl: float | None) -> None:
        earlier = self.get_many(namespace, list(values))
        super().set_many(namespace, {**values, **earlier}, ttl)


class _FirstTtlWins(_SharedDictStore):
    def set_many(self, namespace: str, values: Mapping[bytes, bytes], ttl: float | None) -> None:
        now = time.monotonic()
        for key, value in values.items():
            before = self.memory.values.get((namespace, key))
            super().set_many(namespace, {key: value}, ttl)
            if before and before.end > now:
                self.memory.values[namespace, key] = _Value(value, before.end)


class _OneByOne(_SharedDictStore):
    def set_many(self, namespace: str, values: Mapping[bytes, bytes], ttl: float | None) -> None:
        for key, value in values.items():
            super().set_many(namespace, {key: value}, ttl)
            if len(values) == 200:
                time.sleep(0)  # the reader's turn

    def publish_many(
        self, namespace: str, values: Mapping[bytes, bytes], claimant: Claimant, ttl: float | None
    ) -> dict[bytes, bytes]:
        earlier: dict[bytes, bytes] = {}
        for key, value in values.items():
            earlier |= super().publish_many(namespace, {key: value}, claimant, ttl)
            if len(values) == 200:
                time.sleep(0)  # the reader's turn
        return earlier


class _ClosingDeletes(_SharedDictStore):
    def close(self) -> None:
        self.memory.values.clear()


class _ClosingReleases(_SharedDictStore):
    def close(self) -> None:
        self.memory.claims.clear()


class _NotBytes(_SharedDictStore):
    def get_many(self, namespace: str, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        return {key: bytearray(value) for key, value in super().get_many(namespace, keys).items()}  # type: ignore[misc] # that is what is wrong


class _LeaseUnknown(_SharedDictStore):
    def __init__(self, memory: _Memory, lease: float) -> None:
        super().__init__(memory, 10.0)


class _FewAtOnce(_SharedDictStore):
    def get_many(self, namespace: str, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        return super().get_many(namespace, keys[:32_766])


class _OneAtLeast(_SharedDictStore):
    def claim_many(
        self, namespace: str, keys: Sequence[bytes], claimant: Claimant, limit: int
    ) -> Claims:
        return super().claim_many(namespace, keys, claimant, max(1, limit))


class _TwoSteps(_SharedDictStore):
    def claim_many(
        self, namespace: str, keys: Sequence[bytes], claimant: Claimant, limit: int
    ) -> Claims:
        free = self.memory.claims.copy()
        time.sleep(0.001)  # somebody else's turn
        with self.memory.lock:
            self.memory.claims = free
            return super().claim_many(namespace, keys, claimant, limit)


@pytest.mark.parametrize(
    ("kind", "test"),
    [
        (_Unlimited, "test_the_first_are_claimed"),
        (_LastFirst, "test_the_first_are_claimed"),
        (_OneAtLeast, "test_looking_claims_nothing"),
        (_ClaimsForgotten, "test_claims_hold_for_every_handle"),
        (_LeaseForever, "test_a_dead_process_is_taken_over_from"),
        (_LeaseForever, "test_a_heartbeat_keeps_claims"),
        (_NobodyDoubts, "test_a_lease_is_doubted_before_it_ends"),
        (_DoubtsStay, "test_a_lease_is_doubted_before_it_ends"),
        (_LeaseForever, "test_a_lease_is_doubted_before_it_ends"),
        (_NothingRenews, "test_a_heartbeat_keeps_claims"),
        (_NothingRenews, "test_claiming_renews_the_lease"),
        (_OnlyClaimsRenew, "test_a_heartbeat_keeps_claims"),
        (_AnyoneReleases, "test_only_the_claimant_releases"),
        (_AnyCallReleases, "test_a_process_takes_over_from_itself"),
        (_NobodyReleases, "test_released_keys_are_free"),
        (_LastWins, "test_the_first_published_value_wins"),
        (_LateWriterNotTold, "test_the_first_published_value_wins"),
        (_ClaimsOutlivePublishing, "test_a_late_writers_claims_end"),
        (_OnlyClaimantsPublish, "test_one_thought_dead_publishes"),
        (_DiscardsAll, "test_discarding"),
        (_DiscardsNothing, "test_discarding"),
        (_DiscardsInTwoSteps, "test_discarding_takes_nothing_new"),
        (_EmptyIsMissing, "test_values_are_any_bytes"),
        (_NamespacesFolded, "test_namespaces_are_apart"),
        (_EverythingDeleted, "test_deleting_in_one_namespace"),
        (_TtlIgnored, "test_values_expire"),
        (_TtlIgnored, "test_published_values_expire"),
        (_FirstSetWins, "test_setting_replaces"),
        (_FirstTtlWins, "test_replacing_replaces_the_ttl"),
        (_OneByOne, "test_set_many_is_one_step"),
        (_OneByOne, "test_publish_many_is_one_step"),
        (_ClosingDeletes, "test_closing_deletes_nothing"),
        (_ClosingReleases, "test_claims_outlive_a_handle"),
        (_NotBytes, "test_values_are_any_bytes"),
        (_LeaseUnknown, "test_the_lease_is_as_asked_for"),
        (_FewAtOnce, "test_many_at_once"),
        (_TwoSteps, "test_each_key_is_claimed_once"),
    ],
)
def test_a_broken_store_is_found_out(kind: type[_SharedDictStore], test: str) -> None:
    """The test that is there for it fails, and says why."""
    contract = _SharedDictStoreContract()
    contract.kind, contract.patience = kind, 0.5
    contract.setUp()
    with pytest.raises(AssertionError, match=r"expected|in vain"):
        getattr(contract, test)()


def test_a_machine_that_is_too_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a lease runs out before it can be renewed, the suite says so, and blames no store."""
    seconds = count(math.ceil(time.monotonic()))  # one passes whenever somebody looks
    monkeypatch.setattr("time.monotonic", seconds.__next__)
    contract = _SharedDictStoreContract()
    contract.setUp()
    with pytest.raises(AssertionError, match="too short for a machine as busy as this one"):
        contract.test_a_heartbeat_keeps_claims()


@pytest.mark.parametrize("contract", [StoreContract, SharedStoreContract])
def test_how_a_store_is_made_must_be_said(contract: Callable[[], StoreContract]) -> None:
    """Without `make_store` the suite says what is missing."""
    with pytest.raises(NotImplementedError, match="must override make_store"):
        contract().make_store()
