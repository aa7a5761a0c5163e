"""Windows per second of a segmentor here and in torch."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import counting
from benchmarks.ceilings import data_sheet, roofline
from benchmarks.scenes.sizes import SIZES, Size, load, ratios
from benchmarks.timing import alternate
from quantjax import parallel, segmentation
from quantjax.convert.transformers import to_backbone_variables
from quantjax.extractors import FEATURE_BACKBONES
from quantjax.extractors.attention import attention_kernel
from quantjax.heads.gmm import GmmSettings

Call = Callable[[], Any]
GOALS = {"cpu": 1.0, "gpu": 2.0}
# all parts of DINOv2 with registers at toy size, for runs that only ask whether everything runs
_known = FEATURE_BACKBONES["dinov2_vits14_reg"]
_toy = partial(_known.build, width=16, depth=4, heads=2, layers=(0, 1, 2, 3), grid=(5, 5))
FEATURE_BACKBONES.setdefault("dinov2_toy_reg", _known._replace(build=_toy, width=16))
PRECISIONS = {"float32": "tensorfloat32", "bfloat16": "bfloat16"}  # of a GPU, where float32 products run as TF32


def segmentor(size: Size, head: str, dtype: str = "float32") -> segmentation.Segmentor:
    """Our network; head is linear or mixture."""
    mixture = GmmSettings(size.num_classes, size.channels, size.components, memory=20)  # scoring never reads its bank
    return segmentation.make_segmentor(
        size.backbone, size.num_classes, mixture if head == "mixture" else None, channels=size.channels,
        token_hidden=size.token_hidden, dtype=jnp.dtype(dtype),
    )  # fmt: skip


def variables_of(state: dict[str, np.ndarray], model: segmentation.Segmentor, size: Size, head: str) -> dict[str, Any]:
    """Our variables for a state dict of peers.segment_torch.Segmentor."""
    from decoder_weights import to_variables

    def part(name: str) -> dict[str, np.ndarray]:
        return {key.removeprefix(f"{name}."): v for key, v in state.items() if key.startswith(f"{name}.")}

    dense = _linear if head == "linear" else partial(_mixture, model, size)
    return {
        "backbone": to_backbone_variables(part("backbone"), size.backbone),
        "decoder": to_variables(part("decoder")),
        "head": dense(part("head")),
    }


def _linear(state: dict[str, np.ndarray]) -> dict[str, Any]:
    return {"params": {"linear": {"kernel": state["weight"].T, "bias": state["bias"]}}, "state": ()}


def _mixture(model: segmentation.Segmentor, size: Size, state: dict[str, np.ndarray]) -> dict[str, Any]:
    _, start = jax.jit(model.head.init, static_argnums=1)(jax.random.key(0), size.channels)
    moments = {key: state[key].reshape(start.mean.shape) for key in ("mean", "deviation")}
    norms = {n: {"scale": state[f"{n}.weight"], "bias": state[f"{n}.bias"]} for n in ("feature_norm", "class_norm")}
    return {"params": norms, "state": start._replace(**moments)}


def ours(model: segmentation.Segmentor, variables: Any, images: np.ndarray, dtype: str) -> tuple[Call, dict[str, Any]]:
    """A call that returns when the logits are there, and what is known about it."""
    devices = jax.local_devices() if len(images) % jax.local_device_count() == 0 else jax.local_devices()[:1]
    args = (parallel.replicate(variables, devices), jnp.asarray(images))

    def logits(variables: Any, images: Any, axis_name: str | None = None) -> Any:
        return segmentation.segment(model, variables, images).logits

    run = parallel.data_parallel(logits, (None, 0), 0, devices=devices)
    facts = {"devices": len(devices), "attention": attention_kernel(dtype, jax.default_backend())}
    start = time.perf_counter()
    if len(devices) == 1:  # what was compiled says which attention it holds, instead of the rule that chooses
        run = run.lower(*args).compile()
        facts["attention"] = "cudnn" if "__cudnn$fmha" in run.as_text() else "xla"
        facts["temporary_mb"] = round(run.memory_analysis().temp_size_in_bytes / 1e6, 1)
    jax.block_until_ready(run(*args))
    facts["first_call_seconds"] = round(time.perf_counter() - start, 2)
    facts["gflop"] = round(counting.flops(logits, variables, images[:1]) / 1e9, 2)
    return lambda: jax.block_until_ready(run(*args)), facts


class Peer:
    """The same network in torch with random weights; with `widths` the estimator too, see segment_torch.build."""

    def __init__(self, size: Size, head: str, widths: Sequence[int] = ()):
        import torch
        from random_weights import random_state

        from benchmarks.peers.segment_torch import build

        components = size.components if head == "mixture" else 0
        shape = FEATURE_BACKBONES[size.backbone].build()
        self.network = build(shape, size.num_classes, size.channels, size.token_hidden, components, widths)
        floating = {k: tuple(v.shape) for k, v in self.network.state_dict().items() if v.is_floating_point()}
        self.state = random_state(list(floating), list(floating.values()))
        if head == "mixture":
            self.state["head.deviation"] = 0.1 + np.abs(self.state["head.deviation"])
        self.network.load_state_dict({k: torch.from_numpy(v) for k, v in self.state.items()}, strict=False)
        self.torch, self.device = torch, "cuda" if torch.cuda.is_available() else "cpu"
        torch.set_float32_matmul_precision("high")  # as JAX: TF32 on a GPU, full on a CPU
        torch.backends.cudnn.benchmark = True
        self.network.to(self.device)

    def scoring(self, images: np.ndarray, dtype: str) -> Call:
        kind = getattr(self.torch, dtype)
        network = self.network.cast(kind)
        batch = self.torch.from_numpy(images).permute(0, 3, 1, 2).contiguous().to(self.device, kind)

        def call() -> Any:
            with self.torch.inference_mode():
                out = network(batch)
            if self.device == "cuda":
                self.torch.cuda.synchronize()
            return out

        return call

    def gflop(self, call: Call, windows: int) -> float:
        """Arithmetic of one window by torch's own counter, which knows all attention kernels but that of CPUs."""
        from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

        def attention(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
            return sdpa_flop_count(query, key, value)

        known = {self.torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: attention}
        with FlopCounterMode(display=False, custom_mapping=known) as counter:
            call()
        return round(counter.get_total_flops() / 1e9 / windows, 2)


def open_peer(size: Size, head: str, widths: Sequence[int] = ()) -> Peer | None:
    """None where torch or transformers is missing."""
    try:
        import torch  # noqa: F401
        import transformers  # noqa: F401
    except ImportError:
        return None
    return Peer(size, head, widths)


def measure(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """One row for every batch size."""
    size, backend = SIZES[options.size], jax.default_backend()
    dtype = options.dtype or ("float32" if backend == "cpu" else "bfloat16")
    batches = options.batches or (sorted({1, jax.local_device_count()}) if backend == "cpu" else [8])
    model, peer = segmentor(size, options.head, dtype), open_peer(size, options.head)
    images = np.random.default_rng(0).normal(size=(max(batches), *size.window, 3)).astype(np.float32)
    if peer:
        variables = variables_of(peer.state, model, size, options.head)
    else:
        variables = jax.jit(partial(segmentation.init_segmentor, model))(jax.random.key(0), images[:1])
    for batch in batches:
        row = {"question": "windows", "backbone": size.backbone, "head": options.head, "batch": batch, "dtype": dtype}
        row |= {"window": list(size.window), "threads": options.threads}
        yield row | _compare(model, variables, peer, images[:batch], dtype, options.repeats)


def _compare(
    model: segmentation.Segmentor, variables: Any, peer: Peer | None, images: np.ndarray, dtype: str, repeats: int
) -> dict[str, Any]:
    call, row = ours(model, variables, images, dtype)
    calls = {"quantjax": call}
    if peer:
        calls["torch"] = peer.scoring(images, dtype)
        row["torch_gflop"] = peer.gflop(calls["torch"], len(images))
        row["torch_attention"] = peer.network.backbone.config._attn_implementation
        row |= agreement(np.asarray(call()), calls["torch"]().cpu().numpy(), dtype)
    medians = alternate(calls, repeats)
    for who, (wall, processor) in medians.items():
        row |= {f"{who}_ms": round(wall, 2), f"{who}_processor_ms": round(processor, 2)}
        row[f"{who}_windows_per_second"] = round(1e3 * len(images) / wall, 3)
    row |= ratios(medians, "torch") | ({"goal": GOALS.get(jax.default_backend())} if peer else {})
    sheet = data_sheet(jax.devices()[0].device_kind)
    return row | roofline(1 / row["quantjax_windows_per_second"], row["gflop"], 0.0, PRECISIONS[dtype], sheet) | load()


def deviation(mine: np.ndarray, wanted: np.ndarray) -> dict[str, float]:
    """How far logits differ, by the largest and by root mean squares, and how many pixels get the same class."""
    difference = mine - wanted
    return {
        "relative_difference": float(np.abs(difference).max() / np.abs(wanted).max()),
        "relative_difference_rms": float(difference.std() / wanted.std()),
        "same_class": float((mine.argmax(-1) == wanted.argmax(-1)).mean()),
    }


def agreement(mine: np.ndarray, wanted: np.ndarray, dtype: str) -> dict[str, float]:
    """The deviation of logits, where it is small enough for the two programs to be the same."""
    row = deviation(mine, wanted)
    found, allowed = row["relative_difference"], 1e-3
    if dtype != "float32":  # single pixels may be far off
        found, allowed = row["relative_difference_rms"], 0.1
    if not found < allowed:
        raise SystemExit(f"the programs disagree, so there is nothing to time: {row}")
    return row
