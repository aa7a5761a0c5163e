"""Attention by its formula in float64, on either path; which kernel runs where."""

from types import SimpleNamespace

import jax
import jax.export
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
    if jax.default_backend() == "cpu":  # nothing here that could run, let alone time, cuDNN's
        assert attention_kernel(jnp.bfloat16, "gpu") == attention_kernel(jnp.float16, "cuda") == "xla"


def lowered(fn, tokens, platform, dtype=jnp.bfloat16, size=8):
    """The program's text; traced anew each time, as a trace holds what the machine of before could do."""
    qkv = jax.ShapeDtypeStruct((2, tokens, 3, 3, size), dtype)
    return jax.jit(lambda x: fn(x)).trace(qkv).lower(lowering_platforms=(platform,)).as_text()


def gradient(qkv):
    return jax.grad(lambda x: attend(x).astype(jnp.float32).sum())(qkv)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_the_platform_of_the_program_decides(dtype):
    """A loop over heads on a CPU alone, wherever the program is made; one program for all platforms holds both."""
    for fn, loops in ((attend, 1), (gradient, 2)):
        given = {p: lowered(fn, 16, p, dtype).count("stablehlo.while") for p in ("cpu", "cuda", "rocm", "tpu")}
        assert given == {"cpu": loops, "cuda": 0, "rocm": 0, "tpu": 0}
    every = jax.export.export(jax.jit(gradient), platforms=("cpu", "cuda", "tpu"))
    assert every(jax.ShapeDtypeStruct((2, 16, 3, 3, 8), dtype)).mlir_module().count("stablehlo.while") == 2


def test_gradient_of_the_branch_taken(qkv):
    given, wanted = (jax.jit(jax.grad(lambda x, f=f: (f(x) ** 2).sum()))(qkv) for f in (attend, attention._batched))
    np.testing.assert_allclose(given, wanted, atol=1e-4 * float(jnp.abs(wanted).max()))


@pytest.fixture
def seen_from_a_gpu(monkeypatch):
    """What JAX finds where a GPU with cuDNN is at hand; programs for it can be lowered without one."""
    from jax._src.cudnn import fused_attention_stablehlo as cudnn

    gpu = SimpleNamespace(platform="gpu", compute_capability="9.0")
    monkeypatch.setattr(jax, "local_devices", lambda backend=None: [gpu])
    monkeypatch.setattr(cudnn, "check_cudnn_version", lambda: 91000)
    monkeypatch.setattr(cudnn, "check_compute_capability", lambda capability: True)
    return gpu


def test_what_a_gpu_takes(seen_from_a_gpu):
    assert attention_kernel(jnp.bfloat16, "gpu") == attention_kernel(jnp.float16, "cuda", 256) == "cudnn"
    assert attention_kernel(jnp.bfloat16, "cuda", 12) == attention_kernel(jnp.bfloat16, "cuda", 264) == "xla"
    assert attention_kernel(jnp.float32, "cuda") == attention_kernel(jnp.bfloat16, "cpu") == "xla"
    assert "cudnn" not in lowered(attend, 16, "cuda", size=12)
    for old in ("7.5", "gfx90a"):
        seen_from_a_gpu.compute_capability = old
        assert attention_kernel(jnp.bfloat16, "cuda") == "xla"


def test_any_batch_size_is_exported_from_a_gpu_too(seen_from_a_gpu):
    (batch,) = jax.export.symbolic_shape("batch")
    every = jax.export.export(jax.jit(lambda x: attend(x)), platforms=("cpu", "cuda", "tpu"))
    assert "cudnn" not in every(jax.ShapeDtypeStruct((batch, 16, 3, 3, 8), jnp.bfloat16)).mlir_module()


@pytest.mark.parametrize("tokens", [16, 17])
def test_half_precision_on_a_gpu_is_fused(seen_from_a_gpu, tokens):
    weights = f"{tokens}x{tokens}x"
    forward = {p: lowered(attend, tokens, p) for p in ("cuda", "cpu", "tpu")}
    assert "__cudnn$fmhaSoftmax" in forward["cuda"]
    assert weights not in forward["cuda"]
    assert {p: text.count("stablehlo.while") for p, text in forward.items()} == {"cuda": 0, "cpu": 1, "tpu": 0}
    backward = {p: lowered(gradient, tokens, p) for p in ("cuda", "cpu", "tpu")}
    assert ("__cudnn$fmhaSoftmaxBackward" in backward["cuda"]) == (tokens % 2 == 0)  # JAX's rule refuses odd lengths
    assert (weights in backward["cuda"]) == (tokens % 2 == 1)
    assert not any("cudnn" in text for texts in (forward, backward) for p, text in texts.items() if p != "cuda")
