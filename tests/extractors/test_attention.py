"""Attention by its formula in float64, on either path; which kernel runs where."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from quantjax.extractors import attention
from quantjax.extractors.attention import attend, attention_kernel


def formula(qkv):
    """softmax(q k^T / sqrt(d)) v per head, in float64."""
    q, k, v = np.moveaxis(np.asarray(qkv, np.float64), 2, 0)
    logits = np.einsum("bqhd,bkhd->bhqk", q, k) / np.sqrt(q.shape[-1])
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    return np.einsum("bhqk,bkhd->bqhd", weights / weights.sum(-1, keepdims=True), v)


@pytest.fixture
def qkv(rng):
    return jnp.asarray(rng.standard_normal((2, 7, 3, 3, 8)) * 3, jnp.float32)


@pytest.mark.parametrize("path", [attention._head_by_head, attention._batched])
def test_values_and_large_logits(qkv, path):
    run = jax.jit(path)
    np.testing.assert_allclose(run(qkv), formula(qkv), atol=1e-5)
    np.testing.assert_allclose(run(qkv * 100), formula(qkv * 100), atol=1e-2)  # logits of 1e5: exp alone overflows
    assert run(qkv.astype(jnp.bfloat16)).dtype == jnp.bfloat16


def test_both_paths_have_the_same_gradient(qkv):
    def gradient(path):
        return jax.jit(jax.grad(lambda x: (path(x) ** 2).sum()))(qkv)

    wanted = gradient(attention._batched)
    np.testing.assert_allclose(gradient(attention._head_by_head), wanted, atol=1e-4 * float(jnp.abs(wanted).max()))


def test_a_cpu_never_holds_the_weights_of_all_heads():
    tokens, heads = 256, 8
    shape = jax.ShapeDtypeStruct((4, tokens, 3, heads, 8), jnp.float32)
    if jax.default_backend() != "cpu":
        pytest.skip("this is how a CPU works")
    temporary = jax.jit(attend).lower(shape).compile().memory_analysis().temp_size_in_bytes
    assert temporary < 4 * heads * tokens * tokens * 4 / 4


def test_kernels():
    assert attention_kernel(jnp.float32, "gpu") == "xla"
    assert attention_kernel(jnp.bfloat16, "cpu") == "xla"
    if jax.default_backend() == "cpu":  # no GPU here that could be too old
        assert attention_kernel(jnp.bfloat16, "gpu") == attention_kernel(jnp.float16, "cuda") == "cudnn"


@pytest.fixture
def seen_from_a_gpu(monkeypatch):
    """What JAX finds where a GPU with cuDNN is the default device; programs for it can be lowered without one."""
    from jax._src.cudnn import fused_attention_stablehlo as cudnn

    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(cudnn, "check_cudnn_version", lambda: 91000)
    monkeypatch.setattr(cudnn, "check_compute_capability", lambda capability: True)


@pytest.mark.parametrize("tokens", [16, 17])
def test_half_precision_on_a_gpu_is_fused(seen_from_a_gpu, tokens):
    def programs(fn):
        qkv = jax.ShapeDtypeStruct((2, tokens, 3, 3, 8), jnp.bfloat16)
        return (jax.jit(fn).trace(qkv).lower(lowering_platforms=(p,)).as_text() for p in ("cuda", "cpu"))

    gpu, cpu = programs(attend)
    weights = f"{tokens}x{tokens}x"
    assert "__cudnn$fmhaSoftmax" in gpu
    assert weights not in gpu
    assert "cudnn" not in cpu
    gpu, cpu = programs(jax.grad(lambda x: attend(x).astype(jnp.float32).sum()))
    assert ("__cudnn$fmhaSoftmaxBackward" in gpu) == (tokens % 2 == 0)  # JAX's rule refuses odd lengths
    assert (weights in gpu) == (tokens % 2 == 1)
    assert "cudnn" not in cpu
