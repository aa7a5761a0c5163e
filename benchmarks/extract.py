"""How fast does a frozen backbone turn images into logits and features, here and in PyTorch eager?

python benchmarks/extract.py --output benchmarks/results/extract_cpu.json      (2 cores: about 3 minutes; needs torch)
python benchmarks/extract.py --threads 1                                       (one core: less disturbed by neighbours)
python benchmarks/extract.py --batches 1024 4096 --dtype bfloat16              (a GPU; torch is left out if missing)

One JSON line per network and batch size. Same weights on both sides, logits compared before timing; standardised images
lie ready in each side's own layout (NHWC; NCHW for torch, eval and inference mode). On a CPU ours splits the batch over
the cores, each a device, as the experiments do: left to itself XLA keeps hardly more than one core busy with
convolutions (0.78 to 0.81 of torch's speed). Calls alternate, medians are compared, compilation is counted apart.
`ratio` is torch's time over ours, of wall clocks and of processor seconds (all threads of the process). Processor
seconds judge the work done, also on a shared machine, except that torch's threads spin while they wait: use them with
--threads 1.

What bounds it on a CPU: the 3x3 convolutions of 32 and more channels run at some 85 % of the cores' multiply-add peak,
and are nearly all of WRN-40-2's time. What was tried on one core of an EPYC (Zen 4), GFLOP/s of a 3x3 convolution of
batch 32, counted as a direct one, for maps of 32x32x16, 32x32x32, 16x16x64, 8x8x128:

    XLA convolution, NHWC          47   90   97  100      kept
    two pixels packed as one       57    -    -    -      kept for blocks of 16 channels (65 at 16x16x32, against 100)
    torch (oneDNN), NCHW           58   90  102  116
    space to depth, 2 x 2          40    -    -    -
    sum of nine shifted matmuls    32   17   63   86
    three matmuls over 3 C         20   15   43   76
    patches (im2col), one matmul    7   14   24   70
    Winograd F(2x2, 3x3)           38   23  100   97
    Winograd F(4x4, 3x3)           34   51   97   92      and ten times the rounding error

Slices of 16 images inside the compiled batch keep the maps in the caches: 10-20 % at batches of 128.
Folding the norms gains 0-2 % there, as XLA fuses multiply-adds with their neighbours anyway.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "golden")]
from benchmarks.ceilings import data_sheet, roofline  # noqa: E402, the line above makes them findable
from benchmarks.counting import work  # noqa: E402
from benchmarks.machine import keep_to, machine  # noqa: E402
from benchmarks.timing import alternate  # noqa: E402
from quantjax.machine import cores  # noqa: E402

PRECISIONS = {"float32": "tensorfloat32", "bfloat16": "bfloat16"}  # of a GPU, where float32 convolutions run as TF32


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", default=["wrn40_2", "resnet20"])
    parser.add_argument("--batches", nargs="+", type=int, default=[32, 128])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=cores())
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--output", type=Path, help="also write all rows, with machine and versions, to this file")
    return parser.parse_args()


def ours(name: str, variables: Any, images: Any, dtype: str) -> tuple[Callable[[], Any], dict[str, Any]]:
    """A call that returns when logits and features are there, and what is known about it."""
    import jax
    import jax.numpy as jnp

    from quantjax import parallel
    from quantjax.extractors import BACKBONES, extract, fold

    model, folded = fold(BACKBONES[name].build(10, dtype=jnp.dtype(dtype)), variables)

    args = (parallel.replicate(folded), images)
    compiled = parallel.data_parallel(lambda v, x, axis_name: extract(model, v, x), (None, 0), 0)
    start = time.perf_counter()
    jax.block_until_ready(compiled(*args))
    seconds = time.perf_counter() - start
    flops, volume, _ = work(lambda v, x: model.apply(v, x)[:2], *args)
    facts = {"compile_seconds": round(seconds, 3), "gflop": round(flops / 1e9, 2), "megabytes": round(volume / 1e6, 1)}
    return lambda: jax.block_until_ready(compiled(*args)), facts


def theirs(name: str, images: Any, dtype: str) -> tuple[Callable[[], Any], dict[str, Any]] | None:
    """The same for torch with its state dict; None where torch is missing."""
    try:
        import torch
        from random_weights import random_state
        from torch_networks import build
    except ImportError:
        return None
    device = "cuda" if torch.cuda.is_available() else "cpu"
    network = build(name).eval()
    shapes = {k: tuple(v.shape) for k, v in network.state_dict().items() if not k.endswith("num_batches_tracked")}
    state = random_state(list(shapes), list(shapes.values()))
    network.load_state_dict({k: torch.from_numpy(v) for k, v in state.items()}, strict=False)
    network, batch = network.to(device), torch.from_numpy(images).permute(0, 3, 1, 2).contiguous().to(device)
    if dtype != "float32":
        network, batch = network.to(getattr(torch, dtype)), batch.to(getattr(torch, dtype))

    def call() -> Any:
        with torch.inference_mode():
            out = network(batch)
        if device == "cuda":
            torch.cuda.synchronize()
        return out

    return call, state


def measure(name: str, batch: int, options: argparse.Namespace) -> dict[str, Any]:
    import jax

    from quantjax.convert.classifiers import to_variables
    from quantjax.extractors import BACKBONES

    images = np.random.default_rng(0).normal(size=(batch, 32, 32, 3)).astype(np.float32)
    peer = theirs(name, images, options.dtype)
    if peer:
        variables = to_variables(peer[1], name, 10)
    else:
        variables = jax.jit(BACKBONES[name].build(10).init)(jax.random.key(0), images[:1])
    call, facts = ours(name, variables, images, options.dtype)
    calls = {"quantjax": call} | ({"torch": peer[0]} if peer else {})
    row = {"network": name, "batch": batch, "dtype": options.dtype, "threads": options.threads} | facts
    if peer:
        mine, wanted = np.asarray(call()[0]), peer[0]()[0].float().cpu().numpy()
        row["relative_difference"] = float(np.abs(mine - wanted).max() / np.abs(wanted).max())
        if options.dtype == "float32" and jax.default_backend() == "cpu" and row["relative_difference"] > 1e-4:
            raise SystemExit(f"logits differ by {row['relative_difference']}: nothing to time")
    medians = alternate(calls, options.repeats)
    for who, (wall, processor) in medians.items():
        row |= {f"{who}_ms": round(wall, 2), f"{who}_processor_ms": round(processor, 2)}
        row[f"{who}_images_per_second"] = round(1e3 * batch / wall, 1)
    if peer:
        row["ratio"] = round(medians["torch"][0] / medians["quantjax"][0], 3)
        row["ratio_processor"] = round(medians["torch"][1] / medians["quantjax"][1], 3)
    sheet, seconds = data_sheet(jax.devices()[0].device_kind), medians["quantjax"][0] / 1e3
    return row | roofline(seconds, facts["gflop"], facts["megabytes"], PRECISIONS[options.dtype], sheet)


def main() -> None:
    options = arguments()
    keep_to(options.threads)  # before JAX starts: its thread pool takes the size of this set
    from quantjax import parallel

    parallel.cores_as_devices()
    try:
        import torch

        torch.set_num_threads(options.threads)
    except ImportError:
        pass
    rows = []
    for name in options.networks:
        for batch in options.batches:
            rows.append(measure(name, batch, options))
            print(json.dumps(rows[-1]), flush=True)
    if options.output:
        options.output.write_text(json.dumps({"machine": machine(options.threads), "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
