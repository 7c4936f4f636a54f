"""Which value should a full `Cache(max_size=N)` give up? Hit rates of eviction policies.

`python benchmarks/eviction.py` prints one markdown table: rows are traces, columns policies, cells
hit rates in %. Seeded and deterministic; some fifteen seconds.

The model is that of `map()`: all keys of a list are looked up at its start, hits are noted in bulk,
and the missing keys enter the cache batch by batch. So a list mapped as a *whole* finds whatever of
it is in the cache, even if it is longer than the cache: there LRU gives C/L and not 0. The case of
the textbooks, where LRU finds nothing, is the list that is mapped in *pages*, a `map()` for each.

The first passes over a list, which no policy can answer, are not counted, nor are one-off scans.
"optimum" knows the future (Belady's MIN, allowed not to keep a newcomer, aiming at the counted
requests alone): no policy can be better.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate, count, islice
from random import Random

from batchproxy._core.values import Bounded

SIZE = 1000  # "C" in the names below
BATCH = 100

Keys = list[int]
Trace = list[tuple[Keys, bool]]  # the keys of each map(), and whether it counts


# --- Policies ---------------------------------------------------------------------------------


class Random_:
    """A random victim. The base of the others: `data` holds what is in the cache."""

    def __init__(self) -> None:
        self.data: dict[object, int] = {}  # (the values are the policies' own notes)
        self.places: list[int] = []
        self.random = Random(0)

    def __len__(self) -> int:
        return len(self.data)

    def hit(self, keys: Keys) -> None:
        pass

    def store(self, keys: Keys) -> None:
        for key in keys:
            self.insert(key)

    def insert(self, key: int) -> None:
        if len(self.data) < SIZE:
            self.data[key] = 0
            self.places.append(key)
            return
        place = int(self.random.random() * SIZE)
        if self.give_up(self.places[place], key):
            del self.data[self.places[place]]
            self.data[key] = 0
            self.places[place] = key

    def give_up(self, victim: int, newcomer: int) -> bool:
        return True


class Fifo(Random_):
    def __init__(self) -> None:
        super().__init__()
        self.data = self.order = OrderedDict[object, int]()

    def insert(self, key: int) -> None:
        if len(self.order) >= SIZE:
            self.order.popitem(last=False)
        self.order[key] = 0


class Lru(Fifo):
    def hit(self, keys: Keys) -> None:
        deque(map(self.order.move_to_end, keys), 0)


class Sieve(Random_):
    def __init__(self) -> None:
        super().__init__()
        self.visited: set[int] = set()
        self.hand = 0  # in `places`, which are in the order of insertion

    def hit(self, keys: Keys) -> None:
        self.visited.update(keys)

    def find(self) -> int:
        """The first that was not visited, from the hand on; those passed lose their mark."""
        self.hand %= len(self.places)
        while (key := self.places[self.hand]) in self.visited:
            self.visited.remove(key)
            self.hand = (self.hand + 1) % len(self.places)
        return key

    def insert(self, key: int) -> None:
        if len(self.data) >= SIZE:
            del self.data[self.find()], self.places[self.hand]
        self.data[key] = 0
        self.places.append(key)


class Clock(Sieve):
    def insert(self, key: int) -> None:
        if len(self.data) < SIZE:
            super().insert(key)
        else:
            del self.data[self.find()]
            self.data[key] = 0
            self.places[self.hand] = key
            self.hand += 1


class TinyLfu(Random_):
    """A random victim, given up if asked for less often. Exact counts, halved every 10 C."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[int] = Counter()
        self.counted = 0

    def note(self, keys: Keys) -> None:
        self.counts.update(keys)
        self.counted += len(keys)
        if self.counted > 10 * SIZE:
            self.counts = Counter({k: min(n, 15) // 2 for k, n in self.counts.items() if n > 1})
            self.counted = self.counts.total()

    def hit(self, keys: Keys) -> None:
        self.note(keys)

    def insert(self, key: int) -> None:
        self.note([key])
        super().insert(key)

    def give_up(self, victim: int, newcomer: int) -> bool:
        return min(self.counts[newcomer], 15) > min(self.counts[victim], 15)


class WTinyLfu(TinyLfu):
    """Newcomers pass a small LRU window; the rest is an LRU in two segments (20 %, 80 %)."""

    def __init__(self) -> None:
        super().__init__()
        self.window: OrderedDict[int, None] = OrderedDict()
        self.probation: OrderedDict[int, None] = OrderedDict()
        self.protected: OrderedDict[int, None] = OrderedDict()

    def hit(self, keys: Keys) -> None:
        self.note(keys)
        for key in keys:
            if key in self.window:
                self.window.move_to_end(key)
            elif key in self.protected:
                self.protected.move_to_end(key)
            else:
                del self.probation[key]
                self.protected[key] = None
                if len(self.protected) > 0.8 * 0.99 * SIZE:
                    self.probation[self.protected.popitem(last=False)[0]] = None

    def insert(self, key: int) -> None:
        self.note([key])
        self.data[key] = 0
        self.window[key] = None
        if len(self.window) > SIZE // 100:
            candidate, _ = self.window.popitem(last=False)
            if len(self.data) > SIZE:
                segment = self.probation or self.protected
                victim = next(iter(segment))
                if not self.give_up(victim, candidate):
                    del self.data[candidate]
                    return
                del segment[victim], self.data[victim]
            self.probation[candidate] = None


class Ours(Random_):
    """The policy in use, itself."""

    def __init__(self) -> None:
        super().__init__()
        self.values = Bounded(SIZE)
        self.data = self.values._data

    def hit(self, keys: Keys) -> None:
        self.values.use(keys)

    def store(self, keys: Keys) -> None:
        self.values.store(keys, keys)


POLICIES: dict[str, Callable[[], Random_]] = {
    "LRU": Lru,
    "FIFO": Fifo,
    "CLOCK": Clock,
    "SIEVE": Sieve,
    "random": Random_,
    "TinyLFU": TinyLfu,
    "W-TinyLFU": WTinyLfu,
    "batchproxy": Ours,
}


# --- Traces -----------------------------------------------------------------------------------

_numbers = count()


def fresh(size: float) -> Keys:
    """A list of `size` times C keys that nobody has seen before."""
    return list(islice(_numbers, round(size * SIZE)))


def maps(keys: Keys, pages: bool, counted: bool) -> Trace:
    """One pass over a list: one map(), or one for each page of it."""
    step = BATCH if pages else len(keys)
    return [(keys[start : start + step], counted) for start in range(0, len(keys), step)]


def loop(size: float, pages: bool) -> Trace:
    keys = fresh(size)
    return [request for turn in range(10) for request in maps(keys, pages, turn > 0)]


def shuffled(size: float) -> Trace:
    random, keys, trace = Random(0), fresh(size), Trace()
    for turn in range(10):
        trace += maps(random.sample(keys, len(keys)), True, turn > 0)
    return trace


def shift(size: float, pages: bool, counted: int) -> Trace:
    """A list five times, then another one five times, whose pass number `counted` counts."""
    old, new = fresh(size), fresh(size)
    trace = [request for _ in range(5) for request in maps(old, pages, False)]
    for turn in range(1, 6):
        trace += maps(new, pages, turn == counted)
    return trace


def sessions(low: float, high: float, pages: bool) -> Trace:
    """New lists of random lengths, each twice."""
    random, trace = Random(0), Trace()
    for _ in range(20):
        keys = fresh(random.uniform(low, high))
        trace += maps(keys, pages, False) + maps(keys, pages, True)
    return trace


def overlapping(pages: bool) -> Trace:
    """Lists of 0.8 C, more than half of it from the latest 2 C keys, each twice."""
    random, trace, past = Random(0), Trace(), fresh(2)
    for _ in range(20):
        new = fresh(0.3)
        keys = random.sample(past[-2 * SIZE :], SIZE // 2) + new
        random.shuffle(keys)
        past += new
        trace += maps(keys, pages, False) + maps(keys, pages, True)
    return trace


def alternating(times: int) -> Trace:
    """Two lists of 0.8 C in turn, each so many times in a row."""
    lists, trace = (fresh(0.8), fresh(0.8)), Trace()
    for turn in range(10):
        for keys in lists:
            trace += maps(keys, False, turn > 0) * times
    return trace


def draws(size: float, exponent: float, scans: bool = False) -> Trace:
    """200 draws at a time, by Zipf's law, and perhaps after every fifth a list of C new keys."""
    random, keys, trace = Random(0), fresh(size), Trace()
    weights = list(accumulate((rank + 1) ** -exponent for rank in range(len(keys))))
    for turn in range(400):
        drawn = random.choices(keys, cum_weights=weights, k=200)
        trace.append((list(dict.fromkeys(drawn)), turn >= 100))
        if scans and turn % 5 == 0:
            trace += maps(fresh(1), False, False)
    return trace


def interrupted(size: float, pages: bool) -> Trace:
    """A list twice, then in turn with one-off lists of C."""
    keys = fresh(size)
    trace = maps(keys, pages, False) * 2
    for _ in range(6):
        trace += maps(fresh(1), pages, False) + maps(keys, pages, True)
    return trace


def mixed(callers: int, scans: float) -> Trace:
    """Lists of 0.1 to 3 C, whole or in pages of any size: repeated, left, renewed, extended.

    Five such workloads, one after another, of callers that take turns at random. Of all passes the
    share `scans` is over one-off lists. Everything counts.
    """
    random, trace = Random(0), Trace()

    def passes(lists: list[Keys]) -> Iterator[tuple[Keys, bool]]:
        keys = random.choice(lists)
        while True:
            action = random.random()
            if action < 0.3:
                keys = random.choice(lists)
            elif action < 0.4:
                keys = lists[random.randrange(len(lists))] = fresh(random.uniform(0.1, 3))
            elif action < 0.5:
                keys = keys[random.randrange(len(keys) // 2) :] + fresh(random.uniform(0.05, 0.5))
            elif action < 0.5 + scans:
                yield from maps(fresh(random.uniform(0.2, 2)), True, True)
                continue
            step = random.choice([len(keys), random.randint(20, 500)])
            for start in range(0, len(keys), step):
                yield keys[start : start + step], True

    for _ in range(5):
        lists = [fresh(random.uniform(0.1, 3)) for _ in range(random.randint(2, 6))]
        turns = [passes(lists) for _ in range(callers)]
        requests = 0
        while requests < 30 * SIZE:
            trace.append(next(random.choice(turns)))
            requests += len(trace[-1][0])
    return trace


def traces() -> Iterable[tuple[str, Trace]]:
    for size in (0.8, 1.1, 1.5, 2, 4, 10):
        yield f"{size} C whole, again and again", loop(size, pages=False)
    for size in (1.1, 1.5, 2, 3, 4, 10):
        yield f"{size} C in pages, again and again", loop(size, pages=True)
    yield "1.2 C in pages, in a new order each time", shuffled(1.2)
    yield "2 C in pages, in a new order each time", shuffled(2)
    for size in (0.8, 2):
        for pages in (False, True):
            how = "in pages" if pages else "whole"
            for counted in (2, 3, 5):
                name = f"{size} C {how}, after another one: pass {counted}"
                yield name, shift(size, pages, counted)
    for pages in (False, True):
        how = "in pages" if pages else "whole"
        yield f"new lists of 0.05 to 0.8 C {how}, each twice", sessions(0.05, 0.8, pages)
        yield f"new lists of 0.2 to 2 C {how}, each twice", sessions(0.2, 2, pages)
        yield f"overlapping lists of 0.8 C {how}, each twice", overlapping(pages)
    yield "0.8 C whole, two in turn: A B A B", alternating(1)
    yield "0.8 C whole, two in turn: A A B B", alternating(2)
    yield "Zipf 0.8 over 10 C, 200 at a time", draws(10, 0.8)
    yield "Zipf 1.0 over 10 C, 200 at a time", draws(10, 1)
    yield "Zipf 0.8 and one-off lists of C", draws(10, 0.8, scans=True)
    yield "Zipf 1.0 and one-off lists of C", draws(10, 1, scans=True)
    yield "uniform over 2 C, 200 at a time", draws(2, 0)
    yield "0.8 C whole, one-off lists of C between", interrupted(0.8, pages=False)
    yield "1.5 C in pages, one-off lists of C between", interrupted(1.5, pages=True)
    yield "a mix of all this, one caller", mixed(1, scans=0)
    yield "a mix of all this and one-off lists, one caller", mixed(1, scans=0.15)
    yield "a mix of all this, three callers", mixed(3, scans=0)
    yield "a mix of all this and one-off lists, three callers", mixed(3, scans=0.15)


# --- Measuring --------------------------------------------------------------------------------


def hit_rate(policy: Random_, trace: Trace) -> float:
    hits = requests = 0
    for keys, counted in trace:
        data = policy.data
        known = [key for key in keys if key in data]
        missing = [key for key in keys if key not in data]
        policy.hit(known)
        for start in range(0, len(missing), BATCH):
            policy.store(missing[start : start + BATCH])
            assert len(policy) <= SIZE
        if counted:
            hits += len(known)
            requests += len(keys)
    return 100 * hits / requests


def optimum(trace: Trace, size: int = SIZE) -> float:
    """After each map() keep, of all that is at hand, what is asked for again the soonest."""
    never = len(trace)
    ahead: dict[int, int] = {}
    next_uses: list[list[int]] = []
    for when, (keys, counted) in reversed(list(enumerate(trace))):
        next_uses.append([ahead.get(key, never) for key in keys])
        # Whoever is asked for next where it does not count need not be kept until then.
        ahead.update(dict.fromkeys(keys, when if counted else never))
    kept: dict[int, int] = {}
    hits = requests = 0
    for (keys, counted), uses in zip(trace, reversed(next_uses), strict=True):
        if counted:
            hits += sum(key in kept for key in keys)
            requests += len(keys)
        kept.update(zip(keys, uses, strict=True))
        soonest = sorted((key for key in kept if kept[key] < never), key=kept.__getitem__)
        kept = {key: kept[key] for key in soonest[:size]}
    return 100 * hits / requests


def main() -> None:
    width = 52
    print(f"| {f'C = {SIZE}, batches and pages of {BATCH}':{width}} |", end="")
    print("".join(f" {name:>9} |" for name in (*POLICIES, "optimum")))
    print(f"|{'-' * (width + 2)}|" + f"{'-' * 10}:|" * (len(POLICIES) + 1))
    for name, trace in traces():
        best = optimum(trace)
        rates = {policy: hit_rate(make(), trace) for policy, make in POLICIES.items()}
        print(f"| {name:{width}} |" + "".join(f" {r:9.1f} |" for r in (*rates.values(), best)))
        # What is known beforehand.
        assert max(rates.values()) <= best + 1e-9, name
        if name.endswith("again and again"):
            size = len({key for keys, _ in trace for key in keys})
            assert abs(best - min(100, 100 * SIZE / size)) < 1e-9, name
            if "whole" in name:
                assert abs(rates["LRU"] - best) < 1e-9, name
            else:
                assert rates["LRU"] == rates["FIFO"] == 0, name


if __name__ == "__main__":
    main()
