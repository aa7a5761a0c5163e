"""Carry out the runs of tables and figures, and write these."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

import jax
import tyro

from experiments.images.config import QuantOD
from experiments.papers.jobs import SMALLEST, Done, Job, carry_out, jobs, values
from experiments.papers.layout import rows, to_csv, to_latex, to_markdown
from experiments.papers.plan import Plan
from quantjax.atomic import write_text

FOLDER = "tables"  # in the workdir


def reproduce_all(
    plans: Mapping[str, Plan],
    flags: Sequence[str],
    seeds: Sequence[int],
    *,
    workdir: Path,
    data_dir: Path | None,
    smoke: bool = False,
) -> int:
    """Run what is missing, and write workdir/tables/<name>.* for each name; 1 when a run failed, else 0.

    `flags` are those of experiments.quantod for all runs, in place of the paper's. Every run is there once, however
    many lines read it.
    """
    wanted = {
        name: jobs(plan, _flags(plan, flags, workdir, data_dir, smoke), seeds, smoke=smoke)
        for name, plan in plans.items()
    }
    configs = list(dict.fromkeys(job.config for own in wanted.values() for job in own))
    with _quick_compiling() if smoke else nullcontext():
        finished = _carry_out_all(configs)
    for name, plan in plans.items():
        _write(workdir / FOLDER / name, plan, [(job, finished[job.config]) for job in wanted[name]])
    return 1 if any(done.failed for done in finished.values()) else 0


@contextmanager
def _quick_compiling() -> Iterator[None]:
    """Compiling is most of a small run."""
    jax.config.update("jax_disable_most_optimizations", True)
    try:
        yield
    finally:
        jax.config.update("jax_disable_most_optimizations", False)


def _flags(plan: Plan, flags: Sequence[str], workdir: Path, data_dir: Path | None, smoke: bool) -> QuantOD:
    """The paper's settings, with the user's in their place; tyro ends the program where these are malformed."""
    base = {**plan.flags, **(SMALLEST if smoke else {}), "workdir": workdir, "data_dir": data_dir}
    return tyro.cli(QuantOD, args=list(flags), default=QuantOD(**base), prog="python -m experiments.tables ... --")


def _carry_out_all(configs: Sequence[QuantOD]) -> dict[QuantOD, Done]:
    classifiers: dict[str, Path] = {}
    finished: dict[QuantOD, Done] = {}
    start = time.monotonic()
    for number, config in enumerate(configs):
        print(f"---- run {number + 1} of {len(configs)}{_left(start, number, len(configs))}", flush=True)
        finished[config] = done = carry_out(config, classifiers)
        for name, reason in done.reasons.items():
            print(f"left out: {name}: {reason}", flush=True)
    return finished


def _left(start: float, done: int, total: int) -> str:
    if not done:
        return ""
    return f", about {(time.monotonic() - start) / done * (total - done) / 60.0:.1f} minutes left"


def _write(path: Path, plan: Plan, done: Sequence[tuple[Job, Done]]) -> None:
    from experiments.papers.drawing import draw

    found = list(values(plan, done))
    text = to_markdown(plan, found)
    about = {"title": plan.title, "source": plan.source, "rows": rows(found)}
    about["runs"] = [done.results["config"] for _, done in done if done.results is not None]
    write_text(path.with_suffix(".csv"), to_csv(found))
    write_text(path.with_suffix(".tex"), to_latex(plan, found))
    write_text(path.with_suffix(".json"), json.dumps(about, indent=2, default=str) + "\n")
    write_text(path.with_suffix(".md"), text)
    if plan.drawing is not None:
        draw(plan, found, path)
    print(text)
    print(f"{path}.md, .tex, .csv, .json" + (", .svg, .pdf, .png" if plan.drawing else ""), flush=True)
