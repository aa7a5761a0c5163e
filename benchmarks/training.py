"""QuantOD in full on real images: classifier, flows by the quantile and by the mean, the table of scores.

Files in the output folder: curves.jsonl (one line an epoch), classifier.safetensors and flow_*.safetensors (float16),
scores.json and scores.md, checkpoints/. A run that is killed, or out of time, goes on where it was by the same command.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import machine, sets
from benchmarks.questions import networks, scored
from benchmarks.questions.sizes import Sizes
from quantjax import markdown

SEED, FLOWS = 0, {"quantile": "quantod", "mean": "mean flow"}  # loss -> name among the scores
SCORE_ROWS = 2048


class OutOfTime(Exception):
    """The minutes are over; all that is done is on the disk."""


class Run:
    """Where a run writes, and until when it may run, a reading of time.monotonic()."""

    def __init__(self, out: Path, end: float):
        self.out, self.end = out, end
        out.mkdir(parents=True, exist_ok=True)

    def log(self, **row: Any) -> None:
        """One line of curves.jsonl, printed too."""
        line = json.dumps(row)
        with (self.out / "curves.jsonl").open("a", encoding="utf-8") as file:
            file.write(line + "\n")
        print(line, flush=True)

    def check(self) -> None:
        """Raise OutOfTime when the minutes are over."""
        if time.monotonic() > self.end:
            raise OutOfTime

    def once(self, name: str, make: Callable[[], Any]) -> Any:
        """The weights in out/name.safetensors, made where they are not there yet; float16 on the disk."""
        import jax

        from quantjax.convert.files import read_safetensors, write_safetensors

        path = self.out / f"{name}.safetensors"
        if not path.exists():
            write_safetensors(path, jax.tree.map(lambda leaf: np.asarray(leaf, np.float16), make()))
        return jax.tree.map(lambda leaf: leaf.astype(np.float32), read_safetensors(path))


def train(data: Path, out: Path, sizes: Sizes, end: float) -> int:
    """Everything, top to bottom; returns the exit status."""
    import jax

    jax.config.update("jax_default_matmul_precision", "highest")
    run = Run(out, end)
    try:
        images, labels = sets.read(sets.INLIER, data, "train")
        test, test_labels = sets.read(sets.INLIER, data, "test")
        others = sets.outliers(data)
    except (FileNotFoundError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    sizes = sizes._replace(classes=int(labels.max()) + 1, image=32)
    run.log(stage="start", **machine.device(), versions=machine.versions(), sets={k: len(v) for k, v in others.items()})
    try:
        variables = run.once("classifier", partial(fit_classifier, run, sizes, images, labels))
        network = Network(sizes, variables)
        logits, _ = network.outputs(test)
        accuracy = 100.0 * float((logits.argmax(1) == test_labels).mean())
        run.log(stage="classifier", accuracy=accuracy, rows=len(test))
        views = network.views(run, images, sizes.views)
        evaluation = {"inlier": network.outputs(test)[1], **{k: network.outputs(v)[1] for k, v in others.items()}}
        flows = {
            loss: run.once(f"flow_{loss}", partial(fit_flow, run, sizes, loss, views, evaluation)) for loss in FLOWS
        }
        run.check()
        table = score_table(network, flows, images, labels, {"inlier": test, **others}, sizes)
    except OutOfTime:
        run.log(stage="stopped", why="the minutes are over; the same command goes on")
        return 0
    write_table(out, table, accuracy)
    return 0


def fit_classifier(run: Run, sizes: Sizes, images: np.ndarray, labels: np.ndarray) -> Any:
    """Stage 1 (quantjax.classification), in the precision that suits the device."""
    import jax
    import jax.numpy as jnp

    from quantjax.classification import augmented_rows, cross_entropy_objective, sgd
    from quantjax.extractors import BACKBONES

    backbone = BACKBONES[sizes.classifier]
    model = backbone.build(sizes.classes, dtype=networks.compute_dtype(precision()))
    optimizer = sgd(sizes.epochs * -(-len(images) // sizes.batch))
    key = jax.random.key(SEED)
    variables = jax.jit(model.init)(jax.random.fold_in(key, 0), jnp.zeros((1, *images.shape[1:]), jnp.float32))
    state = fit(
        run, "classifier", sizes, cross_entropy_objective(model, backbone.preprocessing), optimizer,
        variables["params"], variables["batch_stats"], (images, labels.astype(np.int32)), len(images), sizes.epochs,
        augmented_rows(sizes.batch),
    )  # fmt: skip
    return {"params": state.params, "batch_stats": state.model_state}


def fit_flow(run: Run, sizes: Sizes, loss: str, views: list[np.ndarray], evaluation: Mapping[str, np.ndarray]) -> Any:
    """Stage 2 on the views of the training features, epoch e on view e; outlier detection after every epoch."""
    import jax

    from benchmarks.questions.flow import optimizer
    from quantjax.flows import log_likelihood
    from quantjax.inference import batched
    from quantjax.losses import likelihood_objective

    built = flow(sizes, views[0].shape[1])
    params = jax.jit(built.init)(jax.random.key(SEED), views[0][: sizes.batch])
    objective = likelihood_objective(partial(log_likelihood, built), built.draw_masks, loss=loss, q=sizes.q)
    score = batched(lambda p, x: -log_likelihood(built, p, x), batch_size=SCORE_ROWS, shared=1)

    def evaluate(params: Any) -> dict[str, Any]:
        return {"sets": rates({name: score(params, rows) for name, rows in evaluation.items()})}

    def data(epoch: int) -> Any:
        return views[epoch % len(views)], None

    return fit(
        run, f"flow_{loss}", sizes, objective, optimizer(), params, (), data, len(views[0]), sizes.flow_epochs,
        evaluate=evaluate,
    ).params  # fmt: skip


def flow(sizes: Sizes, dimension: int) -> Any:
    """QuantOD's flow with learned matrices between its blocks, as the paper says."""
    from quantjax.flows import quantod

    return quantod("glow", dimension=dimension, blocks=sizes.blocks, layers=sizes.layers, width=sizes.width)


