"""How fast is a training step, and scoring, of QuantOD's Glow flow, here and in FrEIA on torch?

python benchmarks/flow.py --output benchmarks/results/flow_cpu.json     (2 cores: 2 minutes; needs torch and FrEIA)
python benchmarks/flow.py --threads 1                                   (one core: less disturbed by neighbours)
python benchmarks/flow.py --batches 128 4096 65536 --steps 400          (a GPU; FrEIA is left out if missing)

One JSON line per question. Both sides: ActNorm, fixed permutation, Glow coupling (`reference` preset), 8 blocks, 2
layers of 512, D = 128, dropout 0.3 while training, quantile loss q = 0.05 at batch 128, Adam with L2 1e-6; `clip` adds
the preset's gradient-norm clip. Ours differentiates the two rows that carry gradient, FrEIA's program the whole batch.
`epoch` puts --steps steps into one compiled call, `step` one. Calls of all programs alternate; medians are compared;
compilation is counted apart. Ratios are FrEIA's time over ours, of wall clocks and of processor seconds (all threads).
Goals on 2 cores: step at least 3 (Adam), scoring at least 1.4.

`load` counts the programs that wanted a core. Where it exceeds the cores, ratios of several threads say nothing:
torch's threads wait spinning for one another and were seen 40 times slower than alone. There use --threads 1.

What bounds it on a CPU (one core of an EPYC, Zen 4, processor milliseconds):

    scoring 128 rows              28    26 of them in matrix products at 98 GFLOP/s, some 90 % of the core's peak, which
                                        torch reaches too; blocks unrolled instead of scanned: no faster
    training step, Adam           52    28 forward, 5 dropout bits, 19 the two rows and Adam (memory)
      weight gradients in the scan  +10   why flows/deferred.py forms them outside, where they fuse into Adam
      16 random bits per draw        +4   instead of 8 and a shared tie
      unsafe_rbg                    +50   its bits are made serially on a CPU (JAX 0.10); it is meant for accelerators
      clip by the global norm  +20..+50   a sum over ten million numbers that the compiler does not vectorise, and that
                                          keeps gradients from fusing into Adam
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "golden")]
from benchmarks.ceilings import data_sheet, roofline  # noqa: E402, the line above makes them findable
from benchmarks.machine import keep_to, load, machine  # noqa: E402
from benchmarks.timing import alternate  # noqa: E402
from quantjax.machine import cores  # noqa: E402

D, BLOCKS, LAYERS, WIDTH, BATCH, Q = 128, 8, 2, 512, 128, 0.05
GENERATORS = ("threefry2x32", "unsafe_rbg")
GOALS = {"train": 3.0, "score": 1.4}
Call = Callable[[], Any]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batches", nargs="+", type=int, default=[128, 1024], help="rows per call when scoring")
    parser.add_argument("--steps", type=int, default=10, help="training steps in one compiled call of `epoch`")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--threads", type=int, default=cores())
    parser.add_argument("--output", type=Path, help="also write all rows, with machine and versions, to this file")
    return parser.parse_args()


def build_flow() -> Any:
    from quantjax.flows import quantod

    return quantod("glow", dimension=D, blocks=BLOCKS, layers=LAYERS, width=WIDTH, mixing="permutation")


def optimizer(clip: bool) -> Any:
    import optax

    adam = optax.chain(optax.add_decayed_weights(1e-6), optax.adam(9e-5, b1=0.8, b2=0.8, eps=1e-4))
    return optax.chain(optax.clip_by_global_norm(1.0), adam) if clip else adam


def our_training(params: Any, x: np.ndarray, generator: str, steps: int, clip: bool) -> tuple[Call, float]:
    """A call that runs `steps` training steps, and the seconds its compilation took."""
    import jax
    import jax.numpy as jnp

    from quantjax.flows import log_likelihood
    from quantjax.losses import likelihood_objective
    from quantjax.train.loop import make_epoch
    from quantjax.train.step import init_state, make_step

    flow = build_flow()
    value_and_grad = likelihood_objective(partial(log_likelihood, flow), flow.draw_masks, q=Q)
    run = jax.jit(make_epoch(make_step(value_and_grad, optimizer(clip))), donate_argnums=0)
    state = init_state(jax.tree.map(jnp.array, params), optimizer(clip))
    data, key = (jnp.asarray(x), None), jax.random.key(0, impl=generator)
    order = jnp.tile(jnp.arange(BATCH, dtype=jnp.int32), (steps, 1))
    start = time.perf_counter()
    compiled = run.lower(state, data, order, key).compile()
    seconds, held = time.perf_counter() - start, [state]

    def call() -> Any:
        held[0], infos = compiled(held[0], data, order, key)
        return jax.block_until_ready((held[0], infos))[1]

    return call, seconds


def our_scoring(params: Any, x: np.ndarray) -> tuple[Call, float]:
    import jax

    from quantjax.flows import log_likelihood

    args = jax.device_put((params, x))
    start = time.perf_counter()
    compiled = jax.jit(partial(log_likelihood, build_flow())).lower(*args).compile()
    return lambda: jax.block_until_ready(compiled(*args)), time.perf_counter() - start


def parameter_count() -> int:
    import jax

    shape = jax.ShapeDtypeStruct((BATCH, D), np.float32)
    return sum(leaf.size for leaf in jax.tree.leaves(jax.eval_shape(build_flow().init, jax.random.key(0), shape)))


def work(rows: int, training: bool) -> dict[str, float]:
    """GFLOP of the matrix products, and megabytes that must cross memory if the caches hold activations only.

    Training in the two-row form: all rows forward, two forward and backward; parameters are read in three passes, then
    Adam reads and writes parameters and both moments.
    """
    weights = parameter_count()
    flops = 2 * weights * (rows + (2 * 3 if training else 0))
    volume = 4 * weights * (3 + 6 if training else 1) + 4 * rows * D
    return {"gflop": round(flops / 1e9, 3), "megabytes": round(volume / 1e6, 1)}


def report(row: dict[str, Any], ours: tuple[float, float], theirs: tuple[float, float] | None) -> dict[str, Any]:
    """Complete one row: milliseconds of both sides, ratio and goal, rates."""
    import jax

    row |= {"quantjax_ms": round(ours[0], 2), "quantjax_processor_ms": round(ours[1], 2)}
    if theirs is not None:
        row |= {"freia_ms": round(theirs[0], 2), "freia_processor_ms": round(theirs[1], 2)}
        row |= {"ratio": round(theirs[0] / ours[0], 3), "ratio_processor": round(theirs[1] / ours[1], 3)}
        row["goal"] = GOALS[row["question"]]
    facts = work(row["batch"], row["question"] == "train")
    sheet = data_sheet(jax.devices()[0].device_kind)
    row |= facts | roofline(ours[0] / 1e3, facts["gflop"], facts["megabytes"], "float32", sheet)
    row["load"] = load()
    print(json.dumps(row), flush=True)
    return row


def measure_training(params: Any, peer: Any, x: np.ndarray, options: argparse.Namespace) -> list[dict]:
    rows = []
    for clip in (False, True):
        programs, calls = {}, {}
        for generator in GENERATORS:
            for form, steps in (("step", 1), ("epoch", options.steps)):
                calls[f"{generator} {form}"], seconds = our_training(params, x, generator, steps, clip)
                programs[f"{generator} {form}"] = (generator, form, steps, seconds)
        if peer:
            calls["freia"] = peer.training(x, clip)
        medians = alternate(calls, options.repeats)
        for name, (generator, form, steps, seconds) in programs.items():
            row = {"question": "train", "generator": generator, "form": form, "clip": clip, "batch": BATCH}
            row |= {"steps_per_call": steps, "compile_seconds": round(seconds, 2)}
            per_step = (medians[name][0] / steps, medians[name][1] / steps)
            rows.append(report(row, per_step, medians.get("freia")))
    return rows


def measure_scoring(params: Any, peer: Any, options: argparse.Namespace) -> list[dict]:
    rows = []
    for batch in options.batches:
        x = np.random.default_rng(1).normal(1.0, 2.0, (batch, D)).astype(np.float32)
        ours, seconds = our_scoring(params, x)
        calls = {"quantjax": ours} | ({"freia": peer.scoring(x)} if peer else {})
        row = {"question": "score", "batch": batch, "compile_seconds": round(seconds, 2)}
        if peer:
            mine, wanted = np.asarray(ours()), calls["freia"]().cpu().numpy()
            row["relative_difference"] = float(np.abs(mine - wanted).max() / np.abs(wanted).max())
        medians = alternate(calls, options.repeats)
        rows.append(report(row, medians["quantjax"], medians.get("freia")))
    return rows


def make_peer(x: np.ndarray, threads: int) -> Any:
    """FrEIA's program; None where it, or torch, is missing."""
    try:
        import torch

        from benchmarks.peers.freia_torch import Peer

        torch.set_num_threads(threads)
        return Peer(x, BLOCKS, LAYERS, WIDTH)
    except ImportError as error:
        print(f"without FrEIA: {error}", file=sys.stderr)
        return None


def main() -> None:
    options = arguments()
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # torch needs room on the same GPU
    keep_to(options.threads)  # before JAX sizes its thread pool
    import jax

    from quantjax.convert.flows import to_flow

    x = np.random.default_rng(0).normal(1.0, 2.0, (BATCH, D)).astype(np.float32)
    peer = make_peer(x, options.threads)
    params = to_flow(peer.state)[1] if peer else jax.jit(build_flow().init)(jax.random.key(0), x)
    rows = measure_scoring(params, peer, options) + measure_training(params, peer, x, options)
    if options.output:
        about = machine(options.threads)
        about["matmul_precision"] = jax.config.jax_default_matmul_precision or "default"
        options.output.write_text(json.dumps({"machine": about, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
