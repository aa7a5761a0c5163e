"""The generative head: a mixture of diagonal Gaussians per class, fitted by Sinkhorn expectation maximisation.

Features are layer-normalised over D and brought to unit length, x; means too. With component means mu and standard
deviations sigma, all priors uniform:

    log p(x | k, c) = -D/2 log(2 pi) - sum_d log sigma_d - 1/2 sum_d ((x_d - mu_d) / sigma_d)^2     [nats]
    logits F = LayerNorm over k of max_c log p(x | k, c)      (combine="max", normalisation="layer"; the released code)
    logits F = log (1/M) sum_c p(x | k, c)                    (combine="logsumexp", normalisation="none"; the paper)

Gradients reach features and the two layer norms. Means and deviations follow a memory bank of correctly classified
pixels by momentum and are never differentiated; they form a state that the optimiser does not see. All of it is
float32. GMMSeg (Liang et al., NeurIPS 2022); UEM (Nayal, Shoeb and Güney 2024, arXiv 2409.06424), eq. 2 and 7.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from quantjax.checks import check_choice, check_interval, check_shape
from quantjax.heads.bank import moments, select, write
from quantjax.heads.density import layer_norm, normed_log_density, unit
from quantjax.heads.sinkhorn import assign
from quantjax.labels import int32_labels
from quantjax.rows import IGNORED
from quantjax.types import Array, PyTree


class GmmSettings(NamedTuple):
    """What a mixture head is; the defaults are those of UEM's released stage 1."""

    num_classes: int
    """K"""
    dimension: int = 256
    """D"""
    components: int = 5
    """M, of each class"""
    memory: int = 8000
    """Slots per component of the bank"""
    per_component: int = 20
    """At most so many new rows per component and step"""
    momentum: float = 0.999
    """The share of the old mean that stays"""
    update_every: int = 5
    """Steps between two updates of means and deviations"""
    temperature: float = 0.05
    """Of the balanced assignment"""
    sinkhorn_iterations: int = 3
    """Of the balanced assignment"""
    minimum_variance: float = 0.01
    """Added to every variance"""
    combine: str = "max"
    """Densities of a class's components become its logit by "max" or "logsumexp"."""
    normalisation: str = "layer"
    """Of the logits over classes: "layer" or "none"."""
    per_device_sinkhorn: bool = False
    """Balance within a device's share instead of the global batch"""


class GmmState(NamedTuple):
    """All that changes without gradients; equal on all devices."""

    mean: Array
    """[K, M, D]"""
    deviation: Array
    """[K, M, D] standard deviations"""
    bank: Array
    """[K * M, memory, D] unit vectors"""
    pointer: Array
    """[K * M] int32, the next slot"""
    written: Array
    """[K * M] int32, rows ever written"""
    count: Array  # type: ignore[assignment]
    """[] int32, steps"""


class GmmOutput(NamedTuple):
    """What the head makes of a map of features."""

    logits: Array
    """[B, h, w, K]"""
    log_density: Array
    """[B, h, w, K, M] nats"""
    embedding: Array
    """[B, h, w, D] of unit length; for the bank, so it carries no gradient"""


def init(key: Array, settings: GmmSettings) -> tuple[PyTree, GmmState]:
    """Return (params, state): layer norms at the identity, means of random direction, a bank of random unit vectors.

    params has feature_norm (scale and bias [D]) and, with normalisation="layer", class_norm (scale and bias [K]).
    Raises ValueError for settings out of range, naming the field.
    """
    _check_settings(settings)
    classes, parts, dimension = settings.num_classes, settings.components, settings.dimension
    for_mean, for_bank = jax.random.split(key)
    params = {"feature_norm": _identity(dimension)}
    if settings.normalisation == "layer":
        params["class_norm"] = _identity(classes)
    mean = jax.random.truncated_normal(for_mean, -2.0, 2.0, (classes, parts, dimension), jnp.float32)
    bank = jax.random.normal(for_bank, (classes * parts, settings.memory, dimension), jnp.float32)
    zeros = jnp.zeros(classes * parts, jnp.int32)
    return params, GmmState(
        unit(mean), jnp.ones_like(mean), unit(bank), zeros, jnp.zeros_like(zeros), jnp.zeros((), jnp.int32)
    )