def fit(
    run: Run, stage: str, sizes: Sizes, objective: Any, optimizer: Any, params: Any, model_state: Any, data: Any,
    rows: int, epochs: int, gather: Any = None, evaluate: Callable[[Any], dict[str, Any]] | None = None,
) -> Any:  # fmt: skip
    """quantjax.train.fit with a line an epoch; out of time it leaves a checkpoint and raises OutOfTime."""
    import jax

    from quantjax.train import checkpoint, init_state, make_step, shuffled_order
    from quantjax.train import fit as fit_epochs
    from quantjax.train.loop import take_rows

    folder, key, began = run.out / "checkpoints" / stage, jax.random.key(SEED + 1), time.perf_counter()
    latest: dict[str, Any] = {}

    def after_epoch(epoch: int, state: Any) -> None:
        seconds, found = time.perf_counter() - began, evaluate(state.params) if evaluate else {}
        run.log(stage=stage, **latest, seconds=round(seconds, 3), **found)
        if epoch < epochs and time.monotonic() > run.end:
            checkpoint.save(folder, state, epoch, key)
            raise OutOfTime

    return fit_epochs(
        make_step(objective, optimizer), init_state(params, optimizer, model_state), data,
        lambda epoch: shuffled_order(SEED, epoch, rows, sizes.batch), epochs=epochs, key=key,
        gather=gather or take_rows, report=lambda step, values: latest.update(values, step=step),
        after_epoch=after_epoch, checkpoints=folder, resume=True,
    )  # fmt: skip


def precision() -> str:
    """bfloat16 on an accelerator."""
    import jax

    return "float32" if jax.default_backend() == "cpu" else "bfloat16"


