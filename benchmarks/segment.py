"""How fast is UEM's segmentor here and in PyTorch, its mixture head against the naive form, metrics streamed and exact?

python -m benchmarks.segment --output benchmarks/results/segment_cpu.json        (2 cores; needs torch, transformers)
python -m benchmarks.segment --size small                                        (a quick check of everything)
python -m benchmarks.segment --questions windows --head mixture                  (one question, the other head)
python -m benchmarks.segment --batches 8                                         (a GPU: bfloat16 by itself)

One JSON line per question and batch size. `ratio` is the peer's time over ours: medians of calls that alternate, after
two unmeasured ones; compilation is apart, in `first_call_seconds`. `ratio_processor` compares processor seconds (all
threads of the process); torch's threads spin while they wait, so use it with --threads 1. `load` counts the programs
that wanted a core: where it exceeds the cores, torch's threads wait for one another, and ratios of several threads say
nothing.

windows   One window of 518 x 1036 through ViT-B/14 with registers, decoder and a head of 19 classes, against
          transformers' Dinov2WithRegistersModel and the same decoder and head in torch. Random weights, the same on
          both sides, and logits are compared before anything is timed. Standardised windows lie ready in each side's
          layout. Ours goes through parallel.py: on a CPU a batch that the cores divide is dealt out to them, each a
          device, as the experiments do; any other runs as one program over all cores. `attention` is the kernel that
          ran, `gflop` counts the matrix products and convolutions that ours makes for one window (it multiplies
          doubling and lateral convolution into one, which torch does not: `torch_gflop`), and the rate reached follows
          from it; on a GPU that is known here also its fraction of the arithmetic peak. In bfloat16 torch's weights
          are bfloat16 too, and its head stays in float32 as ours. Goals: 1 on 2 cores in float32, 2 on a GPU in
          bfloat16.
density   Log-densities of 43,808 features of 256 under 95 diagonal Gaussians and their gradient: two matrix products
          against the sum of squared differences, both in JAX. `_temporary_mb` is XLA's own figure of the memory beside
          arguments and results. Where the naive form wants more than --memory, it is timed on as many rows as fit,
          and `naive_rows` says how many; its time is then scaled to all rows.
metrics   AP, FPR95, AUROC of 20 million pixels: sorted as a whole against counted image by image. `_peak_mb` is what
          Python allocated at the most, the pooled pixels included where they must be held.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "golden")]
from benchmarks.machine import keep_to, machine  # noqa: E402, the line above makes it findable
from benchmarks.scenes.sizes import SIZES  # noqa: E402
from quantjax.machine import cores  # noqa: E402

QUESTIONS = ("windows", "density", "metrics")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--questions", nargs="+", choices=QUESTIONS, default=list(QUESTIONS))
    parser.add_argument("--size", choices=list(SIZES), default="full")
    parser.add_argument("--head", choices=("linear", "mixture"), default="linear")
    parser.add_argument(
        "--batches", nargs="+", type=int, help="windows per call; default 1 and one per core, 8 on a GPU"
    )
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), help="default float32, on a GPU bfloat16")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=cores())
    parser.add_argument("--memory", type=float, default=2e9, help="bytes that the naive form may take beside its input")
    parser.add_argument("--output", type=Path, help="also write all rows, with machine and versions, to this file")
    return parser.parse_args()


def main() -> None:
    options = arguments()
    keep_to(options.threads)  # before JAX starts: its thread pool takes the size of this set
    os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.5")  # of a GPU; torch wants some too
    from quantjax import parallel

    parallel.cores_as_devices()
    try:
        import torch

        torch.set_num_threads(options.threads)
    except ImportError:
        pass
    rows = []
    for question in options.questions:
        for row in importlib.import_module(f"benchmarks.scenes.{question}").measure(options):
            rows.append(row)
            print(json.dumps(row), flush=True)
    if options.output:
        options.output.write_text(json.dumps({"machine": machine(options.threads), "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
