"""Four devices equal one, also in dropout. Runs apart, as the number of devices is fixed at start-up."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import json
import jax, jax.numpy as jnp, numpy as np
from flax import linen as nn
from quantjax.extractors.convolution import ConvNorm, Head
from quantjax.extractors.normalization import BatchNorm, Mode, batch_statistics
from quantjax.extractors.wrn import PreactivationBlock

class Small(nn.Module):  # a wide network cut short, as compiling takes most of the time
    @nn.compact
    def __call__(self, x, mode=Mode()):
        x = ConvNorm(4, name="stem")(x, mode)
        x = PreactivationBlock(8, 2, 0.3, activated=True)(x, mode)
        return Head(5)(nn.relu(BatchNorm()(x, mode)))[0]

model = Small()
rng = np.random.default_rng(0)
images = jnp.asarray(rng.normal(size=(8, 8, 8, 3)), jnp.float32)
labels = jnp.asarray(rng.integers(0, 5, 8))
variables = jax.jit(model.init)(jax.random.key(0), images)

def step(images, labels, mask, axis_name=None):
    total = lambda x: x if axis_name is None else jax.lax.psum(x, axis_name)
    count = total(mask.sum())
    def share(params):
        logits, new = model.apply({**variables, "params": params}, images, Mode(True, mask, axis_name),
                                  mutable=["batch_stats"], rngs={"dropout": jax.random.key(1)})
        rows = -jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], 1)[:, 0]
        return jnp.where(mask, rows, 0.0).sum() / count, new["batch_stats"]
    (loss, statistics), gradients = jax.value_and_grad(share, has_aux=True)(variables["params"])
    return total(loss), total(gradients), statistics

one = jax.jit(step)
four = jax.pmap(lambda i, l, m: step(i, l, m, "devices"), "devices")
split = lambda x: x.reshape(4, 2, *x.shape[1:])
worst = {"devices": jax.local_device_count()}
for kept in (8, 5):
    mask = jnp.arange(8) < kept
    wanted, given = one(images, labels, mask), four(split(images), split(labels), split(mask))
    for name, a, b in zip(("loss", "gradients", "statistics"), wanted, given):
        leaves = zip(jax.tree.leaves(jax.device_get(a)), jax.tree.leaves(jax.device_get(b)), strict=True)
        worst[f"{name} {kept}"] = max(float(abs(y - x).max() / (1e-3 + abs(x).max())) for x, y in leaves)  # y [4, ...]
far = rng.normal(3000, 0.5, size=(8, 2, 3)).astype(np.float32)
merged = jax.pmap(lambda x, m: batch_statistics(x, Mode(True, m, "devices"))[:2], "devices")(split(far), split(mask))
kept = far[:5].astype(np.float64).reshape(10, 3)
worst["far"] = max(float(abs(m / k - 1).max()) for m, k in zip(merged, (kept.mean(0), kept.var(0))))
print(json.dumps(worst))
"""


@pytest.fixture(scope="module")
def differences():
    root = Path(__file__).resolve().parents[2]
    environment = os.environ | {
        "XLA_FLAGS": f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=4",
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": str(root),
    }
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, cwd=root)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_four_devices_were_there(differences):
    assert differences["devices"] == 4


@pytest.mark.parametrize("kept", [8, 5])  # with 5 of 8 rows one device has none and another half of its rows
@pytest.mark.parametrize("name", ["loss", "gradients", "statistics"])
def test_four_devices_equal_one(differences, name, kept):
    assert differences[f"{name} {kept}"] < 1e-5


def test_large_means_cost_no_digits(differences):
    """Mean and variance of 5 of 8 rows, at means of 6,000 deviations, against float64.

    A device's mean is rounded to 1.2e-4 of 0.5; sums of squares would leave nothing of the variance.
    """
    assert differences["far"] < 1e-3
