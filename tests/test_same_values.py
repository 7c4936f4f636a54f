"""What a codec of batchproxy accepts comes back equal, and of the same types all through. (16)"""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import functools
import re
from collections import OrderedDict, deque
from collections.abc import Callable
from decimal import Decimal
from pathlib import PurePosixPath
from typing import Annotated, Any, NamedTuple
from uuid import UUID, uuid1
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("msgspec", reason="msgspec is not installed")
pytest.importorskip("pydantic", reason="pydantic is not installed")

import msgspec
import pydantic
from tools import never
from typing_extensions import TypedDict  # pydantic wants this one before 3.12

from batchproxy import AnswerValueError, BatchingMapProxy, Cache
from batchproxy.codecs import Codec, MsgspecCodec, PydanticCodec
from batchproxy.stores import SQLiteStore

both = pytest.mark.parametrize("codec", [MsgspecCodec, PydanticCodec])
Make = Callable[[Any], Codec]


def assert_comes_back(codec: Codec, value: Any) -> None:
    back = codec.decode(codec.encode(value))
    assert back == value
    assert exactly(back) == exactly(value)


def exactly(value: Any) -> Any:
    """What is equal of two values if and only if they are of the same types all through."""
    kind = type(value)
    if isinstance(value, list | tuple | deque):
        return kind, list(map(exactly, value)), getattr(value, "maxlen", None)
    if isinstance(value, dict):
        return kind, [(exactly(key), exactly(part)) for key, part in value.items()]
    if isinstance(value, set | frozenset):
        return kind, sorted(map(repr, map(exactly, value)))
    if isinstance(value, dt.datetime | dt.time):
        offset = value.utcoffset() if value.tzinfo is not None else None
        return kind, repr(value.replace(tzinfo=None)), offset, value.tzname() in ("CET", "CEST")
    if isinstance(value, pydantic.BaseModel):
        extra, private = value.__pydantic_extra__, value.__pydantic_private__
        return kind, exactly(dict(value.__dict__)), exactly(extra), exactly(private)
    if dataclasses.is_dataclass(kind):
        names = [field.name for field in dataclasses.fields(kind)]
    else:
        names = list(getattr(kind, "__struct_fields__", []))
    # What has parts may have sets among them, whose order in a repr says nothing.
    return kind, None if names else repr(value), [exactly(getattr(value, name)) for name in names]


# --- What does not come back ---


@dataclasses.dataclass(slots=True)
class Slots:
    x: float


@dataclasses.dataclass(slots=True)
class MoreSlots(Slots):
    y: str = ""


@dataclasses.dataclass(slots=True, frozen=True)
class FrozenSlots:
    x: float


@dataclasses.dataclass
class NotCompared:
    x: float = dataclasses.field(compare=False)


@dataclasses.dataclass
class NotInInit:
    name: str
    x: float = dataclasses.field(init=False, default=0.0)


class Struct(msgspec.Struct):
    x: float


class Model(pydantic.BaseModel):
    x: float


class MoreModel(Model):
    pass


class Aliased(pydantic.BaseModel):
    x: float = pydantic.Field(alias="theX")
    parsed: pydantic.Json[Any] = None
    hidden: int = pydantic.Field(default=0, exclude=True)


class Open(pydantic.BaseModel, extra="allow"):
    _note: Any = 0


class Pair(NamedTuple):
    a: float
    b: float


class Keys(TypedDict):
    a: int
    b: int


class Size(enum.IntEnum):
    SMALL = 1


class Name(str):
    __slots__ = ()


BERLIN = ZoneInfo("Europe/Berlin")
CET = dt.timezone(dt.timedelta(hours=1), "CET")
MOMENT = dt.datetime(2020, 10, 25, 2, 30)

