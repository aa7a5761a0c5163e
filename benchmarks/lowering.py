"""What every hot function asks of an H100 or H200, read from its program on a CPU: computed, not measured.

python -m benchmarks.lowering                (2 cores: minutes; writes benchmarks/results/computed_roofline.md, .json)
python -m benchmarks.lowering --smoke        (toy sizes, seconds; prints only)
python -m benchmarks.lowering --only knn     (some of the functions)

Each function of benchmarks/questions/hot.py is lowered for CUDA at full size, from shapes: nothing is run, no array is
made. The program must hold no transfer between device and host, no float64, and no convolution in a layout that forces
transposes; the command ends with 1 where one does. Then its arithmetic and traffic are counted and set against the data
sheets' peaks, which gives the least seconds that a call can take.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "benchmarks" / "results" / "computed_roofline.md"
DEVICES = ("H100", "H200")
ABOUT = """# Least times on an H100 and an H200: computed, not measured

No GPU was used. `python -m benchmarks.lowering` lowers every hot function for CUDA on a CPU, from shapes, and counts:

- **GFLOP** of convolutions and matrix products in the traced program, every turn of a loop; **of them float32** are
  those that ask for the highest precision, which no matrix unit offers.
- **least MB**: every convolution and product reads its operands and writes its result once; or, where that is more, all
  arguments are read and all results written once (so the mixture's memory of 778 MB counts twice, of which a step
  rewrites a few rows only). **XLA MB** is XLA's count of what the program reads and writes after its CPU compiler has
  fused it, with one turn of each loop; bfloat16 maps count as float32 there.
- **peak MB**: arguments, results and temporaries as the same compiler places them for the CUDA form of the program. It
  widens bfloat16 maps to float32 and fuses less than the GPU's, so read it as an upper bound.
- **least ms**: the longer of arithmetic (FLOP over the data sheet's dense peak: {peaks}) and memory (least MB over
  {bandwidths}); **rate** is what a call handles over that time. Launches and transfers are not in it. No program
  reaches it; products at 80 % of the peak and copies at 90 % are good.

Read from the same programs: transfers between device and host, float64, and convolutions in a layout that forces
transposes. Found: {found}. **kernels** are library calls that XLA does not make of its own accord.
"""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="toy sizes")
    parser.add_argument("--only", type=lambda names: names.split(","), help="names of functions, with commas between")
    parser.add_argument("--output", type=Path, help=f"Markdown, JSON beside it; at full size {RESULT.name}")
    return parser.parse_args()


def analyse(name: str, hot: Any) -> dict[str, Any]:
    """One row: what the function's CUDA program holds, counts, and needs at the least."""
    from benchmarks.cuda_programs import cuda_program, findings, kernels, lower_here
    from benchmarks.questions.hot import shapes

    start, given = time.perf_counter(), shapes(hot)
    program = cuda_program(hot.function, given, hot.precision)
    lowered, asked = lower_here(program, given, hot.donated), program.work
    compiled = lowered.compile()
    memory, cost = compiled.memory_analysis(), compiled.cost_analysis()
    ends = memory.argument_size_in_bytes + memory.output_size_in_bytes
    least, peak = max(asked.bytes, ends), ends - memory.alias_size_in_bytes + memory.temp_size_in_bytes
    row = {"function": name, "computed": True, "precision": hot.precision, "amount": hot.amount, "unit": hot.unit}
    row |= {"gflop": round(asked.flops / 1e9, 3), "gflop_float32": round(asked.exact / 1e9, 3)}
    row |= {"xla_gflop": round(cost["flops"] / 1e9, 3)}
    volumes = {"least": least, "xla": cost["bytes accessed"], "arguments_and_results": ends, "peak": peak}
    row |= {f"{kind}_megabytes": round(volume / 1e6, 3) for kind, volume in volumes.items()}
    row |= {device: bound(device, hot, asked, least) for device in DEVICES}
    row |= {"kernels": kernels(program.text), "loops": program.text.count("stablehlo.while")}
    return row | findings(program.text, compiled.as_text()) | {"seconds": round(time.perf_counter() - start, 1)}


def bound(device: str, hot: Any, asked: Any, volume: int) -> dict[str, Any]:
    """Least seconds on a device by its data sheet, which bound it is, and the rate."""
    from benchmarks.ceilings import SHEET, least_seconds

    exact = asked.exact / 1e9
    kind, seconds = least_seconds(asked.flops / 1e9, volume / 1e6, hot.precision, SHEET[device], exact)
    return {"least_seconds": seconds, "bound": kind, "rate": hot.amount / seconds}


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown of all rows, and what the figures are."""
    from benchmarks.ceilings import SHEET
    from benchmarks.cuda_programs import PROBLEMS

    sheets = {device: SHEET[device] for device in DEVICES}
    peaks = ", ".join(f"{flops / 1e12:g} TFLOP/s {name}" for name, flops in sheets[DEVICES[0]].flops.items())
    widths = " and ".join(f"{sheet.bytes / 1e12:g} TB/s on an {device}" for device, sheet in sheets.items())
    problems = [f"{row['function']}: {name}" for row in rows for name in ("error", *PROBLEMS) if row.get(name)]
    about = ABOUT.format(peaks=peaks, bandwidths=widths, found="; ".join(problems) or "none")
    head = ["function", "a call", "precision", "GFLOP", "of them float32", "least MB", "XLA MB", "peak MB"]
    head += [f"{device}: least ms, bound, rate" for device in DEVICES] + ["kernels"]
    lines = [head, ["---"] * len(head), *(_cells(row) for row in rows if "error" not in row)]
    return about + "\n" + "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _cells(row: dict[str, Any]) -> list[str]:
    amounts = ("gflop", "gflop_float32", "least_megabytes", "xla_megabytes", "peak_megabytes")
    numbers = [f"{row[name]:,.0f}" if row[name] >= 100 else f"{row[name]:.3g}" for name in amounts]
    times = [
        f"{of['least_seconds'] * 1e3:.3g}, {of['bound']}, {of['rate']:,.0f} {row['unit']}/s"
        for of in (row[device] for device in DEVICES)
    ]
    first = [row["function"], f"{row['amount']:,} {row['unit']}", row["precision"]]
    return [*first, *numbers, *times, ", ".join(row["kernels"])]


def ask(name: str, build: Callable[[Any], Any], sizes: Any) -> dict[str, Any]:
    """The row of a hot function, or why there is none."""
    from benchmarks.programs import first_line

    try:
        return analyse(name, build(sizes))
    except Exception as error:
        return {"function": name, "error": f"{type(error).__name__}: {first_line(error)}"}


def main() -> None:
    options = arguments()
    os.environ["JAX_PLATFORMS"] = "cpu"
    from benchmarks.cuda_programs import PROBLEMS
    from benchmarks.questions.hot import HOT
    from benchmarks.questions.sizes import FULL, SMOKE

    rows = []
    for name in options.only or HOT:
        rows.append(ask(name, HOT[name], SMOKE if options.smoke else FULL))
        print(json.dumps(rows[-1]), flush=True)
    text = table(rows)
    output = options.output or (None if options.smoke or options.only else RESULT)
    if output:
        output.write_text(text)
        output.with_suffix(".json").write_text(json.dumps({"computed": True, "rows": rows}, indent=1) + "\n")
    print(text)
    sys.exit(any(row.get(name) for row in rows for name in ("error", *PROBLEMS)))


if __name__ == "__main__":
    main()
