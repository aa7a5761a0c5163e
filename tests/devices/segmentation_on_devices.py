"""Both stages of UEM on four CPU devices and on one: python segmentation_on_devices.py OUT.npz.

Started by test_segmentation_on_devices.py with four devices. Pairs of results are stored under NAME|one and NAME|four.
"""

from __future__ import annotations

import sys
from functools import partial
from itertools import islice
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.scenes import networks, objectives, stages
from experiments.scenes.config import UEM, resolve
from experiments.scenes.sets import open_sets
from quantjax import segmentation
from quantjax.train import fit_stream, init_state, make_step

CONFIG = resolve(
    UEM(variant="g-g", crop=(28, 56), batch_size=4, channels=8, components=2, window_batch=4, stride=(14, 28)),
    accelerator=False,
)
STEPS = 6
DEVICES = {"one": jax.devices()[:1], "four": jax.devices()}
RESULTS: dict[str, Any] = {}


def record(name: str, side: str, tree: Any) -> None:
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        RESULTS[f"{name}{jax.tree_util.keystr(path)}|{side}"] = np.asarray(leaf)


def train(name: str, side: str, value_and_grad: Any, start: Any, batches: list[Any]) -> Any:
    """Six steps; plain gradient descent, as Adam would turn rounding in a zero gradient into a whole step."""
    params, model_state, frozen = start
    optimizer = optax.sgd(0.05)
    losses: list[Any] = []
    state = fit_stream(
        make_step(value_and_grad, optimizer),
        init_state(params, optimizer, model_state),
        lambda first: iter(batches[first:]),
        steps=STEPS,
        key=jax.random.key(7),
        frozen=frozen,
        report=lambda step, values: losses.append(values),
        report_every=1,
        devices=DEVICES[side],
    )
    record(f"{name}.losses", side, losses)
    record(f"{name}.params", side, state.params)
    record(f"{name}.state", side, state.model_state)
    return state


def main(path: str) -> None:
    jax.config.update("jax_default_matmul_precision", "highest")
    sets = open_sets(CONFIG)
    network, estimator = networks.segmentor(CONFIG, len(sets.class_names)), networks.estimator(CONFIG)
    blank = jnp.zeros((1, *CONFIG.crop, 3))
    variables = jax.jit(partial(segmentation.init_segmentor, network))(jax.random.key(0), blank, None)
    maps = jax.eval_shape(network.features, variables["backbone"], blank)
    tokens = jnp.zeros(segmentation.last_map(maps).shape)
    unknown = jax.jit(partial(segmentation.init_estimator, estimator))(jax.random.key(1), tokens)
    plain, pasted = (list(islice(stages.crops(CONFIG, sets, o)(0), STEPS)) for o in (None, sets.objects))
    begin = (
        {"projector": unknown["projector"], "head": unknown["head"]["params"]},
        {"head": unknown["head"]["state"], "decoder": ()},
    )
    for side in DEVICES:
        first = train(
            "first", side, segmentation.segmentor_objective(network, **objectives.of_segmentor(CONFIG)),
            segmentation.split_segmentor(variables, train_backbone=objectives.trains_backbone(CONFIG)), plain,
        )  # fmt: skip
        segmentor = stages.final(CONFIG, segmentation.join_segmentor(first.params, first.model_state, {}))
        segmentor = jax.tree.map(np.asarray, segmentor)
        train(
            "second",
            side,
            segmentation.estimator_objective(network, estimator, **objectives.of_estimator(CONFIG, segmentor)),
            (*begin, segmentor),
            pasted,
        )
    np.savez(path, **RESULTS)


if __name__ == "__main__":
    main(sys.argv[1])
