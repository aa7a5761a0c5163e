"""Self-attention (Vaswani et al., NeurIPS 2017): softmax(q k^T / sqrt(d)) v, by the kernel that suits the device."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from quantjax.types import Array

HALF = (jnp.bfloat16, jnp.float16)


def attention_kernel(dtype: Any, platform: str) -> str:
    """The kernel `attend` runs for this dtype on this platform ("cpu", "gpu", ...): "cudnn" or "xla"."""
    return "cudnn" if platform in ("gpu", "cuda") and jnp.dtype(dtype) in map(jnp.dtype, HALF) else "xla"


def attend(query: Array, key: Array, value: Array) -> Array:
    """Attention of [B, N, heads, d] three times -> [B, N, heads, d] in their dtype; softmax in float32.

    In half precision on a GPU this is cuDNN's fused kernel, which never writes the [N, N] weights.
    """
    if attention_kernel(query.dtype, jax.default_backend()) == "cudnn":
        return jax.lax.platform_dependent(query, key, value, cuda=_fused, default=_plain)
    return _plain(query, key, value)


def _fused(query: Array, key: Array, value: Array) -> Array:
    return jax.nn.dot_product_attention(query, key, value, implementation="cudnn")


def _plain(query: Array, key: Array, value: Array) -> Array:
    query = query * jnp.asarray(query.shape[-1] ** -0.5, query.dtype)
    logits = jnp.einsum("bqhd,bkhd->bhqk", query, key, preferred_element_type=jnp.float32)
    weights = jax.nn.softmax(logits, axis=-1).astype(value.dtype)
    return jnp.einsum("bhqk,bkhd->bqhd", weights, value)
