"""A fitted flow as a distrax distribution, for use with whatever else speaks distrax."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax.numpy as jnp

from quantjax.flows.base import Flow, Transform
from quantjax.types import Array, PyTree

if TYPE_CHECKING:
    import distrax


def as_distrax(flow: Flow, params: PyTree, dimension: int) -> distrax.Transformed:
    """Return the distribution of x [..., D], D = `dimension`: the flow's latent sent through `flow.inverse`.

    `log_prob(x)` is in nats; `sample(seed=key, sample_shape=...)` draws rows; dropout is off.
    Raises ImportError where distrax is not installed.
    """
    import distrax  # imported here because it takes about a second

    class FlowBijector(distrax.Bijector):
        """Latent to data is the bijector's forward direction, which is the flow's inverse."""

        def __init__(self) -> None:
            super().__init__(event_ndims_in=1)

        def forward_and_log_det(self, x: Array) -> tuple[Array, Array]:
            return _on_rows(flow.inverse, params, x)

        def inverse_and_log_det(self, y: Array) -> tuple[Array, Array]:
            return _on_rows(flow.forward, params, y)

    if flow.centres is None:
        latent = distrax.MultivariateNormalDiag(jnp.zeros(dimension), jnp.ones(dimension))
    else:
        centres = flow.centres(params)
        each = distrax.MultivariateNormalDiag(centres, jnp.ones_like(centres))
        latent = distrax.MixtureSameFamily(distrax.Categorical(jnp.zeros(len(centres))), each)
    return distrax.Transformed(latent, FlowBijector())


def _on_rows(transform: Transform, params: PyTree, x: Array) -> tuple[Array, Array]:
    mapped, log_det = transform(params, x.reshape(-1, x.shape[-1]))
    return mapped.reshape(x.shape), log_det.reshape(x.shape[:-1])