class Network:
    """The trained classifier, folded, over whole data sets."""

    def __init__(self, sizes: Sizes, variables: Any):
        import jax

        from quantjax.data import augment
        from quantjax.inference import batched

        self.given = networks.classifier(sizes, precision(), variables=variables)
        self.weights = jax.device_put({"network": self.given.weights})
        self.run = batched(partial(scored.network, self.given), batch_size=sizes.table_batch, shared=1)

        def view(weights: Any, rows: Any) -> Any:
            return scored.network(self.given, weights, augment.flip_and_crop(*rows))[1]

        self.run_view = batched(view, batch_size=sizes.table_batch, shared=1)

    def outputs(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Logits [N, K] and features [N, D]."""
        return self.run(self.weights, images)

    def views(self, run: Run, images: np.ndarray, count: int) -> list[np.ndarray]:
        """Features of `count` flipped and cropped views, each drawn from its number."""
        import jax

        from quantjax.data import augment

        found = []
        for v in range(count):
            run.check()
            draws = jax.device_get(augment.draw(jax.random.fold_in(jax.random.key(SEED), v), len(images)))
            found.append(self.run_view(self.weights, (images, draws)))
        return found


def score_table(
    network: Network, flows: Mapping[str, Any], images: np.ndarray, labels: np.ndarray,
    groups: Mapping[str, np.ndarray], sizes: Sizes,
) -> dict[str, Any]:  # fmt: skip
    """Method -> outlier set -> FPR95 and AUROC in percent, inlier positive."""
    import jax

    from quantjax.flows import log_likelihood
    from quantjax.inference import batched

    features = network.outputs(images)[1]
    built = flow(sizes, features.shape[1])
    weights = jax.device_put(network.weights | scored.fit(features, labels, sizes.classes) | {"flows": dict(flows)})

    def score(weights: Any, pixels: Any) -> dict[str, Any]:
        logits, features = scored.network(network.given, weights, pixels)
        found = scored.score_outputs(weights, logits, features)
        found |= {FLOWS[loss]: -log_likelihood(built, weights["flows"][loss], features) for loss in flows}
        return found | scored.score_moved(network.given, weights, pixels, gem=True)

    run = batched(score, batch_size=sizes.table_batch, shared=1)
    found = {name: run(weights, rows) for name, rows in groups.items()}
    return {method: rates({name: values[method] for name, values in found.items()}) for method in found["inlier"]}


def rates(scores: Mapping[str, np.ndarray]) -> dict[str, dict[str, float]]:
    """Outlier set -> FPR95 and AUROC in percent; "mean" is the average over sets."""
    from quantjax import metrics

    found = {
        name: {
            "fpr95": 100.0 * metrics.fpr_at_tpr(scores["inlier"], rows),
            "auroc": 100.0 * metrics.auroc(scores["inlier"], rows),
        }
        for name, rows in scores.items()
        if name != "inlier"
    }
    if not found:
        return {}
    means = {key: float(np.mean([one[key] for one in found.values()])) for key in ("fpr95", "auroc")}
    return {**found, "mean": means}


def write_table(out: Path, table: dict[str, Any], accuracy: float) -> None:
    """scores.json and scores.md."""
    about = {**machine.device(), "versions": machine.versions(), "accuracy": accuracy, "scores": table}
    (out / "scores.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    names = list(next(iter(table.values())))
    lines = [
        [method, *(f"{row[name]['fpr95']:.2f} / {row[name]['auroc']:.2f}" for name in names)]
        for method, row in table.items()
    ]
    note = f"Accuracy {accuracy:.2f} %. FPR95 / AUROC in percent, inlier positive."
    text = f"{note}\n\n{markdown.table(['method', *names], lines)}\n"
    (out / "scores.md").write_text(text, encoding="utf-8")
    print(text, flush=True)