def forward(settings: GmmSettings, params: PyTree, state: GmmState, features: Array) -> GmmOutput:
    """Return logits [B, h, w, K], log-densities [B, h, w, K, M] in nats and embeddings of features [B, h, w, D].

    Raises ValueError when features are not of rank four with D channels, or state is of other settings.
    """
    classes, parts, dimension = settings.num_classes, settings.components, settings.dimension
    check_shape("features", features, f"[B, h, w, {dimension}]")
    check_shape("state.mean", state.mean, f"[{classes}, {parts}, {dimension}]")
    features = jnp.asarray(features, jnp.float32)
    mean, deviation = (jax.lax.stop_gradient(a).reshape(-1, dimension) for a in (state.mean, state.deviation))
    scale, bias = params["feature_norm"]["scale"], params["feature_norm"]["bias"]
    flat = normed_log_density(features.reshape(-1, dimension), scale, bias, unit(mean), deviation * deviation)
    log_density = flat.reshape(*features.shape[:3], classes, parts)
    logits = class_log_density(log_density, settings.combine)
    if settings.normalisation == "layer":
        logits = layer_norm(logits, **params["class_norm"])
    embedding = unit(layer_norm(*jax.lax.stop_gradient((features, scale, bias))))
    return GmmOutput(logits, log_density, embedding)


def class_log_density(log_density: Array, combine: str = "logsumexp") -> Array:
    """Return log-densities of classes in nats, [..., K, M] -> [..., K]: the best component, or the uniform mixture.

    combine is max or logsumexp (minus log M); raises ValueError for another.
    """
    check_choice("combine", combine, ("max", "logsumexp"))
    if combine == "max":
        return jnp.max(log_density, axis=-1)
    return jax.nn.logsumexp(log_density, axis=-1) - math.log(log_density.shape[-1])


def update(
    settings: GmmSettings, state: GmmState, output: GmmOutput, labels: Array, axis_name: str | None = None
) -> tuple[GmmState, Array]:
    """One step of expectation maximisation -> (state, targets [B, h, w] int32 in 0..K*M-1, or 255 where unlabelled).

    labels [B, h, w] hold a class or 255 at the resolution of output (the nearest-resized ground truth). Pixels are
    assigned to components of their class; correctly classified ones enter the bank; every `update_every`-th step (the
    first included) means and deviations follow the bank. Classes that no pixel has stay as they are. Pixels that are
    not finite, or of no class, take no part. Nothing here is differentiated. With axis_name, output and labels are
    a device's share, while the new state is that of the global batch, equal on all devices.
    Raises ValueError when labels are not at output's resolution.
    """
    output = jax.lax.stop_gradient(output)
    check_shape("labels", labels, f"[{', '.join(map(str, output.logits.shape[:3]))}]")
    classes, parts, groups = settings.num_classes, settings.components, settings.num_classes * settings.components
    flat = int32_labels(labels).reshape(-1)
    own_class = jnp.clip(flat, 0, classes - 1)[:, None, None]
    own = jnp.take_along_axis(output.log_density.reshape(-1, classes, parts), own_class, axis=1)[:, 0]
    taking_part = (flat >= 0) & (flat < classes) & jnp.all(jnp.isfinite(own), axis=1)
    bucket = jnp.where(taking_part, flat, classes)
    component = assign(
        own, bucket, classes, temperature=settings.temperature, iterations=settings.sinkhorn_iterations,
        axis_name=None if settings.per_device_sinkhorn else axis_name,
    )  # fmt: skip
    group = bucket * parts + component
    correct = taking_part & (jnp.argmax(output.logits.reshape(-1, classes), axis=1) == flat)
    rows = output.embedding.reshape(-1, settings.dimension)
    chosen = select(rows, jnp.where(correct, group, groups), groups, settings.per_component, axis_name)
    bank, pointer = write(state.bank, state.pointer, chosen)
    pixels = jax.ops.segment_sum(taking_part.astype(jnp.int32), bucket, classes)
    present = (pixels if axis_name is None else jax.lax.psum(pixels, axis_name)) > 0
    mean, deviation = _follow(settings, state, bank, present)
    new = GmmState(mean, deviation, bank, pointer, state.written + chosen.taken, state.count + 1)
    return new, jnp.where(taking_part, group, IGNORED).reshape(labels.shape)


