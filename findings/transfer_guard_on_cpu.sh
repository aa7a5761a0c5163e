#!/usr/bin/env bash
# jax.transfer_guard on the CPU back end: host-to-device transfers are refused, device-to-host ones never are.
#
# Expected, from JAX's page on the transfer guard: under transfer_guard("disallow") an implicit fetch of an array's
# value raises, as an implicit upload does, and "disallow_explicit" refuses jax.device_get too.
# Seen with JAX 0.10.2 on a CPU: an implicit upload raises; numpy.asarray of a freshly computed array and
# jax.device_get pass under either level, also when only the direction device_to_host is guarded.
# So a test on a CPU that runs a loop under the guard proves nothing about fetches inside that loop.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6
JAX_PLATFORMS=cpu "$folder/venv/bin/python" - <<'PROGRAM'
import jax
import numpy as np

assert jax.__version__ == "0.10.2"
double = jax.jit(lambda x: 2 * x)
host = np.ones((4, 4), np.float32)
there = jax.device_put(host)
jax.block_until_ready(double(there))


def passes(guard, level, act):
    fresh = jax.block_until_ready(double(there))  # its value has not been fetched yet
    try:
        with guard(level):
            act(fresh)
    except jax.errors.JaxRuntimeError as error:
        print(f"{guard.__name__}({level!r}): {str(error)[:70]}")
        return False
    print(f"{guard.__name__}({level!r}): passes")
    return True


levels = ("disallow", "disallow_explicit")
upload = [passes(jax.transfer_guard, level, lambda fresh: double(host)) for level in levels]
guards = (jax.transfer_guard, jax.transfer_guard_device_to_host)
fetch = [passes(guard, level, np.asarray) for guard in guards for level in levels]
explicit = [passes(guard, "disallow_explicit", jax.device_get) for guard in guards]
assert upload == [False, False], "uploads are no longer refused"
assert fetch == [True] * 4, "fetches are refused now: this finding is out of date"
assert explicit == [True] * 2, "device_get is refused now: this finding is out of date"
print("as stated: uploads are refused on a CPU, fetches are not")
PROGRAM