BOTH: list[tuple[Any, Any]] = [
    (float, 1),
    (Slots, {"x": 1.0}),
    (dict[str, Any], Slots(1.0)),
    (list[int], [1, "x"]),
    (Slots, Slots(1)),
    (Slots, Slots(True)),
    (MoreSlots, MoreSlots(1, "x")),
    (FrozenSlots, FrozenSlots(1)),
    (list[Slots], [Slots(1.0), Slots(2)]),
    (NotCompared, NotCompared(1)),
    (dt.datetime, MOMENT.replace(fold=1)),
    (dt.datetime, MOMENT.replace(tzinfo=BERLIN)),
    (dt.datetime, MOMENT.replace(tzinfo=BERLIN, fold=1)),
    (dt.datetime, MOMENT.replace(tzinfo=ZoneInfo("UTC"))),
    (dt.datetime, MOMENT.replace(tzinfo=CET)),
    (dt.time, dt.time(2, fold=1)),
    (set[float], {1}),
    (set[float], {True, 2.0}),
    (frozenset[float], frozenset({1.0, 2})),
    (set[tuple[float, ...]], {(1.0, 2)}),
    (dict[str, set[float]], {"a": {1}}),
    (dict[float, str], {1: "x"}),
    (Pair, Pair(1, 2.0)),
    (tuple[float, float], Pair(1.0, 2.0)),
    (dict[str, int], OrderedDict(a=1)),
    (list[int], [Size.SMALL]),
    (list[str], [Name("x")]),
    (dict[str, int], {Name("x"): 1}),
    (Any, (1, 2)),
    (Any, [{1}]),
    (Any, Decimal("1.0")),
    (list[float], [float("nan")]),
    (Any, UUID(int=1)),
]


@both
@pytest.mark.parametrize(("type_", "value"), BOTH, ids=[repr(value) for _, value in BOTH])
def test_what_would_change(codec: Make, type_: Any, value: Any) -> None:
    """What would come back in another type, zone or hour is refused, wherever it is."""
    with pytest.raises((TypeError, ValueError), match="the exact type of the function's results"):
        codec(type_).encode(value)


def changing(base: Any, change: Callable[[Any], Any]) -> Any:
    return Annotated[base, pydantic.AfterValidator(change)]


NOTED = Open()
NOTED._note = 1
MODELS: list[tuple[Any, Any]] = [
    (changing(float, abs), -0.0),
    (changing(list[float], lambda value: [abs(part) for part in value]), [1.0, -0.0]),
    (changing(list[int], lambda value: value[:1]), [1, 2]),
    (changing(Decimal, lambda value: value.normalize()), Decimal("1.00")),
    (changing(dict[str, int], lambda value: dict(sorted(value.items()))), {"b": 1, "a": 2}),
    (changing(set[int], lambda value: value - {2}), {1, 2}),
    (Keys, {"b": 1, "a": 2}),
    (deque[int], deque([1], maxlen=3)),
    (deque[float], deque([1])),
    (re.Pattern[str], re.compile("a", re.IGNORECASE)),
    (Open, Open.model_validate({"more": (1, 2)})),
    (Open, Open.model_validate({"more": {1}})),
    (Open, NOTED),
    (Model, Model.model_construct(x=1)),
    (Model, MoreModel(x=1.0)),
    (Aliased, Aliased(theX=1.0, hidden=1)),
    (pydantic.SecretStr, pydantic.SecretStr("x")),
]


@pytest.mark.parametrize(("type_", "value"), MODELS, ids=[repr(value) for _, value in MODELS])
def test_what_validation_would_change(type_: Any, value: Any) -> None:
    """Signs, digits, orders, flags, extra fields and private ones count, though == may not see."""
    with pytest.raises(ValueError, match=r"would give .* back as .*; give it the exact type"):
        PydanticCodec(type_).encode(value)


def test_the_part_is_named() -> None:
    """The message says which part changes, in few characters, however large the value is."""
    part = r"would give 1 of type 'int' back as 1\.0 of type 'float', in \["
    with pytest.raises(ValueError, match=part) as caught:
        MsgspecCodec(list[Struct]).encode([*(Struct(0.5) for _ in range(1000)), Struct(1)])
    assert len(str(caught.value)) < 700
    with pytest.raises(ValueError, match=r"back as 1\.0 of type 'float'; give it the exact type"):
        PydanticCodec(float).encode(1)  # all of it
    part = r"give datetime\.datetime\(2020.*\) of type 'datetime' back"
    with pytest.raises(ValueError, match=part):
        MsgspecCodec(list[dt.datetime]).encode([MOMENT.replace(fold=1)])
    with pytest.raises(ValueError, match=r"(?s)could not read .* back: .*exact type"):
        PydanticCodec(Model).encode(Model.model_construct(x="no number"))
    for codec in (MsgspecCodec(int), PydanticCodec(list[int])):
        for long in ("x" * 10**6, ["x" * 10**6] * 100):
            with pytest.raises((TypeError, ValueError), match=r"cannot write|could not") as refused:
                codec.encode(long)
            assert len(str(refused.value)) < 700


