"""Compare the mixture head and the pixel losses on four CPU devices with one: python heads_on_devices.py OUT.npz.

Started by test_heads_on_devices.py with four devices. Every pair of results is stored under NAME|one and NAME|four.
"""

from __future__ import annotations

import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from quantjax.heads import GmmSettings, gmm
from quantjax.losses import pebal_loss, pixel_cross_entropy, rba_loss, valid
from quantjax.parallel import data_parallel, replicate

SETTINGS = GmmSettings(3, dimension=6, components=2, memory=32, per_component=4, momentum=0.5, update_every=2)
STEPS, LEARNING_RATE = 10, 0.5
DEVICES = {"one": jax.devices()[:1], "four": jax.devices()}
RESULTS: dict[str, Any] = {}


def record(name: str, side: str, tree: Any) -> None:
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        RESULTS[f"{name}{jax.tree_util.keystr(path)}|{side}"] = np.asarray(leaf)


def total(tree: Any, axis_name: str | None) -> Any:
    return tree if axis_name is None else jax.lax.psum(tree, axis_name)


def step(trained, features, labels, axis_name=None):
    """Stage 1's loss, its gradients, plain gradient descent and one update of the mixture."""
    params, state = trained
    count = jnp.maximum(total(jnp.sum(valid(labels), dtype=jnp.float32), axis_name), 1.0)

    def part(params):
        output = gmm.forward(SETTINGS, params, state, features)
        after, targets = gmm.update(SETTINGS, state, output, labels, axis_name)
        pixels = pixel_cross_entropy(output.logits, labels) + 0.01 * gmm.contrast(output, targets)
        return jnp.sum(pixels) / count, (after, targets)

    (loss, (state, targets)), grads = jax.value_and_grad(part, has_aux=True)(params)
    loss, grads = total((loss, grads), axis_name)
    params = jax.tree.map(lambda p, g: p - LEARNING_RATE * g, params, grads)
    return (params, state), {"loss": loss, "grads": grads}, targets


def mixture() -> None:
    """Ten steps of four images each; the second has a class on one device only, the third only ignored pixels."""
    rng = np.random.default_rng(0)
    labels = rng.choice([0, 1, 2, 255], (STEPS, 4, 4, 5), p=[0.5, 0.2, 0.2, 0.1]).astype(np.uint8)
    labels[1][labels[1] == 2] = 0
    labels[1, 3, 2, 2:4] = 2
    labels[2] = 255
    centres = 2 * rng.normal(size=(4, 6))
    features = (centres[np.minimum(labels, 3)] + 0.4 * rng.normal(size=(*labels.shape, 6))).astype(np.float32)
    start = jax.jit(gmm.init, static_argnums=1)(jax.random.key(0), SETTINGS)
    for side, devices in DEVICES.items():
        run = data_parallel(step, (None, 0, 0), (None, None, 0), donate_argnums=(0,), devices=devices)
        trained = replicate(start, devices, copy=True)
        for i in range(STEPS):
            trained, info, targets = run(trained, features[i], labels[i])
            record(f"step{i}", side, info)
            record(f"targets{i}", side, targets)
        record("params", side, trained[0])
        record("state", side, trained[1]._asdict())


def share_of(side: str) -> None:
    """Sinkhorn within each device: the assignments must be those of each image alone."""
    rng = np.random.default_rng(1)
    settings = SETTINGS._replace(per_device_sinkhorn=True)
    params, state = jax.jit(gmm.init, static_argnums=1)(jax.random.key(0), settings)
    features = rng.normal(size=(4, 4, 5, 6)).astype(np.float32)
    labels = rng.integers(0, 3, (4, 4, 5)).astype(np.uint8)

    def targets(features, labels, axis_name=None):
        output = gmm.forward(settings, params, state, features)
        return gmm.update(settings, state, output, labels, axis_name)[1]

    run = data_parallel(targets, (0, 0), 0, devices=DEVICES[side])
    images = [features] if side == "four" else [features[i : i + 1] for i in range(4)]
    parts = [labels] if side == "four" else [labels[i : i + 1] for i in range(4)]
    record("apart", side, np.concatenate([run(x, y) for x, y in zip(images, parts, strict=True)]))


def baselines() -> None:
    """Losses and gradients where one image of four has no outlier and another no inlier."""
    rng = np.random.default_rng(2)
    logits = (4 + 3 * rng.normal(size=(4, 6, 5, 4))).astype(np.float32)
    labels = rng.choice([0, 1, 2, 254, 255], (4, 6, 5)).astype(np.uint8)
    labels[0][labels[0] == 254] = 255
    labels[1][labels[1] < 3] = 254

    def mean(logits, labels, axis_name=None):
        def part(logits):
            abstaining = jnp.mean(pebal_loss(logits, labels, axis_name=axis_name)) / count(axis_name)
            rejecting = jnp.mean(rba_loss(0.1 * logits[..., :3], labels, axis_name=axis_name)) / count(axis_name)
            return abstaining + rejecting, {"pebal": abstaining, "rba": rejecting}

        (_, values), grad = jax.value_and_grad(part, has_aux=True)(logits)
        return total(values, axis_name), grad

    for side, devices in DEVICES.items():
        values, grad = data_parallel(mean, (0, 0), (None, 0), devices=devices)(logits, labels)
        record("baseline", side, {"values": values, "grad": grad})


def count(axis_name: str | None) -> int:
    return 1 if axis_name is None else jax.lax.axis_size(axis_name)


def main(path: str) -> None:
    assert jax.device_count() == 4
    jax.config.update("jax_default_matmul_precision", "highest")
    mixture()
    for side in DEVICES:
        share_of(side)
    baselines()
    np.savez(path, **RESULTS)


if __name__ == "__main__":
    main(sys.argv[1])
