"""State dicts under the names of another source, apart from quantjax.convert."""

from __future__ import annotations

import re

import numpy as np


def renamed(state, table):
    for theirs, ours in table.items():
        state = {re.sub(theirs, ours, name): array for name, array in state.items()}
    return state


def stacked(state, pattern, joined):
    """Join q, k and v, one under the other; `pattern` holds {} where their letter stands."""
    out = {}
    for name, array in state.items():
        match = re.fullmatch(pattern.format("([qkv])"), name)
        if match is None:
            out[name] = array
        elif match[2] == "q":
            parts = [state[name.replace(".q_", f".{letter}_")] for letter in "qkv"]
            out[match.expand(joined)] = np.concatenate(parts)
    return out