def contrast(output: GmmOutput, targets: Array) -> Array:
    """Return the cross-entropy over all K M components, log-densities as logits, in nats; [B, h, w], 0 at target 255.

    NaN where a target is neither that nor one of 0..K*M-1. targets [B, h, w] come from `update`. Log-densities lie tens
    of nats apart, so its usual weight is 0.01.
    Raises ValueError when targets are not at output's resolution. Source: GMMSeg (Liang et al., NeurIPS 2022), eq. 13.
    """
    check_shape("targets", targets, f"[{', '.join(map(str, output.logits.shape[:3]))}]")
    targets = int32_labels(targets)
    ignored = targets == IGNORED
    logits = jnp.where(ignored[..., None], 0.0, output.log_density.reshape(*targets.shape, -1))
    known = (targets >= 0) & (targets < logits.shape[3])
    components = jax.lax.broadcasted_iota(jnp.int32, logits.shape, 3)
    chosen = jnp.sum(jnp.where(components == targets[..., None], logits, 0.0), axis=3)
    loss = jax.nn.logsumexp(logits, axis=3) - chosen
    return jnp.where(ignored, 0.0, jnp.where(known, loss, jnp.nan))


def noise_share(state: GmmState) -> Array:
    """Return the fraction of all bank slots that still hold their random start, a scalar in 0..1."""
    slots = state.bank.shape[1]
    return jnp.mean(jnp.maximum(slots - state.written, 0).astype(jnp.float32)) / slots


def _follow(settings: GmmSettings, state: GmmState, bank: Array, present: Array) -> tuple[Array, Array]:
    """Means by momentum and deviations outright, of the classes present, when the step is an update step."""

    def maximise() -> tuple[Array, Array]:
        direction, variance = (part.reshape(state.mean.shape) for part in moments(bank))
        mean = settings.momentum * unit(state.mean) + (1.0 - settings.momentum) * direction
        deviation = jnp.sqrt(variance + settings.minimum_variance)
        moved = present[:, None, None]
        return jnp.where(moved, mean, state.mean), jnp.where(moved, deviation, state.deviation)

    if settings.update_every == 1:
        return maximise()
    return jax.lax.cond(state.count % settings.update_every == 0, maximise, lambda: (state.mean, state.deviation))


def _identity(width: int) -> dict[str, Array]:
    return {"scale": jnp.ones(width, jnp.float32), "bias": jnp.zeros(width, jnp.float32)}


def _check_settings(settings: GmmSettings) -> None:
    check_choice("combine", settings.combine, ("max", "logsumexp"))
    check_choice("normalisation", settings.normalisation, ("layer", "none"))
    check_interval("momentum", settings.momentum, 0.0, 1.0)
    check_interval("minimum_variance", settings.minimum_variance, 0.0, float("inf"), closed="neither")
    for name in ("num_classes", "dimension", "components", "memory", "per_component", "update_every"):
        if getattr(settings, name) < 1:
            raise ValueError(f"{name} must be at least 1, got {getattr(settings, name)}")
    if settings.num_classes * settings.components > IGNORED:
        raise ValueError(
            f"num_classes * components must be at most {IGNORED}, since targets use {IGNORED} for ignored pixels, got "
            f"{settings.num_classes} * {settings.components}; use fewer components"
        )
    if settings.per_component > settings.memory:
        raise ValueError(
            f"per_component must be at most memory ({settings.memory}), got {settings.per_component}; raise memory"
        )
