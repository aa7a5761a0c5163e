"""Self-attention (Vaswani et al., NeurIPS 2017): softmax(q k^T / sqrt(d)) v, by the kernel that suits the device."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from quantjax.types import Array

HALF = ("bfloat16", "float16")
OLDEST_FUSED = 8  # major compute capability (Ampere) from which cuDNN's kernel runs


def attention_kernel(dtype: Any, platform: str, size: int = 64) -> str:
    """The kernel `attend` puts into a program for this platform ("cpu", "cuda" or "gpu", ...): "cudnn" or "xla".

    "cudnn" needs half precision, a head size d that its kernel takes (multiples of 8 up to 128, or 256 from Hopper on)
    and, in the process that lowers the program, at least one GPU and none older than Ampere. So a CUDA program made
    where no GPU is seen holds XLA's form, which every GPU runs.
    """
    fused = platform in ("gpu", "cuda") and jnp.dtype(dtype).name in HALF and _runs_here(dtype, size)
    return "cudnn" if fused else "xla"


def _runs_here(dtype: Any, size: int) -> bool:
    try:
        majors = [str(getattr(d, "compute_capability", "")).split(".")[0] for d in jax.local_devices(backend="gpu")]
        jax.eval_shape(_fused, jax.ShapeDtypeStruct((1, 2, 3, 1, size), dtype))
    except RuntimeError:  # no GPU, no cuDNN, or a head size that the kernel refuses
        return False
    return all(major.isdigit() and int(major) >= OLDEST_FUSED for major in majors)


def attend(qkv: Array) -> Array:
    """Queries, keys and values [B, N, 3, heads, d] -> [B, N, heads, d] in their dtype; softmax in float32.

    The platform that the program is lowered for decides, not where it is traced. In half precision on a GPU this is
    cuDNN's fused kernel, which never writes the [N, N] weights (`attention_kernel` says when). On a CPU one head of one
    image is done after the other: its weights stay in the cache, which is up to 3 times as fast. Others, and a program
    exported for any batch size, take all heads at once: JAX exports cuDNN's kernel for no other platform beside it.
    """
    of_any_size = not all(isinstance(n, int) for n in qkv.shape)
    if of_any_size or attention_kernel(qkv.dtype, "cuda", qkv.shape[-1]) == "xla":
        return jax.lax.platform_dependent(qkv, cpu=_head_by_head, default=_batched)
    fused = _fused_odd if qkv.shape[1] % 2 else _fused
    # checkpoints keep the weights [N, N] of branches not taken from being stored for the backward pass
    heads, batched = jax.checkpoint(_head_by_head), jax.checkpoint(_batched)
    return jax.lax.platform_dependent(qkv, cpu=heads, cuda=fused, default=batched)


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
