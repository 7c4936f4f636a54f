"""Which function a namespace of a store is of: two in the same one are a mistake."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable
from functools import partial
from typing import Any
from weakref import WeakValueDictionary

from .._recipes import MAIN

_LAMBDA = "<lambda>"


class Question:
    """What the results in one namespace of a store are, in this process, the results of."""

    def __init__(self) -> None:
        self._name: tuple[str, str] | None = None
        self._warned = False

    def ask(self, function: Callable[..., Any], cache: object) -> None:
        """Note that `function` is bound to `cache`; warn, once, if another one was to its like."""
        name = _name_of(function)
        if name is None or _are_the_same(name, self._name or name):
            self._name = self._name or name
        elif not self._warned:
            self._warned = True
            assert self._name is not None
            warnings.warn(
                f"{'.'.join(name)} is bound to {cache!r}, and {'.'.join(self._name)} is to the "
                "same store and namespace: each takes the results of the other for its own. Give "
                "each function a namespace; if both give the same results, ignore this",
                UserWarning,
                stacklevel=6,
            )


_questions: WeakValueDictionary[tuple[Hashable, str], Question] = WeakValueDictionary()


def question(identity: Hashable, namespace: str) -> Question:
    """The one of that namespace, in the store of that identity, as long as anybody has it."""
    return _questions.setdefault((identity, namespace), Question())


def _name_of(function: object) -> tuple[str, str] | None:
    """The module and the name of a function, inside of partials; none of a lambda."""
    while isinstance(function, partial):
        function = function.func
    if not isinstance(getattr(function, "__qualname__", None), str):
        function = type(function)
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", "")
    return None if name.endswith(_LAMBDA) else (str(module), str(name))


def _are_the_same(one: tuple[str, str], other: tuple[str, str]) -> bool:
    """Whether these may be names of one function: the first module of a program has two names."""
    return one[1] == other[1] and (one[0] == other[0] or one[0] in MAIN or other[0] in MAIN)
