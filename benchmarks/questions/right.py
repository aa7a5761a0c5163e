"""Right, not only fast: the numbers of other programs, recorded on a CPU, and the tests themselves, on this device."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.ceilings import matmul_precision
from benchmarks.programs import difference
from benchmarks.questions.context import Context
from benchmarks.questions.networks import compute_dtype
from benchmarks.questions.sizes import Sizes

ROOT = Path(__file__).resolve().parents[2]
PRECISIONS = ("float32", "bfloat16")
ALLOWED = {"logits": 1e-4, "log-likelihoods": 1e-4, "tokens": 1e-4, "quantile gradients": 1e-4}  # of float32
_RESULT = re.compile(r"^(\S+::.+?) (PASSED|FAILED|ERROR|SKIPPED|XFAIL)\b", re.MULTILINE)


def goldens(sizes: Sizes, context: Context) -> Iterator[dict[str, Any]]:
    """Largest deviation from recorded numbers, against the largest of them; raises where float32 is wrong."""
    wrong = []
    for what, ask in (
        ("logits", _logits),
        ("log-likelihoods", _log_likelihoods),
        ("tokens", _tokens),
        ("quantile gradients", _quantile_gradients),
    ):
        row = {"what": what, "allowed": ALLOWED[what], **ask(sizes)}
        if not row["float32"] <= ALLOWED[what]:
            wrong.append(what)
        yield row
        if context.expired():
            break
    if wrong:
        raise AssertionError(f"{', '.join(wrong)} differ from the recorded numbers by more than is allowed")


def _golden(name: str) -> dict[str, np.ndarray]:
    with np.load(ROOT / "tests" / "golden" / f"{name}.npz") as file:
        return dict(file)


def _run(function: Any, *args: Any) -> Any:
    import jax

    with jax.default_matmul_precision(matmul_precision("float32")):
        return jax.jit(function)(*args)


def _logits(sizes: Sizes) -> dict[str, Any]:
    from random_weights import random_state

    from quantjax.convert.classifiers import to_variables
    from quantjax.extractors import BACKBONES

    recorded, name = _golden("extractors"), sizes.golden_network
    shapes = [tuple(int(n) for n in s.split(",")) for s in recorded[f"{name}/shapes"]]
    variables = to_variables(random_state(list(recorded[f"{name}/names"]), shapes), name, 10)
    images = np.random.RandomState(1).standard_normal((2, 32, 32, 3)).astype(np.float32)
    found = {p: _run(BACKBONES[name].build(10, dtype=compute_dtype(p)).apply, variables, images) for p in PRECISIONS}
    return {p: difference(out.logits, recorded[f"{name}/logits"]) for p, out in found.items()} | {"network": name}


def _log_likelihoods(sizes: Sizes) -> dict[str, Any]:
    from quantjax.convert.flows import settings, to_flow
    from quantjax.flows import log_likelihood, quantod

    recorded = _golden("flows")
    state = {k.removeprefix("glow/state/"): v for k, v in recorded.items() if k.startswith("glow/state/")}
    z, log_det = recorded["glow/z"].astype(np.float64), recorded["glow/log_det"]
    wanted = log_det - 0.5 * (z**2).sum(1) - 0.5 * z.shape[1] * np.log(2 * np.pi)
    params, options = to_flow(state)[1], settings(state)
    flows = {p: quantod(**options, dtype=compute_dtype(p)) for p in PRECISIONS}
    found = {p: _run(partial(log_likelihood, built), params, recorded["glow/x"]) for p, built in flows.items()}
    return {p: difference(values, wanted) for p, values in found.items()}


def _tokens(sizes: Sizes) -> dict[str, Any]:
    import pytest
    from golden.small_transformers import recorded_state, register

    from quantjax.convert.transformers import backbone_overrides, to_backbone_variables
    from quantjax.extractors import FEATURE_BACKBONES

    recorded, name, found = _golden("transformers"), "registers", {}
    with pytest.MonkeyPatch.context() as patch:
        register(patch)
        state = recorded_state(recorded, name)
        patch_size, options = FEATURE_BACKBONES[name].stride, backbone_overrides(state, name)
        images = np.random.RandomState(1).standard_normal((2, 3 * patch_size, 6 * patch_size, 3)).astype(np.float32)
        variables = to_backbone_variables(state, name)
        for precision in PRECISIONS:
            model = FEATURE_BACKBONES[name].build(**options, dtype=compute_dtype(precision))
            maps = _run(model.apply, variables, images).by_name
            found[precision] = max(difference(maps[block], recorded[f"{name}/{block}"]) for block in maps)
    return found


def _quantile_gradients(sizes: Sizes) -> dict[str, Any]:
    """Tied rows share a gradient, so that is added up before it is compared."""
    import jax

    from quantjax import losses

    recorded, worst = _golden("losses"), 0.0

    def gradients(values: Any) -> list[Any]:
        return [jax.grad(lambda v, q=float(q): -losses.quantile_nll(v, q))(values) for q in recorded["qs"]]

    for name in recorded["names"]:
        values = recorded[name]
        ties = values[None, :] == np.unique(values)[:, None]
        for i, gradient in enumerate(_run(gradients, values)):
            worst = max(worst, difference(ties @ np.asarray(gradient), ties @ recorded[f"{name}_gradient_{i}"]))
    return {"float32": worst}


def suite(sizes: Sizes, context: Context) -> Iterator[dict[str, Any]]:
    """The tests of the library's rooms on this device, in a process of their own."""
    folders = [f"tests/{room}" for room in sizes.suite]
    if not folders:
        return
    options = ["-v", "--tb=no", "-p", "no:cacheprovider", "--continue-on-collection-errors"]
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "pytest", *options, *folders],
        cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        said, finished = process.communicate(timeout=sizes.suite_seconds)[0], True
    except subprocess.TimeoutExpired:
        process.kill()
        said, finished = process.communicate()[0], False
    results = _RESULT.findall(said)
    counts = {kind.lower(): sum(r == kind for _, r in results) for kind in ("PASSED", "FAILED", "ERROR", "SKIPPED")}
    bad = [name for name, result in results if result in ("FAILED", "ERROR")]
    last = said.strip().splitlines()[-1][:200] if said.strip() else ""
    yield {"folders": folders, **counts, "finished_in_time": finished, "failures": bad[:20], "last_line": last}
