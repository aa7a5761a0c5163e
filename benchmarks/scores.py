"""Fit and score of every method of cached arrays against pytorch-ood, scikit-learn and faiss, on equal arrays.

    python benchmarks/scores.py --output benchmarks/results/scores_cpu.json
    python benchmarks/scores.py --dimensions 2048 --methods knn mahalanobis     (a part of it)

The peers want an environment of their own: pip install -c constraints.txt -e . torch torchvision pytorch-ood==0.4.0
faiss-cpu. On 2 CPU cores 128 dimensions take about half an hour, 2,048 hours: choose methods. Goals: knn at least 2x
scikit-learn and 1x faiss's flat index; every other at least 5x pytorch-ood.

50,000 training rows, 10,000 queries, non-negative correlated features, a linear head that both are given. Both sides
are fitted and score the queries, in turns, and medians are compared; compilation is apart, in its own column. Ours
scores through the path of the commands, batches of 2,048 rows of NumPy arrays in one compiled function; theirs gets all
queries at once, as its own classes have it. knn and nnguide are fitted here to every row, the mixture to classes alone.
`seconds` is wall time, `processor` is that of all cores, which other programs on the machine disturb less; ratios are
theirs / ours of fit + score, by either. On a machine that is not idle, threads of OpenMP and OpenBLAS spin while they
wait for each other and count as work, tenfold: there give each program one core, with OMP_NUM_THREADS=1
OPENBLAS_NUM_THREADS=1 taskset -c 1 python benchmarks/scores.py. Prints one JSON line per dimension.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT)]
from benchmarks.machine import machine  # noqa: E402, the line above makes it findable
from experiments.images.scoring import CACHED_ROWS  # noqa: E402
from quantjax import methods, scores  # noqa: E402
from quantjax.inference import batched  # noqa: E402
from quantjax.scores.subspace import principal_dimension  # noqa: E402
from quantjax.types import ClassifierOutput  # noqa: E402

CLASSES = {128: 10, 512: 100, 2048: 100}
NEIGHBOURS = (10, 100)
SKIPPED = {"quantod"}  # a flow is trained: benchmarks/flow.py
Parts = tuple[Callable[[], Any], Callable[[Any], np.ndarray]]  # fit() -> fitted, score(fitted) -> [B]


def synthetic(dimension: int, classes: int, rows: int, queries: int) -> tuple[methods.TrainingRows, Any, Any]:
    """(training rows, logits and features of the queries): as a ReLU and an average pool leave them."""
    rng = np.random.default_rng(0)
    mix = rng.normal(size=(dimension, dimension)).astype(np.float32) / np.float32(np.sqrt(dimension))
    centres = rng.normal(size=(classes, dimension)).astype(np.float32)
    labels = np.arange(rows + queries) % classes
    noise = rng.normal(size=(len(labels), dimension)).astype(np.float32)
    features = np.maximum(noise @ mix + centres[labels], 0.0)
    weight = centres.T / np.float32(np.sqrt(dimension))
    head = scores.LinearHead(jnp.asarray(4.0 * weight), jnp.asarray(-4.0 * features[:rows].mean(axis=0) @ weight))
    logits = features @ np.asarray(head.weight) + np.asarray(head.bias)
    training = methods.TrainingRows(features[:rows], labels[:rows].astype(np.int32), classes, logits[:rows], head)
    return training, logits[rows:], features[rows:]


def ours(name: str, rows: methods.TrainingRows, logits: Any, features: Any, settings: dict[str, Any]) -> Parts:
    method = methods.get(name)
    given = methods.complete_settings(method, settings)
    runs: dict[str, Any] = {}

    def score(fitted: methods.Fitted) -> np.ndarray:
        def on_rows(params: Any, output: Any) -> Any:
            return method.score(fitted.settings, params, methods.View(ClassifierOutput(output[0], output[1], {})))

        key = json.dumps(dict(fitted.settings), sort_keys=True)
        if key not in runs:
            runs[key] = batched(on_rows, batch_size=CACHED_ROWS, shared=1)
        return runs[key](fitted.params, (logits, features))

    return lambda: method.fit(rows, given), score


def peers(rows: methods.TrainingRows, logits: Any, features: Any) -> Iterator[tuple[str, str, dict[str, Any], Parts]]:
    """(method, program, settings of ours, their parts)."""
    import faiss
    import torch
    from pytorch_ood import detector
    from sklearn.neighbors import NearestNeighbors

    assert rows.features is not None
    assert rows.logits is not None
    assert rows.labels is not None
    train, labels, train_logits, x, z = map(
        torch.as_tensor, (rows.features, rows.labels.astype(np.int64), rows.logits, features, logits)
    )
    assert rows.head is not None
    head = torch.nn.Linear(*rows.head.weight.shape)
    head.weight.data, head.bias.data = (torch.tensor(np.asarray(a).T) for a in rows.head)
    head.requires_grad_(False)
    weight, bias = head.weight.data, head.bias.data

    def maps(a: Any) -> Any:
        return a[:, :, None, None]

    def pooled(a: Any) -> Any:
        return head(a.flatten(1))

    def on_features(make: Callable[[], Any]) -> Parts:
        return lambda: make().fit_features(train, labels), lambda made: made.predict_features(x).numpy()

    def on_logits(make: Callable[[], Any], fits: bool = True) -> Parts:
        fit = (lambda: make().fit_logits(train_logits, labels)) if fits else make
        return fit, lambda made: made.predict_logits(z).detach().numpy()

    def on_maps(make: Callable[[], Any], fits: bool = False) -> Parts:
        fit = (lambda: make().fit_feature_maps(maps(train), labels)) if fits else make
        return fit, lambda made: made.predict_feature_maps(maps(x)).numpy()

    def unit(a: Any) -> Any:
        return a / a.norm(dim=1, keepdim=True)

    dimension = train.shape[1]
    principal = principal_dimension(dimension)
    torch_ood = "pytorch-ood"
    yield "msp", torch_ood, {}, on_logits(lambda: detector.MaxSoftmax(None), fits=False)
    yield "max_logit", torch_ood, {}, on_logits(lambda: detector.MaxLogit(None), fits=False)
    yield "energy", torch_ood, {}, on_logits(lambda: detector.EnergyBased(None), fits=False)
    yield "gen", torch_ood, {}, on_logits(lambda: detector.GEN(None, 0.1, 10), fits=False)
    yield "temperature_scaling", torch_ood, {}, on_logits(lambda: detector.TemperatureScaling(None))
    yield "kl_matching", torch_ood, {}, on_logits(lambda: detector.KLMatching(None))
    yield "openmax", torch_ood, {}, on_logits(lambda: detector.OpenMax(None, tailsize=20))
    yield "mahalanobis", torch_ood, {}, on_features(lambda: detector.Mahalanobis(None))
    yield "relative_mahalanobis", torch_ood, {}, on_features(lambda: detector.RMD(None))
    yield "gaussian_mixture", torch_ood, {"iterations": 0}, on_features(lambda: detector.GMM(None, 1e-3))
    for k in NEIGHBOURS:
        given = {"k": k, "step": 1}

        def flat() -> Any:
            index = faiss.IndexFlatL2(dimension)
            index.add(unit(train).numpy())
            return index

        def brute() -> Any:
            return NearestNeighbors(algorithm="brute", n_jobs=-1).fit(unit(train).numpy())

        yield "knn", f"scikit-learn, k {k}", given, (
            brute, lambda made, k=k: made.kneighbors(unit(x).numpy(), k)[0][:, -1]
        )  # fmt: skip
        yield "knn", f"faiss, k {k}", given, (flat, lambda made, k=k: made.search(unit(x).numpy(), k)[0][:, -1])
        yield "knn", f"pytorch-ood, k {k}", given, on_features(lambda k=k: detector.KNN(None, k=k))
    yield "nnguide", torch_ood, {"step": 1}, on_features(lambda: detector.NNGuide(None, head, 10))
    yield "vim", torch_ood, {}, on_features(lambda: detector.ViM(None, principal, weight, bias))
    yield "react", torch_ood, {}, on_maps(lambda: detector.ReAct(None, pooled), fits=True)
    for letter, share in (("p", 0.6), ("b", 0.65), ("s", 0.9)):
        make = lambda letter=letter, share=share: detector.ASH(None, pooled, f"ash-{letter}", share)  # noqa: E731
        yield f"ash_{letter}", torch_ood, {}, on_maps(make)
    yield "scale", torch_ood, {}, on_maps(lambda: detector.SCALE(None, pooled, 0.85))
    yield "dice", torch_ood, {}, on_features(lambda: detector.DICE(None, weight, bias, 0.9))
    yield "fdbd", torch_ood, {}, on_features(lambda: detector.fDBD(None, head))
    yield "nci", torch_ood, {}, on_features(lambda: detector.NCI(None, head))
    yield "she", torch_ood, {}, on_features(lambda: detector.SHE(None, head))


def timed(parts: Parts) -> dict[str, float]:
    """Wall and processor seconds of a fit and a scoring of all queries."""
    marks = [(time.perf_counter(), time.process_time())]
    fitted = parts[0]()
    marks.append((time.perf_counter(), time.process_time()))
    parts[1](fitted)
    marks.append((time.perf_counter(), time.process_time()))
    steps = [tuple(b - a for a, b in zip(*pair, strict=True)) for pair in itertools.pairwise(marks)]
    return {
        "fit_seconds": steps[0][0],
        "fit_processor": steps[0][1],
        "score_seconds": steps[1][0],
        "score_processor": steps[1][1],
    }


def medians(turns: list[dict[str, float]]) -> dict[str, float]:
    return {key: statistics.median(turn[key] for turn in turns) for key in turns[0]}


def total(one: dict[str, float], kind: str) -> float:
    return one[f"fit_{kind}"] + one[f"score_{kind}"]


def measure(dimension: int, arguments: argparse.Namespace) -> dict[str, Any]:
    classes = CLASSES.get(dimension, 10)
    rows, logits, features = synthetic(dimension, classes, arguments.rows, arguments.queries)
    wanted = set(arguments.methods or (n for n in methods.names() if not methods.needs_network(methods.get(n))))
    found: dict[str, dict[str, Any]] = {}
    for name, program, settings, theirs in peers(rows, logits, features) if not arguments.alone else ():
        if name in wanted and name not in SKIPPED:
            label = f"{name}, {program}"
            found[label] = compare(ours(name, rows, logits, features, settings), theirs, arguments.repeats)
            say(dimension, label, found[label])
    compared = {label.split(",")[0] for label in found}
    for name in methods.names():
        if name in wanted - SKIPPED - compared:
            found[name] = compare(ours(name, rows, logits, features, {}), None, arguments.repeats)
            say(dimension, name, found[name])
    import torch

    return {
        "benchmark": "scores",
        "sizes": {"D": dimension, "K": classes, "N": arguments.rows, "queries": arguments.queries},
        "repeats": arguments.repeats,
        "methods": found,
        "machine": machine(torch.get_num_threads()),
    }


def compare(mine: Parts, theirs: Parts | None, repeats: int) -> dict[str, Any]:
    """Medians of both in turns, the first turn apart, which compiles; and theirs / ours."""
    first = timed(mine)
    if theirs is not None:
        timed(theirs)
    turns: dict[str, list[dict[str, float]]] = {"ours": [], "theirs": []}
    for _ in range(repeats):
        turns["ours"].append(timed(mine))
        if theirs is not None:
            turns["theirs"].append(timed(theirs))
    sides = {side: medians(given) for side, given in turns.items() if given}
    result: dict[str, Any] = {side: {k: round(v, 4) for k, v in given.items()} for side, given in sides.items()}
    result["compile_seconds"] = round(first["score_seconds"] - sides["ours"]["score_seconds"], 3)
    if theirs is not None:
        for kind in ("seconds", "processor"):
            result[f"ratio_{kind}"] = round(total(sides["theirs"], kind) / total(sides["ours"], kind), 2)
            score = f"score_{kind}"
            result[f"ratio_{score}"] = round(sides["theirs"][score] / sides["ours"][score], 2)
    return result


def say(dimension: int, label: str, result: dict[str, Any]) -> None:
    print(dimension, label, json.dumps(result), file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dimensions", type=int, nargs="+", default=sorted(CLASSES))
    parser.add_argument("--methods", nargs="+", default=None, help="some of the methods (default: all)")
    parser.add_argument("--rows", type=int, default=50_000, help="training rows")
    parser.add_argument("--queries", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=3, help="turns of either side after the first")
    parser.add_argument("--alone", action="store_true", help="without the peers")
    parser.add_argument("--output", type=Path, help="also write the results there")
    arguments = parser.parse_args()
    results = []
    for dimension in arguments.dimensions:
        results.append(measure(dimension, arguments))
        print(json.dumps(results[-1]))
        if arguments.output:
            arguments.output.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
