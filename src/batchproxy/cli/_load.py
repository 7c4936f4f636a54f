"""From the text `package.module:function` or `path/file.py:function` to the function."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import os
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

from click import UsageError

from .._messages import describe


class ImportFailed(UsageError):
    """A module cannot be imported; the `__cause__` is what it raised."""


def load(target: str, what: str = "FUNCTION") -> Callable[..., Any]:
    """The function that `target` names; of a module, looked for in the current directory first.

    Raises:
        UsageError: there is none, and why.
    """
    function = find(target, what)
    if not callable(function):
        raise UsageError(
            f"{target!r} is of type {type(function).__qualname__!r}, expected a function from a "
            "list of items to their results"
        )
    return function  # type: ignore[no-any-return] # all that is known of it was tested


def find(target: str, what: str = "FUNCTION") -> Any:
    """What `target`, which the argument `what` gives, names.

    Raises:
        UsageError: there is nothing of that name, and why.
    """
    module_name, colon, path = target.rpartition(":")
    if not (module_name and colon and path):
        raise UsageError(
            f"{what} must be PACKAGE.MODULE:NAME, such as geo.places:locate, or FILE.py:NAME, got "
            f"{target!r}"
        )
    try:
        if module_name.endswith(".py"):
            found: Any = _file(module_name)
        else:
            _look_in(os.getcwd())
            found = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        # Not found is this module, or one above it; else it is there and imports what is not.
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise _failed(module_name, error) from error
        raise UsageError(
            f"there is no module {error.name!r}, neither in {os.getcwd()} nor installed"
        ) from error
    except UsageError:
        raise
    except (Exception, SystemExit) as error:
        raise _failed(module_name, error) from error
    walked = module_name
    for name in path.split("."):
        try:
            found = getattr(found, name)
        except AttributeError:
            close = difflib.get_close_matches(name, dir(found), n=3)
            hint = f"; did you mean {' or '.join(close)}?" if close else ""
            raise UsageError(f"{walked!r} has no {name!r}{hint}") from None
        walked = f"{walked}:{name}" if walked == module_name else f"{walked}.{name}"
    return found


def _file(path: str) -> ModuleType:
    """The module in that file, which finds its neighbours, as a script of Python does."""
    if not os.path.isfile(path):
        raise UsageError(f"there is no file {path!r}")
    name = os.path.basename(path).removesuffix(".py")
    there = sys.modules.get(name)
    if there is not None:
        if os.path.realpath(getattr(there, "__file__", None) or "") == os.path.realpath(path):
            return there
        name = f"batchproxy_{name}"  # a module of that name is in use, say one of Python's
    _look_in(os.path.dirname(os.path.abspath(path)))
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None  # of a file that ends in .py there is one
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _look_in(directory: str) -> None:
    if directory not in sys.path:
        sys.path.insert(0, directory)


def _failed(module: str, error: BaseException) -> ImportFailed:
    remedy = ""
    if "no known parent package" in str(error):
        remedy = "; give a module of a package as PACKAGE.MODULE:FUNCTION"
    return ImportFailed(f"importing {module!r} failed: {describe(error)}{remedy}")
