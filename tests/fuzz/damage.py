"""Damage a valid input of every reader at random: only our own error, which names the file, may come of it.

    python -m tests.fuzz.damage --count 100000 --seed 0             (two cores: under an hour)
    python -m tests.fuzz.damage --count 2000 --kinds COCO MATLAB

Every input is a function of seed, kind and number. Inputs are read in child processes, so that a crash or a hang is
counted and lets the others go on. One line per kind: inputs, how many were read all the same, how many were refused,
and what should not have happened, with the number to repeat it (--kinds KIND --first NUMBER --count 1). Exit status 1
when anything should not have happened.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from tests.fuzz.kinds import KINDS, Kind
from tests.fuzz.mutations import damaged

SECONDS = 10.0  # an input may take; a machine that does much else needs some of them
MEGABYTES = 1500  # a process may take more than before its first input
READ, REFUSED = "read", "refused"
PER_PROCESS = 5000


def run_one(kind: Kind, name: str, number: int, seed: int, folder: Path, files: Sequence[Path]) -> str:
    """READ, REFUSED, or what happened instead, of one input; the folder is as before afterwards."""
    rng = np.random.default_rng([seed, sum(name.encode()), number])
    file = files[int(rng.integers(len(files)))]
    kept = {one: one.read_bytes() for one in files}
    try:
        file.write_bytes(damaged(kept[file], rng))
        if kind.seal and rng.random() < 0.5:
            kind.seal(folder)
        return outcome(kind, folder, file)
    finally:
        for one, content in kept.items():
            one.write_bytes(content)


def outcome(kind: Kind, folder: Path, file: Path) -> str:
    """What reading the damaged file comes to."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            kind.read(folder, file)
    except (ValueError, OSError) as error:
        if str(folder) in str(error):
            return REFUSED
        return f"names no file: {type(error).__name__}: {error!s:.160}"
    except (Exception, SystemExit) as error:
        return f"raw {type(error).__name__}: {error!s:.160}"
    return READ


def inputs(
    name: str, numbers: Sequence[int], seed: int, made: Callable[[], None] = lambda: None
) -> Iterator[tuple[int, str, float]]:
    """(number, outcome, seconds) of inputs of one kind, read here; made() is called when the valid one was read."""
    kind = KINDS[name]
    with tempfile.TemporaryDirectory(prefix="fuzz-") as place:
        folder = Path(place).resolve()
        files = kind.make(folder)
        for file in files:
            kind.read(folder, file)
        made()
        for number in numbers:
            begun = time.perf_counter()
            yield number, run_one(kind, name, number, seed, folder, files), time.perf_counter() - begun


def child(name: str, first: int, count: int, seed: int) -> None:
    """Read inputs, with bounded memory, and say of each first its number and then what came of it."""
    told = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # libraries print

    def made() -> None:
        print("made", file=told)
        _bound_memory()

    for number, result, seconds in inputs(name, range(first, first + count), seed, made):
        print(json.dumps([number, result, round(seconds, 3)]), file=told)
    print("end", file=told)


def _bound_memory() -> None:
    """From now on MEGABYTES more; where the system has no such bound, none."""
    try:
        import resource

        now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (now + MEGABYTES * 2**20,) * 2)
    except (ImportError, OSError, ValueError):
        pass


def batch(name: str, first: int, count: int, seed: int) -> Iterator[tuple[int, str, float]]:
    """The inputs first to first + count, whatever becomes of the processes that read them."""
    last = first + count
    while first < last:
        command = [sys.executable, "-m", "tests.fuzz.damage", "--child", name, str(first), str(last - first), str(seed)]
        environment = os.environ | {"JAX_PLATFORMS": "cpu", "OMP_NUM_THREADS": "1", "NPROC": "1"}
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
        )
        lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=_pass_on, args=(process, lines), daemon=True).start()
        began = False
        while True:
            try:
                line = lines.get(timeout=SECONDS if began else 20 * SECONDS).strip()
            except queue.Empty:
                process.kill()
                yield first, f"hangs: more than {SECONDS:.0f} s", SECONDS
                first += 1
                break
            if line == "end":
                first = last
                break
            if not line:
                status = process.wait()
                if not began:
                    yield first, f"the valid input cannot be made or read, status {status}", 0.0
                    return
                yield first, f"crashes the process, status {status}", 0.0
                first += 1
                break
            if line == "made":
                began = True
            if line.startswith("["):
                number, result, seconds = json.loads(line)
                yield number, result, seconds
                first = number + 1
        process.kill()
        process.wait()


def _pass_on(process: subprocess.Popen[str], lines: queue.Queue[str]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        lines.put(line)
    lines.put("")


def shares(names: Sequence[str], count: int) -> dict[str, int]:
    """How many inputs of each kind, `count` in all, by their shares."""
    total = sum(KINDS[name].share for name in names)
    return {name: max(1, round(count * KINDS[name].share / total)) for name in names}


def summary(name: str, results: Sequence[tuple[int, str, float]]) -> dict[str, Any]:
    """One kind in a line."""
    counted = Counter(result for _, result, _ in results)
    wrong = {number: result for number, result, _ in results if result not in (READ, REFUSED)}
    kinds = Counter(result[:60] for result in wrong.values())
    first = {text: next(n for n, result in wrong.items() if result.startswith(text)) for text in kinds}
    return {
        "kind": name,
        "inputs": len(results),
        READ: counted[READ],
        REFUSED: counted[REFUSED],
        "wrong": len(wrong),
        "slowest_seconds": max(seconds for *_, seconds in results),
        "examples": [f"{count} x number {first[text]}: {wrong[first[text]]}" for text, count in kinds.items()],
    }


def known_here(names: Sequence[str]) -> tuple[list[str], list[str]]:
    """(kinds that can be read here, those whose package is missing)."""
    there = [name for name in names if not KINDS[name].needs or find_spec(KINDS[name].needs)]
    return there, [name for name in names if name not in there]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=10_000, help="inputs in all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS), metavar="KIND")
    parser.add_argument("--first", type=int, default=0, help="number of the first input of each kind")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        name, first, count, seed = options.child
        child(name, int(first), int(count), int(seed))
        return 0
    names, missing = known_here(options.kinds)
    for name in missing:
        print(json.dumps({"kind": name, "left_out": f"{KINDS[name].needs} is not installed"}), flush=True)
    begun, total, wrong = time.monotonic(), 0, 0

    def work(name: str) -> dict[str, Any]:
        count = shares(names, options.count)[name]
        parts = range(options.first, options.first + count, PER_PROCESS)
        ends = options.first + count
        results = [row for part in parts for row in batch(name, part, min(PER_PROCESS, ends - part), options.seed)]
        return summary(name, results)

    with ThreadPoolExecutor(options.processes) as pool:
        for row in pool.map(work, names):
            print(json.dumps(row, ensure_ascii=False), flush=True)
            total, wrong = total + row["inputs"], wrong + row["wrong"]
    seconds = time.monotonic() - begun
    whole = {"inputs": total, "wrong": wrong, "seconds": round(seconds), "per_second": round(total / seconds, 1)}
    print(json.dumps(whole))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
