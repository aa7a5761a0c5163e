"""The one list of methods: Python, flags, files, reports and the table in the docs read it."""

from __future__ import annotations

import re

from quantjax.checks import check_choice
from quantjax.methods.base import Method

_METHODS: dict[str, Method] = {}
NAME = re.compile(r"[a-z][a-z0-9_]*")


def register(method: Method) -> Method:
    """Add `method` under its name and return it.

    A detector keeps the name alone: whoever loads it registers the method first, by importing where it is defined.
    Raises ValueError when the name is taken by another method, or is not lower case letters, digits and underscores.
    """
    if not NAME.fullmatch(method.name):
        raise ValueError(f"a method's name must be lower case letters, digits and underscores, got {method.name!r}")
    if _METHODS.get(method.name, method) is not method:
        raise ValueError(f"there is a method called {method.name!r} already; choose another name")
    _METHODS[method.name] = method
    return method


def get(name: str) -> Method:
    """The method of that name; raises ValueError, with the names there are, for another one."""
    check_choice("method", name, _METHODS)
    return _METHODS[name]


def names() -> tuple[str, ...]:
    """Names of all methods, in the order in which tables show them."""
    return tuple(_METHODS)


def unregister(name: str) -> None:
    """Take a method out again, as tests of methods of their own do; raises ValueError for an unknown name."""
    get(name)
    del _METHODS[name]
