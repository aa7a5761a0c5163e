"""Stage 1 of QuantOD: a classifier trained from images that lie on the device, an epoch in one call."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from benchmarks.programs import Peer, Program, compare, compile_program, torch_compiled, torch_device, torch_program
from benchmarks.questions import networks
from benchmarks.questions.context import Context
from benchmarks.questions.sizes import Sizes

EPOCHS = 100  # of the paper's run


def training(sizes: Sizes, context: Context) -> Iterator[dict[str, Any]]:
    """Images a second in mixed precision, augmentation in the step; random bits by both generators."""
    for generator in sizes.generators:
        if generator != sizes.generators[0] and context.expired():
            return
        ours = compile_program(*epoch_of(sizes, "bfloat16", generator), precision="bfloat16", carry=True)
        peers = [Peer("torch", partial(_torch, sizes, context), sizes.peer_steps * sizes.batch)]
        about = {"generator": generator, "batch": sizes.batch}
        for row in compare(
            context, ours, peers if generator == sizes.generators[0] else [],
            amount=sizes.train_images, unit="images", precision="bfloat16", **about,
        ):  # fmt: skip
            yield row | {"epoch_seconds": row["seconds"], f"seconds_of_{EPOCHS}_epochs": EPOCHS * row["seconds"]}


def epoch_of(sizes: Sizes, precision: str, generator: str) -> tuple[Any, ...]:
    """epoch(state, data, order, key) and its arguments."""
    import jax

    from quantjax.classification import augmented_rows, cross_entropy_objective, sgd
    from quantjax.train import init_state, make_epoch, make_step, shuffled_order

    given, order = networks.classifier(sizes, precision), shuffled_order(0, 0, sizes.train_images, sizes.batch)
    optimizer = sgd(EPOCHS * len(order))
    state = init_state(given.variables["params"], optimizer, given.variables["batch_stats"])
    step = make_step(cross_entropy_objective(given.model, given.preprocessing), optimizer)
    data = (networks.images(sizes.train_images, sizes.image), labels(sizes))
    return make_epoch(step, augmented_rows(sizes.batch)), state, data, order, jax.random.key(0, impl=generator)


def labels(sizes: Sizes) -> np.ndarray:
    """Random classes int32 [train_images]."""
    return np.random.default_rng(1).integers(0, sizes.classes, sizes.train_images, np.int32)


def _torch(sizes: Sizes, context: Context) -> Program:
    import torch

    from benchmarks.peers import images_torch
    from quantjax.extractors import BACKBONES

    torch.backends.cudnn.benchmark = True
    device, mode = torch_device(), context.peer_mode and "max-autotune-no-cudagraphs"  # gradients outlive the call
    net = images_torch.Half(images_torch.network(sizes.classifier, sizes.classes)[0], True, device)
    preprocessing = BACKBONES[sizes.classifier].preprocessing
    pixels = networks.images(sizes.train_images, sizes.image)
    run = images_torch.Training(net, pixels, labels(sizes), *preprocessing[:2], device)
    order = torch.randperm(sizes.train_images, device=device)
    batches = order[: sizes.peer_steps * sizes.batch].reshape(-1, sizes.batch)
    steps = partial(run.steps, torch_compiled(run.loss, mode), batches)
    return torch_program(steps, context=context, mode=mode, grad=True)
