"""A normalizing flow as a tuple of pure functions, and what is built from any of them.

Direction: `forward` maps data x to the latent z, `inverse` maps back, so that with a standard normal latent
log p(x) = log N(z; 0, I) + log |det dz/dx| (Dinh et al., "Density estimation using Real NVP", ICLR 2017, eq. 3). In its
place may stand an equal mixture of M unit normals, log (1/M) sum_m N(z; c_m, I): see `around`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from quantjax import gaussian
from quantjax.checks import check_shape
from quantjax.types import Array, PyTree


class Transform(Protocol):
    """One direction of a flow."""

    def __call__(self, params: PyTree, x: Array, masks: PyTree = None, /) -> tuple[Array, Array]:
        """Return the mapped rows [B, D] and log |det| of the map's Jacobian [B], nats."""
        ...


def no_masks(key: Array, batch: int) -> None:
    """Draw the masks of a flow without dropout: none."""
    del key, batch


class Flow(NamedTuple):
    """An invertible map of rows; it holds no arrays that an optimiser should see."""

    init: Callable[[Array, Array], PyTree]
    """(key, x [B, D]) -> params; data-dependent layers normalise these rows."""
    forward: Transform
    """(params, x [B, D], masks=None) -> (z [B, D], log |det dz/dx| [B]); masks=None is evaluation mode, no dropout."""
    inverse: Transform
    """(params, z [B, D], masks=None) -> (x [B, D], log |det dx/dz| [B])."""
    draw_masks: Callable[[Array, int], PyTree] = no_masks
    """(key, B) -> bool arrays whose batch axis is -2, all dropout of one step; None where there is no dropout."""
    reverse_mode: Transform | None = None
    """`forward` with a cheaper reverse-mode derivative and no forward-mode one, where there is such a thing."""
    centres: Callable[[PyTree], Array] | None = None
    """params -> [M, D]: the latent is an equal mixture of unit normals there; None: one at the origin."""


def in_float32(flow: Flow) -> Flow:
    """The flow on rows of any real dtype, which float32 holds from here on."""

    def cast(transform: Transform) -> Transform:
        return lambda params, x, masks=None: transform(params, jnp.asarray(x, jnp.float32), masks)

    return flow._replace(
        init=lambda key, x: flow.init(key, jnp.asarray(x, jnp.float32)),
        forward=cast(flow.forward),
        inverse=cast(flow.inverse),
        reverse_mode=None if flow.reverse_mode is None else cast(flow.reverse_mode),
    )


def chain(*flows: Flow, **named: Flow) -> Flow:
    """Apply flows one after the other, first one first, the named ones last.

    params and masks are dicts by name, "0", "1", ... for flows without one; flows that have none are left out.
    Initialisation runs through the chain: each flow is initialised on the output of the flows before it.
    """
    links = {str(i): flow for i, flow in enumerate(flows)} | named

    def init(key: Array, x: Array) -> PyTree:
        params = {}
        for (name, flow), flow_key in zip(links.items(), jax.random.split(key, len(links)), strict=True):
            params[name] = flow.init(flow_key, x)
            x, _ = flow.forward(params[name], x)
        return _without_empty(params)

    def run(params: PyTree, x: Array, masks: PyTree, direction: str) -> tuple[Array, Array]:
        log_det = jnp.zeros(x.shape[0], jnp.float32)
        for name in links if direction == "forward" else reversed(links):
            transform = getattr(links[name], direction)
            x, change = transform(params.get(name), x, None if masks is None else masks.get(name))
            log_det = log_det + change
        return x, log_det

    def draw_masks(key: Array, batch: int) -> PyTree:
        keys = jax.random.split(key, len(links))
        masks = {name: flow.draw_masks(k, batch) for (name, flow), k in zip(links.items(), keys, strict=True)}
        return _without_empty(masks) or None

    return _both_ways(init, run, draw_masks)


def _both_ways(init: Callable[..., PyTree], run: Callable[..., Any], draw_masks: Callable[..., PyTree]) -> Flow:
    """The flow of run(params, x, masks, direction), computed in float32."""
    return in_float32(
        Flow(
            init,
            lambda params, x, masks=None: run(params, x, masks, "forward"),
            lambda params, z, masks=None: run(params, z, masks, "inverse"),
            draw_masks,
        )
    )


def _without_empty(trees: dict[str, PyTree]) -> dict[str, PyTree]:
    return {name: tree for name, tree in trees.items() if jax.tree.leaves(tree)}


