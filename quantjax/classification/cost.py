"""How long a training takes on a CPU, before it begins."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from quantjax.parallel import on_its_device

CORE = 3e9  # floating-point operations a second that the training of a small residual network gets out of a core
TRAINING = 3  # a step's operations over those of its forward pass


def training_seconds(model: Any, image_size: int, images: int, epochs: int, cores: int) -> float:
    """Seconds that `epochs` passes of Linen `model` over `images` images [S, S, 3] take on so many cores, compiled.

    A rough figure, from the operations of one forward pass: right within a factor of two or three.
    """
    image = jax.ShapeDtypeStruct((1, image_size, image_size, 3), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), image)
    counted: Any = on_its_device(model.apply).lower(variables, image).cost_analysis()
    return TRAINING * float(counted["flops"]) * images * epochs / (CORE * cores)
