"""Recipes: what is pickled of an object is how it is made, and it is found by that elsewhere.

Where a recipe arrives it finds the object that was made by it, or makes one. So what is pickled
often is there once, and a copy in the same process is the object itself.
"""

from __future__ import annotations

import pickle
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial, reduce
from importlib import import_module
from types import FunctionType, MethodType
from typing import Any, ClassVar, Self, TypeVar
from weakref import ref

from ._forks import Alive, at_fork
from ._messages import short

T = TypeVar("T", bound="Travels")

MAIN = ("__main__", "__mp_main__")
"""What the module that a program begins with is called; in the children of `multiprocessing`, too.
It is another one in other processes."""


class Travels:
    """Something that is pickled as its recipe: what its class is to be called with."""

    _recipe: tuple[Any, ...]
    _closing = False
    """It was closed, or is about to be: it is not found any more, and a new one is made."""
    _stays: ClassVar[bool] = False
    """Whether one that a recipe has made is kept for what arrives later, until it is closed."""

    def _check_travels(self) -> None:
        """Refuse what cannot be made by a recipe.

        Raises:
            TypeError: It names the object, and says what to do instead.
        """

    def _is_of(self, recipe: tuple[Any, ...]) -> bool:
        """Whether `recipe` is its own."""
        return len(self._recipe) == len(recipe) and all(map(is_same, self._recipe, recipe))

    def _is_closed(self) -> bool:
        return self._closing

    @classmethod
    def _make(cls, *recipe: Any) -> Self:
        """A new one."""
        return cls(*recipe)

    def __reduce__(self) -> str | tuple[Any, ...]:
        self._check_travels()
        enlist(self)
        _pickled_last[type(self)] = ref(self)
        return arrive, (type(self), *map(_packed, self._recipe))

    def __copy__(self) -> Self:
        self._check_travels()
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self.__copy__()


def is_same(one: object, other: object) -> bool:
    """Whether two parts of recipes do the same: they are equal, or of one class and pickled alike.

    (Many a callable is equal to itself only, as those of `operator` and `functools` are.)
    """
    if one is other or isinstance(one, Travels):  # which has been found already where it arrived
        return one is other
    with suppress(Exception):  # of whatever it is made of
        if one == other:
            return True
    if type(one) is not type(other):
        return False
    with suppress(Exception):
        if one.__reduce_ex__(4) == other.__reduce_ex__(4):
            return True
    with suppress(Exception):
        return pickle.dumps(one, 4) == pickle.dumps(other, 4)
    return False


_lock = threading.RLock()
_known = Alive[Travels]()
_kept: list[Travels] = []
_pickled_last: dict[type[Travels], ref[Travels]] = {}


def enlist(made: Travels) -> None:
    """Let recipes find what somebody else has made, as long as it lives. Twice is fine."""
    _known.add(made)


def arrive(kind: type[T], *parts: Any) -> T:
    """The one of that recipe in this process: the one that was pickled, or the first, or a new one.

    Threads: two at once get the same one.
    """
    recipe = tuple(map(opened, parts))
    with _lock:
        _kept[:] = [each for each in _kept if not each._is_closed()]
        last = _pickled_last.get(kind, lambda: None)()
        for each in (last, *_known.all()):
            if type(each) is kind and not each._is_closed() and each._is_of(recipe):
                return each
        made = kind._make(*recipe)
        made._recipe = recipe
        enlist(made)
        if kind._stays:
            _kept.append(made)
        return made


def _reset_after_fork() -> None:
    global _lock
    _lock = threading.RLock()  # whoever held it is gone


at_fork(after_in_child=_reset_after_fork)


def found_by_name(thing: object) -> bool:
    """Whether `thing` is what its module has by its name, as functions and classes mostly are."""
    found: object = sys.modules.get(getattr(thing, "__module__", None) or "")
    for name in (getattr(thing, "__qualname__", None) or "<none>").split("."):
        found = getattr(found, name, None)
    return found is thing


def by_name(thing: Any, make: Callable[..., Any], *parts: Any) -> str | tuple[Any, ...]:
    """What `__reduce__` gives for `thing`, which is found by its name, as functions are pickled.

    The first module of a program is none that others could import. So picklers that take along what
    is defined there (cloudpickle, dill) are given `make` and `parts`, and `pickle` the name.
    """
    if thing.__module__ not in MAIN:
        return str(thing.__qualname__)
    way = _Ways(make, *map(_packed, parts))
    way.name = f"{MAIN[0]}:{thing.__qualname__}"
    return opened, (MethodType(way, names),)


def _packed(part: object) -> object:
    """`part` of a recipe; a function without a name only for picklers that take functions along."""
    if type(part) is not FunctionType or found_by_name(part):
        return part
    way = _Ways(_itself, part)
    way.refusal = (
        f"{short(part)} cannot be pickled: pickle writes functions as their names, and this one is "
        "not found by its name. Define it with def, at the top of a module; or use cloudpickle, "
        "which takes functions along"
    )
    return MethodType(way, names)


def opened(part: Any) -> Any:
    """What was packed, where it has arrived."""
    if isinstance(part, MethodType) and isinstance(part.__self__, _Names):
        return part.__func__()
    return part


def _itself(part: object) -> object:
    return part


class _Ways(partial[Any]):
    """Two ways to be pickled, for the pickler to choose from: a name, or what makes the thing.

    It is the function of a method. Of a method `pickle` writes ``getattr(__self__, __name__)``;
    picklers that take functions along write ``MethodType(__func__, __self__)``. Nothing else that
    a `__reduce__` may give tells one from the other.
    """

    name = ""
    refusal = ""
    """Why there is no name."""

    @property
    def __name__(self) -> str:
        if not self.name:
            raise TypeError(self.refusal)
        return self.name

    def __reduce__(self) -> tuple[Any, ...]:
        return partial, (self.func, *self.args)


class _Names:
    """Has everything that can be imported: ``getattr(names, "module:name")``."""

    def __getattr__(self, name: str) -> Any:
        if ":" not in name:
            raise AttributeError(name)
        module, _, path = name.partition(":")
        return reduce(getattr, path.split("."), import_module(module))

    def __reduce__(self) -> str:
        return "names"


names = _Names()
