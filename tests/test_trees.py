"""Names of arrays in files."""

from typing import NamedTuple

import numpy as np
import pytest

from quantjax.trees import flatten, restore, unflatten


class Pair(NamedTuple):
    mean: object
    rest: object


def test_flatten_is_undone_by_unflatten():
    tree = {"a": {"b": 1, "c": {"d": 2}}, "e": 3}
    assert flatten(tree) == {"a/b": 1, "a/c/d": 2, "e": 3}
    assert unflatten(flatten(tree)) == tree
    with pytest.raises(ValueError, match="must not contain '/'"):
        flatten({"a/b": 1})


def test_tuples_have_names_and_come_back_as_what_they_were():
    template = {"x": Pair(np.zeros(2), (np.zeros(1), np.zeros(3)))}
    flat = {"x/mean": np.ones(2), "x/rest/0": np.ones(1), "x/rest/1": np.ones(3)}
    assert list(flatten(template)) == list(flat)
    restored = restore(flat, template)
    assert isinstance(restored["x"], Pair)
    assert restored["x"].rest[1] is flat["x/rest/1"]
    with pytest.raises(ValueError, match="x/mean is missing; x/other is unexpected"):
        restore({**{k: v for k, v in flat.items() if k != "x/mean"}, "x/other": 0}, template)
