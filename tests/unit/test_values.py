"""Values in memory: what is kept of how they were used, and until when."""

from random import Random
from typing import Any

import pytest

from batchproxy._core.values import Bounded, Expiring


def test_what_expires_in_a_bounded_cache_leaves_no_notes() -> None:
    """Deadlines of evicted values do not pile up."""
    values = Expiring(Bounded(5), 1e9)
    for start in range(0, 10_000, 100):
        keys = range(start, start + 100)
        values.store(keys, [str(key) for key in keys])
    assert len(values._deadlines) < 2000


@pytest.mark.parametrize("size", [0, 1, 2, 5, 12])
def test_a_bounded_cache_under_random_use(size: int) -> None:
    """Whatever is done to it: never more than the bound, never a wrong value, no growing notes."""
    values = Bounded(size)
    random = Random(size)
    truth: dict[Any, str] = {}
    for step in range(5000):
        keys = [random.randrange(20) for _ in range(random.randrange(8))]
        match random.choice(["store", "store", "known", "every", "drop", "clear"]):
            case "store":
                answers: dict[Any, Any] = {key: f"{key} of {step}" for key in keys}
                truth.update(answers)
                values.store(answers.keys(), answers.values())
            case "known":
                found = values.known(keys)
                assert found == {key: truth[key] for key in found}
                values.use(list(found))
            case "every":
                every = values.every(keys)
                assert every is None or every == [truth[key] for key in keys]
            case "drop":
                values.drop(keys)
                assert not any(key in values for key in keys)
            case "clear" if step % 10 == 0:
                values.clear()
                assert len(values) == 0
        assert len(values) <= size
        assert values._hit <= values._data.keys()
        assert len(values._gone) <= 3 * size
