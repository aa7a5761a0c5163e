"""QuantOD end to end: classifier, features, flow, scores, threshold, report (Taghikhah et al., AAAI 2024).

    python -m experiments.quantod --workdir runs/

With no other flag: the bundled demonstration (digits 0-7 against six outlier sets), about a minute on two CPU cores.
The paper's experiment, which trains both stages and wants a GPU:

    python -m experiments.quantod --workdir runs/ --inlier cifar10 --data-dir DATA --protocol paper

The paper reports an accuracy of 94.68 % and, in Table 1, 17.17 / 96.19 FPR95 / AUROC on average over its six sets.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import Any

from experiments.config import HELD_OUT, INLIER, QuantOD, Settings, describe, identity, parse, resolve, run_name


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    config = parse(argv)
    return report_errors(lambda: run(config), "--batch-size or --score-batch-size", debug=config.debug)


def report_errors(run: Callable[[], int], sizes: str, *, debug: bool = False) -> int:
    """run() with what went wrong as one line and an exit status; `sizes` are the flags to lower when memory is full.

    With debug the error comes through with its traceback. Of several processes the first that fails ends all.
    """
    from experiments import hosts
    from experiments.run_folder import release

    try:
        status = _in_one_line(run, sizes) if not debug else run()
        hosts.part()
        return status
    except BaseException as error:
        hosts.crash(error)
        raise
    finally:
        release()


def _in_one_line(run: Callable[[], int], sizes: str) -> int:
    from experiments.hosts import give_up, wait_for_news

    try:
        return run()
    except (ValueError, OSError, ImportError, FloatingPointError) as error:
        return give_up(f"error: {error}", 1)
    except (MemoryError, RuntimeError) as error:  # what JAX raises when a device is missing or its memory is full
        wait_for_news()
        remedy = f"lower {sizes} if memory ran out, check JAX_PLATFORMS if a device is missing"
        return give_up(f"error: {str(error).splitlines()[0] if str(error) else type(error).__name__}; {remedy}", 1)
    except KeyboardInterrupt:
        return give_up("\nstopped; the same command with --resume continues", 130)


def run(flags: QuantOD) -> int:
    """Everything the run does, top to bottom."""
    start = time.perf_counter()
    import jax

    from experiments import classifier, density, features, hosts, outcome, run_folder
    from experiments.methods import score_sets
    from experiments.progress import Progress
    from experiments.sets import check_every_class, held_out, load_sets
    from quantjax import methods, metrics, parallel
    from quantjax.data.batches import fingerprint

    # ---- settings and folder
    if "device_count" not in os.environ.get("XLA_FLAGS", ""):
        parallel.cores_as_devices()
    hosts.join(flags.hosts)
    jax.config.update("jax_default_prng_impl", flags.random_bits)
    config = resolve(flags, accelerator=jax.default_backend() != "cpu")
    if config.precision != "tensorfloat32":
        jax.config.update("jax_default_matmul_precision", "highest")
    run_identity = identity(config)
    hosts.check_same("the settings", run_identity, "give every process the same flags")
    folder = run_folder.open_run(config, run_name(config, run_identity), run_identity)
    if folder is None:
        return 0
    cache = folder.parent / "cache"
    parallel.enable_compilation_cache(cache / "compiled")
    print(f"run {folder}\n{note(config)}", flush=True)

    # ---- data
    sets = load_sets(config, Progress)
    num_classes = len(sets.class_names)
    given = classifier.read_weights(config, num_classes)
    trains = not (given and given.finished)  # --weights may hold a transformer that has no classifier yet
    kept_out = held_out(config, len(sets.train_images), trained_here=trains)
    fit_rows = slice(0, len(sets.train_images) - kept_out)
    check_every_class(sets, fit_rows)
    print(sizes(sets, kept_out), flush=True)

    # ---- stage 1: the classifier, given or trained here
    run_folder.begin_run(
        folder, describe(config), run_identity, fingerprint(sets.train_images), overwrite=config.overwrite
    )
    ready = given if given and given.finished else None
    trained = ready or classifier.train_or_reread(config, given, sets, fit_rows, folder, Progress)

    # ---- features: one backbone pass per set feeds every score that needs no gradient
    extractor = features.build(
        trained.model,
        trained.variables,
        trained.preprocessing,
        config.image_size,
        config.score_batch_size,
        config.precision,
    )
    images = {INLIER: sets.test_images, **sets.outliers}
    outputs = {name: features.extract(extractor, name, rows, cache, Progress) for name, rows in images.items()}
    train = features.extract(extractor, "training set", sets.train_images, cache, Progress)
    accuracy = 100.0 * metrics.accuracy(outputs[INLIER].logits, sets.test_labels)
    print(f"classifier: {accuracy:.2f} % accuracy on {len(sets.test_labels):,} test images", flush=True)
    if trains and kept_out:
        images[HELD_OUT] = sets.train_images[fit_rows.stop :]
        outputs[HELD_OUT] = features.rows_of(train, slice(fit_rows.stop, None))

    # ---- stage 2: the flow
    trained_flow = None
    if "quantod" in config.scores:
        views = [train.features]
        if config.views:
            seen = min(config.views, config.flow_epochs)  # an epoch sees one view: the others would wait in vain
            views = features.extract_views(extractor, sets.train_images, seen, cache, Progress)
        views = [view[fit_rows] for view in views]
        evaluation = {name: outputs[name].features for name in (INLIER, *sets.outliers)}
        trained_flow = density.fit(config, views, evaluation, folder, Progress)

    # ---- scores
    rows = methods.TrainingRows(
        train.features[fit_rows], sets.train_labels[fit_rows], num_classes, train.logits[fit_rows]
    )
    scored, fitted, fit_seconds = {}, {}, {}
    for name in config.scores:
        method = methods.get(name)
        if name == "quantod" and trained_flow:  # as trained as stage 1 is: the paper counts neither
            fitted[name], fit_seconds[name] = trained_flow.fitted, 0.0
        else:
            begun = time.perf_counter()
            fitted[name] = method.fit(rows, method.defaults)
            # a Gaussian or a bank is fitted on the training features: their extraction belongs to its fit
            fit_seconds[name] = time.perf_counter() - begun + train.seconds if method.learns_from else 0.0
        scored[name] = score_sets(method, fitted[name], extractor, images, outputs, config.score_batch_size, Progress)

    # ---- thresholds, from held-out inliers alone
    calibrations = {name: outcome.calibrate(config, scored[name]) for name in config.scores}
    main_method = "quantod" if "quantod" in config.scores else config.scores[0]

    # ---- the detector and the report
    if not hosts.is_first():
        return 0
    outcome.save_detector(
        folder / "detector", config, trained, sets.class_names, main_method, fitted[main_method],
        calibrations[main_method],
    )  # fmt: skip
    results = {
        "rows": outcome.rows(config, sets, scored, outputs, fit_seconds, extractor.compile_seconds),
        "accuracy": accuracy,
        "calibration": outcome.in_percent(calibrations[main_method]),
        "calibrations": {name: outcome.in_percent(c) for name, c in calibrations.items()},
        "methods": {name: outcome.about(name, fitted[name]) for name in config.scores},
        "inlier": config.inlier,
        "config": run_identity | {"weights": config.weights.name if config.weights else None},
        "versions": outcome.versions(),
        "device": parallel.device_summary(),
        "seed": config.seed,
        "seconds": time.perf_counter() - start,
        "stage_seconds": {"classifier": trained.seconds, "flow": trained_flow.seconds if trained_flow else 0.0},
        "note": note(config),
    }
    outcome.write(folder, results, scored, calibrations, trained_flow.curve if trained_flow else None)
    print((folder / "results.md").read_text(encoding="utf-8"))
    print(f"{time.perf_counter() - start:.0f} s; results.json, results.md, report.html and detector/ in {folder}")
    return 0


def note(config: Settings) -> str:
    """What kind of run this is, in a sentence."""
    if config.inlier != "digits":
        return f"Preset {config.preset}, protocol {config.protocol} (times are of the whole sets in either)."
    stage1 = "given weights" if config.weights else f"{config.epochs} epochs"
    return (
        f"This is the bundled demonstration: digits 0-7, {config.backbone} for {stage1}, {config.blocks} "
        f"{config.flow} blocks of width {config.width} for {config.flow_epochs} epochs. The paper's experiment is "
        "`python -m experiments.quantod --workdir runs/ --inlier cifar10 --data-dir DATA --protocol paper`."
    )


def sizes(sets: Any, kept_out: int) -> str:
    """The number of images of every set."""
    counts = ", ".join(f"{name} {len(rows):,}" for name, rows in sets.outliers.items())
    return (
        f"inliers: {len(sets.train_images):,} to train ({kept_out:,} of them held out), "
        f"{len(sets.test_images):,} to test, {len(sets.class_names)} classes; outliers: {counts}"
    )


if __name__ == "__main__":
    sys.exit(main())
