#!/usr/bin/env bash
# grain: a data set repeated without end cannot be read in batches of one row; in batches of two it can.
#
# Expected: MapDataset.repeat() without a number is the documented way to read epochs without end, and batch(n) then
# yields batches of n rows for every n >= 1.
# Seen with grain 0.2.18 on Python 3.11: the endless set states sys.maxsize as its length, and the length of its
# batches is the ceiling of a division in floating point, whose nearest value is sys.maxsize + 1. For batches of one
# that is too many for len(), so that len(), iteration and to_iter_dataset() raise OverflowError. Single items are
# read; drop_remainder=True, or batch before repeat, work.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q grain==0.2.18 numpy==2.4.6
"$folder/venv/bin/python" - <<'PROGRAM'
import sys
from importlib.metadata import version

import grain

assert version("grain") == "0.2.18"
endless = grain.MapDataset.range(10).repeat()
assert len(endless) == sys.maxsize


def attempt(name, act):
    try:
        found = act()
    except OverflowError as error:
        print(f"{name}: OverflowError: {error}")
        return "OverflowError"
    print(f"{name}: {found}")
    return found


ones, twos = endless.batch(1), endless.batch(2)
raised = [
    attempt("len of batches of one", lambda: len(ones)),
    attempt("first batch of one", lambda: next(iter(ones))),
    attempt("first batch of one, as an iterator", lambda: next(iter(ones.to_iter_dataset()))),
]
assert raised == ["OverflowError"] * 3, "batches of one can be read now: this finding is out of date"
assert attempt("item 3 of batches of one", lambda: ones[3]).tolist() == [3]
assert attempt("first batch of two", lambda: next(iter(twos))).tolist() == [0, 1]
dropping = endless.batch(1, drop_remainder=True)
assert attempt("first batch of one, dropping the remainder", lambda: next(iter(dropping))).tolist() == [0]
before = grain.MapDataset.range(10).batch(1).repeat()
assert attempt("first batch of one, batched before repeating", lambda: next(iter(before))).tolist() == [0]
print("as stated: endless batches of one row cannot be read")
PROGRAM
