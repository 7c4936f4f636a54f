"""From the text `package.module:function` to the function."""

from __future__ import annotations

import difflib
import importlib
import os
import sys
from collections.abc import Callable
from typing import Any

from click import UsageError

from ._rows import said


def load(target: str) -> Callable[..., Any]:
    """The function that `target` names, looked for in the current directory first.

    Raises:
        UsageError: there is none, and why.
    """
    module_name, colon, path = target.partition(":")
    if not (module_name and colon and path):
        raise UsageError(
            f"FUNCTION must be PACKAGE.MODULE:FUNCTION, such as geo.places:locate, got {target!r}"
        )
    if (directory := os.getcwd()) not in sys.path:
        sys.path.insert(0, directory)
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        # Not found is this module, or one above it; else it is there and imports what is not.
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise UsageError(f"importing {module_name!r} failed: {said(error)}") from error
        raise UsageError(
            f"there is no module {error.name!r}, neither in {directory} nor installed"
        ) from error
    except Exception as error:
        raise UsageError(f"importing {module_name!r} failed: {said(error)}") from error
    walked = module_name
    for name in path.split("."):
        try:
            found = getattr(found, name)
        except AttributeError:
            close = difflib.get_close_matches(name, dir(found), n=3)
            hint = f"; did you mean {' or '.join(close)}?" if close else ""
            raise UsageError(f"{walked!r} has no {name!r}{hint}") from None
        walked = f"{walked}:{name}" if walked == module_name else f"{walked}.{name}"
    if not callable(found):
        raise UsageError(
            f"{target!r} is of type {type(found).__qualname__!r}, expected a function from a "
            "list of items to their results"
        )
    function: Callable[..., Any] = found
    return function
