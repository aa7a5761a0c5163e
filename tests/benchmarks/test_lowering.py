"""Hot functions lowered for CUDA without a GPU, and the checks that read their programs."""

import jax
import jax.numpy as jnp
import pytest

from benchmarks import counting, lowering
from benchmarks.cuda_programs import PROBLEMS, cuda_program, findings, host_transfers, kernels, lower_here
from benchmarks.questions.hot import HOT, Hot, shapes
from benchmarks.questions.sizes import SMOKE

CLEAN = {kind: [] for kind in PROBLEMS}


def shape(*sizes, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(sizes, dtype)


@pytest.mark.parametrize("name", HOT)
def test_every_hot_function_lowers_for_cuda_without_what_slows_it(name):
    hot = HOT[name](SMOKE)
    program = cuda_program(hot.function, shapes(hot), hot.precision)
    assert findings(program.text) == CLEAN
    assert program.work.flops > 0
    fused = name in ("windows_bfloat16", "stage2_step")
    assert kernels(program.text) == (["__cudnn$fmhaSoftmax"] if fused else [])
    if name in ("windows_bfloat16", "windows_float32", "stage2_step"):
        assert "stablehlo.while" not in program.text  # no loop over heads


def test_a_call_into_python_is_found():
    def offender(x):
        return jax.pure_callback(lambda v: v, shape(4), x) + 1.0

    with pytest.raises(ValueError, match="pure_callback would stop the device"):
        cuda_program(jax.checkpoint(offender), [shape(4)])
    assert host_transfers(jax.jit(offender).lower(shape(4)).as_text()) == ["xla_ffi_python_cpu_callback"]
    for line in (
        '%1:2 = "stablehlo.infeed"(%0) <{infeed_config = ""}> : (!stablehlo.token) -> (tensor<4xf32>, token)',
        "  outfeed.1 = token[] outfeed(f32[4]{0} p, token[] t)",
        "  send.2 = (f32[4], u32[], token[]) send(f32[4]{0} p, token[] t), channel_id=1, is_host_transfer=true",
        "%3 = stablehlo.custom_call @annotate_device_placement(%2) : (tensor<4xf32>) -> tensor<4xf32>",
    ):
        assert host_transfers(line), line


def test_float64_is_found():
    with jax.enable_x64(True):
        found = findings(cuda_program(lambda x: x.astype(jnp.float64).sum(), [shape(4)]).text)
    assert any("tensor<4xf64>" in line for line in found["float64"])
    assert findings("ROOT add = c128[4]{0} add(c128[4]{0} a, c128[4]{0} a)")["float64"]
    assert findings("ROOT add = f32[64]{0} add(f32[64]{0} f64, f32[64]{0} f64)")["float64"] == []


def convolution(layout, x, kernel):
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=layout)


def test_convolutions_that_need_transposes_are_found():
    def found(function, *shapes):
        return len(findings(cuda_program(function, shapes).text)["transposing_convolutions"])

    last, first = ("NHWC", "HWIO", "NHWC"), ("NCHW", "OIHW", "NCHW")
    kernel = shape(3, 3, 8, 16)
    assert found(lambda x, k: convolution(last, x, k), shape(2, 5, 6, 8), kernel) == 0
    assert found(lambda x, k: convolution(first, x, k), shape(2, 8, 5, 6), shape(16, 8, 3, 3)) == 1
    assert found(lambda x, k: convolution(last, x.transpose(0, 2, 3, 1), k), shape(2, 8, 5, 6), kernel) == 1
    both = jax.grad(lambda x, k: jnp.square(convolution(last, x, k)).sum(), argnums=(0, 1))
    assert found(both, shape(2, 5, 6, 8), kernel) == 0  # both gradients keep channels innermost


def test_counts_follow_precision_and_platform():
    x, k = shape(5, 7), shape(7, 3)
    highest = lambda x, k: jnp.matmul(x, k, precision="highest")  # noqa: E731
    assert cuda_program(highest, [x, k]).work == counting.Work(210, 4 * (35 + 21 + 15), exact=210)
    assert cuda_program(jnp.matmul, [x, k]).work.exact == 210
    assert cuda_program(jnp.matmul, [x, k], "tensorfloat32").work.exact == 0

    def forms(x):
        return jax.lax.platform_dependent(x, cuda=lambda x: x @ x.T @ x, default=lambda x: x + 0.0)

    assert cuda_program(forms, [x]).work.flops == 2 * 2 * (5 * 5 * 7)
    assert counting.work(forms, x).flops == 0


def test_bounds_by_hand():
    hot = Hot(jnp.sin, tuple, 10, "rows", "bfloat16")
    # 1 s of half precision and 0.1 s of float32, against 0.02 s of memory
    asked = counting.Work(989 * 10**12 + 67 * 10**11, 0, exact=67 * 10**11)
    bound = lowering.bound("H100", hot, asked, 67 * 10**9)
    assert bound == {"least_seconds": pytest.approx(1.1), "bound": "arithmetic", "rate": pytest.approx(10 / 1.1)}
    by_memory = lowering.bound("H200", hot, counting.Work(1, 0), 48 * 10**11)
    assert by_memory == {"least_seconds": 1.0, "bound": "memory", "rate": 10.0}


def test_the_table_says_that_it_is_computed():
    rows = [lowering.ask("mahalanobis", HOT["mahalanobis"], SMOKE), lowering.ask("bad", lambda sizes: 1 / 0, SMOKE)]
    assert rows[1] == {"function": "bad", "error": "ZeroDivisionError: division by zero"}
    row = rows[0]
    # [16, 6] features: whitened by [6, 6], then against 4 means
    assert row["computed"] is True
    assert row["arguments_and_results_megabytes"] == pytest.approx(4e-6 * (6 + 36 + 24 + 4 + 1 + 96 + 16), abs=1e-3)
    text = lowering.table(rows)
    assert "computed, not measured" in text
    assert "bad: error" in text
    assert "| mahalanobis | 16 rows |" in text


def test_the_compiled_form_is_that_of_cuda():
    def fused(x):
        return jax.nn.dot_product_attention(x, x, x, implementation="cudnn")

    def attend(x):
        return jax.lax.platform_dependent(x, cuda=fused, default=lambda x: x)

    given = [shape(1, 64, 2, 8, dtype=jnp.bfloat16)]
    program = cuda_program(attend, given)
    assert kernels(program.text) == ["__cudnn$fmhaSoftmax"]
    assert program.work.flops == 2 * 2 * (2 * 64 * 64 * 8)
    compiled = lower_here(program, given).compile()
    assert kernels(compiled.as_text()) == ["__cudnn$fmhaSoftmax"]
    assert compiled.memory_analysis().argument_size_in_bytes == 2 * 64 * 2 * 8
