"""One rule for everything that stands around and before the names of a network in a checkpoint.

A dict in a dict and a prefix of names are the same here: `{"state_dict": {"module.conv1.weight": ...}}` holds
"state_dict.module.conv1.weight". As long as names begin with a part of WRAPPINGS, the first of these that is there is
taken off; names that have it stay, those of its head stay beside them, and all others are left. What is left of another
network is a choice: it is said, and a key makes another one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from quantjax.convert.compare import some

# in the order of preference: averages of the weights before the weights, teachers before students, as publishers judge
AVERAGES = ("state_dict_ema", "model_ema", "ema_state_dict", "ema_model", "ema", "module_ema", "teacher")
WHOLE = (
    *("state_dict", "model_state_dict", "cls_state_dict", "nfs_state_dict", "net_state_dict", "module"),
    *("model_state", "model", "network", "net", "student", "backbone"),
)
WRAPPINGS = (*AVERAGES, *WHOLE)
BESIDE_HEADS = ("module", "model", "network", "net", "backbone")  # may be a network without its last layer
HEADS = ("fc", "linear", "head", "heads", "classifier")  # what a head is called beside a wrapped backbone
COMPILED = "_orig_mod"  # torch.compile puts it anywhere
COUNTERS = ("num_batches_tracked", "n_averaged")  # of training, no network computes with them
TRAINING = ("optim", "lr_sched", "scheduler", "scaler", "grad_scaler", "loss", "criterion", "callbacks", "amp")
DEPTH = 6  # dicts in dicts


class Taken(NamedTuple):
    """The arrays of one network of a checkpoint."""

    arrays: dict[str, Any]
    """Under their names without anything before them."""
    key: str
    """What was taken off, "state_dict.module", say; "" for nothing."""
    note: str
    """A sentence about what else is there, "" when nothing was to choose."""


def unwrap(entries: Mapping[Any, Any], key: str | None = None) -> Taken:
    """The network in a checkpoint, or of several the one that `key` says: "teacher", or "teacher.backbone".

    Raises ValueError when there is nothing under that key, or there are several networks and none of them is known.
    """
    arrays = _joined(entries)
    taken: list[str] = []
    left: list[str] = []
    if key:
        arrays, taken = _under(arrays, key), [key]
    while part := _next(arrays, entries if not taken else {}):
        left += [name for name in arrays if not _is_kept(name, part)]
        arrays = {name.removeprefix(f"{part}."): array for name, array in arrays.items() if _is_kept(name, part)}
        taken.append(part)
    found = ".".join(taken)
    return Taken(arrays, found, "" if key else _note(found, left))


def _joined(entries: Mapping[Any, Any], before: str = "", depth: int = DEPTH) -> dict[str, Any]:
    """All arrays under dotted names; what is not under a name, or is a counter of training, is not of a network."""
    arrays: dict[str, Any] = {}
    for name, value in entries.items():
        if not isinstance(name, str):
            continue
        if isinstance(value, Mapping):
            arrays |= _joined(value, f"{before}{name}.", depth - 1) if depth else {}
        elif hasattr(value, "shape") and name.rpartition(".")[2] not in COUNTERS:
            arrays[".".join(part for part in f"{before}{name}".split(".") if part != COMPILED)] = value
    return arrays


def _under(arrays: Mapping[str, Any], key: str) -> dict[str, Any]:
    key = key.rstrip(".")
    found = {name[len(key) + 1 :]: array for name, array in arrays.items() if name.startswith(f"{key}.")}
    if not found:
        raise ValueError(f"it holds no {key!r} (key, --weights-key); it holds {some(_parts(arrays)) or 'one network'}")
    return found


def _next(arrays: Mapping[str, Any], entries: Mapping[Any, Any]) -> str | None:
    """The part that comes off next: a known one, or the only dict of arrays there is."""
    parts = _parts(arrays)
    known = next((part for part in WRAPPINGS if part in parts), None)
    dicts = [part for part in parts if isinstance(entries.get(part), Mapping)]
    if known or not dicts or len(parts) > len(dicts):
        return known
    if len(dicts) > 1:
        raise ValueError(f"it wraps several networks, {some(dicts)}: name the one to read as key (--weights-key)")
    return dicts[0]


def _parts(arrays: Iterable[str]) -> list[str]:
    """What the names begin with, each once; an array that stands alone, or in training's state, begins with none."""
    begins = (name.partition(".") for name in arrays)
    return list(dict.fromkeys(part for part, dot, _ in begins if dot and not part.startswith(TRAINING)))


def _is_kept(name: str, part: str) -> bool:
    return name.startswith(f"{part}.") or (part in BESIDE_HEADS and name.partition(".")[0] in HEADS)


def _note(taken: str, left: list[str]) -> str:
    others = _parts(left)
    return (
        f"its weights under {taken!r} are read, not {some(others)}; choose with key (--weights-key)" if others else ""
    )