def test_items_that_are_refused(tmp_path: Any) -> None:
    """Through a cache the failure is that of the one item; its neighbours are kept."""
    with SQLiteStore(tmp_path / "s.db") as store:
        proxy, again = (
            BatchingMapProxy[int, Any](
                cache=Cache(store=store, namespace="n", codec=MsgspecCodec(Slots))
            )
            for _ in range(2)
        )
        results = proxy.map([1, 2], lambda _: [Slots(1), Slots(2.0)], return_exceptions=True)
        assert isinstance(results[0], AnswerValueError)
        assert results[1] == Slots(2.0)
        assert again.map([2], never) == [Slots(2.0)]


# --- What cannot be compared ---


@dataclasses.dataclass
class Node:
    next: Node | None = None


class Tree(pydantic.BaseModel):
    """Its children know it: it comes back with a ring of its own."""

    children: tuple[Tree, ...] = ()
    parent: Any = pydantic.Field(default=None, exclude=True)

    def model_post_init(self, context: object) -> None:
        for child in self.children:
            child.parent = self


@both
def test_what_is_no_data(codec: Make) -> None:
    """It is refused, though the type would have anything."""
    with pytest.raises(TypeError, match=r"Codec\(object\) cannot write .*gener.*exact type"):
        codec(object).encode(part for part in [iter])


@both
def test_rings(codec: Make) -> None:
    """What contains itself is refused, whether the library sees that or not."""
    node = Node()
    node.next = node
    ring: list[Any] = []
    ring.append(ring)
    for type_, value in ((Node, node), (list[Any], ring)):
        with pytest.raises(TypeError, match=r"cannot write .*([Rr]ecursion|[Cc]ircular|depth)"):
            codec(type_).encode(value)


def test_rings_that_come_back() -> None:
    """They are compared without end neither, and refused, since == cannot."""
    with pytest.raises(ValueError, match=r"cannot tell whether .* comes back as it is: Recursion"):
        PydanticCodec(Tree).encode(Tree(children=(Tree(), Tree())))


@both
def test_deep_values(codec: Make) -> None:
    """They come back or are refused, as the library can; nothing crashes."""
    value: list[Any] = []
    made = codec(list[Any])
    for depth in range(1, 100_000):
        value = [value]
        if depth not in (50, 900, 5_000, 99_999):
            continue
        try:
            back = made.decode(made.encode(value))
        except (TypeError, ValueError):
            assert depth > 50
        else:
            while back:
                (back,), depth = back, depth - 1
            assert depth == 0


class Unequal:
    """It says nothing about equality."""

    def __init__(self, x: float) -> None:
        self.x = x


class Stubborn(Unequal):
    """It can be neither copied nor pickled."""

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise TypeError("no copies")


class Vague(Unequal):
    """It cannot be said whether it is equal."""

    def __eq__(self, other: object) -> Any:
        return NotImplemented if other is None else BoolLess()

    __hash__ = None  # type: ignore[assignment] # as Python has it


class BoolLess:
    def __bool__(self) -> bool:
        raise ValueError("ambiguous")


def of(kind: Any) -> Any:
    """`kind` to pydantic: a number in JSON."""
    return Annotated[
        kind,
        pydantic.PlainValidator(lambda x: x if isinstance(x, kind) else kind(x)),
        pydantic.PlainSerializer(lambda value: value.x, return_type=float),
    ]


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (Unequal, "not equal to it; let its class define __eq__"),
        (Stubborn, "cannot tell whether .*: TypeError: no copies"),
        (Vague, "cannot tell whether .*: ValueError: ambiguous"),
    ],
)
def test_objects_that_say_nothing(kind: Any, reason: str) -> None:
    """What equals only itself, or cannot be taken apart, is refused, and the error says why."""
    with pytest.raises(ValueError, match=reason):
        PydanticCodec(of(kind)).encode(kind(1.5))


