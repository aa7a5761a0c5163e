"""Scenes: windows a second through DINOv2, decoder, head and estimator; whole scenes; the two training steps of UEM."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import jax
import numpy as np

from benchmarks import counting
from benchmarks.ceilings import matmul_precision
from benchmarks.programs import (
    Peer,
    Program,
    compare,
    compile_program,
    difference,
    first_line,
    torch_compiled,
    torch_device,
    torch_program,
)
from benchmarks.questions import hot
from benchmarks.questions.context import Context
from benchmarks.questions.sizes import Sizes
from benchmarks.scenes import networks
from benchmarks.scenes.windows import deviation, open_peer
from quantjax import segmentation
from quantjax.inference.windows import starts

HEAD = "mixture"  # of the segmentor; the estimator's is linear: variant g-d, the paper's best
PEER = "transformers in torch"
FULL_MEMORY = "RESOURCE_EXHAUSTED"


def windows(sizes: Sizes, context: Context) -> Iterator[dict[str, Any]]:
    """Logits of both heads for standardised windows: the largest batch, with peers, then the others, then TF32."""
    peer, weights = _open(sizes, context)
    images = np.random.default_rng(0).standard_normal((max(sizes.window_batches), *sizes.window, 3), np.float32)
    first, *others = sorted(sizes.window_batches, reverse=True)
    cases = [("bfloat16", first), ("float32", hot.float32_batch(sizes)), *(("bfloat16", batch) for batch in others)]
    for dtype, batch in cases:
        if (dtype, batch) != cases[0] and context.expired():
            return
        asked = hot.window_logits(sizes, dtype, batch)
        ours = compile_program(asked.function, weights, images[:batch], precision=asked.precision)
        modes = [None, context.peer_mode] if (dtype, batch) == cases[0] else [None] if dtype == "float32" else []
        peers = [
            Peer(f"{PEER}, {mode or 'eager'}", partial(_torch, peer, images[:batch], dtype, mode, context, ours))
            for mode in dict.fromkeys(modes)
        ]
        about = {"batch": batch, "attention": _attention(ours.compiled.as_text()), "head": HEAD}
        yield from compare(context, ours, peers, amount=batch, unit="windows", precision=asked.precision, **about)
        del ours


def _open(sizes: Sizes, context: Context) -> tuple[Any, Any]:
    """The peer, None where there is none, and weights on the device; both serve every question of a run."""
    if "scenes" not in context.known:
        network, estimator = networks.build(sizes, "float32", HEAD)
        peer = open_peer(networks.size_of(sizes), HEAD, networks.widths(sizes))
        given = networks.weights_of(peer, network, sizes, HEAD) if peer else networks.weights(network, estimator)
        context.known["scenes"] = peer, jax.device_put(given)
    return context.known["scenes"]


def _attention(text: str) -> str:
    """The kernel that a compiled program holds."""
    return "cudnn" if "__cudnn$fmha" in text else "xla"


def _torch(peer: Any, images: np.ndarray, dtype: str, mode: str | None, context: Context, ours: Program) -> Program:
    """Both heads in torch, the float32 parts as TF32; how far they are from ours goes into the row."""
    if peer is None:
        raise ImportError("torch or transformers", name="transformers")
    import torch

    kind = getattr(torch, dtype)
    network = copy.deepcopy(peer.network).cast(kind)
    batch = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous().to(torch_device(), kind)
    program = torch_program(torch_compiled(network, mode), batch, context=context, mode=mode)
    found = [values.float().cpu().numpy() for values in program.call()]
    logits, unknown = (np.asarray(values) for values in ours.call())
    facts: dict[str, Any] = {"peer_attention": network.backbone.config._attn_implementation}
    facts |= {f"logits_{name}": value for name, value in deviation(logits, found[0]).items()}
    facts["relative_difference"] = difference(unknown, found[1].reshape(unknown.shape))
    return program._replace(facts=program.facts | facts)


def scene(sizes: Sizes, context: Context) -> Iterator[dict[str, Any]]:
    """Seconds for a scene of the host's memory, from pixels to its map of likelihood ratios and its classes."""
    network, estimator = networks.build(sizes, "bfloat16", HEAD)
    weights = _open(sizes, context)[1]
    image = np.random.default_rng(0).integers(0, 256, (*sizes.scene, 3), np.uint8)
    one = jax.ShapeDtypeStruct((1, *sizes.window, 3), np.uint8)
    products = matmul_precision("bfloat16")
    work = counting.work(segmentation.scoring.windows(network, estimator, products), weights, one)
    for turn, given in enumerate(sizes.strides):
        if turn and context.expired():
            return
        stride = (given, given) if isinstance(given, int) else given
        count = window_count(sizes.scene, sizes.window, stride)
        batch = batch_of(count, sizes.window_batches)
        run = segmentation.make_scorer(
            network, estimator, window=sizes.window, stride=stride, batch_size=batch, products=products
        )
        start = time.perf_counter()
        run(weights, image)
        cold = time.perf_counter() - start
        gflop, exact = (round(count * flops / 1e9, 3) for flops in (work.flops, work.exact))
        ours = Program(partial(run, weights, image), cold, {"gflop": gflop, "gflop_float32": exact})
        about = {"stride": list(stride), "windows": count, "batch": batch}
        for row in compare(context, ours, [], amount=1, unit="scenes", precision="bfloat16", **about):
            yield row | {"windows_per_second": round(count / row["seconds"], 3)}


def window_count(scene: tuple[int, int], window: tuple[int, int], stride: tuple[int, int]) -> int:
    """How many windows cover a scene."""
    down, across = (len(starts(*axis)) for axis in zip(scene, window, stride, strict=True))
    return down * across


def batch_of(count: int, batches: tuple[int, ...]) -> int:
    """The batch that fills up least, of several the largest."""
    return min(batches, key=lambda batch: (-(-count // batch) * batch, -batch))


def estimator_step(sizes: Sizes, context: Context) -> Iterator[dict[str, Any]]:
    """A training step of the unknown estimation module (stage 2), for the largest batch of crops that fits."""
    for batch in sizes.crop_batches:
        try:
            asked = hot.stage2_step(sizes, batch)
            ours = compile_program(asked.function, *asked.arguments(), precision=asked.precision, carry=True)
            about = {"batch": batch, "attention": _attention(ours.compiled.as_text())}
            yield from compare(context, ours, [], amount=batch, unit="crops", precision=asked.precision, **about)
            return
        except jax.errors.JaxRuntimeError as error:
            if FULL_MEMORY not in str(error):
                raise
            yield {"batch": batch, "does_not_fit": first_line(error)}


def mixture_step(sizes: Sizes, context: Context) -> Iterator[dict[str, Any]]:
    """Densities of the mixture head, the gradient of its contrast loss, and one step of Sinkhorn EM."""
    asked = hot.gmm_step(sizes)
    ours = compile_program(asked.function, *asked.arguments(), precision=asked.precision, carry=True)
    about = {"classes": sizes.scene_classes, "components": sizes.components, "channels": sizes.channels}
    yield from compare(context, ours, [], amount=asked.amount, unit=asked.unit, precision=asked.precision, **about)