def around(flow: Flow, components: int) -> Flow:
    """`flow` with `components` normals as its latent: params {"flow", "centres" [M, D]}, all of them learned.

    `init` puts the centres where it sends the first M of its rows, repeated if there are fewer; set them to
    `flow.forward` of class means, say, where these are known. Raises ValueError when components < 1.
    """
    if components < 1:
        raise ValueError(f"components must be at least 1, got {components}")

    def init(key: Array, x: Array) -> PyTree:
        params = flow.init(key, x)
        return {"flow": params, "centres": flow.forward(params, x[jnp.arange(components) % len(x)])[0]}

    def inner(transform: Transform) -> Transform:
        return lambda params, x, masks=None: transform(params["flow"], x, masks)

    reverse = None if flow.reverse_mode is None else inner(flow.reverse_mode)
    forward, inverse = inner(flow.forward), inner(flow.inverse)
    return in_float32(Flow(init, forward, inverse, flow.draw_masks, reverse, lambda params: params["centres"]))


def invert(flow: Flow) -> Flow:
    """Swap the two directions; initialisation still normalises rows at the input of the original `forward`."""
    return Flow(flow.init, flow.inverse, flow.forward, flow.draw_masks)


def stack(make: Callable[[Any], Flow], constants: PyTree, blocks: int) -> Flow:
    """Chain `blocks` flows of equal shapes with parameters stacked on a leading axis, under `lax.scan`.

    One block is traced and compiled, whatever their number. `make(constants of block k)` builds block k;
    the leaves of `constants` are [blocks, ...] and stay out of params, so that no optimiser touches them.
    """

    def init(key: Array, x: Array) -> PyTree:
        def step(h: Array, block: Any) -> tuple[Array, PyTree]:
            block_key, values = block
            flow = make(values)
            params = flow.init(block_key, h)
            return flow.forward(params, h)[0], params

        return jax.lax.scan(step, x, (jax.random.split(key, blocks), constants))[1]

    def run(params: PyTree, x: Array, masks: PyTree, direction: str) -> tuple[Array, Array]:
        def step(h: Array, block: Any) -> tuple[Array, Array]:
            block_params, values, block_masks = block
            return getattr(make(values), direction)(block_params, h, block_masks)

        x, log_dets = jax.lax.scan(step, x, (params, constants, masks), reverse=direction == "inverse")
        return x, log_dets.sum(axis=0)

    def draw_masks(key: Array, batch: int) -> PyTree:
        first = make(jax.tree.map(lambda leaf: leaf[0], constants))
        return jax.vmap(lambda block_key: first.draw_masks(block_key, batch))(jax.random.split(key, blocks))

    return _both_ways(init, run, draw_masks)


def log_likelihood(flow: Flow, params: PyTree, x: Array, masks: PyTree = None) -> Array:
    """Log-density of rows x [B, D] under the flow and its latent: [B] nats, float32, higher = likelier.

    Differentiable in reverse mode; for jvp or jacfwd differentiate `flow.forward`.
    Raises ValueError unless x has two axes. Source: Dinh et al. (2017), eq. 3.
    """
    check_shape("x", x, "[B, D]")
    forward = flow.forward if flow.reverse_mode is None else flow.reverse_mode
    z, log_det = forward(params, jnp.asarray(x, jnp.float32), masks)
    return _latent_log_density(flow, params, z.astype(jnp.float32)) + log_det.astype(jnp.float32)


def _latent_log_density(flow: Flow, params: PyTree, z: Array) -> Array:
    if flow.centres is None:
        return gaussian.standard_log_density(z)
    centres = flow.centres(params)
    few = len(centres) <= gaussian.FEW_CENTRES
    distances = (gaussian.squared_distances if few else gaussian.squared_distances_by_product)(z, centres)
    constant = math.log(len(centres)) + 0.5 * z.shape[1] * gaussian.LOG_TWO_PI
    return jax.nn.logsumexp(-0.5 * distances, axis=1) - constant


def sample(flow: Flow, params: PyTree, key: Array, shape: tuple[int, int]) -> Array:
    """Draw rows [N, D] from the flow, shape = (N, D); dropout is off."""
    z = jax.random.normal(key, shape, jnp.float32)
    if flow.centres is not None:
        centres = flow.centres(params)
        z = z + centres[jax.random.randint(jax.random.fold_in(key, 1), shape[:1], 0, len(centres))]
    return flow.inverse(params, z)[0]