def test_classes_and_functions() -> None:
    """They are the same only if they are the same object."""
    for first, other in ((int, float), (len, abs)):
        values = iter([first, other])

        class Holder(pydantic.BaseModel):
            what: Any = pydantic.Field(default_factory=values.__next__, exclude=True)

        with pytest.raises(ValueError, match=r"would give .* back as|cannot tell"):
            PydanticCodec(Holder).encode(Holder())


class Told:
    """What it is made of is in the state that it tells when it is pickled, and nowhere else."""

    __slots__ = ("speed", "x")

    def __init__(self, x: float) -> None:
        self.x, self.speed = x + (x < 2), id(self)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return Told, (0,), self.x

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Told)

    __hash__ = None  # type: ignore[assignment] # as Python has it


def test_what_only_reduce_tells() -> None:
    """It counts, as attributes do elsewhere; and slots, which may be but for speed, do not."""
    codec = PydanticCodec(of(Told))
    assert codec.encode(Told(2.5)) == codec.encode(Told(1.5))
    with pytest.raises(ValueError, match="would give"):
        codec.encode(Told(0.5))


# --- What does come back ---


class Cached(Model):
    @functools.cached_property
    def twice(self) -> float:
        return 2 * self.x


class CachedStruct(Struct, dict=True):
    @functools.cached_property
    def twice(self) -> float:
        return 2 * float(self.x)


@both
@pytest.mark.parametrize(
    ("type_", "value"),
    [
        (Slots, Slots(1.0)),
        (MoreSlots, MoreSlots(-0.0, "x")),
        (FrozenSlots, FrozenSlots(1.0)),
        (NotCompared, NotCompared(1.0)),
        (int | None, None),
        (list[Slots], [Slots(1.0), Slots(-0.0)]),
        (set[float], {1.0, -0.0}),
        (frozenset[tuple[int, str]], frozenset({(1, "a"), (2, "b")})),
        (Pair, Pair(1.0, 2.0)),
        (Decimal, Decimal("1.00")),
        (dt.datetime, MOMENT),
        (dt.datetime, MOMENT.replace(tzinfo=dt.UTC)),
        (dt.time, dt.time(2, 3, 4, 5)),
        (dt.timedelta, dt.timedelta(days=-1, microseconds=1)),
        (UUID, uuid1()),
        (Size, Size.SMALL),
        (dict[str, float], {"b": 1.0, "a": float("1e300")}),
        (Keys, {"a": 1, "b": 2}),
    ],
)
def test_what_comes_back(codec: Make, type_: Any, value: Any) -> None:
    """A value of exactly the type that was named is accepted."""
    assert_comes_back(codec(type_), value)


def test_what_comes_back_in_models() -> None:
    """Defaults, aliases, extra fields, cached properties and what JSON has no name for."""
    cached, struct = Cached(x=1.5), CachedStruct(1.5)
    assert cached.twice == struct.twice == 3
    assert_comes_back(MsgspecCodec(CachedStruct), struct)
    for type_, value in (
        (Cached, cached),
        (Aliased, Aliased(theX=1.0, parsed="[1, 2]")),
        (Open, Open.model_validate({"a": 1, "b": [1.5, "x"]})),
        (PurePosixPath, PurePosixPath("a/b")),
        (deque[int], deque([1, 2])),
        (re.Pattern[str], re.compile("a")),
        (pydantic.AnyUrl, pydantic.AnyUrl("http://example.org/a")),
        (dt.datetime, MOMENT.replace(tzinfo=dt.timezone(dt.timedelta(hours=2)))),
    ):
        codec = PydanticCodec(type_)
        back = codec.decode(codec.encode(value))
        assert back == value
        assert type(back) is type(value)
    assert MsgspecCodec(NotInInit).decode(MsgspecCodec(NotInInit).encode(NotInInit("x"))).x == 0.0


def test_attrs() -> None:
    """Their fields are seen, in slots or not."""
    attrs = pytest.importorskip("attrs")
    for slots in (False, True):
        kind = attrs.make_class("Point", {"x": attrs.field(type=float)}, slots=slots)
        codec = MsgspecCodec(kind)
        assert codec.decode(codec.encode(kind(1.5))) == kind(1.5)
        with pytest.raises(ValueError, match=r"would give 1 of type 'int' back as 1\.0"):
            codec.encode(kind(1))


# --- Any type, any value ---

