"""What do a picture's size and the number of cores cost?

python -m benchmarks.pictures --output benchmarks/results/pictures_cpu.json             (2 cores; a few minutes)
python -m benchmarks.pictures --against OTHER_CHECKOUT                                  (beside another build)

One JSON line per question; every measurement is a process of its own, as devices are counted when JAX starts, and its
memory is the highest resident size of that process. The networks are those of the bundled scenes, with random weights.

photograph  One picture of 1000 x 1500 through windows of 112 x 224 with strides of 56 and 112 (221 windows): median
            seconds of three calls after one unmeasured, on one core, on all, and with eight devices on all cores.
            `ratio` is one core's time over that of all cores.
sizes       As many pictures of as many sizes as --pictures says, from one to two windows a side, and as many of one
            size, both after one unmeasured picture. `ratio` is the time a window of many sizes over that of one;
            programs that had to be compiled are in it. `grown_mb` is what memory grew by meanwhile.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
WINDOW, STRIDE, PHOTOGRAPH = (112, 224), (56, 112), (1000, 1500)
CLASSES, CHANNELS = 7, 64


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--against", type=Path, help="a checkout of another build, measured in the same run")
    parser.add_argument("--pictures", type=int, default=200)
    parser.add_argument("--output", type=Path, help="also write all rows, with machine and versions, to this file")
    parser.add_argument("--measure", help=argparse.SUPPRESS)  # one measurement, in this process
    return parser.parse_args()


def main() -> None:
    options = arguments()
    if options.measure:
        print(json.dumps(measure(**json.loads(options.measure))))
        return
    sys.path[:0] = [str(ROOT)]  # not where another build is measured
    from benchmarks.machine import machine
    from quantjax.machine import cores

    builds = {"": ROOT} | ({"other_": options.against.resolve()} if options.against else {})
    rows = [photograph(builds, cores()), sizes(builds, options.pictures, cores())]
    for row in rows:
        print(json.dumps(row), flush=True)
    if options.output:
        content = {"machine": machine(cores()), "rows": rows}
        options.output.write_text(json.dumps(content, indent=2) + "\n")


def photograph(builds: dict[str, Path], every: int) -> dict[str, Any]:
    """Seconds and megabytes on one core, on all, and with eight devices."""
    places = {"one_core": (1, 1), "all_cores": (every, every), "eight_devices": (every, 8)}
    row: dict[str, Any] = {"question": "photograph", "cores": every}
    for build, folder in builds.items():
        for place, (cores, devices) in places.items():
            found = in_a_process(folder, cores, every, devices=devices, first=[PHOTOGRAPH], then=[PHOTOGRAPH] * 3)
            row[f"{build}{place}_seconds"] = round(statistics.median(found["seconds"]), 2)
            row[f"{build}{place}_mb"] = round(found["peak_mb"])
        row[f"{build}ratio"] = round(row[f"{build}one_core_seconds"] / row[f"{build}all_cores_seconds"], 2)
    return row


def sizes(builds: dict[str, Path], count: int, every: int) -> dict[str, Any]:
    """Seconds of `count` pictures of one size and of `count` sizes, on all cores."""
    middle = tuple(int(1.5 * side) for side in WINDOW)
    many = [(WINDOW[0] + (67 * i) % WINDOW[0], WINDOW[1] + (97 * i) % WINDOW[1]) for i in range(count)]
    row: dict[str, Any] = {"question": "sizes", "pictures": count}
    for build, folder in builds.items():
        for name, pictures in (("one_size", [middle] * count), ("many_sizes", many)):
            found = in_a_process(folder, every, every, devices=every, first=[middle], then=pictures)
            row[f"{build}{name}_seconds"] = round(sum(found["seconds"]), 2)
            row[f"{build}{name}_windows"] = sum(map(windows, pictures))
            row[f"{build}{name}_grown_mb"] = round(found["peak_mb"] - found["first_mb"])
        single, several = (
            row[f"{build}{name}_seconds"] / row[f"{build}{name}_windows"] for name in ("one_size", "many_sizes")
        )
        row[f"{build}ratio"] = round(several / single, 2)
    return row


def windows(size: tuple[int, int]) -> int:
    """How many windows cover a picture."""
    from quantjax.inference import starts

    rows, columns = (len(starts(*lengths)) for lengths in zip(size, WINDOW, STRIDE, strict=True))
    return rows * columns


def in_a_process(build: Path, cores: int, every: int, **what: Any) -> dict[str, Any]:
    """What `measure` finds in a process of its own, on `cores` of the `every`, with the library of this checkout."""
    from benchmarks.machine import keep_to

    bind = None if cores == every else partial(keep_to, cores)  # before JAX starts its threads
    command = [sys.executable, str(Path(__file__).resolve()), "--measure", json.dumps(what)]
    environment = os.environ | {"PYTHONPATH": str(build), "JAX_PLATFORMS": "cpu"}
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, preexec_fn=bind)
    if ran.returncode:
        raise RuntimeError(f"{build}: {ran.stderr[-2000:]}")
    return json.loads(ran.stdout.splitlines()[-1])


def measure(devices: int, first: list[list[int]], then: list[list[int]]) -> dict[str, Any]:
    """Seconds of each of `then`, and the memory after `first` and at the end."""
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
    import numpy as np

    score = scorer(batch_size=max(2, devices))
    rng = np.random.default_rng(0)

    def seconds(size: list[int]) -> float:
        image = rng.integers(0, 256, (*size, 3), np.uint8)
        begin = time.perf_counter()
        score(image)
        return time.perf_counter() - begin

    for size in first:
        seconds(size)
    before = peak_mb()
    return {"seconds": [seconds(size) for size in then], "first_mb": before, "peak_mb": peak_mb()}


def peak_mb() -> float:
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def scorer(batch_size: int) -> Any:
    """image -> maps: the networks of the bundled scenes with random weights."""
    from functools import partial

    import jax
    import jax.numpy as jnp

    from quantjax import segmentation

    network = segmentation.make_segmentor("vit_tiny_scratch", CLASSES, channels=CHANNELS)
    estimator = segmentation.make_estimator()
    blank = jnp.zeros((1, *WINDOW, 3))
    variables = jax.jit(partial(segmentation.init_segmentor, network))(jax.random.key(0), blank)
    maps = jax.eval_shape(network.features, variables["backbone"], blank)
    tokens = jnp.zeros(segmentation.last_map(maps).shape)
    unknown = jax.jit(partial(segmentation.init_estimator, estimator))(jax.random.key(1), tokens)
    run = segmentation.make_scorer(network, estimator, window=WINDOW, stride=STRIDE, batch_size=batch_size)
    return partial(run, (variables, unknown))


if __name__ == "__main__":
    main()
