"""How much faster are flows of several seeds trained together than one after the other?

python benchmarks/together.py --output benchmarks/results/together_cpu.json     (2 cores: 5 minutes)

One JSON line per size: `flows.fit_together` of three seeds, and `flows.fit` three times, as they are called: a call
traces its program, and finds it compiled on disk. Preset reference, quantile loss, two epochs of --rows random rows.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT)]
from benchmarks.machine import load, machine  # noqa: E402, the line above makes them findable
from benchmarks.timing import alternate  # noqa: E402
from quantjax.machine import cores  # noqa: E402

SEEDS = (0, 1, 2)
SIZES = ((16, 32, 32), (64, 128, 32), (128, 512, 128))  # features, neurons, rows of a batch; the last is the paper's


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=12800)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output", type=Path, help="also write all rows, with machine and versions, to this file")
    options = parser.parse_args()
    from quantjax import flows, parallel

    parallel.enable_compilation_cache(Path(tempfile.mkdtemp()))
    rows = []
    for dimension, width, batch in SIZES:
        x = np.random.default_rng(0).normal(1.0, 2.0, (options.rows, dimension)).astype(np.float32)
        settings = {"preset": "reference", "width": width, "batch_size": batch, "epochs": 2}
        calls = {
            "together": lambda x=x, settings=settings: flows.fit_together(x, seeds=SEEDS, **settings),
            "apart": lambda x=x, settings=settings: [flows.fit(x, seed=seed, **settings) for seed in SEEDS],
        }
        medians = alternate(calls, options.repeats)
        row = {"features": dimension, "width": width, "batch": batch, "flows": len(SEEDS), "load": load()}
        row |= {f"{name}_seconds": round(value[0] / 1e3, 3) for name, value in medians.items()}
        row["ratio"] = round(medians["apart"][0] / medians["together"][0], 2)
        row["ratio_processor"] = round(medians["apart"][1] / medians["together"][1], 2)
        rows.append(row)
        print(json.dumps(row), flush=True)
    if options.output:
        options.output.write_text(json.dumps({"machine": machine(cores()), "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
