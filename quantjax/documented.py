"""help() of named tuples: Python drops the text that stands below a field in the source; here it is put back."""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path


def show_fields(package: str) -> None:
    """Give fields of the named tuples that `package` exports, or a module holds, the text below them as docstrings.

    Nothing happens where there is no source to read.
    """
    module = sys.modules[package]
    exported = [getattr(module, name) for name in getattr(module, "__all__", vars(module))]
    classes = {(one.__module__, one.__name__): one for one in exported if is_named_tuple(one)}
    for home in dict.fromkeys(name for name, _ in classes):
        for (owner, field), text in field_texts(home):
            if (home, owner) in classes:
                getattr(classes[home, owner], field).__doc__ = text


def is_named_tuple(one: object) -> bool:
    """Whether this is a class of named tuples, no value of one."""
    return isinstance(one, type) and hasattr(one, "_fields")


def field_texts(module: str) -> Iterable[tuple[tuple[str, str], str]]:
    """((class, field), text below the field) of the classes at the top level of a module's source."""
    try:
        source = Path(str(sys.modules[module].__file__)).read_text(encoding="utf-8")
    except OSError:
        return
    for owner in ast.parse(source).body:
        if isinstance(owner, ast.ClassDef):
            for field, text in pairwise(owner.body):
                match field, text:
                    case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(words))):
                        yield (owner.name, name), inspect.cleandoc(words)
