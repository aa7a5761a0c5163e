"""Self-attention (Vaswani et al., NeurIPS 2017): softmax(q k^T / sqrt(d)) v, by the kernel that suits the device."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from quantjax.types import Array

HALF = ("bfloat16", "float16")
OLDEST_FUSED = 8  # major compute capability (Ampere) from which cuDNN's kernel runs


def attention_kernel(dtype: Any, platform: str) -> str:
    """The kernel `attend` runs for this dtype on this platform ("cpu", "gpu", ...): "cudnn" or "xla".

    cuDNN's takes half precision only; a GPU of this machine that is too old for it counts as such.
    """
    if platform not in ("gpu", "cuda") or jnp.dtype(dtype).name not in HALF:
        return "xla"
    here = [d for d in jax.local_devices() if d.platform == "gpu"]
    majors = [str(getattr(d, "compute_capability", "")).split(".")[0] for d in here]
    return "cudnn" if all(m.isdigit() and int(m) >= OLDEST_FUSED for m in majors) else "xla"


def attend(qkv: Array) -> Array:
    """Queries, keys and values [B, N, 3, heads, d] -> [B, N, heads, d] in their dtype; softmax in float32.

    In half precision on a GPU this is cuDNN's fused kernel, which never writes the [N, N] weights. On a CPU one head
    of one image is done after the other: its weights stay in the cache, which is up to 3 times as fast.
    """
    platform = jax.default_backend()
    if attention_kernel(qkv.dtype, platform) == "cudnn" and qkv.shape[-1] % 8 == 0:
        # the default is for export and for CPU devices beside the GPU; its checkpoint keeps its weights [N, N] from
        # being stored for the backward pass of the other
        fused = _fused_odd if qkv.shape[1] % 2 else _fused
        return jax.lax.platform_dependent(qkv, cuda=fused, default=jax.checkpoint(_batched))
    return _head_by_head(qkv) if platform == "cpu" else _batched(qkv)


def _fused(qkv: Array) -> Array:
    return jax.nn.dot_product_attention(qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2], implementation="cudnn")


@jax.custom_vjp
def _fused_odd(qkv: Array) -> Array:
    """`_fused` for odd N, which JAX refuses to differentiate: there the gradient is XLA's."""
    return _fused(qkv)


_fused_odd.defvjp(lambda qkv: jax.vjp(_batched, qkv), lambda pull_back, cotangent: pull_back(cotangent))


def _batched(qkv: Array) -> Array:
    return jax.nn.dot_product_attention(qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2], implementation="xla")


def _head_by_head(qkv: Array) -> Array:
    batch, tokens, _, heads, size = qkv.shape

    def one(qkv: Array) -> Array:
        q, k, v = qkv
        scaled = q * jnp.asarray(size**-0.5, q.dtype)
        logits = jnp.matmul(scaled, k.T, preferred_element_type=jnp.float32)
        weights = jnp.exp(logits - jax.lax.stop_gradient(logits.max(1, keepdims=True)))
        total = weights.sum(1, keepdims=True)
        weighted = jnp.matmul(weights.astype(v.dtype), v, preferred_element_type=jnp.float32)
        return (weighted / total).astype(qkv.dtype)

    out = jax.lax.map(one, qkv.transpose(0, 3, 2, 1, 4).reshape(batch * heads, 3, tokens, size))
    return out.reshape(batch, heads, tokens, size).swapaxes(1, 2)