ZONES = [None, dt.UTC, BERLIN, CET, dt.timezone(dt.timedelta(hours=-3))]
exact: dict[Any, st.SearchStrategy[Any]] = {
    int: st.integers(-(2**63), 2**63 - 1),
    float: st.floats(-1e9, 1e9),
    str: st.text(max_size=3),
    bool: st.booleans(),
    Decimal: st.decimals(-100, 100, places=2),
    dt.date: st.dates(),
    dt.datetime: st.datetimes().map(lambda moment: moment.replace(fold=0)),
    UUID: st.uuids(),
    Size: st.just(Size.SMALL),
    FrozenSlots: st.builds(FrozenSlots, st.floats(0, 9)),
}
alike = st.sampled_from(
    [
        *(0, 0.0, -0.0, False, 1, 1.0, True, "1", b"1", Decimal(1), Decimal("1.0"), Size.SMALL),
        *((1,), (1.0,), [1], [1.0], {1}, {1.0}, frozenset({1}), {"a": 1}, {1: 1.0}),
        *(Name("1"), None),
        *(Slots(1), Slots(1.0), Pair(1, 1.0), OrderedDict(a=1), deque([1]), float("inf"), 2**70),
        *(MOMENT.replace(tzinfo=zone, fold=fold) for zone in ZONES for fold in (0, 1)),
        *(dt.date(2020, 1, 1), dt.time(1, fold=1), dt.timedelta(1), UUID(int=1), float("nan")),
    ]
)


inside = st.recursive(
    alike,
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.tuples(inner, alike)
        | st.dictionaries(st.sampled_from("xy"), inner)
    ),
    max_leaves=3,
)


def containers(inner: Any, values: st.SearchStrategy[Any]) -> list[Any]:
    """Types with `inner` in them, and how their values are made; those of any library."""
    fields: Any = [("x", inner), ("y", str, "")]
    slots = dataclasses.make_dataclass("Made", fields, slots=True)
    frozen = dataclasses.make_dataclass("Made", fields, frozen=True)
    return [
        (list[inner], st.lists(values, max_size=3)),
        (dict[str, inner], st.dictionaries(st.text(max_size=2), values, max_size=3)),
        (tuple[inner, int], st.tuples(values, exact[int])),
        (inner | None, st.none() | values),
        *((kind, values.map(kind)) for kind in (slots, frozen)),
    ]


@st.composite
def codecs_and_types(draw: st.DrawFn) -> tuple[Codec, Any, st.SearchStrategy[Any]]:
    """A codec, the type it is for, and how values of that are made."""
    codec = draw(st.sampled_from([MsgspecCodec, PydanticCodec]))
    hashable = draw(st.sampled_from(list(exact)))
    sets = [(set[hashable], st.sets(exact[hashable], max_size=3))]  # type: ignore[valid-type]
    type_, values = draw(st.sampled_from([*exact.items(), *sets]))
    for _ in range(draw(st.integers(0, 2))):
        if codec is MsgspecCodec:
            own: Any = msgspec.defstruct("Made", [("x", type_), ("y", str, "")])
            made = values.map(own)
        else:
            own = pydantic.create_model("Made", x=type_, y=(str, ""))
            made = values.map(functools.partial(construct, own))
        type_, values = draw(st.sampled_from([*containers(type_, values), (own, made)]))
    return codec(type_), type_, values


def construct(type_: Any, value: Any) -> Any:
    """One of `type_` with `value` in it, unchecked; or `value` itself, for types without fields."""
    if getattr(type_, "__name__", "") != "Made":
        return value
    make = getattr(type_, "model_construct", type_)
    return make(x=value, y="")


@given(codecs_and_types(), st.data())
def test_any_value_of_any_type(
    made: tuple[Codec, Any, st.SearchStrategy[Any]], data: st.DataObject
) -> None:
    """A value of the type comes back, with the same types all through."""
    codec, _, values = made
    assert_comes_back(codec, data.draw(values))


@given(codecs_and_types(), st.data())
def test_any_value_at_all(
    made: tuple[Codec, Any, st.SearchStrategy[Any]], data: st.DataObject
) -> None:
    """What is no value of the type, but looks like one, comes back the same or is refused."""
    codec, type_, _ = made
    value = data.draw(inside.map(functools.partial(construct, type_)))
    try:
        codec.encode(value)
    except (TypeError, ValueError):
        return
    assert_comes_back(codec, value)
