#!/usr/bin/env bash
# safetensors: whether NumPy can read bfloat16 arrays depends on what else the process has imported.
#
# Expected: a file of bfloat16 arrays is either readable as NumPy arrays or refused, the same in every program.
# Seen with safetensors 0.8.0, NumPy 2.4.6 and ml_dtypes 0.6.0: safe_open(path, "np").get_tensor and
# safetensors.numpy.load_file raise TypeError (data type 'bfloat16' not understood) until something has imported
# ml_dtypes, as JAX does; from then on the same calls return the array.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q safetensors==0.8.0 numpy==2.4.6 ml_dtypes==0.6.0
cd "$folder"
"$folder/venv/bin/python" - <<'PROGRAM'
import json
import struct
from importlib.metadata import version
from pathlib import Path

import numpy as np
from safetensors import safe_open
from safetensors.numpy import load_file

assert (version("safetensors"), version("ml_dtypes")) == ("0.8.0", "0.6.0")
bits = np.array([0x3F80, 0x4000], "<u2")  # 1 and 2 in bfloat16
head = json.dumps({"a": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}}).encode()
Path("weights.safetensors").write_bytes(struct.pack("<Q", len(head)) + head + bits.tobytes())


def attempt(name, read):
    try:
        found = [float(x) for x in read()]
    except TypeError as error:
        print(f"{name}: TypeError: {error}")
        return "TypeError"
    print(f"{name}: {found}")
    return found


def opened():
    with safe_open("weights.safetensors", "np") as file:
        return file.get_tensor("a")


def loaded():
    return load_file("weights.safetensors")["a"]


before = [attempt("safe_open", opened), attempt("load_file", loaded)]
import ml_dtypes  # noqa: E402, F401, what it changes is the finding

after = [attempt("safe_open after ml_dtypes", opened), attempt("load_file after ml_dtypes", loaded)]
assert before == ["TypeError"] * 2, "it reads or refuses otherwise now: this finding is out of date"
assert after == [[1.0, 2.0]] * 2, "it reads or refuses otherwise now: this finding is out of date"
print("as stated: an import elsewhere decides whether bfloat16 is read")
PROGRAM
