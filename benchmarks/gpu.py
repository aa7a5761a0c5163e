"""Every question about speed on an accelerator, answered by one command that needs no data and no network.

    python -m benchmarks.gpu --out DIR                            (8 minutes, most valuable first; again: goes on)
    python -m benchmarks.gpu --out DIR --only ceilings,scoring
    python -m benchmarks.gpu --out DIR --smoke                    (toy sizes, any machine, under two minutes)
    python -m benchmarks.gpu --out DIR --train DATA               (WRN-40-2 and its flows on the CIFAR-10 in DATA)
    python -m benchmarks.gpu --list

Random uint8 images and random weights of the real shapes. Every answer is one line of DIR/rows.jsonl the moment it is
known, so a run that is cut off keeps what it has; the same command goes on with what is missing. The budgets of all
questions together are about 17 minutes of an H100, estimated and never tried there. A question that fails
leaves its error and the next one is asked. At the end DIR/table.md and DIR/rows.json hold the rows.

A row that is a speed has the median `seconds` of calls that alternate with the peer's, compilation apart, the
precision, and the fraction of the ceiling (arithmetic or memory, whichever takes longer) measured in the same run.
`ratio` is the peer's time over ours. Peers need torch, some FrEIA or transformers; without them rows come without.
Run it from the project's root; nothing needs to be installed. The project's own packages jax, flax, optax suffice,
--train also wants orbax-checkpoint and safetensors.
"""

from __future__ import annotations

import argparse
import atexit
import gc
import math
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NoReturn

from benchmarks.questions import QUESTIONS, Question

ROOT = Path(__file__).resolve().parent.parent
SPARE, GRACE = 2.0, 20.0  # cut off: a question at so many times its budget, and so many seconds after the last minute


class Parser(argparse.ArgumentParser):
    """One line for a wrong flag."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message}; see python -m benchmarks.gpu --help\n")


def arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    parser.add_argument("--out", type=Path, help="folder of the results")
    parser.add_argument("--minutes", type=float, default=8.0, help="no question begins that does not fit any more")
    parser.add_argument("--only", help="names of questions, joined by commas")
    parser.add_argument("--smoke", action="store_true", help="toy sizes: does everything run?")
    parser.add_argument("--train", type=Path, metavar="DATA", help="train on DATA/cifar-10-batches-py instead")
    parser.add_argument("--list", action="store_true", help="names and budgets of the questions, and no more")
    options = parser.parse_args(argv)
    known = {question.name: question for question in QUESTIONS}
    names = options.only.split(",") if options.only else list(known)
    if unknown := [name for name in names if name not in known]:
        parser.error(f"--only names {', '.join(unknown)}; known are {', '.join(known)}")
    options.questions = [question for name, question in known.items() if name in names]
    if not options.list and options.out is None:
        parser.error("--out DIR is needed, the folder of the results")
    if options.out is not None and options.out.exists() and not options.out.is_dir():
        parser.error(f"--out must be a folder, {options.out} is a file")
    if not options.minutes > 0:
        parser.error(f"--minutes must be positive, got {options.minutes}")
    if options.train is not None and not options.train.is_dir():
        parser.error(f"--train must be a folder with data sets, there is none at {options.train}")
    return options


def main(argv: list[str] | None = None) -> int:
    """Ask the questions; returns the exit status, 1 where one of them failed."""
    began, options = time.monotonic(), arguments(argv)
    if options.list:
        for question in options.questions:
            print(f"{question.name:<20} {question.seconds:>4.0f} s")
        return 0
    prepare(options.smoke)
    from benchmarks.questions.sizes import FULL, SMOKE

    sizes, end = SMOKE if options.smoke else FULL, began + 60 * options.minutes
    if options.train:
        from benchmarks.training import train

        return train(options.train, options.out, sizes, end)
    return ask_all(options.questions, options.out, sizes, end)


def prepare(smoke: bool) -> None:
    """What must be set before JAX and torch start: memory is not taken in advance, as both share the device."""
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:  # programs that two questions ask for compile once in a run
        cache = tempfile.TemporaryDirectory(prefix="compiled-")
        atexit.register(cache.cleanup)
        os.environ["JAX_COMPILATION_CACHE_DIR"] = cache.name
        os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.1"
    if smoke:  # compiling is all that takes time
        os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")
    folders = (ROOT, ROOT / "tests", ROOT / "tests" / "golden")
    sys.path[:0] = [str(folder) for folder in folders if str(folder) not in sys.path]


def ask_all(questions: list[Question], folder: Path, sizes: Any, end: float) -> int:
    """Ask one after the other until `end`, a reading of time.monotonic(); returns 1 where one failed."""
    from benchmarks import machine
    from benchmarks.questions.sizes import SMOKE
    from benchmarks.rows import RowFile

    about = machine.device() | {"versions": machine.versions(), "smoke": sizes is SMOKE}
    rows, known, failed = RowFile(folder, about), {}, False
    answered, begun = rows.answered(), rows.begun()
    # what an earlier run began and did not finish comes last: it may have been what ended that run
    for question in sorted(questions, key=lambda question: begun[question.name]):
        left = end - time.monotonic()
        if question.name in answered:
            print(f"{question.name}: answered before", flush=True)
        elif sizes.budgets and left < question.seconds:
            rows.write({"question": question.name, "skipped": f"wants {question.seconds:.0f} s, {left:.0f} s are left"})
        else:
            rows.about["versions"] = machine.versions()
            failed |= not ask(question, rows, sizes, end, known)
            release()
    rows.finish()
    print(f"{rows.folder / 'table.md'}", flush=True)
    return int(failed)


def ask(question: Question, rows: Any, sizes: Any, end: float, known: dict[str, Any]) -> bool:
    """Write the rows of one question, or its error; returns whether there was none."""
    from benchmarks.programs import first_line
    from benchmarks.questions.context import Context
    from benchmarks.rows import BEGIN, FINISHED

    name, began = question.name, time.monotonic()
    budget = question.seconds if sizes.budgets else math.inf
    context = Context(sizes, budget, end, known)
    rows.write({"question": name, BEGIN: True})
    try:
        with context.limit(min(SPARE * budget, end + GRACE - began)):
            for row in question.open()(sizes, context):
                rows.write({"question": name} | row)
    except Exception as error:
        rows.write({"question": name, "error": f"{type(error).__name__}: {first_line(error)}"})
        return False
    seconds = round(time.monotonic() - began, 1)
    rows.write({"question": name} | ({"stopped": f"after {seconds} s"} if context.stopped else {FINISHED: seconds}))
    return True


def release() -> None:
    """Give back what the last question's programs held on the device."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.compiler.reset()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


if __name__ == "__main__":
    sys.exit(main())
